//! Silence beside a control: which devices of either arm were due, and which of them silent, in the same hours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Arm, PairEvidence};
use super::policy::{Policy, SILENCE_RATIO};
use super::silence::Deadline;
use crate::core::fact::Millis;

/// A tick lasts at least this part of the early deadline, so that both arms have somebody due in it.
const TICK_PART: u64 = 4;

/// What a control and the devices beside it showed, in one hardware model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// Held-back devices that are exposed beside the others.
    pub held: u64,
    /// Silent at the early deadline.
    pub early: Paired,
    /// Silent or unreachable at the last deadline.
    pub last: Paired,
    /// Crashed, reset or fell into a boot loop within a day.
    pub crash: Metric,
    /// Drained its battery more than nine in ten days of held-back devices did.
    pub battery: Metric,
    /// What held-back devices drain.
    pub drain: Drain,
}

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Paired {
    /// Ticks that are over.
    evidence: PairEvidence,
    /// The tick that goes on.
    open: Tick,
}

/// Some minutes in which devices of both arms became due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Tick {
    /// Its beginning, on the clock of reception.
    since: Millis,
    treated: Arm,
    control: Arm,
}

/// A comparison of health: which devices had an event in their window.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Metric {
    evidence: PairEvidence,
    /// Number of the tick that goes on.
    tick: u64,
    treated: Arm,
    control: Arm,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Runs the release, or should.
    Treated,
    /// Held back.
    Control,
}

impl Control {
    /// A device became due `at` this time on the clock of reception.
    pub fn due(&mut self, deadline: Deadline, side: Side, silent: bool, at: Millis, policy: &Policy) {
        let paired = match deadline {
            Deadline::Early => &mut self.early,
            Deadline::Last => &mut self.last,
        };
        paired.add(side, silent, at, policy);
    }

    /// A device said how it fared in its window.
    pub fn fared(&mut self, side: Side, crashed: bool, drain: Option<u64>, at: Millis, policy: &Policy) {
        let tick = at / policy.health_length();
        let ratio = 1.0 + policy.max_regression;
        self.crash.add(tick, side, crashed, ratio);
        if let Some(drain) = drain
            && let Some(large) = self.drain.is_large(tick, side, drain)
        {
            self.battery.add(tick, side, large, ratio);
        }
    }
}

impl Paired {
    fn add(&mut self, side: Side, event: bool, at: Millis, policy: &Policy) {
        *self = self.until(at, policy);
        if self.open.is_empty() {
            self.open = Tick { since: at, ..Tick::default() };
        }
        let one = Arm { events: u64::from(event), exposure: 1 };
        match side {
            Side::Treated => self.open.treated += one,
            Side::Control => self.open.control += one,
        }
    }

    /// Ends the tick that goes on if it is over by `at`. One that saw one arm alone for as long as the early deadline
    /// compares nothing: what hit that arm may be over before anybody of the other is due.
    fn until(mut self, at: Millis, policy: &Policy) -> Self {
        let longest = u64::try_from(policy.silence_early.after.as_millis()).unwrap_or(u64::MAX);
        let age = at.saturating_sub(self.open.since);
        let both = self.open.treated.exposure > 0 && self.open.control.exposure > 0;
        let over = !self.open.is_empty() && (age >= longest || (both && age >= longest / TICK_PART));
        if over {
            self.evidence.tick(self.open.treated, self.open.control, SILENCE_RATIO);
            self.open = Tick::default();
        }
        self
    }

    /// Returns the evidence as it stands at a time on the clock of reception.
    pub fn evidence(&self, at: Millis, policy: &Policy) -> PairEvidence {
        self.until(at, policy).evidence
    }
}

impl Tick {
    fn is_empty(&self) -> bool {
        self.treated.exposure == 0 && self.control.exposure == 0
    }
}

impl Metric {
    /// Adds a device's health in a tick: `event` once, however often it happened. A tick is compared when the next one
    /// begins.
    fn add(&mut self, tick: u64, side: Side, event: bool, ratio: f64) {
        if tick > self.tick {
            self.evidence.tick(self.treated, self.control, ratio);
            (self.treated, self.control, self.tick) = (Arm::default(), Arm::default(), tick);
        }
        let one = Arm { events: u64::from(event), exposure: 1 };
        match side {
            Side::Treated => self.treated += one,
            Side::Control => self.control += one,
        }
    }

    /// Returns the evidence of the ticks that are over.
    pub fn evidence(&self) -> PairEvidence {
        self.evidence
    }
}

/// How held-back devices of one model drain their batteries: a histogram, each bucket a twelfth wider than the one
/// before.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// Days, by bucket.
    days: BTreeMap<u32, u64>,
    /// What is large in the tick that goes on, by all days before it.
    large: Option<u64>,
    tick: u64,
}

/// Fewer days say nothing about one in ten.
const DAYS_MIN: u64 = 50;

impl Drain {
    /// Tells whether a drain is large; `None` while too little is known. Days of held-back devices are remembered.
    fn is_large(&mut self, tick: u64, side: Side, drain: u64) -> Option<bool> {
        if tick > self.tick {
            self.tick = tick;
            self.large = self.ninth_in_ten();
        }
        if side == Side::Control {
            *self.days.entry(bucket(drain)).or_default() += 1;
        }
        self.large.map(|large| drain > large)
    }

    fn ninth_in_ten(&self) -> Option<u64> {
        let days: u64 = self.days.values().sum();
        let mut seen = 0;
        let (bucket, _) = self.days.iter().find(|(_, count)| {
            seen += **count;
            seen * 10 >= days * 9
        })?;
        (days >= DAYS_MIN).then(|| most_of(*bucket))
    }
}

/// Whatever a device says, there is a last bucket.
const BUCKETS: u32 = 700;

/// Each bucket reaches to 2 to the number of its twelfth; drains below 12 have buckets of their own.
fn bucket(drain: u64) -> u32 {
    (0..BUCKETS).find(|bucket| drain <= most_of(*bucket)).unwrap_or(BUCKETS)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^64 by the cap")]
fn most_of(bucket: u32) -> u64 {
    if bucket < 12 {
        u64::from(bucket)
    } else {
        libm::ceil(12.0 * libm::exp2(f64::from(bucket.min(BUCKETS) - 11) / 12.0)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Millis = 60_000;

    fn arms(paired: &Paired, at: Millis) -> (u64, u64) {
        let evidence = paired.evidence(at, &Policy::default());
        (evidence.treated().exposure, evidence.control().exposure)
    }

    #[test]
    fn an_outage_that_silences_both_arms_speaks_against_nobody_and_a_brick_does() {
        let (policy, mut outage, mut brick) = (Policy::default(), Paired::default(), Paired::default());
        for minute in 0..120 {
            for (side, paired) in [(Side::Treated, true), (Side::Control, false)] {
                let silent = (30..60).contains(&minute);
                outage.add(side, silent, minute * MINUTE, &policy);
                brick.add(side, paired && minute % 2 == 0, minute * MINUTE, &policy);
            }
        }
        let ln_e = |paired: &Paired| paired.evidence(200 * MINUTE, &policy).ln_e();
        assert!(ln_e(&outage) < 0.0, "{}", ln_e(&outage));
        assert!(ln_e(&brick) > 10.0, "{}", ln_e(&brick));
    }

    #[test]
    fn a_tick_ends_when_both_arms_were_due_and_compares_nothing_if_one_was_not() {
        let (policy, mut paired) = (Policy::default(), Paired::default());
        paired.add(Side::Treated, true, 0, &policy);
        assert_eq!(arms(&paired, 59 * MINUTE), (0, 0));
        paired.add(Side::Control, false, 50 * MINUTE, &policy);
        assert_eq!(arms(&paired, 51 * MINUTE), (1, 1));
        let mut alone = Paired::default();
        for minute in 0..30 {
            alone.add(Side::Treated, true, minute * MINUTE, &policy);
        }
        assert!(alone.evidence(90 * MINUTE, &policy).ln_e().abs() < 1e-12, "nobody to compare with");
    }

    #[test]
    fn a_drain_is_large_beside_those_of_held_back_devices_and_unknown_before_there_are_any() {
        let mut drain = Drain::default();
        for day in 0..100 {
            assert_eq!(drain.is_large(0, Side::Control, 100 + day), None);
        }
        assert_eq!(drain.is_large(1, Side::Treated, 180), Some(false));
        assert_eq!(drain.is_large(1, Side::Treated, 250), Some(true));
        assert_eq!(most_of(bucket(190)), 192);
        assert_eq!(drain.is_large(1, Side::Control, u64::MAX), Some(true), "and it comes to an end");
    }

    #[test]
    fn twice_as_many_crashes_beside_the_control_are_evidence_and_as_many_are_none() {
        let policy = Policy::default();
        let hour = 3_600_000;
        let played = |treated: u64| {
            let mut control = Control::default();
            for day in 0..5u64 {
                for device in 0..400 {
                    let at = day * 24 * hour + device * 60_000;
                    control.fared(Side::Control, device % 50 == 0, None, at, &policy);
                    control.fared(Side::Treated, device % 50 < treated, None, at, &policy);
                }
            }
            control.crash.evidence().ln_e()
        };
        assert!(played(1) < 0.0 && played(4) > 10.0, "{} {}", played(1), played(4));
    }
}
