//! A boot loader made of files, for devices whose release is a program and for demonstrations.
//!
//! The boot record is a two-copy record beside the slots. The present boot is marked in the runtime folder,
//! which a real device has in memory: the mark is gone after a power cut, and stays when only the agent restarts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Boot, BootError, BootRecord, Booted, choose};
use crate::clock;
use crate::record::{self, RecordError, RecordFile};
use crate::slot::file as slot_file;
use crate::slot::{Image, SlotName};
use crate::storage::{self, Disk};

const MARKER: &str = "booted";
/// Ceiling on the mark's bytes.
const MARKER_MAX: usize = 4096;

/// A boot loader made of files.
#[derive(Debug)]
pub struct FileBoot {
    disk: Disk,
    record: RecordFile<BootRecord>,
    marker: PathBuf,
    booted: Booted,
}

/// The mark of the present boot, in the runtime folder.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    slot: SlotName,
    boot_id: String,
    powered_on_at: Duration,
    /// The kernel's own boot id, where it has one: a runtime folder on disk survives the kernel.
    kernel: Option<String>,
}

impl FileBoot {
    /// Puts the image in the file `image_path`, which must be what `image` says, into slot a of a device that has
    /// never run, and has slot a boot. The boot record comes last, so an interrupted call can be repeated.
    pub fn provision(folder: &Path, image_path: &Path, image: Image) -> Result<(), BootError> {
        Self::provision_on(&storage::system(), folder, image_path, image)
    }

    /// The same on another disk than the system's, where the image is not.
    pub fn provision_on(
        disk: &Disk,
        folder: &Path,
        image_path: &Path,
        image: Image,
    ) -> Result<(), BootError> {
        // A device is provisioned once: a slip here could not be mended by calling again.
        if image.length == 0 {
            return Err(BootError::EmptyImage);
        }
        let record = boot_record(disk, folder)?;
        match record.load() {
            Ok(None) => {}
            Ok(Some(_)) => return Err(BootError::AlreadyProvisioned),
            // Nobody knows any more what boots: that is what provisioning is there for.
            Err(RecordError::Corrupt(_)) => {
                tracing::warn!("no copy of the boot record is whole; beginning anew")
            }
            Err(error) => return Err(BootError::Record(error)),
        }
        slot_file::provision(disk, folder, SlotName::A, image_path, image).map_err(BootError::Slot)?;
        record.renew(&BootRecord { active: SlotName::A, trial: None }).map_err(BootError::Record)?;
        // Both copies at once: a slot that fills the disk must not keep the second one from being made.
        record.settle().map_err(BootError::Record)
    }

    /// Joins the present boot, or, when there is none, powers the device on: `folder` holds slots and boot record,
    /// `runtime` the mark of the boot.
    pub fn start(folder: &Path, runtime: &Path) -> Result<Self, BootError> {
        Self::on(&storage::system(), folder, runtime)
    }

    /// The same on another disk than the system's.
    pub fn on(disk: &Disk, folder: &Path, runtime: &Path) -> Result<Self, BootError> {
        Self::start_at(disk, folder, runtime, clock::uptime(), kernel_boot_id())
    }

    fn start_at(
        disk: &Disk,
        folder: &Path,
        runtime: &Path,
        now: Duration,
        kernel: Option<String>,
    ) -> Result<Self, BootError> {
        let record = boot_record(disk, folder).map_err(not_provisioned_without_folder)?;
        let marker = runtime.join(MARKER);
        let booted = match present_boot(disk, &marker, now, kernel.as_deref())? {
            Some(booted) => booted,
            None => power_on(disk, folder, &record, &marker, now, kernel)?,
        };
        Ok(Self { disk: disk.clone(), record, marker, booted })
    }
}

impl Boot for FileBoot {
    fn record(&self) -> Result<BootRecord, BootError> {
        load(&self.record)
    }

    fn write(&mut self, record: &BootRecord) -> Result<(), BootError> {
        self.record.save(record).map_err(BootError::Record)?;
        if load(&self.record)? == *record { Ok(()) } else { Err(BootError::ReadBack) }
    }

    fn settle(&mut self) -> Result<(), BootError> {
        self.record.settle().map_err(BootError::Record)
    }

    fn booted(&self) -> Result<Booted, BootError> {
        Ok(self.booted.clone())
    }

    fn heeds_labels(&self) -> bool {
        true
    }

    fn reboot(&mut self) -> Result<(), BootError> {
        match self.disk.remove(&self.marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(marker_error(&self.marker, error)),
            _ => {
                let sync = |folder: &Path| record::sync_folder_on(&*self.disk, folder);
                self.marker.parent().map_or(Ok(()), sync).map_err(BootError::Marker)
            }
        }
    }
}

fn boot_record(disk: &Disk, folder: &Path) -> Result<RecordFile<BootRecord>, BootError> {
    RecordFile::on(disk, folder, "boot").map_err(BootError::Record)
}

/// The folder of the slots is made by provisioning: where it is missing, that has not happened yet.
fn not_provisioned_without_folder(error: BootError) -> BootError {
    match error {
        BootError::Record(RecordError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            BootError::NotProvisioned
        }
        other => other,
    }
}

fn load(record: &RecordFile<BootRecord>) -> Result<BootRecord, BootError> {
    record.load().map_err(BootError::Record)?.ok_or(BootError::NotProvisioned)
}

/// Does what a boot loader does, and marks the boot. The try is used up durably before the slot may run.
fn power_on(
    disk: &Disk,
    folder: &Path,
    records: &RecordFile<BootRecord>,
    marker: &Path,
    now: Duration,
    kernel: Option<String>,
) -> Result<Booted, BootError> {
    let record = load(records)?;
    let usable = SlotName::BOTH.map(|slot| slot_file::is_bootable(disk, folder, slot));
    let (slot, next) = choose(&record, usable)?;
    if next != record {
        records.save(&next).map_err(BootError::Record)?;
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(BootError::Random)?;
    let mark = Marker { slot, boot_id: hex::encode(random), powered_on_at: now, kernel };
    let bytes = serde_json::to_vec(&mark).expect("a marker is plain data");
    let runtime = marker.parent().unwrap_or(Path::new("."));
    record::create_on(&**disk, runtime, marker, &bytes, 0o644).map_err(BootError::Marker)?;
    tracing::info!(%slot, boot_id = mark.boot_id, "the device was powered on");
    Ok(Booted { slot, boot_id: mark.boot_id, powered_on_at: now })
}

/// Returns the marked boot if the machine still is in it.
fn present_boot(
    disk: &Disk,
    marker: &Path,
    now: Duration,
    kernel: Option<&str>,
) -> Result<Option<Booted>, BootError> {
    let bytes = match storage::read(&**disk, marker, MARKER_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(marker_error(marker, error)),
    };
    let Ok(mark) = serde_json::from_slice::<Marker>(&bytes) else {
        tracing::warn!(file = %marker.display(), "the mark of the boot is damaged, taking it as a power-on");
        return Ok(None);
    };
    // Either sign is enough: not every kernel tells its boot id, and a clock may have caught up since.
    if mark.kernel.as_deref() != kernel || mark.powered_on_at > now {
        return Ok(None);
    }
    Ok(Some(Booted { slot: mark.slot, boot_id: mark.boot_id, powered_on_at: mark.powered_on_at }))
}

fn marker_error(marker: &Path, source: io::Error) -> BootError {
    BootError::Marker(RecordError::Io { action: "use", path: marker.to_owned(), source })
}

fn kernel_boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests;
