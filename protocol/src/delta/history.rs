//! What was literal in this pack already, and where it may be repeating itself.

use super::slots::hash;

/// Bytes that a match needs in common with what came before.
const SEED: usize = 5;
/// A match longer than this counts as this long.
const LONGEST: u32 = 63;

/// The literals of a pack, and an index over them.
pub(super) struct History {
    bytes: Vec<u8>,
    places: Vec<u32>,
    at: usize,
    follows: usize,
    length: u32,
    shift: u32,
}

impl History {
    /// Keeps 2^`log2` bytes and a quarter of that many places.
    pub(super) fn new(log2: u32) -> Self {
        Self {
            bytes: vec![0; 1 << log2],
            places: vec![0; 1 << (log2 - 2)],
            at: 0,
            follows: 0,
            length: 0,
            shift: 32 - (log2 - 2),
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.bytes.fill(0);
        self.places.fill(0);
        (self.at, self.follows, self.length) = (0, 0, 0);
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes[at & (self.bytes.len() - 1)]
    }

    /// Returns the byte that is expected next, and how long the match is: 0 for none.
    #[inline]
    pub(super) fn expected(&self) -> (u8, u32) {
        (self.byte(self.follows), self.length)
    }

    /// Ends the match: what comes next does not follow what came last.
    pub(super) fn jump(&mut self) {
        self.length = 0;
    }

    /// Takes the next byte.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        if self.length > 0 && self.byte(self.follows) == byte {
            self.length = (self.length + 1).min(LONGEST);
            self.follows += 1;
        } else {
            self.length = 0;
        }
        let mask = self.bytes.len() - 1;
        self.bytes[self.at & mask] = byte;
        self.at += 1;
        if self.at < SEED {
            return;
        }
        let back = |n: usize| u32::from(self.byte(self.at.wrapping_sub(n)));
        let seed = hash(92, back(1) << 24 | back(2) << 16 | back(3) << 8 | back(4), back(5));
        let place = (seed >> self.shift) as usize;
        if self.length == 0 {
            let found = self.places[place] as usize;
            if found > 0 && self.at - found < mask {
                let common = (1..=24)
                    .take_while(|n| self.byte(found.wrapping_sub(*n)) == self.byte(self.at.wrapping_sub(*n)))
                    .count();
                if common >= SEED {
                    (self.follows, self.length) = (found, common as u32);
                }
            }
        }
        self.places[place] = self.at as u32;
    }
}
