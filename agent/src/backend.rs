//! The back ends that a device has, as its configuration names them: its slots and its boot loader.

mod apart;

use std::path::Path;

use crate::boot::file::FileBoot;
use crate::boot::script::ScriptBoot;
use crate::boot::systemd_boot::SystemdBoot;
use crate::boot::uboot::UbootBoot;
use crate::boot::{Boot, BootError, BootRecord};
use crate::config::{BootConfig, Config};
use crate::core::SlotName;
use crate::record::{self, RecordFile};
use crate::recovery;
use crate::slot::file::FileSlots;
use crate::slot::raw::RawSlots;
use crate::slot::{Image, SlotError, SlotLabel, Slots, label};
use crate::storage::{self, Disk, Storage};
pub use apart::NotApart;

/// Opens the slots; `running` is the one that may not be changed.
pub fn slots(config: &Config, disk: &Disk, running: SlotName) -> Result<Box<dyn Slots + Send>, SlotError> {
    let slots = &config.slots;
    Ok(match &slots.paths {
        None => Box::new(FileSlots::on(disk, &slots.dir, slots.capacity, running)?),
        Some(paths) => Box::new(RawSlots::on(disk, paths.clone(), &slots.dir, slots.capacity, running)?),
    })
}

/// Joins the present boot; the back end of files powers the device on, when there is none.
pub fn boot(config: &Config, disk: &Disk) -> Result<Box<dyn Boot + Send>, BootError> {
    Ok(match &config.boot {
        BootConfig::File => Box::new(FileBoot::on(disk, &config.slots.dir, &config.runtime_dir)?),
        BootConfig::Uboot(uboot) => {
            apart::check(&**disk, &config.slots, &uboot.medium)?;
            Box::new(UbootBoot::on(disk, uboot)?)
        }
        BootConfig::SystemdBoot(loader) => {
            apart::check_entries(&**disk, &config.slots, &loader.entries)?;
            Box::new(SystemdBoot::on(disk, loader)?)
        }
        BootConfig::Script(script) => Box::new(ScriptBoot::on(disk, script)?),
    })
}

/// Reads the boot record without taking part in a boot; there is none before the device is provisioned.
pub fn record(config: &Config) -> Result<Option<BootRecord>, BootError> {
    record_on(&storage::system(), config)
}

/// The same on another disk than the system's.
pub fn record_on(disk: &Disk, config: &Config) -> Result<Option<BootRecord>, BootError> {
    match &config.boot {
        BootConfig::File => {
            let record = RecordFile::on(disk, &config.slots.dir, "boot").map_err(BootError::Record)?;
            record.load().map_err(BootError::Record)
        }
        BootConfig::Uboot(uboot) => UbootBoot::record_on(&**disk, &uboot.medium),
        BootConfig::SystemdBoot(loader) => SystemdBoot::record_on(&**disk, loader),
        BootConfig::Script(script) => ScriptBoot::read(script),
    }
}

/// Puts the image in the file `from`, which must be what `image` says, into slot a of a device that has never run, and
/// has slot a boot. The boot record comes last, so an interrupted call can be repeated.
pub fn provision(config: &Config, from: &Path, image: Image) -> Result<(), BootError> {
    provision_on(&storage::system(), config, from, image)
}

/// The same on another disk than the system's, where the image is not.
pub fn provision_on(disk: &Disk, config: &Config, from: &Path, image: Image) -> Result<(), BootError> {
    catch_up(&**disk, config);
    match &config.boot {
        BootConfig::File => return FileBoot::provision_on(disk, &config.slots.dir, from, image),
        BootConfig::Uboot(uboot) => apart::check(&**disk, &config.slots, &uboot.medium)?,
        BootConfig::SystemdBoot(loader) => apart::check_entries(&**disk, &config.slots, &loader.entries)?,
        BootConfig::Script(_) => {}
    }
    if image.length == 0 {
        return Err(BootError::EmptyImage);
    }
    if record_on(disk, config)?.is_some() {
        return Err(BootError::AlreadyProvisioned);
    }
    let (slots, first) = (&config.slots, SlotName::A);
    // A call that is repeated finds its own image there, and no other.
    for slot in SlotName::BOTH {
        if let Ok(SlotLabel::Holds(found)) = label::label(disk, &slots.dir, slot)
            && (slot != first || found.sha256 != image.sha256)
        {
            return Err(BootError::RecordLost { slot, rc: found.rc, dir: slots.dir.clone() });
        }
    }
    match &slots.paths {
        None => crate::slot::file::provision(disk, &slots.dir, first, from, image),
        Some(paths) => RawSlots::on(disk, paths.clone(), &slots.dir, slots.capacity, first.other())
            .and_then(|mut slots| slots.provision(first, from, image)),
    }
    .map_err(BootError::Slot)?;
    if slots.system.is_some() {
        // Before the boot record: a device without one is not provisioned, and the call can be repeated.
        recovery::provision(disk, config).map_err(|error| BootError::Recovery(Box::new(error)))?;
    }
    match &config.boot {
        // Done above, with its slot.
        BootConfig::File => Ok(()),
        BootConfig::Uboot(uboot) => UbootBoot::provision_on(&**disk, &uboot.medium),
        BootConfig::SystemdBoot(loader) => SystemdBoot::provision_on(&**disk, loader),
        BootConfig::Script(script) => ScriptBoot::provision(script),
    }
}

/// Makes durable what a provisioning that died has left in the cache: "already provisioned" is said of what stays.
fn catch_up(disk: &dyn Storage, config: &Config) {
    record::catch_up(disk, &config.slots.dir);
    match &config.boot {
        BootConfig::Uboot(uboot) => uboot.medium.catch_up(disk),
        BootConfig::SystemdBoot(loader) => SystemdBoot::catch_up(disk, loader),
        BootConfig::File | BootConfig::Script(_) => {}
    }
}

#[cfg(test)]
mod tests;
