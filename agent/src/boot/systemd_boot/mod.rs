//! systemd-boot as the boot loader: the boot record is which entries there are and what counter is in their names (its
//! Automatic Boot Assessment).
//!
//! | record | entries, the serial number in brackets |
//! |---|---|
//! | a confirmed | `tern-a.conf` (1) |
//! | b on trial | `tern-a.conf` (1), `tern-b+2.conf` (2): sorts first, and is renamed before each boot |
//! | used up | `tern-a.conf` (1), `tern-b+0-2.conf` (2): sorts last, so a boots |
//! | b confirmed | `tern-b.conf` (3), and until the record is settled what was there before |
//!
//! The loader looks at no label, and counts by a rename, which FAT does in two steps: a power cut there may leave the
//! trial's entry gone, so that the confirmed one boots, or there twice, so that the loader boots it without taking a try.
//! [`SystemdBoot::on`] makes one of two. What the agent itself writes is one byte at a time; see [`folder`].

pub mod entry;
pub mod folder;

use std::path::PathBuf;

use self::entry::{Counter, Entry, Name, TemplateError, Text};
use self::folder::FolderError;
use super::kernel::{self, KernelError};
use super::{Boot, BootError, BootRecord, Booted};
use crate::slot::SlotName;
use crate::storage::{self, Disk, Storage};

/// Ceiling on `loader.conf`.
const LOADER_MAX: usize = 64 * 1024;
/// The variable by which a person at the loader's menu has chosen an entry for good.
const CHOSEN: &str = "/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What the agent is told about systemd-boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdBootConfig {
    /// The folder `loader/entries` of the partition that the loader reads.
    pub entries: PathBuf,
    /// Folder with `a.conf` and `b.conf`: what an entry of each slot says.
    pub templates: PathBuf,
    /// The kernel's command line.
    pub cmdline: PathBuf,
    /// What the kernel calls this boot.
    pub boot_id: PathBuf,
    /// Program and arguments that reboot the device.
    pub reboot: Vec<String>,
}

/// Says why systemd-boot's part in booting could not be read, changed or done.
#[derive(Debug, thiserror::Error)]
pub enum SystemdBootError {
    /// The entries.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What an entry is made of could not be read.
    #[error("could not read {}; what an entry of each slot says is in boot.templates", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What an entry is made of.
    #[error("{} is no template of an entry", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TemplateError,
    },
    /// Other entries may be sorted before ours.
    #[error("{} does not say `default tern-*`: systemd-boot might boot an entry that is none of ours", .0.display())]
    Default(PathBuf),
    /// What the kernel tells, and rebooting.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// systemd-boot as the boot loader.
#[derive(Debug)]
pub struct SystemdBoot {
    disk: Disk,
    config: SystemdBootConfig,
    booted: Booted,
}

impl SystemdBoot {
    /// Has slot a boot on a device that has never run.
    pub fn provision_on(disk: &dyn Storage, config: &SystemdBootConfig) -> Result<(), BootError> {
        if Self::record_on(disk, config)?.is_some() {
            return Err(BootError::AlreadyProvisioned);
        }
        if !is_default(disk, config)? {
            return Err(SystemdBootError::Default(loader(config)).into());
        }
        // The other slot's is wanted first when an update is armed: too late to hear of a slip.
        text(disk, config, Name { slot: SlotName::B, counter: None }, &[], 0)?;
        write(disk, config, &BootRecord { active: SlotName::A, trial: None })
    }

    /// Reads the boot record, also where this device was not booted by it; none before it is provisioned.
    pub fn record_on(
        disk: &dyn Storage,
        config: &SystemdBootConfig,
    ) -> Result<Option<BootRecord>, BootError> {
        Ok(entry::record(&entries(disk, config)?))
    }

    /// Makes the entries durable as they are found, as [`storage::catch_up`] does.
    pub(crate) fn catch_up(disk: &dyn Storage, config: &SystemdBootConfig) {
        folder::catch_up(disk, &config.entries);
    }

    /// Joins the present boot.
    pub fn on(disk: &Disk, config: &SystemdBootConfig) -> Result<Self, BootError> {
        Self::catch_up(&**disk, config);
        let record = Self::record_on(&**disk, config)?.ok_or(BootError::NotProvisioned)?;
        let slot = kernel::slot(&**disk, &config.cmdline).map_err(SystemdBootError::from)?;
        let booted = kernel::booted(&**disk, slot, &config.boot_id).map_err(SystemdBootError::from)?;
        if slot != record.active && record.trial.as_ref().is_none_or(|trial| trial.slot != slot) {
            // So it is between a rollback's disarming and its reboot, so it goes on. Otherwise a person chose it.
            tracing::warn!(%slot, active = %record.active, "the slot that runs is neither confirmed nor on trial");
        }
        if !is_default(&**disk, config).unwrap_or(true) {
            tracing::warn!(file = %loader(config).display(), "`default tern-*` is missing there: another entry may boot");
        }
        if disk.look(CHOSEN.as_ref()).is_ok() {
            tracing::warn!(
                variable = CHOSEN,
                "an entry was chosen in the loader's menu; `bootctl set-default ''`"
            );
        }
        // A file system that cannot be written must not keep the agent from coming up: it has to tell somebody.
        if let Err(error) = make_one_of_two(&**disk, config) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a trial's entry is there twice, so booting takes no try of it");
        }
        Ok(Self { disk: disk.clone(), config: config.clone(), booted })
    }
}

impl Boot for SystemdBoot {
    fn record(&self) -> Result<BootRecord, BootError> {
        Self::record_on(&*self.disk, &self.config)?.ok_or(BootError::NotProvisioned)
    }

    fn write(&mut self, record: &BootRecord) -> Result<(), BootError> {
        write(&*self.disk, &self.config, record)
    }

    fn settle(&mut self) -> Result<(), BootError> {
        let entries = entries(&*self.disk, &self.config)?;
        // As long as nothing is confirmed there is nothing that the others could be older than.
        let Some(confirmed) = entry::confirmed(&entries) else { return Ok(()) };
        let trial = entry::on_trial(&entries);
        let older = entries.iter().filter(|entry| *entry != confirmed && !trial.contains(entry));
        Ok(folder::remove(&*self.disk, &self.config.entries, older).map_err(SystemdBootError::from)?)
    }

    fn booted(&self) -> Result<Booted, BootError> {
        Ok(self.booted.clone())
    }

    fn reboot(&mut self) -> Result<(), BootError> {
        Ok(kernel::reboot(&self.config.reboot).map_err(SystemdBootError::from)?)
    }

    fn goes_down(&self) -> bool {
        true
    }
}

/// Replaces the record.
///
/// Arming, disarming and confirming are one write of one byte each. A change of both the confirmed slot and a trial, which
/// the agent never asks for, goes by way of a record without a trial.
fn write(disk: &dyn Storage, config: &SystemdBootConfig, record: &BootRecord) -> Result<(), BootError> {
    let found = entries(disk, config)?;
    let now = entry::record(&found);
    let kept = |of: &[Entry]| entry::record(of).and_then(|record| record.trial);
    if entry::confirmed(&found).map(|entry| entry.name.slot) != Some(record.active) {
        let name = Name { slot: record.active, counter: None };
        // Its old entry is lower than what boots now.
        vacate(disk, config, &found, name)?;
        make(
            disk,
            config,
            name,
            &found,
            now.as_ref().and_then(|now| now.trial.as_ref()).map_or(0, |it| it.rc),
        )?;
    }
    let mut found = entries(disk, config)?;
    if kept(&found) != record.trial {
        let trial = entry::on_trial(&found).into_iter().cloned().collect::<Vec<_>>();
        folder::remove(disk, &config.entries, trial.iter()).map_err(SystemdBootError::from)?;
        found = entries(disk, config)?;
        if let Some(trial) = &record.trial {
            // A leftover under a name that the loader will want keeps it from counting.
            let leftover = found.iter().filter(|entry| entry.name.counter.is_some());
            folder::remove(disk, &config.entries, leftover).map_err(SystemdBootError::from)?;
            let counter = Some(Counter { left: trial.tries_left, done: 0 });
            make(disk, config, Name { slot: trial.slot, counter }, &found, trial.rc)?;
        }
    }
    if SystemdBoot::record_on(disk, config)?.as_ref() == Some(record) {
        Ok(())
    } else {
        Err(BootError::ReadBack)
    }
}

/// Has a name that is to be made not be there.
fn vacate(
    disk: &dyn Storage,
    config: &SystemdBootConfig,
    found: &[Entry],
    name: Name,
) -> Result<(), SystemdBootError> {
    let same = found.iter().filter(|entry| entry.name == name);
    Ok(folder::remove(disk, &config.entries, same)?)
}

/// Makes an entry that sorts before all of `found`.
fn make(
    disk: &dyn Storage,
    config: &SystemdBootConfig,
    name: Name,
    found: &[Entry],
    rc: u64,
) -> Result<(), SystemdBootError> {
    let text = text(disk, config, name, found, rc)?;
    Ok(folder::make(disk, &config.entries, name, &text)?)
}

/// Returns what an entry says that sorts before all of `found`.
fn text(
    disk: &dyn Storage,
    config: &SystemdBootConfig,
    name: Name,
    found: &[Entry],
    rc: u64,
) -> Result<Text, SystemdBootError> {
    let path = config.templates.join(format!("{}.conf", name.slot));
    let template = match storage::read(disk, &path, entry::SIZE_MAX) {
        Ok(template) => template,
        Err(source) => return Err(SystemdBootError::Read { path, source }),
    };
    Text::of(&template, name, entry::next_serial(found), rc)
        .map_err(|source| SystemdBootError::Template { path, source })
}

/// Makes one entry of a trial that a power cut in the loader's rename has left under two names: else it would boot
/// without taking a try for ever.
///
/// The new one is a file of its own. The two may be one file under two names, which FAT does not know: what is freed with
/// the first is then the second's.
fn make_one_of_two(disk: &dyn Storage, config: &SystemdBootConfig) -> Result<(), BootError> {
    let found = entries(disk, config)?;
    let names = entry::on_trial(&found);
    let Some(trial) = entry::record(&found).and_then(|record| record.trial) else { return Ok(()) };
    if names.len() < 2 {
        return Ok(());
    }
    let is_free = |done: &u8| {
        let counter = Some(Counter { left: trial.tries_left, done: *done });
        found.iter().all(|entry| entry.name != Name { slot: trial.slot, counter })
    };
    let Some(done) = (0..=u8::MAX).find(is_free) else { return Ok(()) };
    tracing::warn!(slot = %trial.slot, tries_left = trial.tries_left, "the trial's entry is there twice; keeping one");
    let counter = Some(Counter { left: trial.tries_left, done });
    make(disk, config, Name { slot: trial.slot, counter }, &found, trial.rc)?;
    folder::remove(disk, &config.entries, names.into_iter()).map_err(SystemdBootError::from)?;
    Ok(())
}

fn entries(disk: &dyn Storage, config: &SystemdBootConfig) -> Result<Vec<Entry>, SystemdBootError> {
    Ok(folder::entries(disk, &config.entries)?)
}

fn loader(config: &SystemdBootConfig) -> PathBuf {
    config.entries.parent().map_or_else(PathBuf::new, |folder| folder.join("loader.conf"))
}

/// Tells whether the loader takes ours before those of others.
fn is_default(disk: &dyn Storage, config: &SystemdBootConfig) -> Result<bool, SystemdBootError> {
    let path = loader(config);
    let bytes = storage::read(disk, &path, LOADER_MAX).map_err(folder::io_error("read", &path))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut defaults = text.lines().filter_map(|line| line.trim().strip_prefix("default"));
    let last = defaults.rfind(|value| value.starts_with([' ', '\t']));
    Ok(last.is_some_and(|value| ["tern-*", "tern-*.conf"].contains(&value.trim())))
}

#[cfg(test)]
mod tests;
