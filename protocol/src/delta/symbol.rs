//! Bytes and flags out of their contexts: the part that all models share.

use super::arith::Bits;
use super::mix::{Apm, Logistic, Mixer};
use super::slots::{Flags, Lines, hash};

/// A correction moves by 2^-5 of what is missing: packs are short, and what they hold changes.
const CORRECTION: u32 = 5;
/// A flag's probability is the mean of this many, then follows.
const FLAG_LIMIT: u32 = 20;

/// A model of bytes: the weights and corrections of one kind of byte. Its probabilities stand in shared [`Lines`].
pub(super) struct Symbols {
    mixer: Mixer,
    by_hash: Apm,
    rate: i32,
}

impl Symbols {
    /// Makes the model for `inputs` inputs, the constant one among them; 2^`log2` places of the hashed correction.
    pub(super) fn new(inputs: usize, log2: u32, rate: i32, logistic: &Logistic) -> Self {
        Self { mixer: Mixer::new(inputs, 256, 256, 5_000), by_hash: Apm::new(1 << log2, logistic), rate }
    }

    /// Makes everything as new.
    pub(super) fn reset(&mut self, logistic: &Logistic) {
        self.mixer.reset();
        self.by_hash.reset(logistic);
    }

    /// Codes `byte` out of `contexts`; the last of the `N` inputs is constant. `chosen` of 256 picks weights,
    /// the hash `beside` a correction.
    #[allow(clippy::too_many_arguments, reason = "the innermost loop, shared")]
    #[inline]
    pub(super) fn code<B: Bits, const K: usize, const N: usize>(
        &mut self,
        io: &mut B,
        (lines, logistic): (&mut Lines, &Logistic),
        contexts: &[u32; K],
        (chosen, beside): (usize, u32),
        byte: u8,
    ) -> u8 {
        let mut node = 1usize;
        let mut bases = [0u32; K];
        for place in (0..8).rev() {
            if place == 7 || place == 3 {
                let prefix = if place == 3 { node as u32 } else { 0 };
                for (base, context) in bases.iter_mut().zip(contexts) {
                    *base = lines.line(hash(99, *context, prefix));
                }
            }
            let in_nibble =
                if place > 3 { node } else { (node & ((1 << (3 - place)) - 1)) | 1 << (3 - place) } as u32;
            let mut x = [0i16; N];
            x[N - 1] = 256;
            for (x, base) in x.iter_mut().zip(bases) {
                *x = logistic.stretch(lines.p(base + in_nibble));
            }
            let mixed = self.mixer.dot(&x, chosen, node);
            let p = logistic.squash(mixed);
            let refined = self.by_hash.refine(mixed, hash(51, beside, node as u32));
            let bit = io.bit(byte >> place & 1 != 0, ((p + refined + 1) >> 1).clamp(1, 65_535));
            let error = (i32::from(bit) << 16) - p as i32;
            self.mixer.update(&x, chosen, node, error, self.rate);
            self.by_hash.update(bit, CORRECTION);
            for base in &bases {
                lines.update(base + in_nibble, bit, 7);
            }
            node = node << 1 | usize::from(bit);
        }
        (node & 0xff) as u8
    }
}

/// A model of flags: the weights and corrections of one kind of flag. Its probabilities stand in [`Flags`].
pub(super) struct Choices {
    mixer: Mixer,
    by_hash: Apm,
    rate: i32,
}

impl Choices {
    /// Makes the model for `inputs` inputs, the constant one among them.
    pub(super) fn new(inputs: usize, rate: i32, logistic: &Logistic) -> Self {
        Self { mixer: Mixer::new(inputs, 256, 256, 4_000), by_hash: Apm::new(1024, logistic), rate }
    }

    /// Makes everything as new.
    pub(super) fn reset(&mut self, logistic: &Logistic) {
        self.mixer.reset();
        self.by_hash.reset(logistic);
    }

    /// Codes `bit` out of `contexts`; the last of the `N` inputs is constant. `first` and `second` of 256 pick
    /// weights, the hash `beside` picks a correction.
    #[inline]
    pub(super) fn code<B: Bits, const K: usize, const N: usize>(
        &mut self,
        io: &mut B,
        (flags, logistic): (&mut Flags, &Logistic),
        contexts: &[u32; K],
        (first, second, beside): (usize, usize, u32),
        bit: bool,
    ) -> bool {
        let places = contexts.map(|context| flags.place(context));
        let mut x = [0i16; N];
        x[N - 1] = 256;
        for (x, place) in x.iter_mut().zip(places) {
            *x = logistic.stretch(flags.p(place));
        }
        let mixed = self.mixer.dot(&x, first, second);
        let p = logistic.squash(mixed);
        let refined = self.by_hash.refine(mixed, beside);
        let bit = io.bit(bit, ((p + refined + 1) >> 1).clamp(1, 65_535));
        let error = (i32::from(bit) << 16) - p as i32;
        self.mixer.update(&x, first, second, error, self.rate);
        self.by_hash.update(bit, CORRECTION);
        for place in &places {
            flags.update(*place, bit, FLAG_LIMIT);
        }
        bit
    }
}
