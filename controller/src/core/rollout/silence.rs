//! When a device that started counts as silent.
//!
//! | deadline | asks for | by |
//! |---|---|---|
//! | early | any authenticated report of a later boot, or an outcome | start + `silence_early.after` |
//! | last | an outcome | start + `silence_deadline.after` |
//!
//! Both run on the clock of [`Reception`](crate::core::fleet::reception::Reception), which stands while the service
//! receives nothing. After every such gap half the early deadline is added, in which devices empty their outboxes; a
//! broker that comes and goes can put a deadline off to three times its length and no further.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use crate::core::fact::Millis;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deadline {
    /// Has it come up again?
    Early,
    /// How did it end?
    Last,
}

impl Deadline {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Early, Self::Last];

    /// Returns how long after the start it is.
    pub fn after(self, policy: &Policy) -> Duration {
        match self {
            Self::Early => policy.silence_early.after,
            Self::Last => policy.silence_deadline.after,
        }
    }

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Last => "last",
        }
    }
}

/// What is waited for from a device that started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Its start, on the clock of reception.
    pub since: Millis,
    /// Gaps of reception until then.
    pub gaps: u64,
    /// Milliseconds that reception had missed until then.
    #[serde(default)]
    pub missed: Millis,
    /// The epoch in which it started.
    pub epoch: u64,
    /// A report of a later epoch came.
    pub heard: bool,
    /// Whether it was silent at the early deadline, once that has passed. It stands.
    pub early: Option<bool>,
    /// The same of the last deadline.
    pub last: Option<bool>,
}

impl Watch {
    /// Returns when a deadline passes, on the clock of reception; `gaps` it has had until now.
    pub fn due(&self, deadline: Deadline, policy: &Policy, gaps: u64) -> Millis {
        due(self.since, deadline, policy, gaps.saturating_sub(self.gaps))
    }

    /// Tells whether it was our fault that the device reached nobody: of the time since its start we missed a tenth.
    /// `missed`: what reception has missed until now; `passed`: milliseconds since the start.
    pub fn excuses(&self, missed: Millis, passed: Millis) -> bool {
        let missed = missed.saturating_sub(self.missed);
        missed > 0 && missed.saturating_mul(10) >= passed
    }

    /// Returns what a deadline found, once it has passed: whether the device was silent.
    pub fn found(&self, deadline: Deadline) -> Option<bool> {
        match deadline {
            Deadline::Early => self.early,
            Deadline::Last => self.last,
        }
    }

    pub(in crate::core) fn judge(&mut self, deadline: Deadline, silent: bool) {
        match deadline {
            Deadline::Early => self.early = Some(silent),
            Deadline::Last => self.last = Some(silent),
        }
    }
}

/// What is waited for from a held-back device, again and again while others start beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Number of its `control-start`.
    pub n: u64,
    /// As long as the early deadline.
    pub early: Span,
    /// As long as the last one; in its first part, as long as the early one, nothing is waited for.
    pub last: Span,
}

/// A time in which a held-back device has to say that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its beginning, on the clock of reception.
    pub since: Millis,
    /// Gaps of reception until then.
    pub gaps: u64,
    /// It was heard.
    pub heard: bool,
    /// It was silent in the one before, and has not been heard since: whoever is away counts once, and from its next word
    /// on again. A device with the release has just spoken, too, when its time begins.
    #[serde(default)]
    pub away: bool,
}

impl Beside {
    /// Begins both spans.
    pub fn new(n: u64, since: Millis, gaps: u64) -> Self {
        let span = Span { since, gaps, heard: false, away: false };
        Self { n, early: span, last: span }
    }

    /// The device was heard.
    pub(in crate::core) fn hear(&mut self, (observed, gaps): (Millis, u64), policy: &Policy) {
        for span in [&mut self.early, &mut self.last].into_iter().filter(|span| span.away) {
            *span = Span { since: observed, gaps, heard: false, away: false };
        }
        self.early.heard |= observed > self.early.since;
        self.last.heard |= observed >= self.last.since.saturating_add(millis(policy.silence_early.after));
    }

    /// Tells whether the device is awaited to speak before a span can begin.
    pub fn is_away(&self) -> bool {
        self.early.away || self.last.away
    }

    /// Returns the span of a deadline.
    pub fn span(&self, deadline: Deadline) -> &Span {
        match deadline {
            Deadline::Early => &self.early,
            Deadline::Last => &self.last,
        }
    }

    /// Returns when a span ends, on the clock of reception; none goes on while the device is away.
    pub fn due(&self, deadline: Deadline, policy: &Policy, gaps: u64) -> Option<Millis> {
        let span = self.span(deadline);
        (!span.away).then(|| due(span.since, deadline, policy, gaps.saturating_sub(span.gaps)))
    }

    /// Begins a span anew.
    pub(in crate::core) fn again(&mut self, deadline: Deadline, (since, gaps): (Millis, u64), silent: bool) {
        let span = Span { since, gaps, heard: false, away: silent };
        match deadline {
            Deadline::Early => self.early = span,
            Deadline::Last => self.last = span,
        }
    }
}

/// A deadline, and what gaps of reception add to it.
fn due(since: Millis, deadline: Deadline, policy: &Policy, gaps: u64) -> Millis {
    let after = millis(deadline.after(policy));
    let drain = millis(policy.silence_early.after) / 2;
    since.saturating_add(after).saturating_add(gaps.saturating_mul(drain).min(after.saturating_mul(2)))
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_a_few_seconds_is_no_excuse_and_an_outage_is() {
        let watch = Watch { since: 0, gaps: 0, missed: 500, epoch: 1, heard: true, early: None, last: None };
        assert!(!watch.excuses(500, 0) && !watch.excuses(500 + 5, 2100) && watch.excuses(500 + 300, 2100));
    }

    #[test]
    fn every_gap_gives_half_the_early_deadline_and_many_give_twice_the_deadline() {
        const HOUR: Millis = 3_600_000;
        let policy = Policy::default();
        let watch =
            Watch { since: 10 * HOUR, gaps: 7, missed: 0, epoch: 1, heard: false, early: None, last: None };
        let due = |deadline, gaps| watch.due(deadline, &policy, gaps);

        assert_eq!(due(Deadline::Early, 7), 11 * HOUR);
        assert_eq!(due(Deadline::Early, 8), 11 * HOUR + HOUR / 2);
        assert_eq!(due(Deadline::Last, 9), 17 * HOUR);
        assert_eq!((due(Deadline::Early, 1000), due(Deadline::Last, u64::MAX)), (13 * HOUR, 28 * HOUR));
    }
}
