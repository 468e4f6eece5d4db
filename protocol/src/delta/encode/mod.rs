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
    code(old, new, &runs(old, new), options, &|_, _| ())
}

/// Makes the delta unless it would plainly save nothing; then returns about how many bytes it would have. Tells how far it
/// is: chunks coded, of how many. First comes the alignment, of which nothing is told.
pub fn encode_if_it_saves(
    old: &[u8],
    new: &[u8],
    options: Options,
    tell: &(dyn Fn(usize, usize) + Sync),
) -> Result<Delta, u64> {
    let runs = runs(old, new);
    let least = literals(new, &runs);
    // The coder finds a little in what looks like noise, and costs a second a megabyte, here and on the device.
    if least > new.len() as u64 / 50 * 49 { Err(least) } else { Ok(code(old, new, &runs, options, tell)) }
}

fn runs(old: &[u8], new: &[u8]) -> Vec<align::Run> {
    refine::refine(old, new, &align::align(old, new))
}

fn code(
    old: &[u8],
    new: &[u8],
    runs: &[align::Run],
    options: Options,
    tell: &(dyn Fn(usize, usize) + Sync),
) -> Delta {
    let chunk_log2 = options.chunk_log2();
    let plans = plan::plan(old, new, runs, 1 << chunk_log2);
    let packs = packs::encode(old, new, &plans, options, chunk_log2, tell);
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

/// Returns the bytes of what has no counterpart, each as its frequency around it tells: what no code of single bytes
/// goes below.
fn literals(new: &[u8], runs: &[align::Run]) -> u64 {
    const AROUND: usize = 64 * 1024;
    let (mut counts, mut count, mut bytes, mut end) = ([0u32; 256], 0usize, 0u64, 0usize);
    let last = align::Run { at: new.len(), length: 0, from: 0 };
    for run in runs.iter().chain([&last]) {
        for byte in &new[end..run.at] {
            counts[usize::from(*byte)] += 1;
            count += 1;
            if count == AROUND {
                bytes += entropy(&counts, count);
                (counts, count) = ([0; 256], 0);
            }
        }
        end = run.at + run.length;
    }
    bytes + entropy(&counts, count)
}

/// Returns the bytes that `count` bytes with these frequencies take in the best code of single bytes, in whole logarithms'
/// sixteenths: integers give the same everywhere.
fn entropy(counts: &[u32; 256], count: usize) -> u64 {
    // log2 in sixteenths, of numbers below 2^16: x^16 has sixteen times the logarithm.
    let log = |n: u32| {
        let whole = n.ilog2();
        let mut x = (u64::from(n) << 31) >> whole;
        let mut out = u64::from(whole);
        for _ in 0..4 {
            x = (x * x) >> 31;
            out = out << 1 | u64::from(x >= 1 << 32);
            if x >= 1 << 32 {
                x >>= 1;
            }
        }
        out
    };
    let all = if count == 0 { 0 } else { log(count as u32) };
    let bits: u64 = counts.iter().filter(|n| **n > 0).map(|n| u64::from(*n) * (all - log(*n))).sum();
    bits / 16 / 8
}

/// Bytes of a coder's tables, buffers and stack, more than any profile has.
const CODER: u64 = 16 << 20;
/// What the process itself has, its program included.
const PROCESS: u64 = 24 << 20;

/// Returns about how many bytes of memory making a delta takes: both images, the index over the old one, the plans, and what
/// each thread codes with. A pair of 14 MB was estimated at 222 MB with two threads, and took 166 MB.
///
/// | images | estimate, 2 threads | measured | CPU of aligning, refining |
/// |---|---|---|---|
/// | root-ext4, 2 × 268 MB | 1,149 MB | 1,077 MB | 6.6 s, 3.3 s |
/// | full-ext4, 2 × 470 MB | 2,101 MB | 2,019 MB | 18.6 s, 29.1 s |
///
/// The peak is while it aligns. Images that agree in six bytes and differ in two by turns would need more for their plans,
/// up to some 16 times the length of the new one.
pub fn memory(old: u64, new: u64, threads: usize) -> u64 {
    old + new + align::index_bytes(old) + new / 16 + threads as u64 * CODER + PROCESS
}

fn image(bytes: &[u8]) -> ImageId {
    let mut hasher = RootHasher::default();
    hasher.update(bytes);
    ImageId { length: bytes.len() as u64, root: root(&hasher.finish()) }
}
