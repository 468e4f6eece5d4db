//! The delta manifest: which packs make a new image from an old one.
//!
//! ```text
//! version: u8 = 1   profile: u8   log2 of chunk length: u8   packs: u32
//! old: length u64, root 32 bytes   new: length u64, root 32 bytes   SHA-256 of each pack, 32 bytes
//! ```
//! Numbers are little endian; roots are those of [`crate::chunk::root`].

use super::error::DeltaManifestError;
use super::pack::VERSION;
use super::profile::Profile;
use crate::digest::Digest;
use crate::limits::{CHUNK, CHUNKS_MAX};

/// Packs of one delta.
pub const DELTA_PACKS_MAX: usize = 65_536;

/// Names an image by what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageId {
    /// Bytes.
    pub length: u64,
    /// Merkle root over its chunks of 64 KiB.
    pub root: Digest,
}

/// Names the packs of a delta, and the images between which it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaManifest {
    /// The profile that all packs are made for.
    pub profile: Profile,
    /// log2 of the length of a pack's chunks: 12..=16. Other than an image's chunks they may be shorter than 64 KiB.
    pub chunk_log2: u32,
    /// The image that must be there.
    pub old: ImageId,
    /// The image that comes out.
    pub new: ImageId,
    /// SHA-256 of each pack, in the order of what they hold.
    pub packs: Vec<Digest>,
}

const HEAD: usize = 7 + 2 * 40;

impl DeltaManifest {
    /// Writes the manifest.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.profile.id(), self.chunk_log2 as u8];
        out.extend_from_slice(&u32::try_from(self.packs.len()).unwrap_or(u32::MAX).to_le_bytes());
        for image in [&self.old, &self.new] {
            out.extend_from_slice(&image.length.to_le_bytes());
            out.extend_from_slice(&image.root.0);
        }
        self.packs.iter().for_each(|pack| out.extend_from_slice(&pack.0));
        out
    }

    /// Reads a manifest; ceilings are checked before anything is made.
    pub fn read(bytes: &[u8]) -> Result<Self, DeltaManifestError> {
        let length = DeltaManifestError::Length(bytes.len());
        let (head, digests) = bytes.split_at_checked(HEAD).ok_or(length)?;
        let profile = Profile::from_id(head[1]).filter(|_| head[0] == VERSION);
        let profile = profile.filter(|_| (12..=16).contains(&head[2])).ok_or(DeltaManifestError::Unknown)?;
        let packs = u32::from_le_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if packs > DELTA_PACKS_MAX {
            return Err(DeltaManifestError::Ceiling);
        }
        if digests.len() != packs * 32 {
            return Err(length);
        }
        let image = |at: usize| {
            let (mut length, mut root) = ([0; 8], [0; 32]);
            length.copy_from_slice(&head[at..at + 8]);
            root.copy_from_slice(&head[at + 8..at + 40]);
            ImageId { length: u64::from_le_bytes(length), root: Digest(root) }
        };
        let (old, new) = (image(7), image(47));
        if [old, new].iter().any(|image| image.length > u64::from(CHUNKS_MAX) * CHUNK as u64) {
            return Err(DeltaManifestError::Ceiling);
        }
        let packs = digests
            .chunks_exact(32)
            .map(|digest| {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(digest);
                Digest(bytes)
            })
            .collect();
        Ok(Self { profile, chunk_log2: u32::from(head[2]), old, new, packs })
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
            packs: (0..3u8).map(|i| Digest::of(&[i])).collect(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let written = manifest().write();

        assert_eq!(DeltaManifest::read(&written), Ok(manifest()));
        assert_eq!(written.len(), HEAD + 3 * 32);
    }

    #[test]
    fn a_manifest_that_says_too_much_is_refused_before_room_is_made_for_it() {
        let with = |at: usize, value: u8| {
            let mut bytes = manifest().write();
            bytes[at] = value;
            DeltaManifest::read(&bytes)
        };

        assert_eq!(with(0, 9), Err(DeltaManifestError::Unknown));
        assert_eq!(with(1, 99), Err(DeltaManifestError::Unknown));
        assert_eq!(with(2, 17), Err(DeltaManifestError::Unknown));
        assert_eq!(with(6, 255), Err(DeltaManifestError::Ceiling));
        assert_eq!(with(7 + 7, 1), Err(DeltaManifestError::Ceiling));
        assert!(matches!(with(3, 4), Err(DeltaManifestError::Length(_))));
        assert!(matches!(DeltaManifest::read(&[1; 40]), Err(DeltaManifestError::Length(40))));
    }
}
