//! What became of an old word: by its value, and by the place it points to when it is relative to itself.
//!
//! Code and data that moved change in their addresses, all of one target by the same amount. A memory holds that amount
//! by the exact target and, should that be new, by its neighbourhood.

use super::slots::hash;

#[derive(Clone, Copy, Default)]
struct Entry {
    check: u16,
    sure: u8,
    change: u32,
}

/// Changes by target.
pub(super) struct Memory {
    exact: Vec<Entry>,
    near: Vec<Entry>,
    shift: u32,
}

/// What a [`Memory`] says about a word.
#[derive(Clone, Copy, Default)]
pub(super) struct Guess {
    /// New word minus old.
    pub(super) change: u32,
    /// 0: nothing known, 1: neighbourhood, 2..: the target itself, confirmed that often.
    pub(super) sure: u8,
}

/// Bits of a target that its neighbourhood leaves out.
const NEAR: u32 = 8;

impl Memory {
    /// Makes 2^`log2` places by target, half as many by neighbourhood.
    pub(super) fn new(log2: u32) -> Self {
        Self {
            exact: vec![Entry::default(); 1 << log2],
            near: vec![Entry::default(); 1 << (log2 - 1)],
            shift: 32 - log2,
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.exact.fill(Entry::default());
        self.near.fill(Entry::default());
    }

    fn places(&self, target: u32) -> ((usize, u16), (usize, u16)) {
        let (exact, near) = (hash(90, target, 0), hash(91, target >> NEAR, 0));
        // Entries that nobody filled have check 0.
        (
            ((exact >> self.shift) as usize, exact as u16 | 1),
            ((near >> (self.shift + 1)) as usize, near as u16 | 1),
        )
    }

    /// Returns what is known of `target`.
    #[inline]
    pub(super) fn guess(&self, target: u32) -> Guess {
        let ((exact, check), (near, near_check)) = self.places(target);
        let entry = self.exact[exact];
        if entry.check == check {
            return Guess { change: entry.change, sure: 2 + entry.sure };
        }
        let entry = self.near[near];
        if entry.check == near_check {
            return Guess { change: entry.change, sure: 1 };
        }
        Guess::default()
    }

    /// Learns the change of `target`.
    #[inline]
    pub(super) fn learn(&mut self, target: u32, change: u32) {
        let ((exact, check), (near, near_check)) = self.places(target);
        let entry = &mut self.exact[exact];
        if entry.check == check && entry.change == change {
            entry.sure = (entry.sure + 1).min(3);
        } else {
            *entry = Entry { check, sure: 0, change };
        }
        self.near[near] = Entry { check: near_check, sure: 0, change };
    }
}
