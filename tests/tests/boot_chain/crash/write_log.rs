//! QEMU's log of all that a guest has written to its disk, in the format of Linux' dm-log-writes.
//!
//! ```text
//! sector 0   magic, version, entries (u64 each), bytes of a sector (u32)
//! then       for each entry a sector with: first sector, sectors, flags, length (u64 each); its data in the next ones
//! ```

use std::fs;
use std::path::Path;

pub(crate) const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// First byte on the disk.
    pub(crate) at: usize,
    /// What is there afterwards; whole sectors.
    pub(crate) bytes: Vec<u8>,
}

/// Reads a log as its epochs: writes between two flushes, of which a power cut may leave any on the medium. All writes of
/// former epochs are there.
pub(crate) fn epochs(log: &Path) -> Vec<Vec<Write>> {
    let bytes = fs::read(log).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let number = |at: usize| usize::try_from(word(at)).unwrap();
    assert_eq!((word(0), word(8), word(24) & 0xffff_ffff), (MAGIC, 1, SECTOR as u64), "no write log");
    let (mut epochs, mut open, mut at) = (Vec::new(), Vec::new(), SECTOR);
    for _ in 0..word(16) {
        let (first, count, flags) = (number(at), number(at + 8), word(at + 16));
        at += SECTOR;
        // A flush, and a write that is forced to the medium, make all before them durable.
        if flags & (FLUSH | FUA) != 0 && !open.is_empty() {
            epochs.push(std::mem::take(&mut open));
        }
        // What was discarded may read as anything; nothing of ours is in it.
        if flags & DISCARD == 0 && count > 0 {
            let write = Write { at: first * SECTOR, bytes: bytes[at..at + count * SECTOR].to_vec() };
            at += count * SECTOR;
            if flags & FUA != 0 { epochs.push(vec![write]) } else { open.push(write) }
        }
    }
    if !open.is_empty() {
        epochs.push(open);
    }
    epochs
}
