//! Adaptive probabilities: of single bits by context, and of bytes, a nibble a line.

use super::arith::Bits;

/// Mixes a context into 32 bits.
#[inline]
pub(super) fn hash(id: u32, a: u32, b: u32) -> u32 {
    let mut h = (a ^ id.wrapping_mul(0x9e37_79b1)).wrapping_mul(0x85eb_ca6b);
    h ^= h >> 15;
    h = (h ^ b).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// Probabilities of flags: 22 bits of probability, 10 of how often it was seen.
pub(super) struct Flags {
    slots: Vec<u32>,
    mask: u32,
}

/// A slot that was never seen: one half.
const UNSEEN_FLAG: u32 = 1 << 31;

impl Flags {
    /// Makes 2^`log2` slots.
    pub(super) fn new(log2: u32) -> Self {
        Self { slots: vec![UNSEEN_FLAG; 1 << log2], mask: (1 << log2) - 1 }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.slots.fill(UNSEEN_FLAG);
    }

    /// Returns the slot of a context.
    #[inline]
    pub(super) fn place(&self, hash: u32) -> u32 {
        hash & self.mask
    }

    /// Returns the probability of a set flag, of 65536.
    #[inline]
    pub(super) fn p(&self, place: u32) -> u32 {
        self.slots[place as usize] >> 16
    }

    /// Learns `bit`; the first `limit` (below 64) times by the mean, then by 1 / `limit`.
    #[inline]
    pub(super) fn update(&mut self, place: u32, bit: bool, limit: u32) {
        let slot = &mut self.slots[place as usize];
        let (p, n) = (*slot >> 10, *slot & 0x3ff);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let step = (((target - p as i32) >> 3) * RECIPROCALS[n as usize & 63]) >> 7;
        let p = (p as i32 + step) as u32;
        *slot = p << 10 | (n + u32::from(n < limit));
    }
}

/// 1024 / (n + 1.5).
const RECIPROCALS: [i32; 64] = {
    let mut table = [0; 64];
    let mut n = 0;
    while n < 64 {
        table[n as usize] = 2048 / (2 * n + 3);
        n += 1;
    }
    table
};

/// Lines of 16 cells of 16 bits: a check of the context, then the 15 nodes of a nibble's tree.
///
/// A node has 13 bits of probability and 3 of how often it was seen. Contexts share all lines.
pub(super) struct Lines {
    cells: Vec<u16>,
    shift: u32,
}

/// A node that was never seen: one half.
const UNSEEN: u16 = 1 << 15;
/// How far a node moves to a bit, of 65536, by how often it was seen.
const RATES: [i32; 8] = [36_000, 24_000, 17_000, 12_500, 9_000, 7_000, 5_500, 4_300];

impl Lines {
    /// Makes 2^`log2` lines of 32 bytes.
    pub(super) fn new(log2: u32) -> Self {
        let mut lines = Self { cells: vec![0; 16 << log2], shift: 32 - log2 };
        lines.reset();
        lines
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.cells.fill(UNSEEN);
    }

    /// Returns where the line of a context begins; of two candidates the less seen gives way.
    #[inline]
    pub(super) fn line(&mut self, hash: u32) -> u32 {
        let check = (hash & 0xffff) as u16;
        let first = (hash >> self.shift) << 4;
        let second = first ^ 16;
        for at in [first, second] {
            if self.cells[at as usize] == check {
                return at;
            }
        }
        let seen = |at: u32| self.cells[at as usize + 1] & 7;
        let at = if seen(first) <= seen(second) { first } else { second };
        let cells = &mut self.cells[at as usize..at as usize + 16];
        cells.fill(UNSEEN);
        cells[0] = check;
        at
    }

    /// Returns the probability of a set bit at `cell`, of 65536.
    #[inline]
    pub(super) fn p(&self, cell: u32) -> u32 {
        u32::from(self.cells[cell as usize] & !7) | 4
    }

    /// Learns `bit`.
    #[inline]
    pub(super) fn update(&mut self, cell: u32, bit: bool, limit: u16) {
        let cell = &mut self.cells[cell as usize];
        let (p, n) = (i32::from(*cell >> 3), *cell & 7);
        let target = if bit { 8191 } else { 0 };
        // Rounded away from where it stands, so that a sure bit becomes surer to the end.
        let step = (target - p) * RATES[n as usize];
        let step = if step > 0 { (step + 65_535) >> 16 } else { step >> 16 };
        *cell = ((p + step) as u16) << 3 | (n + u16::from(n < limit));
    }
}

/// Numbers of any size, by kind: the count of their bits, then the bits.
pub(super) struct Numbers {
    cells: Vec<u16>,
}

/// Kinds of numbers and of single choices that [`Numbers`] keeps apart.
pub(super) const KINDS: usize = 43;
/// 64 cells for the count of bits, 49 × 8 for the three highest bits after the first, 48 for each other's place.
const KIND: usize = 64 + 49 * 8 + 48;

impl Numbers {
    /// Makes the cells of all kinds.
    pub(super) fn new() -> Self {
        Self { cells: vec![UNSEEN; KINDS * KIND] }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.cells.fill(UNSEEN);
    }

    fn cell<B: Bits>(&mut self, io: &mut B, at: usize, bit: bool) -> bool {
        let p = u32::from(self.cells[at]).clamp(64, 65_472);
        let bit = io.bit(bit, p);
        let (p, target) = (i32::from(self.cells[at]), if bit { 65_535 } else { 0 });
        self.cells[at] = (p + ((target - p) >> 4)) as u16;
        bit
    }

    /// Codes one choice; `kind` and `which` of 64 name its probability.
    pub(super) fn choice<B: Bits>(&mut self, io: &mut B, kind: usize, which: usize, bit: bool) -> bool {
        self.cell(io, kind * KIND + which, bit)
    }

    /// Codes a number below 2^48.
    pub(super) fn number<B: Bits>(&mut self, io: &mut B, kind: usize, value: u64) -> u64 {
        let base = kind * KIND;
        let value = value + 1;
        let bits = 63 - value.leading_zeros();
        let mut node = 1usize;
        for level in (0..6).rev() {
            node = node << 1 | usize::from(self.cell(io, base + node, bits >> level & 1 != 0));
        }
        let bits = (node - 64).min(48);
        let mut got = 1u64;
        for place in (0..bits).rev() {
            let known = bits - 1 - place;
            let at = match known {
                0..3 => base + 64 + bits * 8 + (1 << known | (got as usize & ((1 << known) - 1))),
                _ => base + 64 + 49 * 8 + place,
            };
            got = got << 1 | u64::from(self.cell(io, at, value >> place & 1 != 0));
        }
        got - 1
    }
}
