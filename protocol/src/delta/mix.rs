//! Logistic mixing in integers: what a bit's models say becomes one probability.
//!
//! Probabilities have 16 bits; in the logistic domain, ln(p / (1 - p)), 256 is one.

/// The end of the logistic domain: ln(65535) is 11.09.
pub(super) const LIMIT: i32 = 2815;
/// Values of the logistic domain.
const DOMAIN: usize = 2 * LIMIT as usize + 1;
/// e^(1/256) with 32 bits after the point.
const STEP: u64 = 4_311_777_253;

/// The two tables that every bit goes through.
pub(super) struct Logistic {
    squash: Box<[u16; DOMAIN]>,
    stretch: Box<[i16; 8192]>,
}

impl Logistic {
    /// Makes the tables, from integers alone.
    pub(super) fn new() -> Self {
        // powers[i] = e^(i/256), 32 bits after the point.
        let mut powers = vec![1u64 << 32];
        for i in 0..LIMIT as usize {
            powers.push(((u128::from(powers[i]) * u128::from(STEP)) >> 32) as u64);
        }
        let one = 1u128 << 32;
        let mut squash = Box::new([0u16; DOMAIN]);
        for (p, x) in squash.iter_mut().zip(-LIMIT..=LIMIT) {
            let power = u128::from(powers[x.unsigned_abs() as usize]);
            let of = if x >= 0 { power } else { one };
            *p = ((of << 16) / (power + one)).clamp(1, 65_535) as u16;
        }
        let mut stretch = Box::new([0i16; 8192]);
        for (x, p) in stretch.iter_mut().zip(0u32..) {
            let least = squash.partition_point(|s| u32::from(*s) < p * 8 + 4);
            *x = (least as i32 - LIMIT).min(LIMIT) as i16;
        }
        Self { squash, stretch }
    }

    /// Returns ln(p / (1 - p)) of `p` / 65536, 256 being one; the lowest three bits of `p` do not count.
    #[inline]
    pub(super) fn stretch(&self, p: u32) -> i16 {
        self.stretch[(p >> 3) as usize & 8191]
    }

    /// Returns the probability, of 65536, whose [`Logistic::stretch`] is `x`.
    #[inline]
    pub(super) fn squash(&self, x: i32) -> u32 {
        u32::from(self.squash[(x.clamp(-LIMIT, LIMIT) + LIMIT) as usize])
    }
}

/// What a mixer takes: up to seven contexts' words, and a constant. Eight of 16 bits are a vector register.
pub(super) const INPUTS: usize = 8;

/// The weights of the inputs.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Set([i16; INPUTS]);

/// Mixes inputs by the sum of two sets of weights, each one of 256.
pub(super) struct Mixer {
    first: Box<[Set; 256]>,
    second: Box<[Set; 256]>,
    weight: i16,
    rate: i32,
}

impl Mixer {
    /// Makes all sets, in which every input starts with `weight` / 16384 in all; they learn by `rate`.
    pub(super) fn new(weight: i16, rate: i32) -> Self {
        let sets = || Box::new([Set([weight / 2; INPUTS]); 256]);
        Self { first: sets(), second: sets(), weight, rate }
    }

    /// Makes all weights as new.
    pub(super) fn reset(&mut self) {
        self.first.fill(Set([self.weight / 2; INPUTS]));
        self.second.fill(Set([self.weight / 2; INPUTS]));
    }

    /// Returns the mixture of `x`, in the logistic domain.
    #[inline]
    pub(super) fn dot(&self, x: &[i16; INPUTS], (first, second): (u8, u8)) -> i32 {
        let (Set(a), Set(b)) = (&self.first[usize::from(first)], &self.second[usize::from(second)]);
        let product = |i: usize| i32::from(a[i].saturating_add(b[i])) * i32::from(x[i]);
        // Eight products of 2815 and 32768 stay below 2^31.
        let sum = (0..INPUTS).map(product).fold(0, i32::wrapping_add);
        (sum >> 14).clamp(-LIMIT, LIMIT)
    }

    /// Moves the weights against `error` (65536 × (bit - p)) by input × error × rate / 2^22.
    #[inline]
    pub(super) fn update(&mut self, x: &[i16; INPUTS], (first, second): (u8, u8), error: i32) {
        let step = i32::from(((error * self.rate) >> 6) as i16);
        let (Set(a), Set(b)) = (&mut self.first[usize::from(first)], &mut self.second[usize::from(second)]);
        for i in 0..INPUTS {
            let change = ((i32::from(x[i]) * step + (1 << 15)) >> 16) as i16;
            a[i] = a[i].saturating_add(change);
            b[i] = b[i].saturating_add(change);
        }
    }
}
