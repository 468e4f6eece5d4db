//! Slots as block devices, or as files of a fixed size: the integrator declares two paths and no other is ever opened.
//!
//! Labels stay outside, as records in a folder. A slot is refused before its first byte, and again before every later
//! one, because what stands at a path can change: missing, neither block device nor file, too small, in use, or the
//! other slot under another name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, SeekFrom, major, minor, seek};
use tern_protocol::digest::Digest;

use super::label::Labels;
use super::reread::hash_directly;
use super::{Image, SlotError, SlotLabel, SlotName, Slots, fill, place};

/// What writes are rounded to: the medium's own block would otherwise be read, changed and written for each piece of it.
const BLOCK: u64 = 4096;

/// How often, and how far apart, a device that is claimed is asked for.
const CLAIM_ATTEMPTS: u32 = 10;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

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
    /// Both names lead to the same bytes.
    #[error("it is the same device or file as the other slot")]
    SameAsOther,
}

/// Slots at two declared paths.
#[derive(Debug)]
pub struct RawSlots {
    paths: [PathBuf; 2],
    capacity: u64,
    labels: Labels,
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
        Ok(Self { paths, capacity, labels: Labels::open(folder, running)? })
    }

    /// Puts the image in the file `from` into `slot` of a device that has never run. Where a factory has written the
    /// slot already, and it may be running, its bytes are compared and only labelled.
    pub fn provision(&mut self, slot: SlotName, from: &Path, image: Image) -> Result<(), SlotError> {
        if matches!(self.hash(slot, image.length), Ok(found) if found == (image.sha256, image.root)) {
            return self.set_label(slot, image);
        }
        fill(self, slot, from, image)
    }

    /// Opens a slot for writing, if all is well with it.
    fn open_for_writing(&self, slot: SlotName) -> Result<File, SlotError> {
        self.labels.changeable(slot)?;
        let path = &self.paths[place(slot)];
        let unfit = |problem| SlotError::Unfit { slot, path: path.clone(), problem };
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => unfit(Problem::Missing),
            io::ErrorKind::ResourceBusy => unfit(Problem::InUse),
            _ => SlotError::Io { action: "open", slot, source },
        };
        let found = fs::metadata(path).map_err(io)?;
        if !found.file_type().is_block_device() && !found.is_file() {
            return Err(unfit(Problem::Kind));
        }
        let other = fs::metadata(&self.paths[place(slot.other())]);
        if other.is_ok_and(|other| identity(&other) == identity(&found)) {
            return Err(unfit(Problem::SameAsOther));
        }
        if let Some(problem) = use_of(&found).map_err(io)? {
            return Err(unfit(problem));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if found.file_type().is_block_device() {
            // The kernel then refuses whatever it uses itself, also what no list of mounts names.
            options.custom_flags(i32::from_ne_bytes(OFlags::EXCL.bits().to_ne_bytes()));
        }
        let file = open_when_free(&options, path).map_err(io)?;
        // A block device has no length of its own but where it ends.
        let size = seek(&file, SeekFrom::End(0)).map_err(|error| io(error.into()))?;
        if size < self.capacity {
            return Err(unfit(Problem::TooSmall { size, capacity: self.capacity }));
        }
        Ok(file)
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
        // Before the label goes: a slot that cannot be written keeps what it holds.
        self.open_for_writing(slot)?;
        self.labels.withdraw(slot)
    }

    fn write(&mut self, slot: SlotName, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.labels.writable(slot, offset, bytes.len() as u64, self.capacity)?;
        let file = self.open_for_writing(slot)?;
        write_whole_blocks(&file, offset, bytes).map_err(|source| SlotError::Io {
            action: "write to",
            slot,
            source,
        })
    }

    fn sync(&mut self, slot: SlotName) -> Result<(), SlotError> {
        let file = self.open_for_writing(slot)?;
        file.sync_all().map_err(|source| SlotError::Io { action: "sync", slot, source })
    }

    fn hash(&mut self, slot: SlotName, length: u64) -> Result<(Digest, Digest), SlotError> {
        let (sha256, root) = hash_directly(&self.paths[place(slot)], slot, length)?;
        self.labels.hashed(slot, length, sha256, root);
        Ok((sha256, root))
    }

    fn set_label(&mut self, slot: SlotName, image: Image) -> Result<(), SlotError> {
        // What a longer predecessor left behind the image stays there: a device cannot be shortened, and no file system
        // or kernel reads past its own end.
        self.labels.vouch(slot, image)
    }

    fn path(&self, slot: SlotName) -> PathBuf {
        self.paths[place(slot)].clone()
    }
}

/// Opens what may be claimed for the moment: a program that we start has our last claim between its fork and its exec,
/// and a partition scanner looks into everything that changes.
fn open_when_free(options: &OpenOptions, path: &Path) -> io::Result<File> {
    for _ in 1..CLAIM_ATTEMPTS {
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(CLAIM_PAUSE),
            other => return other,
        }
    }
    options.open(path)
}

/// Writes `bytes`, completed to whole blocks by what stands around them.
fn write_whole_blocks(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let end = offset + bytes.len() as u64;
    let (from, to) = (offset - offset % BLOCK, end.next_multiple_of(BLOCK));
    if (from, to) == (offset, end) {
        return file.write_all_at(bytes, offset);
    }
    // The last block of a file need not be whole.
    let to = to.min(seek(file, SeekFrom::End(0))?).max(end);
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut blocks = vec![0; usize::try_from(to - from).map_err(too_large)?];
    file.read_exact_at(&mut blocks, from)?;
    let start = usize::try_from(offset - from).map_err(too_large)?;
    blocks[start..start + bytes.len()].copy_from_slice(bytes);
    file.write_all_at(&blocks, from)
}

/// What tells two places apart, whatever names lead there.
fn identity(found: &Metadata) -> (bool, u64, u64) {
    if found.file_type().is_block_device() {
        (true, found.rdev(), 0)
    } else {
        (false, found.dev(), found.ino())
    }
}

/// Tells what the system does with a block device or a file, as far as it says so.
fn use_of(found: &Metadata) -> io::Result<Option<Problem>> {
    if !found.file_type().is_block_device() {
        return Ok(is_looped(found).then_some(Problem::InUse));
    }
    let device = format!("{}:{}", major(found.rdev()), minor(found.rdev()));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let is_mounted = mounts.lines().any(|mount| mount.split_whitespace().nth(2) == Some(&device));
    Ok(is_mounted.then_some(Problem::Mounted))
}

/// Tells whether a loop device stands on the file, so that it may be mounted under that name.
fn is_looped(found: &Metadata) -> bool {
    let Ok(devices) = fs::read_dir("/sys/block") else { return false };
    devices.flatten().any(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file"));
        let file = backing.and_then(|path| fs::metadata(path.trim_end_matches('\n')));
        file.is_ok_and(|file| identity(&file) == identity(found))
    })
}

#[cfg(test)]
mod tests;
