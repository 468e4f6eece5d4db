//! Bytes that have a counterpart in the source: whether each is the same, and by how much it differs.

use super::arith::Bits;
use super::model::{Model, Word};
use super::slots::hash;

/// Bytes of the source that contexts look at before and after the one that is coded.
pub(super) const AROUND: usize = 16;

/// One copy: everything about it that does not change on the way.
pub(super) struct Copy<'a> {
    /// The source, [`AROUND`] bytes more at each end.
    pub(super) source: &'a [u8],
    /// Position of the copy's first byte in the source.
    pub(super) from: u64,
    /// Position of its first byte in the image.
    pub(super) at: u64,
    /// Its length.
    pub(super) length: usize,
}

/// A block that is told to be the same as a whole: from how many bytes on in which nothing differed, and its length.
pub(super) type Block = (u32, usize);

/// Those of the full coder.
pub(super) const BLOCKS: &[Block] = &[(64, 32), (512, 256), (8192, 4096)];
/// Those of the fast one, which asks about fewer bytes by themselves.
pub(super) const FAST_BLOCKS: &[Block] = &[(16, 8), (64, 32), (512, 256), (8192, 4096)];
/// Contexts of the flags of blocks; those of long matches come behind.
pub(super) const BLOCK_CONTEXTS: usize = 1024;

/// Bytes from the last difference on, in steps for contexts.
#[inline]
fn steps(since: u32) -> u32 {
    match since {
        0..6 => since,
        6..8 => 6,
        8..12 => 7,
        12..16 => 8,
        16..24 => 9,
        24..32 => 10,
        32..64 => 11,
        _ => 12 + (since.ilog2() - 6).min(3),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Model {
    /// Codes the bytes of `copy`; `out[start..]` takes them, or has them when this encodes.
    pub(super) fn copy<B: Bits>(&mut self, io: &mut B, copy: &Copy<'_>, out: &mut [u8], start: usize) {
        let mut i = 0;
        let (near, shortest) = self.blocks[0];
        let (mut absolute, mut relative) = (Word::NONE, Word::NONE);
        while i < copy.length {
            let before = i;
            if self.since >= near {
                i += self.blocks(io, copy, out, start, i);
                if i == copy.length {
                    break;
                }
            }
            if i != before {
                (absolute, relative) = (Word::NONE, Word::NONE);
            }
            // Here either something differs within a block's length, or differences are near.
            let certain = if self.since >= near { (i + shortest).min(copy.length) } else { 0 };
            let end = if certain > 0 { certain } else { copy.length };
            while i < end {
                let known = i + 1 == certain;
                let differs = self.byte(io, copy, out, start + i, i, known, &mut absolute, &mut relative);
                i += 1;
                if (certain > 0 && differs) || (certain == 0 && self.since >= near) {
                    break;
                }
            }
        }
    }

    /// Codes whole blocks until one is not the same; returns how many bytes were. What differs is then within the
    /// shortest block's length, or the copy is at its end.
    fn blocks<B: Bits>(
        &mut self,
        io: &mut B,
        copy: &Copy<'_>,
        out: &mut [u8],
        start: usize,
        first: usize,
    ) -> usize {
        let mut i = first;
        let blocks = self.blocks;
        let base = blocks[0].0.ilog2() - 1;
        let mut level = (0..blocks.len()).rev().find(|l| self.since >= blocks[*l].0).unwrap_or(0);
        // Set once a longer block was found to differ: the place where it ends.
        let mut within = None;
        while i < copy.length {
            let end = (i + blocks[level].1).min(within.unwrap_or(copy.length)).min(copy.length);
            let source = &copy.source[AROUND + i..AROUND + end];
            let known = within == Some(end);
            let same = !known && {
                let hot = if level == 0 { self.hot(copy, i, end) } else { 0 };
                let context = level * 256
                    + hot * 64
                    + (self.since.ilog2().saturating_sub(base) as usize).min(15) * 4
                    + (self.recent != 0) as usize * 2
                    + within.is_some() as usize;
                self.singles.code(io, context, !B::DECODES && out[start + i..start + end] == *source)
            };
            if same {
                out[start + i..start + end].copy_from_slice(source);
                self.same(end - i);
                i = end;
                if within.is_none() && level + 1 < blocks.len() && self.since >= blocks[level + 1].0 {
                    level += 1;
                }
            } else if level == 0 {
                break;
            } else {
                within = Some(end);
                level -= 1;
            }
        }
        if i != first {
            self.differences = [0; 32];
        }
        i - first
    }

    /// Returns what of a shortest block, from `i` to `end` in the copy, differs more often than elsewhere.
    fn hot(&self, copy: &Copy<'_>, i: usize, end: usize) -> usize {
        let source = &copy.source[AROUND + i..AROUND + end];
        let calls = source.iter().filter(|byte| **byte & 0xfe == 0xe8).count();
        if self.full {
            return calls.min(3);
        }
        // One that is short is told by what became of its words, too.
        let first = (copy.from + i as u64).wrapping_neg() as usize % 4;
        let mut words = (i + first..end).step_by(4).map(|at| word(copy.source, AROUND + at));
        let changes = words.any(|word| {
            let guess = self.absolute.guess(word);
            guess.change != 0 && guess.sure > 1
        });
        calls.min(1) | usize::from(changes) << 1
    }

    #[allow(clippy::too_many_arguments, reason = "the innermost loop, split off to be read")]
    #[inline]
    fn byte<B: Bits>(
        &mut self,
        io: &mut B,
        copy: &Copy<'_>,
        out: &mut [u8],
        place: usize,
        i: usize,
        known: bool,
        absolute: &mut Word,
        relative: &mut Word,
    ) -> bool {
        let (old, from, at) = (&copy.source[i..i + 2 * AROUND], copy.from + i as u64, copy.at + i as u64);
        let shift = at.wrapping_sub(from) as u32;
        let o = |n: isize| u32::from(old[(AROUND as isize + n) as usize]);
        // Calls, jumps, conditional jumps, and operands relative to the next instruction.
        let code = matches!(o(-1), 0xe8 | 0xe9)
            || (o(-2) == 0x0f && o(-1) & 0xf0 == 0x80)
            || (o(-1) & 0xc7 == 0x05
                && matches!(
                    o(-2),
                    0x8b | 0x8d | 0x89 | 0x3b | 0x83 | 0x80 | 0x63 | 0x15 | 0xff | 0x10 | 0x11 | 0x6f | 0xc7
                ));
        if relative.age > 3 && (code || from.is_multiple_of(4)) {
            self.begin_relative(relative, word(old, AROUND), from, shift);
        }
        if absolute.age > 3 && from.is_multiple_of(4) {
            self.begin_absolute(absolute, word(old, AROUND));
        }

        let differs = known || self.flag(io, out, place, old, at, absolute, relative);
        let mut difference = 0;
        if differs {
            if relative.age > 3 {
                self.begin_relative(relative, word(old, AROUND), from, shift);
            }
            if absolute.age > 3 {
                self.begin_absolute(absolute, word(old, AROUND));
            }
            difference = out[place].wrapping_sub(old[AROUND]);
            difference = self.patch(io, out, place, old, at, difference, absolute, relative);
            self.last = difference;
            self.lasts = self.lasts << 8 | u32::from(difference);
            self.since = 0;
        } else {
            self.since = self.since.saturating_add(1);
        }
        out[place] = old[AROUND].wrapping_add(difference);
        self.recent = self.recent << 1 | u64::from(differs);
        self.differences[at as usize % 32] = difference;
        for (w, is_relative) in [(relative, true), (absolute, false)] {
            if w.age > 3 {
                continue;
            }
            if w.difference() != difference {
                w.guess.sure = 0;
            }
            w.age += 1;
            if w.age == 4 {
                let change = word(out, place - 3).wrapping_sub(w.old);
                if is_relative {
                    self.relative.learn(w.target, change.wrapping_add(shift));
                } else if change != 0 || w.guess.sure > 0 {
                    self.absolute.learn(w.target, change);
                }
            }
        }
        differs
    }

    fn begin_relative(&self, w: &mut Word, old: u32, from: u64, shift: u32) {
        let target = old.wrapping_add(from as u32);
        let mut guess = self.relative.guess(target);
        guess.change = guess.change.wrapping_sub(shift);
        *w = Word { age: 0, target, old, guess };
    }

    fn begin_absolute(&self, w: &mut Word, old: u32) {
        *w = Word { age: 0, target: old, old, guess: self.absolute.guess(old) };
    }

    #[allow(clippy::too_many_arguments, reason = "the innermost loop, split off to be read")]
    #[inline]
    fn flag<B: Bits>(
        &mut self,
        io: &mut B,
        out: &[u8],
        place: usize,
        old: &[u8],
        at: u64,
        absolute: &Word,
        relative: &Word,
    ) -> bool {
        let o = |n: isize| u32::from(old[(AROUND as isize + n) as usize]);
        let recent = self.recent as u32;
        let flags = |mask: u32| recent & mask;
        let since = steps(self.since);
        let column = at as u32 % 8;
        let believed = |w: &Word| {
            let difference = u32::from(w.difference());
            let sure = if w.age > 3 { 7 } else { u32::from(w.guess.sure) };
            (w.age.min(4) << 4 | sure << 1 | u32::from(difference != 0), difference)
        };
        let ((rel, rel_difference), (abs, abs_difference)) = (believed(relative), believed(absolute));
        let contexts = [
            hash(1, flags(0xffff), 0),
            hash(2, since << 3 | column, rel),
            hash(7, rel << 8 | rel_difference, flags(3) << 8 | abs),
            hash(8, abs << 8 | abs_difference, flags(3)),
            hash(9, flags(0xff), o(-1) << 8 | o(-2)),
            hash(4, word(old, AROUND), 0),
            hash(5, o(1) << 16 | o(0) << 8 | u32::from(self.last), flags(1)),
        ];
        let first = (since << 3 | flags(7)) as u8;
        let second = ((rel >> 1 & 7) << 5 | (abs >> 1 & 7) << 2 | (rel & 1) << 1 | abs & 1) as u8;
        let chosen = (first, second);
        let bit = !B::DECODES && out[place] != old[AROUND];
        let tables = (&mut self.flags, &self.logistic);
        if !self.full {
            let [a, b, c, d, e, ..] = contexts;
            return self.choices.code(io, tables, &[a, b, c, d, e], chosen, bit);
        }
        self.choices.code(io, tables, &contexts, chosen, bit)
    }

    #[allow(clippy::too_many_arguments, reason = "the innermost loop, split off to be read")]
    fn patch<B: Bits>(
        &mut self,
        io: &mut B,
        out: &[u8],
        place: usize,
        old: &[u8],
        at: u64,
        difference: u8,
        absolute: &Word,
        relative: &Word,
    ) -> u8 {
        let o = |n: isize| u32::from(old[(AROUND as isize + n) as usize]);
        let d = |n: u64| u32::from(self.differences[at.wrapping_sub(n) as usize % 32]);
        let new = |n: usize| u32::from(out[place - n]);
        let run = self.recent.trailing_ones().min(3);
        let sure = |w: &Word| if w.age > 3 { 7 } else { u32::from(w.guess.sure) };
        let (rel, abs) = (u32::from(relative.difference()), u32::from(absolute.difference()));
        let rel_state = sure(relative) << 3 | relative.age;
        let abs_state = sure(absolute) << 3 | absolute.age;
        let tables = (&mut self.flags, &self.logistic);
        // What is most likely is asked about before the bits, for the time it saves.
        let (kind, guess) = if rel != 0 && relative.guess.sure > 0 {
            (3, rel)
        } else if abs != 0 && absolute.guess.sure > 0 {
            (2, abs)
        } else if d(8) != 0 {
            (1, d(8))
        } else {
            (0, u32::from(self.last))
        };
        let known = kind << 8 | guess;
        let contexts = [
            hash(61, known, rel_state << 8 | abs_state),
            hash(62, word(old, AROUND), known),
            hash(63, d(4) << 8 | d(8), known),
            hash(64, u32::from(self.last) << 2 | run, known),
            hash(65, o(0) << 8 | o(-1), known),
            hash(66, kind, self.recent as u32 & 0xff),
            hash(67, self.lasts, known),
        ];
        let first =
            (kind << 6 | run << 4 | (relative.guess.sure.min(3) << 2 | absolute.guess.sure.min(3)) as u32)
                as u8;
        let chosen = (first, guess as u8);
        if self.guesses.code(io, tables, &contexts, chosen, u32::from(difference) == guess) {
            return guess as u8;
        }
        let contexts = [
            hash(21, rel, rel_state),
            hash(22, abs, abs_state),
            hash(23, u32::from(self.last), run),
            hash(24, d(4) << 8 | d(8), run),
            hash(27, word(old, AROUND), 0),
            hash(26, self.lasts, run),
            hash(31, o(0) << 8 | new(1), o(1)),
        ];
        let first = run << 6
            | relative.age.min(3) << 4
            | absolute.age.min(3) << 2
            | u32::from(relative.guess.sure > 1) << 1
            | u32::from(absolute.guess.sure > 1);
        let tables = (&mut self.lines, &self.logistic);
        let chosen = first as u8;
        if !self.full {
            let [a, b, c, d, e, ..] = contexts;
            return self.patches.code(io, tables, &[a, b, c, d, e], chosen, difference);
        }
        self.patches.code(io, tables, &contexts, chosen, difference)
    }
}
