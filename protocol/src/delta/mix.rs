//! Logistic mixing in integers: what a bit's models say becomes one probability.
//!
//! Probabilities have 16 bits; in the logistic domain, ln(p / (1 - p)), 256 is one.

/// The end of the logistic domain: ln(65535) is 11.09.
pub(super) const LIMIT: i32 = 2815;
/// e^(1/256) with 32 bits after the point.
const STEP: u64 = 4_311_777_253;

/// The two tables that every bit goes through.
pub(super) struct Logistic {
    squash: Vec<u16>,
    stretch: Vec<i16>,
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
        let squash: Vec<u16> = (-LIMIT..=LIMIT)
            .map(|x| {
                let power = u128::from(powers[x.unsigned_abs() as usize]);
                let p = if x >= 0 { (power << 16) / (power + one) } else { (one << 16) / (power + one) };
                p.clamp(1, 65_535) as u16
            })
            .collect();
        let stretch =
            |p: u32| (squash.partition_point(|s| u32::from(*s) < p) as i32 - LIMIT).min(LIMIT) as i16;
        let stretch = (0..8192).map(|p| stretch(p * 8 + 4)).collect();
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

/// Weights of inputs: the sum of one set chosen by `first` and one chosen by `second`.
///
/// Sets are as long as vector registers like them; what is too much of an input is 0.
pub(super) struct Mixer {
    first: Vec<i16>,
    second: Vec<i16>,
    weight: i16,
}

impl Mixer {
    /// Makes `first` and `second` sets for `inputs` inputs, each starting with `weight` / 16384 in all.
    pub(super) fn new(inputs: usize, first: usize, second: usize, weight: i16) -> Self {
        let sets = |count| vec![weight / 2; count * inputs];
        Self { first: sets(first), second: sets(second), weight }
    }

    /// Makes all weights as new.
    pub(super) fn reset(&mut self) {
        self.first.fill(self.weight / 2);
        self.second.fill(self.weight / 2);
    }

    /// Returns the mixture of `x`, in the logistic domain.
    #[inline]
    pub(super) fn dot<const N: usize>(&self, x: &[i16; N], first: usize, second: usize) -> i32 {
        let (a, b) = (&self.first[first * N..][..N], &self.second[second * N..][..N]);
        let product = |i: usize| i32::from(a[i].saturating_add(b[i])) * i32::from(x[i]);
        // 16 products of 2815 and 32768 stay below 2^31.
        let sum = (0..N).map(product).fold(0, i32::wrapping_add);
        (sum >> 14).clamp(-LIMIT, LIMIT)
    }

    /// Moves the weights against `error` (65536 × (bit - p)) by input × error × `rate` / 2^22.
    #[inline]
    pub(super) fn update<const N: usize>(
        &mut self,
        x: &[i16; N],
        first: usize,
        second: usize,
        error: i32,
        rate: i32,
    ) {
        let step = i32::from(((error * rate) >> 6) as i16);
        let (a, b) = (&mut self.first[first * N..][..N], &mut self.second[second * N..][..N]);
        for i in 0..N {
            let change = ((i32::from(x[i]) * step + (1 << 15)) >> 16) as i16;
            a[i] = a[i].saturating_add(change);
            b[i] = b[i].saturating_add(change);
        }
    }
}

/// Adaptive probability map: corrects a probability by what followed it in a context.
pub(super) struct Apm {
    cells: Vec<u16>,
    at: usize,
    mask: usize,
}

/// Cells of one context: one per 256 of the logistic domain.
const CELLS: usize = 24;
const WIDTH: i32 = 256;

impl Apm {
    /// Makes the map of `contexts` contexts, a power of two, each the identity.
    pub(super) fn new(contexts: usize, logistic: &Logistic) -> Self {
        let mut apm = Self { cells: vec![0; contexts * CELLS], at: 0, mask: contexts - 1 };
        apm.reset(logistic);
        apm
    }

    /// Makes every context the identity again.
    pub(super) fn reset(&mut self, logistic: &Logistic) {
        for (i, cell) in self.cells.iter_mut().enumerate() {
            *cell = logistic.squash((i % CELLS) as i32 * WIDTH - LIMIT) as u16;
        }
    }

    /// Returns what `context`, cut to the number of contexts, makes of the probability whose logistic value is `x`.
    #[inline]
    pub(super) fn refine(&mut self, x: i32, context: u32) -> u32 {
        let place = x + LIMIT;
        let (cell, part) = ((place / WIDTH) as usize, (place % WIDTH) as u32);
        let at = (context as usize & self.mask) * CELLS + cell;
        // The nearer cell learns.
        self.at = at + usize::from(part * 2 >= WIDTH as u32);
        let (a, b) = (u32::from(self.cells[at]), u32::from(self.cells[at + 1]));
        (a * (WIDTH as u32 - part) + b * part) / WIDTH as u32
    }

    /// Learns that `bit` followed the last [`Apm::refine`].
    #[inline]
    pub(super) fn update(&mut self, bit: bool, rate: u32) {
        let cell = &mut self.cells[self.at];
        let (p, target) = (i32::from(*cell), if bit { 65_535 } else { 0 });
        *cell = (p + ((target - p) >> rate)) as u16;
    }
}
