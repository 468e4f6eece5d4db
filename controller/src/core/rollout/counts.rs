//! What a rollout has seen of its devices: integers that merge by addition. They grow, except for an end that turns
//! out to have followed no start.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};
use tern_protocol::state::Outcome;

/// Counters of one (release, phase, stratum). Each device counts once; the first verdict on it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counts {
    /// Announced their start, or reported anything later, which implies it.
    pub started: u64,
    /// Failed after the start, or rolled back.
    pub bad: u64,
    /// Confirmed.
    pub good: u64,
    /// Went back because nobody could be reached, while the service was receiving.
    pub unreachable: u64,
    /// Stopped by a kill: neither good nor bad.
    pub recalled: u64,
    /// Took their start back, or were `unreachable` while nothing could be received; offered again.
    pub deferred: u64,
    /// Started at least the early deadline ago, whatever became of them; not those recalled or deferred.
    pub due_early: u64,
    /// Of those, sent no report of a later epoch by that deadline.
    pub silent_early: u64,
    /// The same for the last deadline.
    pub due: u64,
    /// Of those, sent no outcome by that deadline. A later report does not change it.
    pub silent: u64,
}

impl Counts {
    /// Returns the counter of an outcome.
    pub(super) fn ended(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Success => &mut self.good,
            Outcome::Failed | Outcome::RolledBack => &mut self.bad,
            Outcome::Unreachable => &mut self.unreachable,
            Outcome::Recalled => &mut self.recalled,
            Outcome::Deferred => &mut self.deferred,
        }
    }

    /// Returns how many devices are on trial or were judged.
    pub fn judged(&self) -> u64 {
        self.started.saturating_sub(self.deferred).saturating_sub(self.recalled)
    }

    /// Returns how many started devices have neither reported an outcome nor missed the last deadline.
    pub fn pending(&self) -> u64 {
        self.judged().saturating_sub(self.good).saturating_sub(self.confirmed_bad())
    }

    /// Returns how many a gate holds against the release already.
    pub fn confirmed_bad(&self) -> u64 {
        self.bad.saturating_add(self.silent).saturating_add(self.unreachable)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { started, bad, good, unreachable, recalled, deferred, .. } = other;
        let Self { due_early, silent_early, due, silent, .. } = other;
        for (sum, more) in [
            (&mut self.started, started),
            (&mut self.bad, bad),
            (&mut self.good, good),
            (&mut self.unreachable, unreachable),
            (&mut self.recalled, recalled),
            (&mut self.deferred, deferred),
            (&mut self.due_early, due_early),
            (&mut self.silent_early, silent_early),
            (&mut self.due, due),
            (&mut self.silent, silent),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}
