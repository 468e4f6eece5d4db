//! Slots as two files in a folder: `a.img` and `b.img`, with their labels beside them.
//!
//! The files are executable, because a payload that is a program is really run by the health probes. No
//! descriptor stays open between calls: Linux refuses to execute a file that somebody has open for writing.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};
use tern_protocol::chunk::{self, RootHasher};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

use super::{Image, SlotError, SlotLabel, SlotName, Slots, place};
use crate::record::{RecordError, RecordFile, sync_folder};

/// Slots in a folder.
#[derive(Debug)]
pub struct FileSlots {
    folder: PathBuf,
    capacity: u64,
    running: SlotName,
    /// Per slot, what the last hash found; forgotten when a byte changes.
    hashed: [Option<Hashed>; 2],
}

#[derive(Debug, PartialEq, Eq)]
struct Hashed {
    length: u64,
    sha256: Digest,
    root: Digest,
}

impl FileSlots {
    /// Opens the slots in `folder`, each of `capacity` bytes; `running` is the slot that may not be changed.
    pub fn open(folder: &Path, capacity: u64, running: SlotName) -> Result<Self, SlotError> {
        for slot in SlotName::BOTH {
            labels(folder, slot)?;
        }
        Ok(Self { folder: folder.to_owned(), capacity, running, hashed: [None, None] })
    }

    fn changeable(&self, slot: SlotName) -> Result<(), SlotError> {
        if slot == self.running { Err(SlotError::Running(slot)) } else { Ok(()) }
    }

    fn image_for_writing(&self, slot: SlotName) -> io::Result<File> {
        let path = self.path(slot);
        if let Ok(file) = OpenOptions::new().write(true).open(&path) {
            return Ok(file);
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o755).open(&path)?;
        // The umask may have taken the executable bit.
        file.set_permissions(Permissions::from_mode(0o755))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(file)
    }
}

impl Slots for FileSlots {
    fn capacity(&self, _slot: SlotName) -> Result<u64, SlotError> {
        Ok(self.capacity)
    }

    fn label(&self, slot: SlotName) -> Result<SlotLabel, SlotError> {
        label(&self.folder, slot)
    }

    fn mark_bad(&mut self, slot: SlotName) -> Result<(), SlotError> {
        self.changeable(slot)?;
        self.hashed[place(slot)] = None;
        // Spare the medium when it says so already; a damaged label only looks bad and is renewed.
        if matches!(labels(&self.folder, slot)?.load(), Ok(Some(SlotLabel::Bad))) {
            return Ok(());
        }
        put_label(&self.folder, slot, &SlotLabel::Bad)
    }

    fn write(&mut self, slot: SlotName, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.changeable(slot)?;
        let length = bytes.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.capacity) {
            return Err(SlotError::PastEnd { slot, offset, length, capacity: self.capacity });
        }
        if self.label(slot)? != SlotLabel::Bad {
            return Err(SlotError::NotMarkedBad(slot));
        }
        self.hashed[place(slot)] = None;
        self.image_for_writing(slot)
            .and_then(|file| file.write_all_at(bytes, offset))
            .map_err(|source| SlotError::Io { action: "write to", slot, source })
    }

    fn sync(&mut self, slot: SlotName) -> Result<(), SlotError> {
        self.changeable(slot)?;
        self.image_for_writing(slot).and_then(|file| file.sync_all()).map_err(|source| SlotError::Io {
            action: "sync",
            slot,
            source,
        })
    }

    fn hash(&mut self, slot: SlotName, length: u64) -> Result<(Digest, Digest), SlotError> {
        let (sha256, root) = hash(&self.path(slot), slot, length)?;
        self.hashed[place(slot)] = Some(Hashed { length, sha256, root });
        Ok((sha256, root))
    }

    fn set_label(&mut self, slot: SlotName, image: Image) -> Result<(), SlotError> {
        self.changeable(slot)?;
        let claimed = Hashed { length: image.length, sha256: image.sha256, root: image.root };
        if self.hashed[place(slot)].as_ref() != Some(&claimed) {
            return Err(SlotError::NotHashed(slot));
        }
        // A longer predecessor's tail would be part of what is executed, and nobody has signed it.
        self.image_for_writing(slot)
            .and_then(|file| file.set_len(image.length).and_then(|()| file.sync_all()))
            .map_err(|source| SlotError::Io { action: "shorten", slot, source })?;
        put_label(&self.folder, slot, &SlotLabel::Holds(image))
    }

    fn path(&self, slot: SlotName) -> PathBuf {
        image_path(&self.folder, slot)
    }
}

/// Writes `image`, whose bytes are in the file `from`, into `slot` of a device that has never run.
pub(crate) fn provision(folder: &Path, slot: SlotName, from: &Path, image: Image) -> Result<(), SlotError> {
    let mut slots = FileSlots::open(folder, u64::MAX, slot.other())?;
    slots.mark_bad(slot)?;
    let mut source = open(from, slot)?;
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                slots.write(slot, offset, &buffer[..count])?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SlotError::Io { action: "read the image for", slot, source }),
        }
    }
    slots.sync(slot)?;
    slots.hash(slot, offset)?;
    slots.set_label(slot, image)
}

/// Tells whether the bytes of `slot` are the ones its label vouches for: what a verifying boot loader asks.
pub(crate) fn is_bootable(folder: &Path, slot: SlotName) -> bool {
    let matches = || -> Result<bool, SlotError> {
        let SlotLabel::Holds(image) = label(folder, slot)? else { return Ok(false) };
        let path = image_path(folder, slot);
        let found =
            fs::metadata(&path).map_err(|source| SlotError::Io { action: "look at", slot, source })?;
        // Longer is as wrong as shorter: the surplus would be executed too.
        Ok(found.len() == image.length && hash(&path, slot, image.length)? == (image.sha256, image.root))
    };
    matches().unwrap_or_else(|error| {
        tracing::warn!(%slot, error = &error as &dyn std::error::Error, "a slot cannot be judged");
        false
    })
}

fn image_path(folder: &Path, slot: SlotName) -> PathBuf {
    folder.join(format!("{slot}.img"))
}

fn labels(folder: &Path, slot: SlotName) -> Result<RecordFile<SlotLabel>, SlotError> {
    RecordFile::open(folder, &format!("{slot}.label")).map_err(|source| SlotError::Label { slot, source })
}

fn label(folder: &Path, slot: SlotName) -> Result<SlotLabel, SlotError> {
    match labels(folder, slot)?.load() {
        Ok(label) => Ok(label.unwrap_or(SlotLabel::Empty)),
        // A label that cannot be read vouches for nothing; writing the slot anew heals it.
        Err(error @ RecordError::Corrupt(_)) => {
            tracing::warn!(%slot, %error, "taking the slot as bad");
            Ok(SlotLabel::Bad)
        }
        Err(source) => Err(SlotError::Label { slot, source }),
    }
}

fn put_label(folder: &Path, slot: SlotName, label: &SlotLabel) -> Result<(), SlotError> {
    labels(folder, slot)?.renew(label).map_err(|source| SlotError::Label { slot, source })?;
    sync_folder(folder).map_err(|source| SlotError::Label { slot, source })
}

fn open(path: &Path, slot: SlotName) -> Result<File, SlotError> {
    File::open(path).map_err(|source| SlotError::Io { action: "open the image of", slot, source })
}

fn hash(path: &Path, slot: SlotName, length: u64) -> Result<(Digest, Digest), SlotError> {
    let failed = |source| SlotError::Io { action: "read back", slot, source };
    let mut file = open(path, slot)?;
    // Have the medium answer, not the page cache that still holds what we meant to write. Pages that are not yet
    // written stay, hence the sync; a file system without either only loses us the stricter check.
    if let Err(error) = file.sync_all().and_then(|()| Ok(fadvise(&file, 0, None, Advice::DontNeed)?)) {
        tracing::debug!(%slot, %error, "reading back from the cache");
    }
    let (mut sha256, mut root) = (Sha256::new(), RootHasher::default());
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        match file.read(&mut buffer[..want]) {
            Ok(0) => return Err(SlotError::Short { slot, found: length - left, expected: length }),
            Ok(count) => {
                sha256.update(&buffer[..count]);
                root.update(&buffer[..count]);
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok((Digest(sha256.finalize().into()), chunk::root(&root.finish())))
}

#[cfg(test)]
mod tests;
