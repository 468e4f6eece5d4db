//! Where the new image's bytes stood in the old one: one pass over the whole, as bsdiff does it, over hashed keys.

/// A run of the new image that has a counterpart in the source, byte by byte; some bytes may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Its first byte in the new image.
    pub(super) at: usize,
    /// Its length.
    pub(super) length: usize,
    /// Where it stood in the source.
    pub(super) from: usize,
}

/// Bytes of a key.
const KEY: usize = 16;
/// So many equal bytes show that an alignment is followed, with nothing to look up.
const SURE: usize = 24;
/// A comparison longer than this counts as this long.
const LONGEST: usize = 1 << 14;

/// Counts the bytes that `a` and `b` have in common at their begins.
pub(super) fn common(a: &[u8], b: &[u8], most: usize) -> usize {
    let most = most.min(a.len()).min(b.len());
    let mut n = 0;
    while n + 32 <= most && a[n..n + 32] == b[n..n + 32] {
        n += 32;
    }
    while n < most && a[n] == b[n] {
        n += 1;
    }
    n
}

struct Index {
    places: Vec<u32>,
    shift: u32,
    step: usize,
}

fn key(bytes: &[u8]) -> u64 {
    let half = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    let h = half(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ half(8).rotate_left(29);
    (h ^ h >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Returns the distance between keys of an old image of `length` bytes, and log2 of the number of places for them.
fn extent(length: usize) -> (usize, u32) {
    let step = match length >> 20 {
        0..64 => 1,
        64..640 => 4,
        _ => 8,
    };
    let keys = length.saturating_sub(KEY) / step + 1;
    (step, (keys.next_power_of_two().trailing_zeros() + 1).clamp(4, 30))
}

/// Returns the bytes of the index over an old image.
pub(super) fn index_bytes(length: u64) -> u64 {
    4 << extent(usize::try_from(length).unwrap_or(usize::MAX)).1
}

impl Index {
    fn new(old: &[u8]) -> Self {
        let (step, log2) = extent(old.len());
        let mut index = Self { places: vec![0; 1 << log2], shift: 64 - log2, step };
        let mut before = 0;
        for (n, at) in (0..old.len().saturating_sub(KEY - 1)).step_by(step).enumerate() {
            let key = key(&old[at..at + KEY]);
            // Runs of the same bytes would push everything else out.
            if key != before {
                let place = (key >> index.shift) as usize & !1;
                index.places[place + 1] = index.places[place];
                index.places[place] = n as u32 + 1;
            }
            before = key;
        }
        index
    }

    /// Finds the longest run of `old` that `new` begins with; `near` breaks ties.
    fn find(&self, old: &[u8], new: &[u8]) -> (usize, usize) {
        let place = (key(&new[..KEY]) >> self.shift) as usize & !1;
        let mut best = (0, 0);
        for n in &self.places[place..place + 2] {
            if *n > 0 {
                let at = (*n as usize - 1) * self.step;
                let length = common(&old[at..], new, LONGEST);
                if length >= KEY && length > best.1 {
                    best = (at, length);
                }
            }
        }
        best
    }
}

/// Aligns `new` to `old`: runs in the order of the new image, none overlapping.
pub(super) fn align(old: &[u8], new: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    if old.len() < KEY || new.is_empty() {
        return runs;
    }
    let index = Index::new(old);
    // The alignment that is being followed: `shift` is its place in old minus that in new.
    let (mut last_scan, mut last_from) = (0usize, 0usize);
    let mut shift = 0isize;
    let same = |at: usize, shift: isize| {
        at.checked_add_signed(shift).and_then(|o| old.get(o)).is_some_and(|b| *b == new[at])
    };
    let (mut scan, mut length) = (0usize, 0usize);
    while scan < new.len() {
        let mut score = 0usize;
        scan += length;
        let mut counted = scan;
        let mut from = 0;
        length = 0;
        while scan < new.len() {
            // Where the followed alignment goes on there is nothing to look up.
            let here = scan.checked_add_signed(shift).filter(|o| *o < old.len());
            let going = here.map_or(0, |o| common(&old[o..], &new[scan..], LONGEST));
            (from, length) = match here {
                Some(o) if going >= SURE => (o, going),
                _ if new.len() - scan >= KEY => index.find(old, &new[scan..]),
                _ => (0, 0),
            };
            if length < going {
                (from, length) = (here.unwrap_or(0), going);
            }
            while counted < scan + length {
                score += usize::from(same(counted, shift));
                counted += 1;
            }
            if (length == score && length != 0) || length > score + 8 {
                break;
            }
            // Whatever was counted at this byte leaves with it.
            if counted > scan {
                score -= usize::from(same(scan, shift));
            } else {
                counted = scan + 1;
            }
            scan += 1;
        }
        if length == score && scan < new.len() {
            continue;
        }
        // How far the followed alignment reaches forward, and the found one back.
        let mut forward;
        loop {
            let follows =
                (0..scan - last_scan).map_while(|i| old.get(last_from + i).map(|b| *b == new[last_scan + i]));
            let given_up;
            (forward, given_up) = reach(follows);
            // Much was replaced in its place, and behind it the same alignment may go on.
            let Some(far) = given_up else { break };
            let goes_on = (last_scan + far..scan).find(|at| {
                let there = last_from + (at - last_scan);
                old.get(there..).is_some_and(|rest| common(rest, &new[*at..scan], SURE) == SURE)
            });
            let Some(at) = goes_on else { break };
            if forward > 0 {
                runs.push(Run { at: last_scan, length: forward, from: last_from });
            }
            (last_scan, last_from) = (at, last_from + (at - last_scan));
        }
        let mut backward = if scan < new.len() {
            reach((1..=scan - last_scan).map_while(|i| from.checked_sub(i).map(|o| old[o] == new[scan - i])))
                .0
        } else {
            0
        };
        if last_scan + forward > scan - backward {
            let overlap = last_scan + forward + backward - scan;
            let (mut sum, mut best, mut cut) = (0isize, 0isize, 0usize);
            for i in 0..overlap {
                let at = last_scan + forward - overlap + i;
                sum += isize::from(new[at] == old[last_from + forward - overlap + i]);
                sum -= isize::from(new[at] == old[from - backward + i]);
                if sum > best {
                    (best, cut) = (sum, i + 1);
                }
            }
            forward = forward + cut - overlap;
            backward -= cut;
        }
        if forward > 0 {
            runs.push(Run { at: last_scan, length: forward, from: last_from });
        }
        if scan >= new.len() {
            break;
        }
        last_scan = scan - backward;
        last_from = from - backward;
        shift = from as isize - scan as isize;
    }
    runs
}

/// Returns how far an alignment is worth following: where twice the same bytes minus all is highest; and where it was given
/// up, if that was before the end.
fn reach(same: impl Iterator<Item = bool>) -> (usize, Option<usize>) {
    let (mut sum, mut best, mut far) = (0isize, 0isize, 0);
    for (i, same) in same.enumerate() {
        sum += if same { 1 } else { -1 };
        if sum > best {
            (best, far) = (sum, i + 1);
        } else if sum < best - 4096 {
            return (far, Some(i + 1));
        }
    }
    (far, None)
}
