//! What a device's reports say about one rollout, in the order in which the device made them.
//!
//! Reports arrive in any order: a lost start comes after the outcome that it led to. The counters follow the tale,
//! not the arrivals, so every order gives the same sums.

use serde::{Deserialize, Serialize};
use tern_protocol::state::Outcome;

/// Events kept; a device that defers for ever must not make its record grow.
const EVENTS_MAX: usize = 32;

/// The tale so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tale {
    /// Ascending by report number, each number once.
    events: Vec<(u64, Event)>,
    /// Whether the start that stood before the oldest event still stands.
    begun: bool,
}

/// What a report says about the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It started, or is further than that.
    Begun,
    /// It ended; [`Outcome::Deferred`] takes the start back.
    Ended(Outcome),
}

/// What a tale adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Starts.
    pub started: u64,
    /// Starts that were taken back.
    pub deferred: u64,
    /// A start stands: not taken back, whether or not it has ended.
    pub begun: bool,
    /// How it ended after its start. The first end of a started attempt stands.
    pub outcome: Option<Outcome>,
}

impl Tale {
    /// Puts in what report `n` says; returns the sums before and after.
    pub fn tell(&mut self, n: u64, event: Event) -> (Sum, Sum) {
        if self.events.len() >= EVENTS_MAX {
            self.forget_oldest();
        }
        let before = self.sum();
        if let Err(at) = self.events.binary_search_by_key(&n, |(number, _)| *number) {
            self.events.insert(at, (n, event));
        }
        (before, self.sum())
    }

    /// Puts a tale together from what [`Tale::events`] and [`Tale::begun`] gave.
    pub(super) fn of(events: Vec<(u64, Event)>, begun: bool) -> Self {
        Self { events, begun }
    }

    /// Returns the events, ascending by the numbers of their reports.
    pub(super) fn events(&self) -> &[(u64, Event)] {
        &self.events
    }

    /// Tells whether the start that stood before the oldest event still stands.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Adds the tale up.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum { begun: self.begun, ..Sum::default() };
        for (_, event) in &self.events {
            match event {
                Event::Begun if !sum.begun => {
                    sum.begun = true;
                    sum.started += 1;
                }
                Event::Ended(Outcome::Deferred) if sum.begun => {
                    sum.begun = false;
                    sum.deferred += 1;
                }
                Event::Ended(outcome) if sum.begun && *outcome != Outcome::Deferred => {
                    sum.outcome = Some(*outcome);
                    break;
                }
                _ => {}
            }
        }
        sum
    }

    fn forget_oldest(&mut self) {
        match self.events.remove(0) {
            (_, Event::Begun) => self.begun = true,
            (_, Event::Ended(Outcome::Deferred)) => self.begun = false,
            // An end that counts closes the tale: it stays, and what follows it never counted.
            (n, ended) if self.begun => self.events = vec![(n, ended)],
            // The end of what never started says nothing.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORY: [Event; 7] = [
        Event::Ended(Outcome::Failed),
        Event::Begun,
        Event::Begun,
        Event::Ended(Outcome::Deferred),
        Event::Begun,
        Event::Ended(Outcome::RolledBack),
        Event::Begun,
    ];

    /// A start that was taken back, and an end that never had another: it failed before.
    const FRUITLESS: [Event; 3] =
        [Event::Begun, Event::Ended(Outcome::Deferred), Event::Ended(Outcome::Failed)];
    /// A kill after the second start.
    const RECALLED: [Event; 4] =
        [Event::Begun, Event::Ended(Outcome::Deferred), Event::Begun, Event::Ended(Outcome::Recalled)];

    /// Adds up what counters make of every step: starts, deferrals, and ends less those taken back.
    fn counted(story: &[Event], order: &[usize]) -> (Sum, [i64; 3]) {
        let (mut tale, mut counted) = (Tale::default(), [0; 3]);
        for at in order {
            let (before, after) = tale.tell(*at as u64, story[*at]);
            for (sum, (was, is)) in counted.iter_mut().zip([
                (before.started, after.started),
                (before.deferred, after.deferred),
                (u64::from(before.outcome.is_some()), u64::from(after.outcome.is_some())),
            ]) {
                *sum += is as i64 - was as i64;
            }
            assert!(
                after.started >= before.started && after.deferred >= before.deferred,
                "{before:?} {after:?}"
            );
        }
        (tale.sum(), counted)
    }

    proptest! {
        #[test]
        fn every_order_of_arrival_gives_the_same_sum(order in Just((0..STORY.len()).collect::<Vec<_>>()).prop_shuffle()) {
            let mut tale = Tale::default();
            for at in order {
                tale.tell(at as u64, STORY[at]);
            }
            let outcome = Some(Outcome::RolledBack);
            prop_assert_eq!(tale.sum(), Sum { started: 2, deferred: 1, begun: true, outcome });
        }

        #[test]
        fn what_is_counted_step_by_step_is_the_sum_in_the_end(
            fruitless in Just((0..3).collect::<Vec<_>>()).prop_shuffle(),
            recalled in Just((0..4).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            prop_assert_eq!(counted(&FRUITLESS, &fruitless).1, [1, 1, 0]);
            let (sum, steps) = counted(&RECALLED, &recalled);
            prop_assert_eq!(steps, [2, 1, 1]);
            prop_assert_eq!(sum.outcome, Some(Outcome::Recalled));
        }
    }

    #[test]
    fn a_device_that_defers_for_ever_keeps_a_short_tale() {
        let mut tale = Tale::default();
        let (mut started, mut deferred) = (0, 0);
        for n in 0..1000 {
            let event = if n % 2 == 0 { Event::Begun } else { Event::Ended(Outcome::Deferred) };
            let (before, after) = tale.tell(n, event);
            started += after.started - before.started;
            deferred += after.deferred - before.deferred;
        }
        assert_eq!((started, deferred), (500, 500));
        assert!(tale.events.len() <= EVENTS_MAX);
    }
}
