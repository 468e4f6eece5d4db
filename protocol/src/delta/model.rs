//! The model of a pack: everything that is learnt while it is coded, forgotten at its end.

use super::arith::Bits;
use super::copy::{BLOCKS, Block, FAST_BLOCKS};
use super::history::History;
use super::mix::Logistic;
use super::profile::Sizes;
use super::slots::{Flags, Lines, Numbers, Singles};
use super::symbol::{Choices, Symbols};
use super::words::{Guess, Memory};

/// Bytes before the chunk that contexts may look at.
pub(super) const MARGIN: usize = 32;

/// A word that is being coded, and what is believed of it.
#[derive(Clone, Copy)]
pub(super) struct Word {
    /// How many of its bytes were coded; 4: there is no such word.
    pub(super) age: u32,
    pub(super) target: u32,
    pub(super) old: u32,
    pub(super) guess: Guess,
}

impl Word {
    pub(super) const NONE: Self = Self { age: 4, target: 0, old: 0, guess: Guess { change: 0, sure: 0 } };

    /// Returns new minus old of the byte that comes next, should the guess be right.
    #[inline]
    pub(super) fn difference(&self) -> u8 {
        if self.age > 3 {
            return 0;
        }
        let new = self.old.wrapping_add(self.guess.change);
        (new >> (8 * self.age)).wrapping_sub(self.old >> (8 * self.age)) as u8
    }
}

/// Everything that is learnt.
pub(super) struct Model {
    pub(super) logistic: Logistic,
    pub(super) numbers: Numbers,
    pub(super) flags: Flags,
    pub(super) singles: Singles,
    pub(super) lines: Lines,
    /// Whether this is the full coder, or the small and fast one.
    pub(super) full: bool,
    /// Blocks that are told to be the same as a whole.
    pub(super) blocks: &'static [Block],
    pub(super) choices: Choices,
    pub(super) guesses: Choices,
    pub(super) patches: Symbols,
    pub(super) symbols: Symbols,
    pub(super) absolute: Memory,
    pub(super) relative: Memory,
    pub(super) history: History,
    /// One bit for each byte before: whether it differed.
    pub(super) recent: u64,
    /// Bytes since the last that differed.
    pub(super) since: u32,
    /// New minus old of the last 32 bytes, by position.
    pub(super) differences: [u8; 32],
    /// The last difference that was not 0.
    pub(super) last: u8,
    /// And the three before it, in the higher bytes.
    pub(super) lasts: u32,
    /// Shifts (position in the source minus position in the image) that were used last, newest first.
    pub(super) shifts: [i64; 4],
    /// Where the last copy ended in the source.
    pub(super) source_end: i64,
}

impl Model {
    /// Makes all tables; nothing else allocates while a pack is coded.
    pub(super) fn new(sizes: Sizes) -> Self {
        let logistic = Logistic::new();
        let mut model = Self {
            numbers: Numbers::new(),
            flags: Flags::new(sizes.flags),
            singles: Singles::new(),
            lines: Lines::new(sizes.lines),
            full: sizes.full,
            blocks: if sizes.full { BLOCKS } else { FAST_BLOCKS },
            choices: Choices::new(),
            guesses: Choices::new(),
            patches: Symbols::new(),
            symbols: Symbols::new(),
            absolute: Memory::new(sizes.words),
            relative: Memory::new(sizes.words),
            history: History::new(sizes.history),
            recent: 0,
            since: 0,
            differences: [0; 32],
            last: 0,
            lasts: 0,
            shifts: [0; 4],
            source_end: 0,
            logistic,
        };
        model.reset();
        model
    }

    /// Makes everything as new, for the next pack.
    pub(super) fn reset(&mut self) {
        self.numbers.reset();
        self.flags.reset();
        self.singles.reset();
        self.lines.reset();
        self.choices.reset();
        self.guesses.reset();
        self.patches.reset();
        self.symbols.reset();
        self.absolute.reset();
        self.relative.reset();
        self.history.reset();
        (self.recent, self.since, self.last, self.lasts) = (0, 0, 0, 0);
        self.differences = [0; 32];
        self.shifts = [0; 4];
        self.source_end = 0;
    }

    /// Codes where a copy comes from, given the position `at` of its first byte in the image.
    pub(super) fn source<B: Bits>(&mut self, io: &mut B, at: u64, from: u64) -> u64 {
        let (at, wanted) = (at as i64, from as i64 - at as i64);
        let [a, b, c, d] = self.shifts;
        let candidates = [a, self.source_end - at, b, c, d];
        let mut found = None;
        for (which, candidate) in candidates.into_iter().enumerate() {
            if candidates[..which].contains(&candidate) {
                continue;
            }
            if self.numbers.choice(io, 0, which, candidate == wanted) {
                found = Some(candidate);
                break;
            }
        }
        let shift = found.unwrap_or_else(|| {
            let nearer = self.source_end - at;
            let distance = wanted - nearer;
            let back = self.numbers.choice(io, 0, 8, distance < 0);
            let size = self.numbers.number(io, 1, distance.unsigned_abs()) as i64;
            if back { nearer - size } else { nearer + size }
        });
        let place = self.shifts.iter().position(|s| *s == shift).unwrap_or(3);
        self.shifts[..=place].rotate_right(1);
        self.shifts[0] = shift;
        (at + shift) as u64
    }

    /// Notes that `length` bytes were the same.
    pub(super) fn same(&mut self, length: usize) {
        self.recent = if length >= 64 { 0 } else { self.recent << length };
        self.since = self.since.saturating_add(length as u32);
    }
}
