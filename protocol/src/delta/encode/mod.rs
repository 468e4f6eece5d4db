//! From two images to packs.
//!
//! The new image is aligned to the old one as a whole; then packs are coded, several at once. What comes out is the same
//! for any number of threads.

mod align;
mod packs;
mod plan;
mod refine;

use super::manifest::{DeltaManifest, ImageId};
use super::profile::Profile;
use crate::chunk::{RootHasher, leaf, root};

/// A delta, ready to be stored and sent.
#[derive(Debug, Clone)]
pub struct Delta {
    /// What a device must know first.
    pub manifest: DeltaManifest,
    /// The packs, in the manifest's order.
    pub packs: Vec<Vec<u8>>,
}

/// How a delta is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What device it is for.
    pub profile: Profile,
    /// Ceiling of a pack in bytes: 64 KiB, or 16 KiB for narrow links that lose much.
    pub pack: usize,
    /// Threads at once.
    pub threads: usize,
}

impl Options {
    /// Makes packs of up to 64 KiB, on one thread.
    pub fn new(profile: Profile) -> Self {
        Self { profile, pack: 64 * 1024, threads: 1 }
    }

    /// Returns log2 of the chunks' length: no chunk may need more than one pack.
    fn chunk_log2(self) -> u32 {
        self.profile.chunk_log2().min((self.pack.max(4096) as u64).ilog2())
    }
}

/// Makes the delta that leads from `old` to `new`.
pub fn encode(old: &[u8], new: &[u8], options: Options) -> Delta {
    let chunk_log2 = options.chunk_log2();
    let runs = align::align(old, new);
    let runs = refine::refine(old, new, &runs);
    let plans = plan::plan(old, new, &runs, 1 << chunk_log2);
    let packs = packs::encode(old, new, &plans, options, chunk_log2);
    let manifest = DeltaManifest {
        profile: options.profile,
        chunk_log2,
        old: image(old),
        new: image(new),
        packs: packs.len() as u32,
        bytes: packs.iter().map(|pack| pack.len() as u64).sum(),
        root: root(&packs.iter().map(|pack| leaf(pack)).collect::<Vec<_>>()),
    };
    Delta { manifest, packs }
}

fn image(bytes: &[u8]) -> ImageId {
    let mut hasher = RootHasher::default();
    hasher.update(bytes);
    ImageId { length: bytes.len() as u64, root: root(&hasher.finish()) }
}
