//! What the last good release did: the rate that a new one is held against.

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::evidence::upper_bound;

/// Confidence with which the former rate is below what is taken for it, as 1 − this.
const BETA: f64 = 0.05;
/// Fewer devices say nothing about how often a good release fails: too few for the hard stop to go by.
const DEVICES_MIN: u64 = 20;

/// How the last good release fared in one hardware model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Devices that started it.
    pub started: u64,
    /// Of those, failed or rolled back.
    pub bad: u64,
}

impl Baseline {
    /// Reads it off a release's counters.
    pub fn of(counts: &Counts) -> Self {
        Self { started: counts.judged(), bad: counts.bad }
    }

    /// Returns the rate that it is taken for: the upper bound at 95 %, for chance may have been kind.
    pub fn bound(&self) -> f64 {
        upper_bound(self.started, self.bad, BETA)
    }

    /// Returns the rate that was seen, if enough were.
    pub fn seen(&self) -> Option<f64> {
        (self.started >= DEVICES_MIN).then(|| self.bad as f64 / self.started as f64)
    }
}

impl std::ops::AddAssign for Baseline {
    fn add_assign(&mut self, other: Self) {
        self.started = self.started.saturating_add(other.started);
        self.bad = self.bad.saturating_add(other.bad);
    }
}
