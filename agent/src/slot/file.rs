//! Slots as two files in a folder: `a.img` and `b.img`, with their labels beside them.
//!
//! The files are executable, because a payload that is a program is really run by the health probes. No
//! descriptor stays open between calls: Linux refuses to execute a file that somebody has open for writing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tern_protocol::digest::Digest;

use super::label::{self, Labels};
use super::reread::{GO_ON, hash};
use super::{Image, SlotError, SlotLabel, SlotName, Slots, fill};
use crate::storage::{self, Access, Disk, Opened};

/// Slots in a folder.
#[derive(Debug)]
pub struct FileSlots {
    disk: Disk,
    folder: PathBuf,
    capacity: u64,
    labels: Labels,
}

impl FileSlots {
    /// Opens the slots in `folder`, each of `capacity` bytes; `running` is the slot that may not be changed.
    pub fn open(folder: &Path, capacity: u64, running: SlotName) -> Result<Self, SlotError> {
        Self::on(&storage::system(), folder, capacity, running)
    }

    /// The same on another disk than the system's.
    pub fn on(disk: &Disk, folder: &Path, capacity: u64, running: SlotName) -> Result<Self, SlotError> {
        let labels = Labels::open(disk, folder, running)?;
        Ok(Self { disk: disk.clone(), folder: folder.to_owned(), capacity, labels })
    }

    fn image_for_writing(&self, slot: SlotName) -> io::Result<Box<dyn Opened>> {
        let path = self.path(slot);
        match self.disk.open(&path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let file = self.disk.open(&path, Access::CreateNew { mode: 0o755 })?;
        // The umask may have taken the executable bit.
        file.set_mode(0o755)?;
        self.disk.sync_folder(&self.folder)?;
        Ok(file)
    }
}

impl Slots for FileSlots {
    fn capacity(&self, _slot: SlotName) -> Result<u64, SlotError> {
        Ok(self.capacity)
    }

    fn label(&self, slot: SlotName) -> Result<SlotLabel, SlotError> {
        self.labels.of(slot)
    }

    fn mark_bad(&mut self, slot: SlotName) -> Result<(), SlotError> {
        self.labels.withdraw(slot)
    }

    fn write(&mut self, slot: SlotName, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.labels.writable(slot, offset, bytes.len() as u64, self.capacity)?;
        self.image_for_writing(slot)
            .and_then(|file| file.write_at(bytes, offset))
            .map_err(|source| SlotError::Io { action: "write to", slot, source })
    }

    fn sync(&mut self, slot: SlotName) -> Result<(), SlotError> {
        self.labels.changeable(slot)?;
        self.image_for_writing(slot).and_then(|file| file.sync()).map_err(|source| SlotError::Io {
            action: "sync",
            slot,
            source,
        })
    }

    fn hash_until(
        &mut self,
        slot: SlotName,
        length: u64,
        stop: &AtomicBool,
    ) -> Result<(Digest, Digest), SlotError> {
        let (sha256, root) = hash(&*self.disk, &self.path(slot), slot, length, stop)?;
        self.labels.hashed(slot, length, sha256, root);
        Ok((sha256, root))
    }

    fn set_label(&mut self, slot: SlotName, image: Image) -> Result<(), SlotError> {
        self.labels.borne_out(slot, &image)?;
        // A longer predecessor's tail would be part of what is executed, and nobody has signed it.
        let shorten = |file: Box<dyn Opened>| {
            if file.size()? != image.length {
                file.set_size(image.length)?;
            }
            // In any case: an agent that died between the two has left a length that is in the cache alone.
            file.sync()
        };
        self.image_for_writing(slot).and_then(shorten).map_err(|source| SlotError::Io {
            action: "shorten",
            slot,
            source,
        })?;
        self.labels.vouch(slot, image)
    }

    fn path(&self, slot: SlotName) -> PathBuf {
        image_path(&self.folder, slot)
    }
}

/// Writes `image`, whose bytes are in the file `from`, into `slot` of a device that has never run.
pub(crate) fn provision(
    disk: &Disk,
    folder: &Path,
    slot: SlotName,
    from: &Path,
    image: Image,
) -> Result<(), SlotError> {
    fill(&mut FileSlots::on(disk, folder, u64::MAX, slot.other())?, slot, from, image)
}

/// What the bytes of a slot are, held against its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// The ones that its label vouches for.
    Whole,
    /// Nothing vouches for them.
    Unvouched,
    /// There are none.
    Missing,
    /// Another number of them.
    Length(u64),
    /// Others.
    Other(Digest),
}

/// Reads the bytes of `slot` and holds them against its label; an error says that they could not be read.
pub(crate) fn bytes(disk: &Disk, folder: &Path, slot: SlotName) -> Result<Bytes, SlotError> {
    let SlotLabel::Holds(image) = label::label(disk, folder, slot)? else { return Ok(Bytes::Unvouched) };
    let path = image_path(folder, slot);
    let found = match disk.look(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::Missing),
        Err(source) => return Err(SlotError::Io { action: "look at", slot, source }),
    };
    // Longer is as wrong as shorter: the surplus would be executed too.
    if found.size != image.length {
        return Ok(Bytes::Length(found.size));
    }
    let (sha256, root) = hash(&**disk, &path, slot, image.length, &GO_ON)?;
    Ok(if (sha256, root) == (image.sha256, image.root) { Bytes::Whole } else { Bytes::Other(sha256) })
}

/// Tells whether the bytes of `slot` are the ones its label vouches for: what a verifying boot loader asks.
pub fn is_bootable(disk: &Disk, folder: &Path, slot: SlotName) -> bool {
    bytes(disk, folder, slot).map(|found| found == Bytes::Whole).unwrap_or_else(|error| {
        tracing::warn!(%slot, error = &error as &dyn std::error::Error, "a slot cannot be judged");
        false
    })
}

/// Returns where the bytes of a slot in `folder` are.
pub(crate) fn image_path(folder: &Path, slot: SlotName) -> PathBuf {
    folder.join(format!("{slot}.img"))
}

#[cfg(test)]
mod tests;
