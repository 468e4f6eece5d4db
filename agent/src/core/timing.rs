//! Every wait of the agent, and points in time that survive a restart.
//!
//! Milliseconds throughout. Defaults are those of docs/design.md; tests and the demo scale them all alike.

use serde::{Deserialize, Serialize};

/// The moment at which something is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Time since the operating system booted; never goes backwards within an epoch.
    pub uptime: u64,
    /// Unix time in seconds by the system's clock. Nobody vouches for it: ask [`super::time::Clock`].
    pub wall: u64,
}

/// A point in time that is saved: uptime within an epoch, for a process's clock dies with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Boots of the operating system.
    pub epoch: u64,
    /// Uptime in that epoch.
    pub uptime: u64,
}

impl Stamp {
    /// Tells whether `wait` has passed since this stamp. A boot since then counts as passed: the wait was only
    /// ever meant to spare the network, and the boot was a pause of unknown length.
    pub fn passed(self, wait: u64, at: Stamp) -> bool {
        at.epoch != self.epoch || at.uptime.saturating_sub(self.uptime) >= wait
    }
}

/// How long the agent waits for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// First wait before another try.
    pub retry_first: u64,
    /// Longest wait before another try.
    pub retry_most: u64,
    /// Tries by kind of failure.
    pub retry_tries: u32,
    /// First wait before an `ask` is repeated; doubles.
    pub ask_first: u64,
    /// Longest wait before an `ask` is repeated.
    pub ask_most: u64,
    /// How long an answer counts after its nonce was made.
    pub answer_valid: u64,
    /// How long `started` waits for its answer.
    pub started_timeout: u64,
    /// Soak of a trial.
    pub soak: u64,
    /// A trial that was never answered by then, or not within this time after its soak, rolls back as unreachable.
    pub connect_deadline: u64,
    /// First wait before a `get` is repeated; doubles.
    pub get_first: u64,
    /// Longest wait before a `get` is repeated.
    pub get_most: u64,
    /// How long after subscribing retained files are awaited.
    pub retained_wait: u64,
    /// Interval between heartbeats on `ts`; missing files are asked for within half of it.
    pub heartbeat: u64,
    /// First wait before unacknowledged reports are sent again; doubles up to `get_most`.
    pub resend_first: u64,
    /// How long a change of state waits for company before it is reported by itself.
    pub gather: u64,
    /// How long a deferral lasts before the device looks again.
    pub deferral: u64,
    /// Packs on their way at once, at most; 1 to 96.
    pub window: u32,
}

impl Default for Timing {
    fn default() -> Self {
        const SECOND: u64 = 1000;
        const MINUTE: u64 = 60 * SECOND;
        Self {
            retry_first: 30 * SECOND,
            retry_most: 60 * MINUTE,
            retry_tries: 5,
            ask_first: MINUTE,
            ask_most: 10 * MINUTE,
            answer_valid: 2 * MINUTE,
            started_timeout: 10 * MINUTE,
            soak: 15 * MINUTE,
            connect_deadline: 35 * MINUTE,
            get_first: 10 * SECOND,
            get_most: 10 * MINUTE,
            retained_wait: 10 * SECOND,
            heartbeat: 6 * 60 * MINUTE,
            resend_first: 10 * SECOND,
            gather: SECOND,
            deferral: 15 * MINUTE,
            window: 96,
        }
    }
}

impl Timing {
    /// Returns how long after its begin a trial waits for an answer: for the first one, or for the one that ends its soak.
    pub fn last_answer(&self, heard: bool) -> u64 {
        let soak = if heard { self.soak } else { 0 };
        soak.saturating_add(self.connect_deadline)
    }
}

/// A wait that doubles from try to try up to a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: u64,
    most: u64,
    next: u64,
}

impl Backoff {
    /// Starts at `first`, never above `most`.
    pub fn new(first: u64, most: u64) -> Self {
        Self { first, most, next: first.min(most) }
    }

    /// Returns the present wait and doubles the next.
    pub fn step(&mut self) -> u64 {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        wait
    }

    /// Returns the present wait.
    pub fn present(&self) -> u64 {
        self.next
    }

    /// Returns the longest wait.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Returns the shortest wait.
    pub fn first(&self) -> u64 {
        self.first.min(self.most)
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.most);
    }
}
