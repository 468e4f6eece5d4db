//! Slots as block devices, or as files of a fixed size: the integrator declares two paths and no other is ever opened.
//!
//! Labels stay outside, as records in a folder. A slot is refused before its first byte, and again before every later
//! one, because what stands at a path can change: missing, neither block device nor file, too small, in use, or the
//! other slot under another name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tern_protocol::digest::Digest;

use super::label::Labels;
use super::reread::hash_directly;
use super::{Image, SlotError, SlotLabel, SlotName, Slots, fill, place};
use crate::storage::{self, Access, Disk, Identity, Kind, Opened, Use};

/// What writes are rounded to: the medium's own block would otherwise be read, changed and written for each piece of it.
const BLOCK: u64 = 4096;

/// Says why a device or file may not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing there.
    #[error("there is no such device or file")]
    Missing,
    /// A character device, a folder.
    #[error("it is neither a block device nor a file; raw flash (MTD, UBI) is not supported")]
    Kind,
    /// Less room than configured.
    #[error("it has {size} bytes where slots.capacity asks for {capacity}")]
    TooSmall {
        /// Bytes there.
        size: u64,
        /// Bytes wanted.
        capacity: u64,
    },
    /// A file system is on it.
    #[error("it is mounted")]
    Mounted,
    /// Something else has it: device mapper, swap, a loop device.
    #[error("the system is using it")]
    InUse,
    /// The medium, or who may write it, does not let us.
    #[error("it cannot be written")]
    ReadOnly,
    /// Another place has taken the name since the slot was marked bad.
    #[error("another device or file stands there than when the slot was marked bad")]
    Exchanged,
    /// Both names lead to the same bytes.
    #[error("it is the same device or file as the other slot")]
    SameAsOther,
}

/// Slots at two declared paths.
pub struct RawSlots {
    disk: Disk,
    paths: [PathBuf; 2],
    capacity: u64,
    labels: Labels,
    /// The place that is being written, from the first byte to the label: a name may come to mean another one, and
    /// each end of writing would have the system look through the device anew.
    held: Option<Held>,
}

struct Held {
    slot: SlotName,
    identity: Identity,
    file: Box<dyn Opened>,
}

impl std::fmt::Debug for RawSlots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawSlots").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl RawSlots {
    /// Opens the slots at `paths`, of at least `capacity` bytes each, with their labels in `folder`; `running` is the
    /// slot that may not be changed. What stands at the paths is looked at before something is written: a device whose
    /// other slot is broken must come up and say so.
    pub fn open(
        paths: [PathBuf; 2],
        folder: &Path,
        capacity: u64,
        running: SlotName,
    ) -> Result<Self, SlotError> {
        Self::on(&storage::system(), paths, folder, capacity, running)
    }

    /// The same on another disk than the system's.
    pub fn on(
        disk: &Disk,
        paths: [PathBuf; 2],
        folder: &Path,
        capacity: u64,
        running: SlotName,
    ) -> Result<Self, SlotError> {
        let labels = Labels::open(disk, folder, running)?;
        Ok(Self { disk: disk.clone(), paths, capacity, labels, held: None })
    }

    /// Puts the image in the file `from` into `slot` of a device that has never run. Where a factory has written the
    /// slot already, and it may be running, its bytes are compared and only labelled.
    pub fn provision(&mut self, slot: SlotName, from: &Path, image: Image) -> Result<(), SlotError> {
        if matches!(self.hash(slot, image.length), Ok(found) if found == (image.sha256, image.root)) {
            // They may be the bytes of a call that died before it had synced them.
            self.sync(slot)?;
            return self.set_label(slot, image);
        }
        fill(self, slot, from, image)
    }

    /// Returns a slot that is open for writing, if all is well with it.
    fn for_writing(&mut self, slot: SlotName) -> Result<&dyn Opened, SlotError> {
        self.labels.changeable(slot)?;
        let path = self.paths[place(slot)].clone();
        let unfit = |problem| SlotError::Unfit { slot, path: path.clone(), problem };
        let found = self.disk.look(&path).map_err(|error| refusal(slot, &path, error))?;
        if found.kind == Kind::Other {
            return Err(unfit(Problem::Kind));
        }
        let other = self.disk.look(&self.paths[place(slot.other())]);
        if other.is_ok_and(|other| other.identity == found.identity) {
            return Err(unfit(Problem::SameAsOther));
        }
        match self.held.take_if(|held| held.slot != slot || held.identity != found.identity) {
            Some(held) if held.slot == slot => return Err(unfit(Problem::Exchanged)),
            _ => {}
        }
        if self.held.is_none() {
            self.held = Some(self.claim(slot, &path, &found.identity)?);
        }
        let held = self.held.as_ref().map(|held| &*held.file);
        held.ok_or_else(|| unfit(Problem::Missing))
    }

    /// Opens what stands at `path` as the only one.
    fn claim(&self, slot: SlotName, path: &Path, identity: &Identity) -> Result<Held, SlotError> {
        let unfit = |problem| SlotError::Unfit { slot, path: path.to_owned(), problem };
        let found = self.disk.look(path).map_err(|error| refusal(slot, path, error))?;
        match self.disk.use_of(path, &found).map_err(|error| refusal(slot, path, error))? {
            Some(Use::Mounted) => return Err(unfit(Problem::Mounted)),
            Some(Use::Looped) => return Err(unfit(Problem::InUse)),
            None => {}
        }
        let file = self.disk.open(path, Access::Claim).map_err(|error| refusal(slot, path, error))?;
        let opened = file.found().map_err(|error| refusal(slot, path, error))?;
        if opened.identity != *identity {
            return Err(unfit(Problem::Exchanged));
        }
        let size = file.size().map_err(|error| refusal(slot, path, error))?;
        if size < self.capacity {
            return Err(unfit(Problem::TooSmall { size, capacity: self.capacity }));
        }
        Ok(Held { slot, identity: opened.identity, file })
    }
}

fn refusal(slot: SlotName, path: &Path, source: io::Error) -> SlotError {
    let unfit = |problem| SlotError::Unfit { slot, path: path.to_owned(), problem };
    match source.kind() {
        io::ErrorKind::NotFound => unfit(Problem::Missing),
        io::ErrorKind::ResourceBusy => unfit(Problem::InUse),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => unfit(Problem::ReadOnly),
        _ => SlotError::Io { action: "open", slot, source },
    }
}

impl Slots for RawSlots {
    fn capacity(&self, _slot: SlotName) -> Result<u64, SlotError> {
        Ok(self.capacity)
    }

    fn label(&self, slot: SlotName) -> Result<SlotLabel, SlotError> {
        self.labels.of(slot)
    }

    fn mark_bad(&mut self, slot: SlotName) -> Result<(), SlotError> {
        // Looked at anew, also what is held: and before the label goes, for a slot that cannot be written keeps what it
        // holds.
        self.held = None;
        self.for_writing(slot)?;
        self.labels.withdraw(slot)
    }

    fn write(&mut self, slot: SlotName, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.labels.writable(slot, offset, bytes.len() as u64, self.capacity)?;
        write_whole_blocks(self.for_writing(slot)?, offset, bytes).map_err(|source| SlotError::Io {
            action: "write to",
            slot,
            source,
        })
    }

    fn sync(&mut self, slot: SlotName) -> Result<(), SlotError> {
        self.for_writing(slot)?.sync().map_err(|source| SlotError::Io { action: "sync", slot, source })
    }

    fn hash_until(
        &mut self,
        slot: SlotName,
        length: u64,
        stop: &AtomicBool,
    ) -> Result<(Digest, Digest), SlotError> {
        let path = &self.paths[place(slot)];
        if let Some(held) = self.held.as_ref().filter(|held| held.slot == slot) {
            let found = self.disk.look(path).map_err(|error| refusal(slot, path, error))?;
            if found.identity != held.identity {
                let (path, problem) = (path.clone(), Problem::Exchanged);
                return Err(SlotError::Unfit { slot, path, problem });
            }
        }
        let (sha256, root) = hash_directly(&*self.disk, path, slot, length, stop)?;
        self.labels.hashed(slot, length, sha256, root);
        Ok((sha256, root))
    }

    fn set_label(&mut self, slot: SlotName, image: Image) -> Result<(), SlotError> {
        // What a longer predecessor left behind the image stays there: a device cannot be shortened, and no file system
        // or kernel reads past its own end.
        self.labels.vouch(slot, image)?;
        self.held = None;
        Ok(())
    }

    fn path(&self, slot: SlotName) -> PathBuf {
        self.paths[place(slot)].clone()
    }
}

/// Writes `bytes`, completed to whole blocks by what stands around them.
fn write_whole_blocks(file: &dyn Opened, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let end = offset + bytes.len() as u64;
    let (from, to) = (offset - offset % BLOCK, end.next_multiple_of(BLOCK));
    if (from, to) == (offset, end) {
        return file.write_at(bytes, offset);
    }
    // The last block of a file need not be whole.
    let to = to.min(file.size()?).max(end);
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut blocks = vec![0; usize::try_from(to - from).map_err(too_large)?];
    storage::read_exact_at(file, &mut blocks, from)?;
    let start = usize::try_from(offset - from).map_err(too_large)?;
    blocks[start..start + bytes.len()].copy_from_slice(bytes);
    file.write_at(&blocks, from)
}

#[cfg(test)]
mod tests;
