//! AWS IoT Jobs, by its developer guide ("Specify job configurations by using the AWS IoT Jobs API", and its quotas): a
//! rate of devices a minute that grows by a factor with every further thousand notified, up to 1000; `abortConfig`
//! cancels once enough executions have ended and the share of a failure type among them has reached its threshold,
//! looked at after every one; only with a `timeoutConfig` does an execution that says nothing ever end. There are no
//! phases and no soak, and no abort unless it is configured: the figures here are those of the guide's examples.

use super::{Move, Rule, Seen};
use crate::sim::clock::{HOUR, MINUTE};

/// Which ends count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Failed,
    TimedOut,
    All,
}

/// One of `criteriaList`.
#[derive(Debug, Clone, Copy)]
struct Criterion {
    failure: Failure,
    least_executed: u64,
    percent: u64,
}

/// The rule.
#[derive(Debug)]
pub struct AwsJobs {
    rate: f64,
    factor: f64,
    criteria: Vec<Criterion>,
    timeout: Option<u64>,
    fleet: usize,
    notified: usize,
    raised_at: usize,
    minutes: u64,
    due: f64,
    succeeded: u64,
    failed: u64,
    timed_out: u64,
}

/// Devices a minute that are never exceeded.
const RATE_MOST: f64 = 1000.0;
/// Further devices notified that raise the rate.
const RAISE: usize = 1000;

const EXAMPLE: [Criterion; 2] = [
    Criterion { failure: Failure::Failed, least_executed: 100, percent: 20 },
    Criterion { failure: Failure::TimedOut, least_executed: 200, percent: 50 },
];

impl AwsJobs {
    fn new(rate: f64, factor: f64, criteria: &[Criterion], timeout: Option<u64>) -> Self {
        Self {
            rate,
            factor,
            criteria: criteria.to_vec(),
            timeout,
            fleet: 0,
            notified: 0,
            raised_at: 0,
            minutes: 0,
            due: 0.0,
            succeeded: 0,
            failed: 0,
            timed_out: 0,
        }
    }

    /// The guide's example: 50 a minute, doubled with every thousand; cancel at 20 % FAILED of at least 100. Its second
    /// criterion, on TIMED_OUT, never counts anything without a time-out.
    pub fn example() -> Self {
        Self::new(50.0, 2.0, &EXAMPLE, None)
    }

    /// The same with a time-out of 6 h, our last deadline.
    pub fn with_timeout() -> Self {
        Self::new(50.0, 2.0, &EXAMPLE, Some(6 * HOUR))
    }

    /// What a careful operator may choose: everybody within 72 h at a constant rate, cancel at 5 % of ALL failures of at
    /// least 10, time-out 6 h.
    pub fn careful() -> Self {
        let criterion = Criterion { failure: Failure::All, least_executed: 10, percent: 5 };
        // The rate depends on the fleet: set when it begins.
        Self::new(0.0, 1.0, &[criterion], Some(6 * HOUR))
    }

    fn aborts(&self) -> bool {
        let executed = self.succeeded + self.failed + self.timed_out;
        self.criteria.iter().any(|criterion| {
            let failures = match criterion.failure {
                Failure::Failed => self.failed,
                Failure::TimedOut => self.timed_out,
                Failure::All => self.failed + self.timed_out,
            };
            executed >= criterion.least_executed && failures * 100 >= criterion.percent * executed
        })
    }

    fn notify(&mut self) -> Move {
        self.due += self.rate;
        let more = super::whole(self.due);
        self.due -= more as f64;
        self.notified = (self.notified + more).min(self.fleet);
        if self.notified - self.raised_at >= RAISE {
            self.raised_at = self.notified;
            self.rate = (self.rate * self.factor).min(RATE_MOST);
        }
        Move::Offer(self.notified)
    }
}

impl Rule for AwsJobs {
    fn begin(&mut self, fleet: usize) -> Move {
        self.fleet = fleet;
        if self.rate == 0.0 {
            self.rate = (fleet as f64 / (72.0 * 60.0)).min(RATE_MOST);
        }
        self.notify()
    }

    fn see(&mut self, _: u64, seen: Seen) -> Move {
        match seen {
            Seen::Started(_) => return Move::Nothing,
            Seen::Clock => {
                self.minutes += 1;
                return self.notify();
            }
            Seen::Succeeded(_) => self.succeeded += 1,
            Seen::Failed(_) => self.failed += 1,
            Seen::TimedOut(_) => self.timed_out += 1,
        }
        if self.aborts() { Move::Cancel } else { Move::Nothing }
    }

    fn wakes_at(&self) -> Option<u64> {
        (self.notified < self.fleet).then_some((self.minutes + 1) * MINUTE)
    }

    fn timeout(&self) -> Option<u64> {
        self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_doubles_with_every_thousand_up_to_its_ceiling() {
        let mut rule = AwsJobs::example();
        let mut reached = rule.begin(100_000);
        while let Some(at) = rule.wakes_at() {
            reached = rule.see(at, Seen::Clock);
        }
        assert_eq!(reached, Move::Offer(100_000));
        // 20 min at 50, 10 at 100, 5 at 200, 3 at 400, 2 at 800, the rest at 1000 a minute.
        assert!((130..150).contains(&rule.minutes), "{}", rule.minutes);
    }

    #[test]
    fn a_fifth_of_a_hundred_cancels_and_silence_does_not() {
        let mut rule = AwsJobs::example();
        rule.begin(1000);
        assert!((0..80).all(|rank| rule.see(0, Seen::Succeeded(rank)) == Move::Nothing));
        assert!((80..99).all(|rank| rule.see(0, Seen::Failed(rank)) == Move::Nothing));
        assert_eq!(rule.see(0, Seen::Failed(99)), Move::Cancel);
    }
}
