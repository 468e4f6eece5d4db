//! Two arms in the same ticks: what hits both alike speaks against neither.

use serde::{Deserialize, Serialize};

use super::evidence::{Arm, PairEvidence};
use super::policy::{Policy, SILENCE_RATIO};
use crate::core::fact::Millis;

/// Once both arms have spoken a tick goes on for this part, so that more of the later one do.
const TICK_PART: u64 = 4;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Runs the release, or should.
    Treated,
    /// Held back.
    Control,
}

/// How long ticks are, and what is refuted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// A tick that saw one arm alone for so long compares nothing: what hit that arm may be over before anybody of the
    /// other is looked at. With both arms it goes on for a quarter of this.
    longest: Millis,
    /// The treated may have events so many times as often.
    ratio: f64,
}

impl Pace {
    /// Returns that of silence, which is looked at by the early deadline.
    pub fn of_silence(policy: &Policy) -> Self {
        let longest = u64::try_from(policy.silence_early.after.as_millis()).unwrap_or(u64::MAX);
        Self { longest, ratio: SILENCE_RATIO }
    }

    /// Returns that of health, which is told once in a window.
    pub fn of_health(policy: &Policy) -> Self {
        Self { longest: policy.health_length(), ratio: 1.0 + policy.max_regression }
    }

    /// Adds a tick to the evidence.
    pub(super) fn tick(&self, evidence: &mut PairEvidence, treated: Arm, control: Arm) {
        evidence.tick(treated, control, self.ratio);
    }
}

/// When a tick began, and since when both arms are in it, on the clock of reception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TickTime {
    since: Millis,
    both: Option<Millis>,
}

impl TickTime {
    /// A tick begins.
    pub(super) fn begin(at: Millis) -> Self {
        Self { since: at, both: None }
    }

    /// Somebody of the later arm spoke.
    pub(super) fn meet(&mut self, at: Millis) {
        self.both.get_or_insert(at);
    }

    /// Tells whether it is over.
    pub(super) fn is_over(&self, at: Millis, pace: Pace) -> bool {
        match self.both {
            Some(both) => at.saturating_sub(both) >= pace.longest / TICK_PART,
            None => at.saturating_sub(self.since) >= pace.longest,
        }
    }
}

/// One comparison of events.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Paired {
    /// Ticks that are over.
    evidence: PairEvidence,
    /// The tick that goes on.
    open: Tick,
}

/// Some time in which devices of both arms were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Tick {
    span: TickTime,
    treated: Arm,
    control: Arm,
}

impl Paired {
    /// Adds a device that was looked at `at` this time on the clock of reception, with or without an event.
    pub fn add(&mut self, side: Side, event: bool, at: Millis, pace: Pace) {
        *self = self.until(at, pace);
        if self.open.is_empty() {
            self.open = Tick { span: TickTime::begin(at), ..Tick::default() };
        }
        let one = Arm { events: u64::from(event), exposure: 1 };
        match side {
            Side::Treated => self.open.treated += one,
            Side::Control => self.open.control += one,
        }
        if self.open.treated.exposure > 0 && self.open.control.exposure > 0 {
            self.open.span.meet(at);
        }
    }

    /// Ends the tick that goes on if it is over by `at`.
    fn until(mut self, at: Millis, pace: Pace) -> Self {
        if !self.open.is_empty() && self.open.span.is_over(at, pace) {
            pace.tick(&mut self.evidence, self.open.treated, self.open.control);
            self.open = Tick::default();
        }
        self
    }

    /// Returns the evidence as it stands at a time on the clock of reception.
    pub fn evidence(&self, at: Millis, pace: Pace) -> PairEvidence {
        self.until(at, pace).evidence
    }
}

impl Tick {
    fn is_empty(&self) -> bool {
        self.treated.exposure == 0 && self.control.exposure == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Millis = 60_000;

    fn pace() -> Pace {
        Pace::of_silence(&Policy::default())
    }

    fn arms(paired: &Paired, at: Millis) -> (u64, u64) {
        let evidence = paired.evidence(at, pace());
        (evidence.treated().exposure, evidence.control().exposure)
    }

    #[test]
    fn an_outage_that_silences_both_arms_speaks_against_nobody_and_a_brick_does() {
        let (mut outage, mut brick) = (Paired::default(), Paired::default());
        for minute in 0..120 {
            for (side, paired) in [(Side::Treated, true), (Side::Control, false)] {
                let silent = (30..60).contains(&minute);
                outage.add(side, silent, minute * MINUTE, pace());
                brick.add(side, paired && minute % 2 == 0, minute * MINUTE, pace());
            }
        }
        let ln_e = |paired: &Paired| paired.evidence(200 * MINUTE, pace()).ln_e();
        assert!(ln_e(&outage) < 0.0, "{}", ln_e(&outage));
        assert!(ln_e(&brick) > 10.0, "{}", ln_e(&brick));
    }

    #[test]
    fn a_tick_ends_when_both_arms_were_due_and_compares_nothing_if_one_was_not() {
        let mut paired = Paired::default();
        paired.add(Side::Treated, true, 0, pace());
        assert_eq!(arms(&paired, 59 * MINUTE), (0, 0));
        paired.add(Side::Control, false, 50 * MINUTE, pace());
        assert_eq!(arms(&paired, 64 * MINUTE), (0, 0), "more of the control may follow");
        assert_eq!(arms(&paired, 65 * MINUTE), (1, 1));
        let mut alone = Paired::default();
        for minute in 0..30 {
            alone.add(Side::Treated, true, minute * MINUTE, pace());
        }
        assert!(alone.evidence(90 * MINUTE, pace()).ln_e().abs() < 1e-12, "nobody to compare with");
    }
}
