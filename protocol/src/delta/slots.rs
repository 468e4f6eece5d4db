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

/// A probability of 13 bits, and in 3 more how often it was seen.
type Cell = u16;

/// A cell that was never seen: one half.
const UNSEEN: Cell = 1 << 15;
/// How far a cell moves to a bit, of 65536, by how often it was seen.
const RATES: [u32; 8] = [36_000, 24_000, 17_000, 12_500, 9_000, 7_000, 5_500, 4_300];

/// What a probability is worth, by how often it was seen.
const WORTH: [u32; 8] = [1, 2, 4, 7, 11, 16, 20, 24];

/// Returns the probability of a set bit, of 65536.
#[inline]
fn probability(cell: Cell) -> u32 {
    u32::from(cell & !7) | 4
}

/// Returns the cell after `bit`.
#[inline]
fn learnt(cell: Cell, bit: bool) -> Cell {
    let (p, n) = (u32::from(cell >> 3), cell & 7);
    // Of a set bit everything is turned round, twice: without a branch on what nobody could foresee.
    let turn = u32::from(bit).wrapping_neg() & 8191;
    let missing = p ^ turn;
    // Rounded up, so that a sure bit becomes surer to the end.
    let step = (missing * RATES[usize::from(n)] + 65_535) >> 16;
    let p = (missing - step) ^ turn;
    (p as u16) << 3 | (n + u16::from(n < 7))
}

/// Cells of flags by context, shared by all of them.
pub(super) struct Flags {
    cells: Vec<Cell>,
    mask: u32,
}

impl Flags {
    /// Makes 2^`log2` cells.
    pub(super) fn new(log2: u32) -> Self {
        Self { cells: vec![UNSEEN; 1 << log2], mask: (1 << log2) - 1 }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.cells.fill(UNSEEN);
    }

    /// Returns the cell of a context.
    #[inline]
    pub(super) fn place(&self, hash: u32) -> u32 {
        hash & self.mask
    }

    /// Returns the probability of a set flag, of 65536.
    #[inline]
    pub(super) fn p(&self, place: u32) -> u32 {
        probability(self.cells[place as usize])
    }

    /// Learns `bit`.
    #[inline]
    pub(super) fn update(&mut self, place: u32, bit: bool) {
        let cell = &mut self.cells[place as usize];
        *cell = learnt(*cell, bit);
    }
}

/// Flags that are coded out of one context each, hardly ever set or hardly ever not: 22 bits of probability, 10 of how
/// often it was seen.
pub(super) struct Singles {
    slots: Box<[u32; SINGLES]>,
}

/// How many contexts [`Singles`] has.
const SINGLES: usize = 2048;
/// A slot that was never seen: one half.
const UNSEEN_SINGLE: u32 = 1 << 31;
/// A slot is the mean of this many flags, then follows.
const SINGLE_LIMIT: u32 = 60;

impl Singles {
    /// Makes all slots.
    pub(super) fn new() -> Self {
        Self { slots: Box::new([UNSEEN_SINGLE; SINGLES]) }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.slots.fill(UNSEEN_SINGLE);
    }

    /// Codes the flag `bit` of `context`.
    #[inline]
    pub(super) fn code<B: Bits>(&mut self, io: &mut B, context: usize, bit: bool) -> bool {
        let slot = &mut self.slots[context % SINGLES];
        let bit = io.bit(bit, (*slot >> 16).clamp(16, 65_520));
        let (p, n) = (*slot >> 10, *slot & 0x3ff);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let step = (((target - p as i32) >> 3) * RECIPROCALS[n as usize & 63]) >> 7;
        *slot = ((p as i32 + step) as u32) << 10 | (n + u32::from(n < SINGLE_LIMIT));
        bit
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

/// Lines of 16 cells: a check of the context, then the 15 nodes of a nibble's tree. Contexts share all lines.
pub(super) struct Lines {
    pairs: Vec<Pair>,
    shift: u32,
}

/// The two lines that a context may have: one line of the cache.
#[derive(Clone)]
#[repr(align(64))]
struct Pair([[Cell; 16]; 2]);

impl Lines {
    /// Makes 2^`log2` lines of 32 bytes.
    pub(super) fn new(log2: u32) -> Self {
        Self { pairs: vec![Pair([[UNSEEN; 16]; 2]); 1 << (log2 - 1)], shift: 32 - log2 }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.pairs.fill(Pair([[UNSEEN; 16]; 2]));
    }

    /// Returns the lines of contexts; of two candidates the less seen gives way.
    #[inline]
    pub(super) fn find<const K: usize>(&mut self, hashes: [u32; K]) -> [u32; K] {
        // All are fetched before any is looked at: the processor waits for memory once, not by turns.
        let checks = hashes.map(|hash| {
            let [even, odd] = &self.pairs[(hash >> self.shift >> 1) as usize].0;
            [even[0], odd[0]]
        });
        let mut lines = [0; K];
        for ((line, hash), checks) in lines.iter_mut().zip(hashes).zip(checks) {
            let (first, check) = (hash >> self.shift, hash as u16);
            let now = self.pairs[(first >> 1) as usize].0[first as usize & 1][0];
            // A context before this one may have taken the line in the same breath.
            let here = checks[first as usize & 1] == check && now == check;
            *line = if here { first } else { self.other(first, check) };
        }
        lines
    }

    fn other(&mut self, first: u32, check: u16) -> u32 {
        let pair = &mut self.pairs[(first >> 1) as usize].0;
        let (first_at, second_at) = (first as usize & 1, (first as usize & 1) ^ 1);
        if pair[first_at][0] == check {
            return first;
        }
        if pair[second_at][0] == check {
            return first ^ 1;
        }
        let first_gives_way = pair[first_at][1] & 7 <= pair[second_at][1] & 7;
        let line = if first_gives_way { first } else { first ^ 1 };
        pair[line as usize & 1] = [UNSEEN; 16];
        pair[line as usize & 1][0] = check;
        line
    }

    /// Returns the probability of a set bit at `cell` of a line, of 65536.
    #[inline]
    pub(super) fn p(&self, line: u32, cell: usize) -> u32 {
        probability(self.pairs[(line >> 1) as usize].0[line as usize & 1][cell & 15])
    }

    /// Returns the probability of a set bit at `cell` of a line, of 65536, and how much it is worth.
    #[inline]
    pub(super) fn weighed(&self, line: u32, cell: usize) -> (u32, u32) {
        let cell = self.pairs[(line >> 1) as usize].0[line as usize & 1][cell & 15];
        (probability(cell), WORTH[usize::from(cell & 7)])
    }

    /// Learns `bit`.
    #[inline]
    pub(super) fn update(&mut self, line: u32, cell: usize, bit: bool) {
        let cell = &mut self.pairs[(line >> 1) as usize].0[line as usize & 1][cell & 15];
        *cell = learnt(*cell, bit);
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
