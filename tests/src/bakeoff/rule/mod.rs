//! The rules of others, as pure functions of what a server sees. Where a rule has defaults, or an example in its
//! documentation, those are used; phases of 1, 10, 50 and 100 % where it has phases.

pub mod aws;
pub mod clock;
pub mod hawkbit;
pub mod openmv;

use crate::sim::clock::HOUR;

/// Shares of the fleet that the phases reach, and the time between them where time opens them.
pub const PHASES: [f64; 4] = [0.01, 0.10, 0.50, 1.00];
/// A phase's least time, where a rule has one.
pub const SOAK: u64 = 24 * HOUR;

/// What a server sees of a device. `rank`: it is the how-many-th to be offered the release, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Took the offer and began.
    Started(usize),
    /// Says that it runs the release.
    Succeeded(usize),
    /// Says that it does not.
    Failed(usize),
    /// Said neither within the time that the rule allows.
    TimedOut(usize),
    /// Nothing but time passed.
    Clock,
}

/// What a rule wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Nothing.
    Nothing,
    /// Offer the release to so many devices in all.
    Offer(usize),
    /// Offer it to nobody more: a person decides.
    Pause,
    /// The same for ever.
    Cancel,
}

/// A rule.
pub trait Rule {
    /// Begins with a fleet of this size.
    fn begin(&mut self, fleet: usize) -> Move;
    /// Takes what was seen.
    fn see(&mut self, at: u64, seen: Seen) -> Move;
    /// Returns when it wants to see the clock next.
    fn wakes_at(&self) -> Option<u64> {
        None
    }
    /// Returns how long after its start a device that has not ended is timed out.
    fn timeout(&self) -> Option<u64> {
        None
    }
}

/// Returns how many devices each phase reaches in all; no phase is empty.
pub fn reaches(fleet: usize) -> Vec<usize> {
    let mut reaches: Vec<usize> =
        PHASES.iter().map(|share| whole((fleet as f64 * share).ceil()).max(1)).collect();
    reaches.dedup();
    reaches
}

#[expect(clippy::cast_possible_truncation, reason = "a share of a fleet, rounded just before")]
fn whole(count: f64) -> usize {
    count as usize
}
