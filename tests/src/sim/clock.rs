//! Virtual time, the queue of what happens next, and the only source of chance.

use std::collections::BTreeMap;

/// Unix milliseconds at which every simulation begins.
pub const EPOCH: u64 = 1_800_000_000_000;

/// One second in virtual milliseconds.
pub const SECOND: u64 = 1000;
/// One minute.
pub const MINUTE: u64 = 60 * SECOND;
/// One hour.
pub const HOUR: u64 = 60 * MINUTE;

/// SplitMix64: small, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts a stream of its own for one purpose, so that a draw more in one place changes nothing in another.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let digest = tern_protocol::digest::Digest::of_parts(&[&seed.to_be_bytes(), purpose.as_bytes()]);
        Self(digest.short())
    }

    /// Draws 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// Says yes with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        // Drawn even when the answer is known: switching a fault off must not shift the others.
        let draw = self.draw() >> 11;
        (draw as f64) < p * (1u64 << 53) as f64
    }

    /// Draws 32 bytes.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for part in out.chunks_exact_mut(8) {
            part.copy_from_slice(&self.draw().to_be_bytes());
        }
        out
    }

    /// Draws `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 8);
        while out.len() < length {
            out.extend_from_slice(&self.draw().to_be_bytes());
        }
        out.truncate(length);
        out
    }
}

/// What happens next, in order of time and then of planning.
#[derive(Debug)]
pub struct Queue<E> {
    now: u64,
    planned: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { now: 0, planned: 0, events: BTreeMap::new() }
    }
}

impl<E> Queue<E> {
    /// Returns the present moment.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Plans an event; the past is now.
    pub fn plan(&mut self, at: u64, event: E) {
        self.planned += 1;
        self.events.insert((at.max(self.now), self.planned), event);
    }

    /// Returns when the next event is due.
    pub fn next_at(&self) -> Option<u64> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Goes on to the next event.
    pub fn take(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// Lets time pass without an event.
    pub fn wait_until(&mut self, at: u64) {
        self.now = self.now.max(at);
    }
}
