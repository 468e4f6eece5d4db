//! Bytes and flags out of their contexts: the part that all models share.

use super::arith::Bits;
use super::mix::{INPUTS, Logistic, Mixer};
use super::slots::{Flags, Lines, hash};

/// A model of bytes: the weights of one kind of byte. Its probabilities stand in shared [`Lines`].
pub(super) struct Symbols {
    mixer: Mixer,
}

impl Symbols {
    /// Makes the model.
    pub(super) fn new() -> Self {
        Self { mixer: Mixer::new(5_000, 18) }
    }

    /// Makes everything as new.
    pub(super) fn reset(&mut self) {
        self.mixer.reset();
    }

    /// Codes `byte` out of up to seven `contexts`. `chosen` picks weights.
    #[inline]
    pub(super) fn code<B: Bits, const K: usize>(
        &mut self,
        io: &mut B,
        (lines, logistic): (&mut Lines, &Logistic),
        contexts: &[u32; K],
        chosen: u8,
        byte: u8,
    ) -> u8 {
        nibbles(io, lines, contexts, byte, |io, lines, found, (node, cell), bit| {
            let mut x = [0i16; INPUTS];
            x[INPUTS - 1] = 256;
            for (x, line) in x.iter_mut().zip(found) {
                *x = logistic.stretch(lines.p(*line, cell));
            }
            let sets = (chosen, node as u8);
            let mixed = self.mixer.dot(&x, sets);
            let p = logistic.squash(mixed);
            let bit = io.bit(bit, p);
            self.mixer.update(&x, sets, (i32::from(bit) << 16) - p as i32);
            bit
        })
    }
}

/// Codes `byte` out of `contexts` without weights that are learnt: each probability counts by how often it was seen.
#[inline]
pub(super) fn simple<B: Bits, const K: usize>(
    io: &mut B,
    lines: &mut Lines,
    contexts: &[u32; K],
    byte: u8,
) -> u8 {
    nibbles(io, lines, contexts, byte, |io, lines, found, (_, cell), bit| {
        let (mut sum, mut weights) = (0u32, 0u32);
        for line in found {
            let (p, weight) = lines.weighed(*line, cell);
            sum += p * weight;
            weights += weight;
        }
        let p = ((u64::from(sum) * u64::from(INVERSES[weights as usize & 127])) >> 20) as u32;
        io.bit(bit, p.clamp(32, 65_503))
    })
}

/// Walks down the trees of a byte's two nibbles, as far as `code` says with each bit: it is given the lines of the contexts, the
/// place in the byte and in the lines, and the bit that is wanted.
#[inline]
fn nibbles<B: Bits, const K: usize>(
    io: &mut B,
    lines: &mut Lines,
    contexts: &[u32; K],
    byte: u8,
    mut code: impl FnMut(&mut B, &Lines, &[u32; K], (u32, usize), bool) -> bool,
) -> u8 {
    let mut node = 1u32;
    for half in [byte >> 4, byte & 15] {
        let prefix = if node > 1 { node } else { 0 };
        let found = lines.find(contexts.map(|context| hash(99, context, prefix)));
        let mut cell = 1usize;
        for place in (0..4).rev() {
            let bit = code(io, lines, &found, (node, cell), half >> place & 1 != 0);
            for line in found {
                lines.update(line, cell, bit);
            }
            cell = cell << 1 | usize::from(bit);
            node = node << 1 | u32::from(bit);
        }
    }
    node as u8
}

/// 2^20 / n.
const INVERSES: [u32; 128] = {
    let mut table = [0; 128];
    let mut n = 1;
    while n < 128 {
        table[n as usize] = (1 << 20) / n;
        n += 1;
    }
    table
};

/// A model of flags: the weights of one kind of flag. Its probabilities stand in [`Flags`].
pub(super) struct Choices {
    mixer: Mixer,
}

impl Choices {
    /// Makes the model.
    pub(super) fn new() -> Self {
        Self { mixer: Mixer::new(4_000, 12) }
    }

    /// Makes everything as new.
    pub(super) fn reset(&mut self) {
        self.mixer.reset();
    }

    /// Codes `bit` out of up to seven `contexts`. `sets` pick weights.
    #[inline]
    pub(super) fn code<B: Bits, const K: usize>(
        &mut self,
        io: &mut B,
        (flags, logistic): (&mut Flags, &Logistic),
        contexts: &[u32; K],
        sets: (u8, u8),
        bit: bool,
    ) -> bool {
        let places = contexts.map(|context| flags.place(context));
        let mut x = [0i16; INPUTS];
        x[INPUTS - 1] = 256;
        for (x, place) in x.iter_mut().zip(places) {
            *x = logistic.stretch(flags.p(place));
        }
        let mixed = self.mixer.dot(&x, sets);
        let p = logistic.squash(mixed);
        let bit = io.bit(bit, p);
        self.mixer.update(&x, sets, (i32::from(bit) << 16) - p as i32);
        for place in places {
            flags.update(place, bit);
        }
        bit
    }
}
