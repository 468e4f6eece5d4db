//! Battery drain beside a control: which devices drain more than nine in ten do.
//!
//! What is much differs by model and season, so the held-back devices of the ticks before say it. Until enough of those are
//! known a drain is large when it is above nine in ten of both arms together, in the tick in which it was told. Either way,
//! under a release that changes nothing both arms have their share of large ones, whatever devices drain: the first
//! bound is older than the tick, and given the figures of both arms, who of them is above the second is a draw without
//! return.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Arm, PairEvidence};
use super::paired::{Pace, Side, TickTime};
use crate::core::fact::Millis;

/// Whatever a device says, there is a last bucket.
const BUCKETS: u32 = 700;

/// Devices by what they drained: a histogram, each bucket a twelfth of an octave wider than the one before.
type Days = BTreeMap<u32, u64>;

/// Fewer held-back days say nothing about one in ten.
const KNOWN_MIN: u64 = 50;

/// One comparison of drains.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Drained {
    /// Ticks that are over.
    evidence: PairEvidence,
    /// The tick that goes on.
    span: TickTime,
    treated: Days,
    control: Days,
    /// What held-back devices drained in the ticks that are over.
    known: Days,
}

impl Drained {
    /// Begins to compare anew; what is usual does not begin anew.
    pub fn renewed(self) -> Self {
        Self { known: self.known, ..Self::default() }
    }

    /// Adds what a device drained in a day, told `at` this time on the clock of reception.
    pub fn add(&mut self, side: Side, drain: u64, at: Millis, pace: Pace) {
        if self.is_over(at, pace) {
            self.evidence = self.ended(pace);
            add(&mut self.known, &std::mem::take(&mut self.control));
            self.treated.clear();
        }
        if self.is_empty() {
            self.span = TickTime::begin(at);
        }
        let days = match side {
            Side::Treated => &mut self.treated,
            Side::Control => &mut self.control,
        };
        *days.entry(bucket(drain)).or_default() += 1;
        if !self.treated.is_empty() && !self.control.is_empty() {
            self.span.meet(at);
        }
    }

    /// Returns the evidence as it stands at a time on the clock of reception.
    pub fn evidence(&self, at: Millis, pace: Pace) -> PairEvidence {
        if self.is_over(at, pace) { self.ended(pace) } else { self.evidence }
    }

    fn is_empty(&self) -> bool {
        self.treated.is_empty() && self.control.is_empty()
    }

    fn is_over(&self, at: Millis, pace: Pace) -> bool {
        !self.is_empty() && self.span.is_over(at, pace)
    }

    /// Returns the evidence with the tick that goes on.
    fn ended(&self, pace: Pace) -> PairEvidence {
        let most = if self.known.values().sum::<u64>() >= KNOWN_MIN {
            nine_in_ten(&self.known)
        } else {
            let mut both = self.treated.clone();
            add(&mut both, &self.control);
            nine_in_ten(&both)
        };
        let arm = |days: &Days| Arm {
            events: days.range(most + 1..).map(|(_, count)| count).sum(),
            exposure: days.values().sum(),
        };
        let mut evidence = self.evidence;
        pace.tick(&mut evidence, arm(&self.treated), arm(&self.control));
        evidence
    }
}

fn add(days: &mut Days, more: &Days) {
    for (bucket, count) in more {
        *days.entry(*bucket).or_default() += count;
    }
}

/// Returns the lowest bucket up to which nine in ten lie.
fn nine_in_ten(days: &Days) -> u32 {
    let (all, mut seen) = (days.values().sum::<u64>(), 0);
    let found = days.iter().find(|(_, count)| {
        seen += **count;
        seen * 10 >= all * 9
    });
    found.map_or(BUCKETS, |(bucket, _)| *bucket)
}

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
    use super::super::policy::Policy;
    use super::*;

    const HOUR: Millis = 3_600_000;

    /// Two arms whose devices drain between 100 and 200, the treated ones so many times as much.
    fn played(treated: u64, times: u64) -> PairEvidence {
        let (pace, mut drained) = (Pace::of_health(&Policy::default()), Drained::default());
        for day in 0..100 {
            drained.add(Side::Control, 100 + day, 0, pace);
            for other in 0..treated {
                drained.add(Side::Treated, (100 + (day * 7 + other) % 100) * times, HOUR, pace);
            }
        }
        assert_eq!(drained.evidence(6 * HOUR, pace).control().exposure, 0, "the tick goes on");
        drained.evidence(7 * HOUR, pace)
    }

    #[test]
    fn who_drains_twice_as_much_is_above_nine_in_ten_and_who_drains_as_much_is_so_as_often() {
        let (same, twice) = (played(1, 1), played(1, 2));
        assert_eq!(same.treated().events, same.control().events);
        assert!(same.ln_e() < 0.0, "{same:?}");
        assert_eq!((twice.treated().exposure, twice.control().events), (100, 0));
        assert!(twice.ln_e() > 8.0, "{twice:?}");
    }

    #[test]
    fn many_treated_devices_do_not_make_their_own_drain_the_usual_one() {
        let twice = played(20, 2);
        assert_eq!(twice.control().events, 0);
        assert!(twice.ln_e() > 4.0 && played(20, 1).ln_e() < 0.0, "{} {twice:?}", twice.ln_e());
    }

    #[test]
    fn a_bound_of_before_sees_a_few_devices_of_which_all_drain_more() {
        let (pace, mut drained) = (Pace::of_health(&Policy::default()), Drained::default());
        (0..60).for_each(|day| drained.add(Side::Control, 100 + day, 0, pace));
        // The first day ends, and is known from then on.
        (0..60).for_each(|day| drained.add(Side::Control, 100 + day, 24 * HOUR, pace));
        (0..10).for_each(|_| drained.add(Side::Treated, 200, 25 * HOUR, pace));

        let evidence = drained.evidence(31 * HOUR, pace);

        assert_eq!((evidence.treated().events, evidence.treated().exposure), (10, 10));
        assert_eq!(evidence.control().events, 12, "{evidence:?}");
        assert_eq!(drained.renewed().known.values().sum::<u64>(), 60, "a new series keeps it");
    }

    #[test]
    fn buckets_end() {
        assert_eq!((bucket(0), bucket(11), most_of(bucket(190))), (0, 11, 192));
        assert_eq!(bucket(u64::MAX), BUCKETS);
    }
}
