//! Bytes that have no counterpart in the source.

use super::arith::Bits;
use super::copy::{AROUND, BLOCK_CONTEXTS};
use super::model::Model;
use super::slots::hash;
use super::symbol::simple;

/// Length of a match from which on its byte is asked about before its bits.
const SURE: u32 = 16;

impl Model {
    /// Codes `length` literals; `out[start..]` takes them, or has them when this encodes. `beside` is what the source
    /// has where the last copy would go on, [`AROUND`] bytes more at each end.
    pub(super) fn literals<B: Bits>(
        &mut self,
        io: &mut B,
        out: &mut [u8],
        start: usize,
        length: usize,
        beside: &[u8],
    ) {
        if length == 0 {
            return;
        }
        self.history.jump();
        for n in (1..=6).rev() {
            self.history.push(out[start - n]);
        }
        for i in 0..length {
            let byte = self.literal(io, out, start + i, &beside[i..i + 2 * AROUND]);
            out[start + i] = byte;
            self.history.push(byte);
        }
        self.since = 8;
        self.recent = self.recent << 8 | 0x80;
        self.differences = [0; 32];
    }

    #[inline]
    fn literal<B: Bits>(&mut self, io: &mut B, out: &[u8], place: usize, beside: &[u8]) -> u8 {
        let byte = out[place];
        let c = |n: usize| u32::from(out[place - n]);
        let o = |n: usize| u32::from(beside[AROUND + n]);
        let (expected, matched) = self.history.expected();
        let follows = out[place - 1] == beside[AROUND - 1];
        if matched >= SURE {
            // A long match is asked about as a whole, for the time it saves.
            let context = BLOCK_CONTEXTS + ((2 * matched as usize) | usize::from(follows));
            if self.singles.code(io, context, byte == expected) {
                return expected;
            }
        }
        let matched = matched.min(15) + u32::from(matched > 24) + u32::from(matched > 32);
        let expected = if matched > 0 { u32::from(expected) } else { 0 };
        let contexts = [
            hash(42, c(1), 0),
            hash(43, c(1) << 8 | c(2), 0),
            hash(46, expected << 8 | matched, 0),
            hash(48, o(0) << 8 | u32::from(beside[AROUND - 1]), c(1)),
            hash(50, c(24) << 8 | c(4), 0),
            hash(44, c(1) << 16 | c(2) << 8 | c(3), 0),
        ];
        let chosen = (matched * 8) as u8 | u8::from(follows);
        let tables = (&mut self.lines, &self.logistic);
        if !self.full {
            let [a, b, c, ..] = contexts;
            return simple(io, &mut self.lines, &[a, b, c], byte);
        }
        self.symbols.code(io, tables, &contexts, chosen, byte)
    }
}
