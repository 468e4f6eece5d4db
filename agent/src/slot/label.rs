//! Labels: what every back end keeps about its slots, and the rules by which it does.
//!
//! They are records in a folder, never in the slot itself: what vouches for bytes must not be among them.

use std::path::{Path, PathBuf};

use tern_protocol::digest::Digest;

use super::{Image, SlotError, SlotLabel, SlotName, place};
use crate::record::{RecordError, RecordFile};
use crate::storage::Disk;

/// The labels of both slots, and what may be done to which.
#[derive(Debug)]
pub(super) struct Labels {
    disk: Disk,
    folder: PathBuf,
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

impl Labels {
    /// Opens the labels in `folder`; `running` is the slot that may not be changed.
    pub(super) fn open(disk: &Disk, folder: &Path, running: SlotName) -> Result<Self, SlotError> {
        for slot in SlotName::BOTH {
            record(disk, folder, slot)?;
        }
        Ok(Self { disk: disk.clone(), folder: folder.to_owned(), running, hashed: [None, None] })
    }

    /// Refuses the running slot.
    pub(super) fn changeable(&self, slot: SlotName) -> Result<(), SlotError> {
        if slot == self.running { Err(SlotError::Running(slot)) } else { Ok(()) }
    }

    /// Returns what vouches for the bytes of `slot`.
    pub(super) fn of(&self, slot: SlotName) -> Result<SlotLabel, SlotError> {
        label(&self.disk, &self.folder, slot)
    }

    /// Withdraws a label; durable when it returns.
    pub(super) fn withdraw(&mut self, slot: SlotName) -> Result<(), SlotError> {
        self.changeable(slot)?;
        self.hashed[place(slot)] = None;
        // Spare the medium when it says so already; a damaged label only looks bad and is renewed.
        let record = record(&self.disk, &self.folder, slot)?;
        if !matches!(record.load(), Ok(Some(SlotLabel::Bad))) {
            return put(&self.disk, &self.folder, slot, &SlotLabel::Bad);
        }
        // The older copy may still vouch for bytes that are about to go: it must not come back should the newer be lost.
        record.settle().map_err(|source| SlotError::Label { slot, source })
    }

    /// Refuses bytes that do not fit, or that a label still vouches for.
    pub(super) fn writable(
        &mut self,
        slot: SlotName,
        offset: u64,
        length: u64,
        capacity: u64,
    ) -> Result<(), SlotError> {
        self.changeable(slot)?;
        if offset.checked_add(length).is_none_or(|end| end > capacity) {
            return Err(SlotError::PastEnd { slot, offset, length, capacity });
        }
        if self.of(slot)? != SlotLabel::Bad {
            return Err(SlotError::NotMarkedBad(slot));
        }
        self.hashed[place(slot)] = None;
        Ok(())
    }

    /// Notes what the bytes of `slot` were read back as.
    pub(super) fn hashed(&mut self, slot: SlotName, length: u64, sha256: Digest, root: Digest) {
        self.hashed[place(slot)] = Some(Hashed { length, sha256, root });
    }

    /// Refuses an image that the last hash since the last write does not bear out.
    pub(super) fn borne_out(&self, slot: SlotName, image: &Image) -> Result<(), SlotError> {
        self.changeable(slot)?;
        let claimed = Hashed { length: image.length, sha256: image.sha256, root: image.root };
        if self.hashed[place(slot)].as_ref() == Some(&claimed) {
            Ok(())
        } else {
            Err(SlotError::NotHashed(slot))
        }
    }

    /// Vouches for the bytes of `slot`.
    pub(super) fn vouch(&self, slot: SlotName, image: Image) -> Result<(), SlotError> {
        self.borne_out(slot, &image)?;
        // In both copies: should the newer be lost, an older one that says that the slot is bad would not vouch for bytes that
        // are right.
        put(&self.disk, &self.folder, slot, &SlotLabel::Holds(image))
    }
}

/// Returns the record of a label.
pub(super) fn record(disk: &Disk, folder: &Path, slot: SlotName) -> Result<RecordFile<SlotLabel>, SlotError> {
    RecordFile::on(disk, folder, &format!("{slot}.label")).map_err(|source| SlotError::Label { slot, source })
}

/// Reads a label.
pub(crate) fn label(disk: &Disk, folder: &Path, slot: SlotName) -> Result<SlotLabel, SlotError> {
    match record(disk, folder, slot)?.load() {
        Ok(label) => Ok(label.unwrap_or(SlotLabel::Empty)),
        // A label that cannot be read vouches for nothing; writing the slot anew heals it.
        Err(error @ RecordError::Corrupt(_)) => {
            tracing::warn!(%slot, %error, "taking the slot as bad");
            Ok(SlotLabel::Bad)
        }
        Err(source) => Err(SlotError::Label { slot, source }),
    }
}

fn put(disk: &Disk, folder: &Path, slot: SlotName, label: &SlotLabel) -> Result<(), SlotError> {
    record(disk, folder, slot)?.save_both(label).map_err(|source| SlotError::Label { slot, source })
}
