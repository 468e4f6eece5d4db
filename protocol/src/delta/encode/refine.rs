//! Finds short runs in what the alignment left over, near where the old image would go on.

use super::align::{Run, common};

/// Bytes of a seed.
const SEED: usize = 6;
/// How far around the expected position is looked.
const AROUND: usize = 16 * 1024;
/// Gaps are taken in pieces of this length.
const PIECE: usize = 4096;
/// What is gained, in quarter bits: a byte that is the same, one that differs, and an operation.
const SAME: i64 = 24;
const DIFFERS: i64 = -20;
const OPERATION: i64 = -96;

/// Fills gaps of at least 12 bytes between `runs` with short runs.
pub(super) fn refine(old: &[u8], new: &[u8], runs: &[Run]) -> Vec<Run> {
    let mut out = Vec::with_capacity(runs.len() * 2);
    let mut table = Table::new();
    let (mut end, mut expected) = (0usize, 0usize);
    for run in runs.iter().copied().chain([Run { at: new.len(), length: 0, from: usize::MAX }]) {
        let mut at = end;
        while run.at - at >= 8 {
            let piece = (run.at - at).min(PIECE);
            let next = if run.from == usize::MAX {
                expected + piece
            } else {
                run.from.saturating_sub(run.at - at - piece)
            };
            fill(old, new, (at, at + piece), (expected, next), &mut table, &mut out, 0);
            if let Some(last) = out.last().filter(|last| last.at >= at) {
                expected = last.from + last.length;
            }
            at += piece;
        }
        if run.length > 0 {
            out.push(run);
        }
        (end, expected) = (run.at + run.length, run.from.saturating_add(run.length).min(old.len()));
    }
    out
}

/// Seeds of a gap: by hash, the places of one chain.
struct Table {
    heads: Vec<u16>,
    next: Vec<u16>,
}

/// Hashes the first six of at least eight bytes.
#[inline]
fn seed(bytes: &[u8]) -> usize {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    ((u64::from_le_bytes(eight) << 16).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize
}

impl Table {
    fn new() -> Self {
        Self { heads: vec![0; 1 << 13], next: vec![0; PIECE + 1] }
    }
}

fn fill(
    old: &[u8],
    new: &[u8],
    (start, end): (usize, usize),
    (before, after): (usize, usize),
    table: &mut Table,
    out: &mut Vec<Run>,
    depth: u32,
) {
    if end - start < 8 || depth > 40 {
        return;
    }
    let low = before.min(after).saturating_sub(AROUND);
    let high = (before.max(after) + AROUND).min(old.len()).min(low + 6 * AROUND);
    let Some(best) = best(old, new, (start, end), (low, high), before, table) else { return };
    fill(old, new, (start, best.at), (before, best.from), table, out, depth + 1);
    out.push(best);
    fill(old, new, (best.at + best.length, end), (best.from + best.length, after), table, out, depth + 1);
}

fn best(
    old: &[u8],
    new: &[u8],
    (start, end): (usize, usize),
    (low, high): (usize, usize),
    before: usize,
    table: &mut Table,
) -> Option<Run> {
    if high < low + 8 {
        return None;
    }
    let gap = &new[start..end];
    for i in 0..=gap.len() - 8 {
        let place = seed(&gap[i..]);
        table.next[i + 1] = table.heads[place];
        table.heads[place] = i as u16 + 1;
    }
    let mut best: Option<(i64, Run)> = None;
    for (n, eight) in old[low..high].windows(8).enumerate() {
        let at = low + n;
        let mut i = table.heads[seed(eight)] as usize;
        let mut tries = 8;
        while i > 0 && tries > 0 {
            let place = i - 1;
            i = table.next[i] as usize;
            tries -= 1;
            // The middle of a longer run was seen from its begin.
            if place > 0 && at > 0 && gap[place - 1] == old[at - 1] && at > low {
                continue;
            }
            let length = common(&gap[place..], &old[at..], usize::MAX);
            if length < SEED {
                continue;
            }
            let (gain, run) = extend(old, gap, place, at, length);
            let run = Run { at: start + run.at, ..run };
            let far = (run.from as i64 - (before + run.at - start) as i64).unsigned_abs();
            let near = far == 0 || run.from == before;
            let cost = if near { -40 } else { OPERATION - 6 * i64::from(64 - far.leading_zeros()) };
            if gain + cost > best.map_or(0, |b| b.0) {
                best = Some((gain + cost, run));
            }
        }
    }
    for i in 0..=gap.len() - 8 {
        table.heads[seed(&gap[i..])] = 0;
    }
    best.map(|b| b.1)
}

/// Follows an exact run to both sides over single differences while that gains.
fn extend(old: &[u8], gap: &[u8], place: usize, at: usize, length: usize) -> (i64, Run) {
    let (mut gain, mut most, mut end) = (0i64, 0i64, 0usize);
    let ahead = gap[place + length..].iter().zip(&old[at + length..]);
    for (i, (a, b)) in ahead.enumerate() {
        gain += if a == b { SAME } else { DIFFERS };
        if gain > most {
            (most, end) = (gain, i + 1);
        } else if gain < most - 100 {
            break;
        }
    }
    let (mut back, mut most_back, mut begin) = (0i64, 0i64, 0usize);
    for i in 1..=place.min(at) {
        back += if gap[place - i] == old[at - i] { SAME } else { DIFFERS };
        if back > most_back {
            (most_back, begin) = (back, i);
        } else if back < most_back - 100 {
            break;
        }
    }
    let run = Run { at: place - begin, length: length + begin + end, from: at - begin };
    (length as i64 * SAME + most + most_back, run)
}
