//! Bytes that have no counterpart in the source.

use super::arith::Bits;
use super::copy::AROUND;
use super::model::Model;
use super::slots::hash;

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
        at: u64,
    ) {
        if length == 0 {
            return;
        }
        self.history.jump();
        for n in (1..=6).rev() {
            self.history.push(out[start - n]);
        }
        for i in 0..length {
            let byte = self.literal(io, out, start + i, &beside[i..i + 2 * AROUND], at + i as u64);
            out[start + i] = byte;
            self.history.push(byte);
        }
        self.since = 8;
        self.recent = self.recent << 8 | 0x80;
        self.differences = [0; 32];
    }

    #[inline]
    fn literal<B: Bits>(&mut self, io: &mut B, out: &[u8], place: usize, beside: &[u8], at: u64) -> u8 {
        let byte = out[place];
        let c = |n: usize| u32::from(out[place - n]);
        let o = |n: usize| u32::from(beside[AROUND + n]);
        let (expected, matched) = self.history.expected();
        if matched >= SURE {
            // A long match is asked about as a whole, for the time it saves.
            let place = self.flags.place(hash(53, matched, u32::from(c(1) == u32::from(beside[AROUND - 1]))));
            let p = self.flags.p(place).clamp(16, 65_520);
            let same = io.bit(!B::DECODES && u32::from(byte) == u32::from(expected), p);
            self.flags.update(place, same, 60);
            if same {
                return expected;
            }
        }
        let matched = matched.min(15) + u32::from(matched > 24) + u32::from(matched > 32);
        let expected = if matched > 0 { u32::from(expected) } else { 0 };
        let contexts = [
            hash(42, c(1), 0),
            hash(43, c(1) << 8 | c(2), 0),
            hash(44, c(1) << 16 | c(2) << 8 | c(3), 0),
            hash(46, expected << 8 | matched, 0),
            hash(48, o(0) << 8 | u32::from(beside[AROUND - 1]), c(1)),
            hash(49, c(8) << 8 | c(16), at as u32 % 8),
            hash(50, c(24) << 8 | c(4), 0),
        ];
        let first = (matched as usize * 8 + usize::from(c(1) == u32::from(beside[AROUND - 1]))) & 255;
        let chosen = (first, c(1));
        let tables = (&mut self.lines, &self.logistic);
        if !self.full {
            let [a, b, c, d, e, ..] = contexts;
            return self.symbols.code::<B, 5, 8>(io, tables, &[a, b, c, d, e], chosen, byte);
        }
        self.symbols.code::<B, _, 8>(io, tables, &contexts, chosen, byte)
    }
}
