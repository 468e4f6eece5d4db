//! Slots: the two places that hold a release, and what their labels say about the bytes.
//!
//! A label lives outside the slot's bytes and is the only thing that vouches for them:
//!
//! ```text
//! Empty ──mark_bad──► Bad ──write…, sync, hash matches, set_label──► Holds(image)
//!                      ▲                                                │
//!                      └───────────────────mark_bad─────────────────────┘
//! ```
//! A slot is marked bad, durably, before its first byte changes, so no power cut can leave a label that vouches
//! for bytes it never saw.

pub mod file;
pub(crate) mod label;
pub mod raw;
pub(crate) mod reread;
pub mod signed;
#[cfg(test)]
pub(crate) mod testing;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

pub use crate::core::SlotName;
use crate::record::RecordError;

/// A release's image, as a label describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Release counter.
    pub rc: u64,
    /// Version for people.
    pub version: String,
    /// Bytes.
    pub length: u64,
    /// SHA-256 over all bytes.
    pub sha256: Digest,
    /// Merkle root over the chunks.
    pub root: Digest,
}

/// What is known about a slot's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotLabel {
    /// Never written.
    Empty,
    /// Being written, or given up: nothing vouches for the bytes.
    Bad,
    /// The bytes were read back and hashed to this image.
    Holds(Image),
}

/// Says why a slot did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The system refused.
    #[error("could not {action} slot {slot}")]
    Io {
        /// What we were doing.
        action: &'static str,
        /// The slot.
        slot: SlotName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The label could not be read or written.
    #[error("could not use the label of slot {slot}")]
    Label {
        /// The slot.
        slot: SlotName,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The device runs from it.
    #[error("slot {0} is running and may not be changed")]
    Running(SlotName),
    /// Bytes would end past the slot's capacity.
    #[error("{length} bytes at {offset} do not fit slot {slot} of {capacity} bytes")]
    PastEnd {
        /// The slot.
        slot: SlotName,
        /// Where the bytes begin.
        offset: u64,
        /// How many.
        length: u64,
        /// What the slot holds.
        capacity: u64,
    },
    /// Bytes came before the slot was marked bad.
    #[error("slot {0} must be marked bad before it is written")]
    NotMarkedBad(SlotName),
    /// What stands at the slot's path may not be written.
    #[error("slot {slot} at {} is not written: {problem}", path.display())]
    Unfit {
        /// The slot.
        slot: SlotName,
        /// Its device or file.
        path: PathBuf,
        /// Why.
        problem: raw::Problem,
    },
    /// The slot ends before the image does.
    #[error("slot {slot} holds {found} bytes where {expected} were expected")]
    Short {
        /// The slot.
        slot: SlotName,
        /// Bytes there.
        found: u64,
        /// Bytes of the image.
        expected: u64,
    },
    /// A label was set that the last [`Slots::hash`] does not bear out.
    #[error("slot {0} was not hashed to this image since it was last written")]
    NotHashed(SlotName),
    /// Nobody waits for the hash any more.
    #[error("slot {0} was not read to its end: something else is to be done")]
    Stopped(SlotName),
}

/// The port to the device's slots. Every call may be repeated.
pub trait Slots {
    /// Returns how many bytes `slot` can hold.
    fn capacity(&self, slot: SlotName) -> Result<u64, SlotError>;

    /// Returns what vouches for the bytes of `slot`.
    fn label(&self, slot: SlotName) -> Result<SlotLabel, SlotError>;

    /// Withdraws the label of `slot`; durable when it returns, and due before the first [`Self::write`].
    fn mark_bad(&mut self, slot: SlotName) -> Result<(), SlotError>;

    /// Writes `bytes` at `offset`; durable only after [`Self::sync`].
    fn write(&mut self, slot: SlotName, offset: u64, bytes: &[u8]) -> Result<(), SlotError>;

    /// Makes everything written so far durable.
    fn sync(&mut self, slot: SlotName) -> Result<(), SlotError>;

    /// Reads `length` bytes back, from the medium where possible, and returns their SHA-256 and Merkle root.
    fn hash(&mut self, slot: SlotName, length: u64) -> Result<(Digest, Digest), SlotError> {
        self.hash_until(slot, length, &reread::GO_ON)
    }

    /// The same; ends with [`SlotError::Stopped`] once `stop` is set, which is looked at before each chunk: reading a large
    /// slot takes minutes, and whoever wants the slots meanwhile must not wait for its end.
    fn hash_until(
        &mut self,
        slot: SlotName,
        length: u64,
        stop: &AtomicBool,
    ) -> Result<(Digest, Digest), SlotError>;

    /// Vouches for the bytes of `slot`; refused unless the last hash since the last write bears `image` out.
    fn set_label(&mut self, slot: SlotName, image: Image) -> Result<(), SlotError>;

    /// Returns where probes and boot loader find the bytes of `slot`.
    fn path(&self, slot: SlotName) -> PathBuf;
}

/// Writes `image`, whose bytes are in the file `from`, into `slot` of a device that has never run.
pub(crate) fn fill(
    slots: &mut dyn Slots,
    slot: SlotName,
    from: &Path,
    image: Image,
) -> Result<(), SlotError> {
    slots.mark_bad(slot)?;
    let open = File::open(from);
    let mut source = open.map_err(|source| SlotError::Io { action: "open the image of", slot, source })?;
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

/// Returns the place of `slot` in [`SlotName::BOTH`].
pub(crate) fn place(slot: SlotName) -> usize {
    slot as usize
}
