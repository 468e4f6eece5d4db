//! Bytes that have no counterpart in the source.

use super::arith::Bits;
use super::copy::AROUND;
use super::model::{LITERAL_INPUTS, Model};
use super::slots::hash;

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
        let matched = matched.min(15) + u32::from(matched > 24) + u32::from(matched > 32);
        let expected = if matched > 0 { u32::from(expected) } else { 0 };
        let contexts = [
            hash(41, 0, 0),
            hash(42, c(1), 0),
            hash(43, c(1) << 8 | c(2), 0),
            hash(44, c(1) << 16 | c(2) << 8 | c(3), 0),
            hash(45, c(1) << 24 | c(2) << 16 | c(3) << 8 | c(4), 0),
            hash(46, expected << 8 | matched, 0),
            hash(47, expected << 8 | c(1), matched.min(1)),
            hash(48, o(0) << 8 | u32::from(beside[AROUND - 1]), c(1)),
            hash(49, c(8) << 8 | c(16), at as u32 % 8),
            hash(50, c(24) << 8 | c(4), 0),
        ];
        let first = (matched as usize * 8 + usize::from(c(1) == u32::from(beside[AROUND - 1]))) & 255;
        let mut node = 1usize;
        let mut bases = [0u32; LITERAL_INPUTS - 1];
        for place in (0..8).rev() {
            if place == 7 || place == 3 {
                let prefix = if place == 3 { node as u32 } else { 0 };
                for (base, context) in bases.iter_mut().zip(contexts) {
                    *base = self.lines.line(hash(99, context, prefix));
                }
            }
            let in_nibble = if place > 3 {
                node as u32
            } else {
                (node as u32 & ((1 << (3 - place)) - 1)) | 1 << (3 - place)
            };
            let mut x = [256; LITERAL_INPUTS];
            for (x, base) in x.iter_mut().zip(bases) {
                *x = self.logistic.stretch(self.lines.p(base + in_nibble));
            }
            let mixed = self.literal_mixer.dot(&x, first, node);
            let p = self.logistic.squash(mixed);
            let a = self.literal_apm.refine(mixed, node);
            let b = self.literal_apm2.refine(mixed, (hash(51, c(1), node as u32) & 4095) as usize);
            let bit = io.bit(byte >> place & 1 != 0, Self::probability(p, (a + b) / 2));
            let error = (i32::from(bit) << 16) - p as i32;
            self.literal_mixer.update(&x, first, node, error, 6);
            self.literal_apm.update(bit, 6);
            self.literal_apm2.update(bit, 6);
            for base in bases {
                self.lines.update(base + in_nibble, bit, 7);
            }
            node = node << 1 | usize::from(bit);
        }
        (node & 0xff) as u8
    }
}
