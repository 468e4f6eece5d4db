//! The delta manifest: which packs make a new image from an old one.
//!
//! ```text
//! version: u8 = 1   profile: u8   log2 of chunk length: u8   packs: u32   bytes: u64
//! old: length u64, root 32 bytes   new: length u64, root 32 bytes   root over the packs, 32 bytes
//! ```
//! Numbers are little endian; the images' roots are those of [`crate::chunk::root`]. The packs have a tree of the same
//! kind, a leaf each, so that a manifest has one length whatever the delta's, and its pieces travel as an image's do.

use super::error::DeltaManifestError;
use super::pack::VERSION;
use super::profile::Profile;
use crate::chunk;
use crate::digest::Digest;
use crate::limits::{CHUNK, CHUNKS_MAX};

/// Packs of one delta.
pub const DELTA_PACKS_MAX: u32 = CHUNKS_MAX;
/// What a pack may have above its ceiling when it holds one chunk that cannot be coded.
pub const PACK_EXCESS: usize = 49;

/// Names an image by what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageId {
    /// Bytes.
    pub length: u64,
    /// Merkle root over its chunks of 64 KiB.
    pub root: Digest,
}

impl ImageId {
    /// The image without bytes: a delta from it is a whole image, coded.
    pub fn nothing() -> Self {
        Self { length: 0, root: chunk::root(&[]) }
    }
}

/// Names the packs of a delta, and the images between which it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaManifest {
    /// The profile that all packs are made for.
    pub profile: Profile,
    /// log2 of the length of a pack's chunks: 12..=16. Other than an image's chunks they may be shorter than 64 KiB.
    pub chunk_log2: u32,
    /// The image that must be there.
    pub old: ImageId,
    /// The image that comes out.
    pub new: ImageId,
    /// How many packs there are.
    pub packs: u32,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Merkle root over the packs, in the order of what they hold. It names the delta.
    pub root: Digest,
}

/// Bytes of a manifest as it is written.
pub const MANIFEST_LENGTH: usize = 15 + 2 * 40 + 32;

impl DeltaManifest {
    /// Writes the manifest.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.profile.id(), self.chunk_log2 as u8];
        out.extend_from_slice(&self.packs.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        for image in [&self.old, &self.new] {
            out.extend_from_slice(&image.length.to_le_bytes());
            out.extend_from_slice(&image.root.0);
        }
        out.extend_from_slice(&self.root.0);
        out
    }

    /// Reads a manifest and checks its ceilings.
    pub fn read(bytes: &[u8]) -> Result<Self, DeltaManifestError> {
        if bytes.len() != MANIFEST_LENGTH {
            return Err(DeltaManifestError::Length(bytes.len()));
        }
        let profile = Profile::from_id(bytes[1]).filter(|_| bytes[0] == VERSION);
        let profile = profile.filter(|_| (12..=16).contains(&bytes[2])).ok_or(DeltaManifestError::Unknown)?;
        let number = |at: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(out)
        };
        let root = |at: usize| {
            let mut out = [0; 32];
            out.copy_from_slice(&bytes[at..at + 32]);
            Digest(out)
        };
        let image = |at: usize| ImageId { length: number(at), root: root(at + 8) };
        let manifest = Self {
            profile,
            chunk_log2: u32::from(bytes[2]),
            packs: u32::from_le_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]),
            bytes: number(7),
            old: image(15),
            new: image(55),
            root: root(95),
        };
        let images = [manifest.old, manifest.new];
        let largest = u64::from(CHUNKS_MAX) * CHUNK as u64;
        let most = u64::from(manifest.packs) * (CHUNK + PACK_EXCESS) as u64;
        if images.iter().any(|image| image.length > largest)
            || manifest.packs > DELTA_PACKS_MAX
            || manifest.bytes > most
        {
            return Err(DeltaManifestError::Ceiling);
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> DeltaManifest {
        let image = |length, seed: &[u8]| ImageId { length, root: Digest::of(seed) };
        DeltaManifest {
            profile: Profile::Linux,
            chunk_log2: 16,
            old: image(1 << 20, b"old"),
            new: image(3 << 20, b"new"),
            packs: 3,
            bytes: 100_000,
            root: Digest::of(b"packs"),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let written = manifest().write();

        assert_eq!(DeltaManifest::read(&written), Ok(manifest()));
        assert_eq!(written.len(), MANIFEST_LENGTH);
    }

    #[test]
    fn a_manifest_that_says_too_much_is_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = manifest().write();
            bytes[at] = value;
            DeltaManifest::read(&bytes)
        };

        assert_eq!(with(0, 9), Err(DeltaManifestError::Unknown));
        assert_eq!(with(1, 99), Err(DeltaManifestError::Unknown));
        assert_eq!(with(2, 17), Err(DeltaManifestError::Unknown));
        assert_eq!(with(6, 255), Err(DeltaManifestError::Ceiling));
        assert_eq!(with(7 + 3, 1), Err(DeltaManifestError::Ceiling));
        assert_eq!(with(15 + 7, 1), Err(DeltaManifestError::Ceiling));
        assert_eq!(with(55 + 7, 1), Err(DeltaManifestError::Ceiling));
        let written = manifest().write();
        for short in [&written[..40], &written[1..], &[]] {
            assert_eq!(DeltaManifest::read(short), Err(DeltaManifestError::Length(short.len())));
        }
    }
}
