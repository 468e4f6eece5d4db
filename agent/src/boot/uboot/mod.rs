//! U-Boot as the boot loader: the boot record stands in its redundant environment, and `deploy/u-boot/boot.cmd` acts on
//! it.
//!
//! ```text
//! agent   ──one write of the older copy──►  environment  ──►  boot.cmd: takes a try, chooses the slot
//! booted  ◄──tern.slot=a on the kernel's command line──────────────┘
//! ```
//! The script takes a try durably before the slot on trial may run, and only in a trial. What it does with the variables
//! is [`super::choose`], save that it finds out whether a slot is usable by booting it.

pub mod environment;
pub mod medium;
pub mod variables;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use self::medium::{Medium, MediumError};
use self::variables::VariableError;
use super::{Boot, BootError, BootRecord, Booted};
use crate::slot::SlotName;
use crate::storage::{self, Disk, Storage};

/// Ceiling on what is read of a file of the kernel's.
const KERNEL_FILE_MAX: usize = 64 * 1024;
/// The boot script's word on the kernel's command line.
const SLOT: &str = "tern.slot=";
/// How long a command may take to say that the device goes down.
const REBOOT_ATTEMPTS: u32 = 600;
const REBOOT_PAUSE: Duration = Duration::from_millis(100);

/// What the agent is told about U-Boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UbootConfig {
    /// Where the environment is.
    pub medium: Medium,
    /// The kernel's command line.
    pub cmdline: PathBuf,
    /// What the kernel calls this boot.
    pub boot_id: PathBuf,
    /// Program and arguments that reboot the device.
    pub reboot: Vec<String>,
}

/// Says why U-Boot's part in booting could not be read, changed or done.
#[derive(Debug, thiserror::Error)]
pub enum UbootError {
    /// The environment.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// A variable.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// A file of the kernel's.
    #[error("could not read {}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The boot script has not said what it chose.
    #[error(
        "{} names no slot; have the boot script put {SLOT}${{tern_slot}} on the kernel's command line", .0.display()
    )]
    NoSlot(PathBuf),
    /// The device does not go down.
    #[error("could not reboot by {command:?}: {problem}")]
    Reboot {
        /// Program and arguments.
        command: Vec<String>,
        /// What happened.
        problem: String,
    },
}

/// U-Boot as the boot loader.
#[derive(Debug)]
pub struct UbootBoot {
    disk: Disk,
    medium: Medium,
    reboot: Vec<String>,
    booted: Booted,
}

impl UbootBoot {
    /// Has slot a boot on a device that has never run.
    pub fn provision(medium: &Medium) -> Result<(), BootError> {
        Self::provision_on(&storage::system::System, medium)
    }

    /// The same on another disk than the system's.
    pub fn provision_on(disk: &dyn Storage, medium: &Medium) -> Result<(), BootError> {
        if Self::is_provisioned_on(disk, medium)? {
            return Err(BootError::AlreadyProvisioned);
        }
        write(disk, medium, &BootRecord { active: SlotName::A, trial: None })?;
        // The other copy knows of no record at all.
        Ok(medium.settle(disk).map_err(UbootError::from)?)
    }

    /// Tells whether there is a boot record.
    pub fn is_provisioned(medium: &Medium) -> Result<bool, BootError> {
        Self::is_provisioned_on(&storage::system::System, medium)
    }

    /// The same on another disk than the system's.
    pub fn is_provisioned_on(disk: &dyn Storage, medium: &Medium) -> Result<bool, BootError> {
        Ok(find(disk, medium)?.is_some())
    }

    /// Reads the boot record, also where this device was not booted by it.
    pub fn read(medium: &Medium) -> Result<BootRecord, BootError> {
        read(&storage::system::System, medium)
    }

    /// Joins the present boot.
    pub fn start(config: &UbootConfig) -> Result<Self, BootError> {
        Self::on(&storage::system(), config)
    }

    /// The same on another disk than the system's.
    pub fn on(disk: &Disk, config: &UbootConfig) -> Result<Self, BootError> {
        let record = read(&**disk, &config.medium)?;
        let slot = booted_slot(&**disk, &config.cmdline)?;
        let boot_id = kernel_file(&**disk, &config.boot_id)?;
        if slot != record.active && record.trial.as_ref().is_none_or(|trial| trial.slot != slot) {
            // So it is between a rollback's disarming and its reboot, so it goes on. Otherwise a person chose it.
            tracing::warn!(%slot, active = %record.active, "the slot that runs is neither confirmed nor on trial");
        }
        // The kernel's clock began with this boot.
        let booted = Booted { slot, boot_id, powered_on_at: Duration::ZERO };
        let disk = disk.clone();
        Ok(Self { disk, medium: config.medium.clone(), reboot: config.reboot.clone(), booted })
    }
}

impl Boot for UbootBoot {
    fn record(&self) -> Result<BootRecord, BootError> {
        read(&*self.disk, &self.medium)
    }

    fn write(&mut self, record: &BootRecord) -> Result<(), BootError> {
        write(&*self.disk, &self.medium, record)
    }

    fn settle(&mut self) -> Result<(), BootError> {
        Ok(self.medium.settle(&*self.disk).map_err(UbootError::from)?)
    }

    fn prove(&mut self) -> Result<(), BootError> {
        Ok(self.medium.prove(&*self.disk).map_err(UbootError::from)?)
    }

    fn booted(&self) -> Result<Booted, BootError> {
        Ok(self.booted.clone())
    }

    fn reboot(&mut self) -> Result<(), BootError> {
        let failed = |problem| {
            let command = self.reboot.clone();
            BootError::from(UbootError::Reboot { command, problem })
        };
        let Some((program, arguments)) = self.reboot.split_first() else {
            return Err(failed("no program is named".into()));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        for _ in 0..REBOOT_ATTEMPTS {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(failed(status.to_string())),
                Ok(None) => std::thread::sleep(REBOOT_PAUSE),
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        // Some only come back when the system is down; it may be on its way.
        Ok(())
    }

    fn goes_down(&self) -> bool {
        true
    }
}

fn find(disk: &dyn Storage, medium: &Medium) -> Result<Option<BootRecord>, BootError> {
    let environment = medium.read(disk).map_err(UbootError::from)?;
    Ok(variables::record(&environment).map_err(UbootError::from)?)
}

fn read(disk: &dyn Storage, medium: &Medium) -> Result<BootRecord, BootError> {
    find(disk, medium)?.ok_or(BootError::NotProvisioned)
}

fn write(disk: &dyn Storage, medium: &Medium, record: &BootRecord) -> Result<(), BootError> {
    let put = |environment: &mut environment::Environment| variables::put(environment, record);
    Ok(medium.change(disk, put).map_err(UbootError::from)?)
}

fn booted_slot(disk: &dyn Storage, cmdline: &Path) -> Result<SlotName, BootError> {
    let words = kernel_file(disk, cmdline)?;
    // Of several the last counts, as for the kernel's own parameters.
    let named = words.split_whitespace().rev().find_map(|word| word.strip_prefix(SLOT));
    named.and_then(variables::slot).ok_or_else(|| UbootError::NoSlot(cmdline.to_owned()).into())
}

fn kernel_file(disk: &dyn Storage, path: &Path) -> Result<String, BootError> {
    let bytes = storage::read(disk, path, KERNEL_FILE_MAX)
        .map_err(|source| UbootError::Kernel { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests;
