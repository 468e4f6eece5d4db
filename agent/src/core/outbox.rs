//! Numbered reports that wait for the controller's own ack.
//!
//! A number is used once in a device's life. Numbers are reserved in blocks when the journal is saved, so a lost
//! save can only leave a gap, never a number twice.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tern_protocol::limits::{COUNTER_BLOCK, OUTBOX_MAX};
use tern_protocol::message::{Attempt, ReportKind};

/// A report that waits for its ack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub n: u64,
    /// What it says.
    pub kind: ReportKind,
}

/// The reports in order of their numbers; at most [`OUTBOX_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// Next number to use.
    next: u64,
    /// Numbers below this may have been used by a state of the journal that was lost.
    reserved: u64,
    pending: VecDeque<Pending>,
}

impl Outbox {
    /// Prepares a journal that was just read: numbers up to the reservation count as used.
    pub fn after_restart(&mut self) {
        self.next = self.next.max(self.reserved);
    }

    /// Adds a report and returns its number. When full, the oldest report that only illustrates gives way:
    /// transitions and health before everything else, hellos next; outcomes and starts last.
    pub fn push(&mut self, kind: ReportKind) -> u64 {
        if self.pending.len() >= OUTBOX_MAX {
            let worth = |kind: &ReportKind| match kind {
                ReportKind::Transition { .. } | ReportKind::Health { .. } | ReportKind::Ask { .. } => 0,
                ReportKind::Hello(_) => 1,
                ReportKind::Halted { .. } | ReportKind::ControlStart { .. } => 2,
                ReportKind::Started { .. } | ReportKind::Outcome { .. } => 3,
            };
            let least = self.pending.iter().map(|p| worth(&p.kind)).min();
            if let Some(at) = self.pending.iter().position(|p| Some(worth(&p.kind)) == least) {
                drop(self.pending.remove(at));
            }
        }
        let n = self.next.max(1);
        self.next = n + 1;
        if self.next > self.reserved {
            self.reserved = self.next + COUNTER_BLOCK;
        }
        self.pending.push_back(Pending { n, kind });
        n
    }

    /// Uses a number for a report that is not kept (an `ask` loses nothing when it is lost).
    pub fn number(&mut self) -> u64 {
        let n = self.next.max(1);
        self.next = n + 1;
        n
    }

    /// Tells whether [`Outbox::number`] has run past the reservation, so that the journal must be saved first.
    pub fn must_reserve(&mut self) -> bool {
        let must = self.next >= self.reserved;
        if must {
            self.reserved = self.next + COUNTER_BLOCK;
        }
        must
    }

    /// Forgets the reports in the acknowledged ranges; tells whether any was there.
    pub fn acknowledge(&mut self, ranges: &[(u64, u64)]) -> bool {
        let before = self.pending.len();
        self.pending.retain(|p| !ranges.iter().any(|(from, to)| (*from..=*to).contains(&p.n)));
        self.pending.len() != before
    }

    /// Continues above `counter`, which somebody saw us use. If that is above all that we remember, our memory was lost,
    /// and what waits has numbers that meant something else before: it would be taken for known, and gets new ones.
    pub fn raise(&mut self, counter: u64) {
        if counter > self.highest() {
            let numbers = counter + 1..;
            self.pending.iter_mut().zip(numbers).for_each(|(pending, n)| pending.n = n);
            self.next = counter + 1 + self.pending.len() as u64;
        }
        self.next = self.next.max(counter + 1);
        self.reserved = self.reserved.max(self.next + COUNTER_BLOCK);
    }

    /// Returns the highest number that may have been used.
    pub fn highest(&self) -> u64 {
        self.next.max(1) - 1
    }

    /// Returns the lowest number that still waits; with nothing waiting, the next one.
    pub fn low(&self) -> u64 {
        self.pending.front().map_or(self.next.max(1), |p| p.n)
    }

    /// Returns the waiting reports in order.
    pub fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    /// Tells whether the start of `attempt` still waits for its ack.
    pub fn start_waits(&self, attempt: &Attempt) -> bool {
        self.pending.iter().any(|p| matches!(&p.kind, ReportKind::Started { attempt: a, .. } if a == attempt))
    }

    /// Takes out a hello that waits: a newer one says more.
    pub fn drop_hello(&mut self) {
        self.pending.retain(|p| !matches!(p.kind, ReportKind::Hello(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::state::{Outcome, StateName};

    fn attempt() -> Attempt {
        Attempt { rc: 1, rollout: "r".parse().unwrap(), attempt: 1 }
    }

    fn transition() -> ReportKind {
        let (from, to) = (StateName::Idle, StateName::Checking);
        ReportKind::Transition { attempt: attempt(), from, to, reason: None }
    }

    #[test]
    fn a_full_outbox_gives_up_illustrations_and_keeps_outcomes() {
        let mut outbox = Outbox::default();
        outbox.push(ReportKind::Outcome { attempt: attempt(), outcome: Outcome::Success, reason: None });
        for _ in 0..2 * OUTBOX_MAX {
            outbox.push(transition());
        }
        assert_eq!(outbox.pending().count(), OUTBOX_MAX);
        assert!(outbox.pending().any(|p| matches!(p.kind, ReportKind::Outcome { .. })));
    }

    #[test]
    fn a_number_is_never_used_twice_even_when_the_last_save_was_lost() {
        let mut outbox = Outbox::default();
        outbox.push(transition());
        let saved = outbox.clone();
        let used: Vec<u64> = (0..COUNTER_BLOCK / 2).map(|_| outbox.number()).collect();
        assert!(!outbox.must_reserve());

        let mut restarted = saved;
        restarted.after_restart();

        assert!(restarted.number() > *used.last().unwrap());
    }

    #[test]
    fn what_a_device_says_after_it_lost_its_memory_is_not_taken_for_what_it_said_before() {
        let mut outbox = Outbox::default();
        outbox.push(transition());
        outbox.push(transition());

        outbox.raise(40);

        assert_eq!(outbox.pending().map(|p| p.n).collect::<Vec<_>>(), [41, 42]);
        assert_eq!(outbox.number(), 43);
        // Seen is no more than what we remember: nothing was lost, and the numbers stand.
        outbox.raise(42);
        assert_eq!(outbox.low(), 41);
    }

    #[test]
    fn acknowledged_ranges_are_forgotten_and_the_rest_stays() {
        let mut outbox = Outbox::default();
        let numbers: Vec<u64> = (0..5).map(|_| outbox.push(transition())).collect();
        assert!(outbox.acknowledge(&[(numbers[1], numbers[2])]));
        assert_eq!(outbox.pending().map(|p| p.n).collect::<Vec<_>>(), [numbers[0], numbers[3], numbers[4]]);
        assert_eq!(outbox.low(), numbers[0]);
    }
}
