//! Recovery: devices with a single slot, whose releases are put there by a small system of its own.
//!
//! ```text
//! packages a and b (files in data_dir)  ──boot record: confirmed, on trial──►  which one is wanted
//! the system slot                       ──boot record: installed──►            which one is in it
//! ```
//! The agent downloads into a package, verifies, arms and confirms it exactly as it does with two slots. The boot loader
//! boots the system slot if the wanted package is installed there, and the recovery system otherwise. Recovery then puts the
//! wanted package into the system slot: the mark of what is installed is taken away first and set last, so that a power cut
//! anywhere brings recovery up again. It goes back to the last good package by itself, because that is what the boot
//! record then wants.
//!
//! | module | what it holds |
//! |---|---|
//! | `package` | whether a package is what its label says |
//! | `target` | the system slot: opened for writing, filled chunk by chunk, read back |
//! | `fetch` | the wanted package once more, over MQTT |
//! | `apply` | one package into the system slot, resumed after a power cut |
//! | `tries` | how often all of this was done since the system came up last |
#![deny(missing_docs)]

mod apply;
mod fetch;
mod package;
mod target;
#[cfg(test)]
mod tests;
mod tries;

use std::path::Path;

use crate::boot::uboot::medium::{Medium, MediumError};
use crate::boot::uboot::variables::{self, VariableError};
use crate::boot::{BootRecord, NothingBootable, choose};
use crate::config::{BootConfig, Config};
use crate::record::{self, RecordError};
use crate::slot::{SlotError, SlotName, place};
use crate::storage::Disk;
use tries::Tries;

pub use apply::{ApplyError, Progress};
pub use fetch::{FetchError, Fetching};
pub use target::TargetError;
pub(crate) use tries::came_up;

/// Says why recovery could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The configuration has no system slot.
    #[error(
        "there is nothing to recover: the configuration names no slots.system, or no boot loader with a boot record"
    )]
    NotSingle,
    /// The device was never provisioned.
    #[error("the device has no boot record; put its first image there with `tern-agent provision`")]
    NotProvisioned,
    /// The boot record.
    #[error("could not use the boot record")]
    Medium(#[from] MediumError),
    /// A variable in it.
    #[error("could not read the boot record")]
    Variable(#[from] VariableError),
    /// No package is whole.
    #[error("no package is whole that the boot record wants: {0}")]
    NoPackage(#[from] NothingBootable),
    /// A package, or the system slot.
    #[error("could not put the package of slot {slot} into the system slot")]
    Apply {
        /// The package.
        slot: SlotName,
        /// Why.
        #[source]
        source: apply::ApplyError,
    },
    /// Progress could not be kept.
    #[error("could not keep the progress of recovery")]
    Progress(#[source] RecordError),
    /// A package could not be fetched again.
    #[error("no package is whole, and package {slot} could not be fetched again")]
    Fetch {
        /// The package.
        slot: SlotName,
        /// Why.
        #[source]
        source: Box<fetch::FetchError>,
    },
    /// Packages could not be looked at.
    #[error("could not use the packages")]
    Slot(#[from] SlotError),
    /// A package that may be good could not be read.
    #[error("package {slot} could not be read, and is not given up yet: {why}")]
    InDoubt {
        /// The package.
        slot: SlotName,
        /// What was seen.
        why: String,
    },
    /// The boot loader comes back to recovery whatever it does.
    #[error(
        "recovery has put package {slot} right {} times, and the system has not come up: look at the console of the boot \
         loader, at both copies of its environment and at the system slot",
        tries::TURNS
    )]
    InTurns {
        /// The package.
        slot: SlotName,
    },
}

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same again, some times: a medium may come back.
    Again,
    /// The same again until it is done: the network may come back.
    Wait,
    /// Nothing that recovery could do: a person has to come.
    Person,
}

impl RecoveryError {
    /// Tells what is to be done about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NotSingle | Self::NotProvisioned | Self::Variable(_) | Self::InTurns { .. } => {
                Remedy::Person
            }
            Self::Fetch { source, .. } => match **source {
                FetchError::Unknown(_) => Remedy::Person,
                FetchError::Silence | FetchError::Link(_) => Remedy::Wait,
                FetchError::Slot(_) | FetchError::Record(_) | FetchError::ReadBack => Remedy::Again,
            },
            Self::Medium(_)
            | Self::NoPackage(_)
            | Self::Apply { .. }
            | Self::Progress(_)
            | Self::Slot(_)
            | Self::InDoubt { .. } => Remedy::Again,
        }
    }
}

/// What recovery has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// This package is in the system slot now.
    Applied(SlotName),
    /// The wanted package was there already, byte for byte.
    Nothing(SlotName),
    /// The boot record cannot be changed, so nothing was. The confirmed package is in the system slot, whole: a boot script
    /// that finds the same about the record boots it.
    Unrecorded(SlotName),
}

impl Recovered {
    /// Returns the package that is in the system slot.
    pub fn slot(self) -> SlotName {
        match self {
            Self::Applied(slot) | Self::Nothing(slot) | Self::Unrecorded(slot) => slot,
        }
    }
}

/// What recovery is to do: worked out from the boot record and what is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The package that belongs into the system slot.
    pub wanted: SlotName,
    /// The boot record to write first, if it changes: a trial whose package is bad is over.
    pub record: Option<BootRecord>,
    /// It is there already.
    pub is_installed: bool,
}

/// Works out which package belongs into the system slot. `usable` tells, in the order of [`SlotName::BOTH`], whether a
/// package's bytes match its label.
///
/// The boot loader's own choice, save that no boot of the trial is used up: the system has not run yet.
pub fn plan(
    record: &BootRecord,
    installed: Option<SlotName>,
    usable: [bool; 2],
) -> Result<Plan, NothingBootable> {
    let (wanted, mut next) = choose(record, usable)?;
    if let (Some(before), Some(after)) = (&record.trial, &mut next.trial)
        && wanted == before.slot
    {
        after.tries_left = before.tries_left;
    }
    let record = (next != *record).then_some(next);
    Ok(Plan { wanted, record, is_installed: installed == Some(wanted) })
}

/// Puts the package that the boot record wants into the system slot. May be called again after a cut anywhere.
pub fn recover(
    disk: &Disk,
    config: &Config,
    progress: &mut Progress<'_>,
) -> Result<Recovered, RecoveryError> {
    catch_up(disk, config);
    let mut tries = Tries::load(disk, &config.slots.dir).map_err(RecoveryError::Progress)?;
    let recovered = put_right(disk, config, &mut tries, progress)?;
    // Whoever called reboots. Where that leads back here again and again, or nobody can tell, it ends.
    match tries.turn() {
        Ok(turns) if turns <= tries::TURNS => Ok(recovered),
        Ok(_) => Err(RecoveryError::InTurns { slot: recovered.slot() }),
        Err(error) => Err(RecoveryError::Progress(error)),
    }
}

/// Makes durable what a recovery that died in this boot has left in the cache: its marks, and what it said of the system
/// slot. Bytes that it wrote there and did not mark are written again.
fn catch_up(disk: &Disk, config: &Config) {
    record::catch_up(&**disk, &config.slots.dir);
    if let Ok((medium, _)) = single(config) {
        medium.catch_up(&**disk);
    }
}

fn put_right(
    disk: &Disk,
    config: &Config,
    tries: &mut Tries,
    progress: &mut Progress<'_>,
) -> Result<Recovered, RecoveryError> {
    let (medium, system) = single(config)?;
    let environment = medium.read(&**disk)?;
    let record = variables::record(&environment)?.ok_or(RecoveryError::NotProvisioned)?;
    let installed = variables::installed(&environment)?;
    let mut usable = Usable::default();
    let trial = record.trial.as_ref().filter(|trial| trial.tries_left > 0).map(|trial| trial.slot);
    for slot in trial.into_iter().chain([record.active]) {
        if usable.look(disk, config, system, slot, tries)? {
            break;
        }
    }
    let plan = plan(&record, installed, usable.any)?;
    let unrecorded = |error: MediumError| match apply::keeps(disk, config, system, record.active) {
        true => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "the boot record cannot be changed; the confirmed package is in the system slot"
            );
            Ok(Recovered::Unrecorded(record.active))
        }
        false => Err(RecoveryError::Medium(error)),
    };
    if let Some(record) = &plan.record {
        tracing::warn!("the package on trial is damaged; going back to the confirmed one");
        if let Err(error) = medium.change(&**disk, |environment| variables::put(environment, record)) {
            return unrecorded(error);
        }
    }
    let wanted = plan.wanted;
    // Read back, too: the boot loader also comes here where what is installed does not start any more.
    let is_there =
        (plan.is_installed && apply::holds(disk, config, system, wanted)) || usable.in_system[place(wanted)];
    if is_there && plan.is_installed {
        return Ok(Recovered::Nothing(wanted));
    }
    if is_there {
        set_installed(disk, medium, Some(wanted))?;
        return Ok(Recovered::Applied(wanted));
    }
    if installed.is_some() {
        // What is installed still boots, as far as anybody knows. It is given up only where what comes after can be said.
        if let Err(error) = medium.prove(&**disk) {
            return unrecorded(error);
        }
        // Marks are of an earlier time, in which the slot came to hold something else.
        apply::forget(disk, config).map_err(RecoveryError::Progress)?;
    }
    // Before the first byte: from here on the system slot is nothing that anybody may boot.
    set_installed(disk, medium, None)?;
    tracing::info!(slot = %wanted, "putting a package into the system slot");
    apply::apply(disk, config, system, wanted, progress)
        .map_err(|source| RecoveryError::Apply { slot: wanted, source })?;
    set_installed(disk, medium, Some(wanted))?;
    Ok(Recovered::Applied(wanted))
}

/// Which packages can be used, in the order of [`SlotName::BOTH`].
#[derive(Debug, Default)]
struct Usable {
    any: [bool; 2],
    /// Its bytes are in the system slot already, and the package is not needed.
    in_system: [bool; 2],
}

impl Usable {
    fn look(
        &mut self,
        disk: &Disk,
        config: &Config,
        system: &Path,
        slot: SlotName,
        tries: &mut Tries,
    ) -> Result<bool, RecoveryError> {
        let whole = package::is_whole(disk, &config.slots.dir, slot, tries);
        if !matches!(whole, Ok(true)) && apply::keeps(disk, config, system, slot) {
            tracing::warn!(%slot, "a package is not whole; the system slot holds its bytes");
            (self.any[place(slot)], self.in_system[place(slot)]) = (true, true);
            return Ok(true);
        }
        self.any[place(slot)] = whole?;
        Ok(self.any[place(slot)])
    }
}

/// The same, and fetches the confirmed package again where no package is whole.
pub async fn recover_or_fetch(
    disk: &Disk,
    config: &Config,
    progress: &mut Progress<'_>,
) -> Result<Recovered, RecoveryError> {
    match recover(disk, config, progress) {
        Err(RecoveryError::NoPackage(NothingBootable { active: slot })) => {
            let fetched = fetch::fetch(disk, config, slot).await;
            fetched.map_err(|source| RecoveryError::Fetch { slot, source: Box::new(source) })?;
            recover(disk, config, progress)
        }
        other => other,
    }
}

/// Says what is installed, in both copies: neither may name bytes that the other knows to be gone.
fn set_installed(disk: &Disk, medium: &Medium, slot: Option<SlotName>) -> Result<(), RecoveryError> {
    medium.change(&**disk, |environment| variables::put_installed(environment, slot))?;
    Ok(medium.settle(&**disk)?)
}

fn single(config: &Config) -> Result<(&Medium, &Path), RecoveryError> {
    match (&config.boot, &config.slots.system) {
        (BootConfig::Uboot(uboot), Some(system)) => Ok((&uboot.medium, system)),
        _ => Err(RecoveryError::NotSingle),
    }
}

/// Has the system slot hold the first package, on a device that has never run: compared where a factory has filled it,
/// written otherwise.
pub fn provision(disk: &Disk, config: &Config) -> Result<(), RecoveryError> {
    let (medium, system) = single(config)?;
    if !apply::keeps(disk, config, system, SlotName::A) {
        set_installed(disk, medium, None)?;
        apply::apply(disk, config, system, SlotName::A, &mut |_, _| {})
            .map_err(|source| RecoveryError::Apply { slot: SlotName::A, source })?;
    }
    set_installed(disk, medium, Some(SlotName::A))
}
