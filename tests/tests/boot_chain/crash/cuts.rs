//! What a power cut may leave of the writes of one epoch: any of them, and of each a part.

use std::ops::Range;

use tern_tests::sim::clock::Rng;

use super::write_log::{SECTOR, Write};

/// Which writes have reached the medium: their index, and which of their bytes, in whole sectors.
pub(crate) type Cut = Vec<(usize, Range<usize>)>;

/// Draws at most `most` cuts of an epoch on a `disk`: writes in their order, from their end, with one missing, with any
/// missing; and each of these with one write torn, so that its front or its rest is there.
pub(crate) fn cuts(epoch: &[Write], disk: &[u8], most: usize, rng: &mut Rng) -> Vec<Cut> {
    let count = epoch.len();
    let mut drawn: Vec<Cut> = vec![Vec::new()];
    for kind in 1..most {
        let pick = below(rng, count);
        let there = |index: &usize| match kind % 4 {
            0 => *index <= pick,
            1 => *index >= pick,
            2 => *index != pick || count == 1,
            _ => rng.chance(0.5),
        };
        let mut cut: Cut =
            (0..count).filter(there).map(|index| (index, 0..epoch[index].bytes.len())).collect();
        if kind % 3 != 0 && !cut.is_empty() {
            let torn = below(rng, cut.len());
            let (index, part) = &mut cut[torn];
            let torn = tears(&epoch[*index], disk);
            if !torn.is_empty() {
                let tear = torn[below(rng, torn.len())];
                *part = if rng.chance(0.5) { 0..tear } else { tear..part.end };
            }
        }
        drawn.push(cut);
    }
    drawn.sort_by_key(|cut| {
        cut.iter().map(|(index, part)| (*index, part.start, part.end)).collect::<Vec<_>>()
    });
    drawn.dedup();
    drawn
}

/// Where a write can be torn so that both parts change something: the beginnings of the sectors that it changes, save the
/// first of them. Most sectors of a boot record, and many of a file system's, are what they were before.
fn tears(write: &Write, disk: &[u8]) -> Vec<usize> {
    let changes = |at: &usize| write.bytes[*at..at + SECTOR] != disk[write.at + at..][..SECTOR];
    (0..write.bytes.len()).step_by(SECTOR).filter(changes).skip(1).collect()
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.below(end as u64)).unwrap_or_default()
}
