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

use std::path::PathBuf;

use self::medium::{Medium, MediumError};
use self::variables::VariableError;
use super::kernel::{self, KernelError};
use super::{Boot, BootError, BootRecord, Booted};
use crate::slot::SlotName;
use crate::storage::{self, Disk, Storage};

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
    /// What the kernel tells, and rebooting.
    #[error(transparent)]
    Kernel(#[from] KernelError),
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

    /// Reads the boot record, if there is one.
    pub fn record_on(disk: &dyn Storage, medium: &Medium) -> Result<Option<BootRecord>, BootError> {
        find(disk, medium)
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
        config.medium.catch_up(&**disk);
        let record = read(&**disk, &config.medium)?;
        let slot = kernel::slot(&**disk, &config.cmdline).map_err(UbootError::from)?;
        let booted = kernel::booted(&**disk, slot, &config.boot_id).map_err(UbootError::from)?;
        if slot != record.active && record.trial.as_ref().is_none_or(|trial| trial.slot != slot) {
            // So it is between a rollback's disarming and its reboot, so it goes on. Otherwise a person chose it.
            tracing::warn!(%slot, active = %record.active, "the slot that runs is neither confirmed nor on trial");
        }
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
        Ok(kernel::reboot(&self.reboot).map_err(UbootError::from)?)
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

#[cfg(test)]
mod tests;
