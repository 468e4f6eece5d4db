//! Which broker is next, how long to pause before it, and how much patience to have with it.

use std::time::Duration;

use super::LinkConfig;

/// A connection that lasted this many times the silence was a good one: the list starts afresh.
const GOOD: u32 = 20;
/// One that lasted this many times the silence did its duty: the next attempt comes at once. Links are lost every half
/// minute on some trains, and a pause that grew with each would leave a download without time.
const PROVEN: u32 = 3;
/// Patience grows to this many times the silence.
const PATIENCE: u32 = 10;

#[derive(Debug)]
pub(super) struct Backoff {
    brokers: usize,
    silence: Duration,
    first: Duration,
    max: Duration,
    failures: u32,
    next: usize,
}

impl Backoff {
    pub(super) fn new(config: &LinkConfig) -> Self {
        Self {
            brokers: config.brokers.len().max(1),
            silence: config.silence,
            first: config.reconnect_first,
            max: config.reconnect_max,
            failures: 0,
            next: 0,
        }
    }

    /// Returns the place of the broker to try.
    pub(super) fn broker(&self) -> usize {
        self.next
    }

    /// Returns how long the broker may be silent. It doubles with every full round through the list: on a slow
    /// radio link, TCP and TLS alone may take longer than a healthy broker's silence.
    pub(super) fn patience(&self) -> Duration {
        let rounds = self.failures / u32::try_from(self.brokers).unwrap_or(u32::MAX);
        self.silence * 2u32.saturating_pow(rounds).min(PATIENCE)
    }

    /// Takes note that a connection, up for `lasted`, is no more.
    pub(super) fn failed(&mut self, lasted: Duration) {
        self.failures = if lasted >= self.silence * PROVEN { 0 } else { self.failures.saturating_add(1) };
        // The first broker is the preferred one; a short-lived connection is no reason to trust it again.
        self.next = if lasted >= self.silence * GOOD { 0 } else { (self.next + 1) % self.brokers };
    }

    /// Returns the pause before the next attempt: `jitter` (0 to 1) of a ceiling that doubles. Full jitter,
    /// because a fleet loses its broker at one moment. The first failure in a row doubles nothing yet.
    pub(super) fn pause(&self, jitter: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1);
        let ceiling = self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.max);
        ceiling.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(brokers: usize) -> Backoff {
        Backoff {
            brokers,
            silence: Duration::from_secs(3),
            first: Duration::from_millis(250),
            max: Duration::from_secs(300),
            failures: 0,
            next: 0,
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_its_maximum_and_never_overflows() {
        let mut backoff = backoff(1);
        let mut ceilings = Vec::new();
        for _ in 0..100 {
            backoff.failed(Duration::ZERO);
            ceilings.push(backoff.pause(1.0).as_millis());
        }

        assert_eq!(ceilings[..4], [250, 500, 1000, 2000]);
        assert!(ceilings.is_sorted() && ceilings[99] == 300_000);
        assert_eq!((backoff.pause(0.0), backoff.pause(0.5)), (Duration::ZERO, Duration::from_secs(150)));
    }

    #[test]
    fn a_failure_hands_over_to_the_next_broker_and_a_good_connection_returns_to_the_first() {
        let mut backoff = backoff(3);
        let mut tried = Vec::new();
        for lasted in [0, 59, 0, 0, 60, 0] {
            tried.push(backoff.broker());
            backoff.failed(Duration::from_secs(lasted));
        }

        assert_eq!(tried, [0, 1, 2, 0, 1, 0]);
        assert_eq!(backoff.failures, 1);
    }

    #[test]
    fn after_a_connection_that_worked_the_next_attempt_comes_within_a_quarter_of_a_second() {
        let mut backoff = backoff(1);
        let mut ceilings = Vec::new();
        for lasted in [30, 30, 8, 0, 9, 0] {
            backoff.failed(Duration::from_secs(lasted));
            ceilings.push(backoff.pause(1.0).as_millis());
        }

        assert_eq!(ceilings, [250, 250, 250, 500, 250, 250]);
    }

    #[test]
    fn patience_grows_only_when_every_broker_was_tried() {
        let mut backoff = backoff(2);
        let mut patience = Vec::new();
        for _ in 0..12 {
            patience.push(backoff.patience().as_secs());
            backoff.failed(Duration::ZERO);
        }

        assert_eq!(patience, [3, 3, 6, 6, 12, 12, 24, 24, 30, 30, 30, 30]);
    }
}
