//! Reading a slot back, from the medium where possible: the page cache still holds what we meant to write.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use tern_protocol::chunk::{self, RootHasher};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

use super::{SlotError, SlotName};
use crate::storage::{Access, DIRECT_ALIGNMENT, Opened, Storage};

/// For whoever reads to the end: nobody sets it.
pub(crate) static GO_ON: AtomicBool = AtomicBool::new(false);

/// Returns SHA-256 and Merkle root of the first `length` bytes, past the cache as far as the disk knows the advice. `stop` is
/// looked at before each chunk.
pub(crate) fn hash(
    disk: &dyn Storage,
    path: &Path,
    slot: SlotName,
    length: u64,
    stop: &AtomicBool,
) -> Result<(Digest, Digest), SlotError> {
    let file = open(disk, path, slot, Access::Read)?;
    // Whoever asks has synced what was written: pages that are not yet on the medium would stay. A file system that does
    // not take the advice only loses us the stricter check.
    if let Err(error) = file.drop_cache() {
        tracing::debug!(%slot, %error, "reading back from the cache");
    }
    digests(&*file, &mut vec![0; CHUNK], slot, length, stop)
}

/// The same by direct reads, which cannot come from the cache; by [`hash`] where the medium has none.
pub(crate) fn hash_directly(
    disk: &dyn Storage,
    path: &Path,
    slot: SlotName,
    length: u64,
    stop: &AtomicBool,
) -> Result<(Digest, Digest), SlotError> {
    let mut room = vec![0; CHUNK + DIRECT_ALIGNMENT];
    let skip = room.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT);
    let file = open(disk, path, slot, Access::ReadDirect);
    match file.and_then(|file| digests(&*file, &mut room[skip..skip + CHUNK], slot, length, stop)) {
        // Some file systems take the flag and refuse the reading, some a tail that is no whole sector.
        Err(SlotError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
            tracing::debug!(%slot, "no direct reads here");
            hash(disk, path, slot, length, stop)
        }
        other => other,
    }
}

/// Compares chunks from number `first` on of an image of `length` bytes with their leaves, past the cache as far as the
/// medium knows that, and returns the numbers of those that are right. One that cannot be read is not.
pub(crate) fn compare(
    disk: &dyn Storage,
    path: &Path,
    (first, leaves): (u32, &[Digest]),
    length: u64,
    stop: &AtomicBool,
) -> Vec<u32> {
    let mut room = vec![0; CHUNK + DIRECT_ALIGNMENT];
    let skip = room.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT);
    let room = &mut room[skip..skip + CHUNK];
    let cached = disk.open(path, Access::Read).ok();
    if let Some(Err(error)) = cached.as_ref().map(|file| file.drop_cache()) {
        tracing::debug!(%error, "comparing with the cache");
    }
    let direct = disk.open(path, Access::ReadDirect).ok();
    let mut right = Vec::new();
    for (index, expected) in (first..).zip(leaves) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let wanted = chunk::chunk_length(length, index);
        let found = [&direct, &cached].into_iter().flatten().find_map(|file| {
            whole_chunk(&**file, room, u64::from(index) * CHUNK as u64, wanted)
                .ok()
                .map(|()| chunk::leaf(&room[..wanted]))
        });
        if found == Some(*expected) {
            right.push(index);
        }
    }
    right
}

/// Reads the first `wanted` bytes of what stands at `at`; more may be asked of the medium, whose blocks are whole.
fn whole_chunk(file: &dyn Opened, room: &mut [u8], at: u64, wanted: usize) -> io::Result<()> {
    let mut done = 0;
    while done < wanted {
        match file.read_at(&mut room[done..], at + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(
    disk: &dyn Storage,
    path: &Path,
    slot: SlotName,
    access: Access,
) -> Result<Box<dyn Opened>, SlotError> {
    disk.open(path, access).map_err(|source| SlotError::Io { action: "open the image of", slot, source })
}

fn digests(
    source: &dyn Opened,
    buffer: &mut [u8],
    slot: SlotName,
    length: u64,
    stop: &AtomicBool,
) -> Result<(Digest, Digest), SlotError> {
    let (mut sha256, mut root) = (Sha256::new(), RootHasher::default());
    let mut done = 0;
    while done < length {
        if stop.load(Ordering::Relaxed) {
            return Err(SlotError::Stopped(slot));
        }
        match source.read_at(buffer, done) {
            Ok(0) => return Err(SlotError::Short { slot, found: done, expected: length }),
            Ok(count) => {
                let count = usize::try_from(length - done).map_or(count, |left| left.min(count));
                sha256.update(&buffer[..count]);
                root.update(&buffer[..count]);
                done += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SlotError::Io { action: "read back", slot, source }),
        }
    }
    Ok((Digest(sha256.finalize().into()), chunk::root(&root.finish())))
}
