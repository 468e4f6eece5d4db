//! Reading a slot back, from the medium where possible: the page cache still holds what we meant to write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};
use sha2::{Digest as _, Sha256};
use tern_protocol::chunk::{self, RootHasher};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

use super::{SlotError, SlotName};

/// What direct reads ask of place and length: no medium that we know wants more.
const ALIGNMENT: usize = 4096;

/// Returns SHA-256 and Merkle root of the first `length` bytes, past the cache as far as `path` knows the advice.
pub(super) fn hash(path: &Path, slot: SlotName, length: u64) -> Result<(Digest, Digest), SlotError> {
    let file =
        File::open(path).map_err(|source| SlotError::Io { action: "open the image of", slot, source })?;
    // Pages that are not yet written stay, hence the sync; a file system without either only loses us the stricter check.
    if let Err(error) = file.sync_all().and_then(|()| Ok(fadvise(&file, 0, None, Advice::DontNeed)?)) {
        tracing::debug!(%slot, %error, "reading back from the cache");
    }
    digests(file, &mut vec![0; CHUNK], slot, length)
}

/// The same by direct reads, which cannot come from the cache; by [`hash`] where the medium has none.
pub(super) fn hash_directly(path: &Path, slot: SlotName, length: u64) -> Result<(Digest, Digest), SlotError> {
    let direct = i32::from_ne_bytes(OFlags::DIRECT.bits().to_ne_bytes());
    let file = OpenOptions::new().read(true).custom_flags(direct).open(path);
    let mut room = vec![0; CHUNK + ALIGNMENT];
    let skip = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let read = file.map_err(|source| SlotError::Io { action: "open the image of", slot, source });
    match read.and_then(|file| digests(file, &mut room[skip..skip + CHUNK], slot, length)) {
        // Some file systems take the flag and refuse the reading, some a tail that is no whole sector.
        Err(SlotError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
            tracing::debug!(%slot, "no direct reads here");
            hash(path, slot, length)
        }
        other => other,
    }
}

fn digests(
    mut source: impl Read,
    buffer: &mut [u8],
    slot: SlotName,
    length: u64,
) -> Result<(Digest, Digest), SlotError> {
    let (mut sha256, mut root) = (Sha256::new(), RootHasher::default());
    let mut left = length;
    while left > 0 {
        match source.read(buffer) {
            Ok(0) => return Err(SlotError::Short { slot, found: length - left, expected: length }),
            Ok(count) => {
                let count = usize::try_from(left).map_or(count, |left| left.min(count));
                sha256.update(&buffer[..count]);
                root.update(&buffer[..count]);
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SlotError::Io { action: "read back", slot, source }),
        }
    }
    Ok((Digest(sha256.finalize().into()), chunk::root(&root.finish())))
}
