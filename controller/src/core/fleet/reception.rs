//! The clock of silence deadlines and soaks: it stands while nothing of the devices arrives, for our own outage is no
//! evidence against a release.
//!
//! It is told by frames of the ledger alone, so that a replay reads the same. While a rollout is under way the service
//! writes one at least every [`STEP`]; a longer pause between two means that the service was not there, or its machine
//! slept, or its clock was set: none of that is time in which a device could have been heard.

use serde::{Deserialize, Serialize};

use crate::core::fact::Millis;

/// How often the service says that it is still receiving.
pub const STEP: Millis = 5 * 60 * 1000;
/// The longest time between two frames that counts.
const CREDIT: Millis = 2 * STEP;
/// A shorter gap gives nobody more time: no outbox fills in it.
const GAP_MIN: Millis = 1000;

/// Whether messages of devices arrive, and for how long they did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reception {
    /// Messages arrive.
    receiving: bool,
    /// Some frame has said whether they do; before, every frame shows that they did.
    told: bool,
    /// Milliseconds in which they did.
    observed: Millis,
    /// The last frame.
    at: Millis,
    /// Since when they do not.
    lost_at: Millis,
    /// Times that they did not.
    gaps: u64,
    /// Milliseconds in which they did not.
    missed: Millis,
}

impl Default for Reception {
    fn default() -> Self {
        Self { receiving: true, told: false, observed: 0, at: 0, lost_at: 0, gaps: 0, missed: 0 }
    }
}

impl Reception {
    /// Tells whether messages arrive.
    pub fn is_on(&self) -> bool {
        self.receiving && self.told
    }

    /// Returns how often messages did not arrive for a while.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Returns for how many milliseconds messages did not arrive.
    pub fn missed(&self) -> Millis {
        self.missed
    }

    /// Returns what the clock reads.
    pub fn observed(&self, now: Millis) -> Millis {
        if self.receiving { self.observed + self.since_last(now).min(CREDIT) } else { self.observed }
    }

    /// Tells whether it is time to say that messages arrive still.
    pub fn is_due(&self, now: Millis) -> bool {
        self.receiving && self.since_last(now) >= STEP
    }

    /// A frame was written.
    pub(super) fn pass(&mut self, at: Millis) {
        let (passed, observed) = (self.since_last(at), self.observed(at));
        self.gaps += u64::from(self.receiving && passed > CREDIT);
        self.missed += passed - (observed - self.observed);
        self.observed = observed;
        // A clock that was set back goes on from where it is: waiting for it would find nobody silent any more.
        self.at = at;
    }

    /// The service came up: since the last frame it was not there.
    pub(super) fn restarted(&mut self, at: Millis) {
        let on = std::mem::take(&mut self.receiving);
        self.lost_at = if on { self.at } else { self.lost_at };
        self.pass(at);
        // A ledger from before there was this clock: what came after the start was received.
        if !self.told {
            self.receiving = true;
            self.gaps += 1;
        }
    }

    /// Nothing arrives from here on.
    pub(super) fn end(&mut self) {
        self.told = true;
        if std::mem::take(&mut self.receiving) {
            self.lost_at = self.at;
        }
    }

    /// Messages arrive from here on.
    pub(super) fn begin(&mut self) {
        self.told = true;
        if !std::mem::replace(&mut self.receiving, true) {
            self.gaps += u64::from(self.at.saturating_sub(self.lost_at) >= GAP_MIN);
        }
    }

    fn since_last(&self, now: Millis) -> Millis {
        // Before the first frame there was nothing to receive.
        if self.at == 0 { 0 } else { now.saturating_sub(self.at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Millis = 60_000;

    #[test]
    fn the_clock_stands_while_nothing_is_received() {
        let mut clock = Reception::default();
        clock.pass(100 * MINUTE);
        assert_eq!(clock.observed(100 * MINUTE), 0, "before the first frame nothing was");
        clock.begin();
        clock.pass(103 * MINUTE);
        clock.end();
        clock.pass(160 * MINUTE);
        clock.begin();
        assert_eq!((clock.observed(160 * MINUTE), clock.gaps()), (3 * MINUTE, 1));
        clock.restarted(200 * MINUTE);
        assert_eq!((clock.observed(300 * MINUTE), clock.is_on()), (3 * MINUTE, false));
        clock.pass(201 * MINUTE);
        clock.begin();
        assert_eq!((clock.observed(202 * MINUTE), clock.gaps()), (4 * MINUTE, 2));
        assert_eq!(clock.missed(), (57 + 40 + 1) * MINUTE);
        clock.begin();
        assert_eq!(clock.gaps(), 2, "it was on already");
    }

    #[test]
    fn a_machine_that_slept_has_heard_nothing_and_a_clock_that_was_set_makes_no_time() {
        let mut clock = Reception::default();
        clock.pass(100 * MINUTE);
        assert!(!clock.is_due(104 * MINUTE) && clock.is_due(105 * MINUTE));
        clock.pass(100 * MINUTE + 3 * 24 * 60 * MINUTE);
        assert_eq!((clock.observed, clock.gaps()), (CREDIT, 1));
        clock.pass(50 * MINUTE);
        assert_eq!(clock.observed(53 * MINUTE), CREDIT + 3 * MINUTE, "set back, it goes on from there");
    }

    #[test]
    fn an_old_ledger_that_never_says_so_was_written_by_a_service_that_received() {
        let mut clock = Reception::default();
        clock.restarted(100 * MINUTE);
        clock.pass(104 * MINUTE);
        clock.restarted(200 * MINUTE);
        clock.pass(201 * MINUTE);
        assert_eq!((clock.observed(201 * MINUTE), clock.is_on()), (5 * MINUTE, false));
    }

    #[test]
    fn a_blink_gives_nobody_more_time() {
        let mut clock = Reception::default();
        clock.pass(100 * MINUTE);
        clock.end();
        clock.pass(100 * MINUTE + 500);
        clock.begin();
        assert_eq!(clock.gaps(), 0);
    }
}
