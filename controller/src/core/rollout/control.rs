//! What a control and the devices beside it showed, in one hardware model.

use serde::{Deserialize, Serialize};

use super::drain::Drained;
use super::paired::{Pace, Paired, Side};
use super::policy::Policy;
use super::silence::Deadline;
use crate::core::fact::Millis;

/// The comparisons of one hardware model.
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
    pub crashed: Paired,
    /// Drained more of its battery than nine in ten did in the same hours.
    pub drained: Drained,
}

impl Control {
    /// A device became due `at` this time on the clock of reception.
    pub fn due(&mut self, deadline: Deadline, side: Side, silent: bool, at: Millis, policy: &Policy) {
        let paired = match deadline {
            Deadline::Early => &mut self.early,
            Deadline::Last => &mut self.last,
        };
        paired.add(side, silent, at, Pace::of_silence(policy));
    }

    /// A device said how it fared in its window.
    pub fn fared(&mut self, side: Side, crashed: bool, drain: Option<u64>, at: Millis, policy: &Policy) {
        let pace = Pace::of_health(policy);
        self.crashed.add(side, crashed, at, pace);
        if let Some(drain) = drain {
            self.drained.add(side, drain, at, pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Snapshots stand in for frames that were dropped: one that does not read has no substitute.
    #[test]
    fn a_snapshot_of_before_still_reads() {
        let old = r#"{"held":7,"crash":{"evidence":{"sums":[0,0,0,0,0,0],"treated":{"events":0,"exposure":1},
            "control":{"events":0,"exposure":1}},"tick":3,"treated":{"events":1,"exposure":2},
            "control":{"events":0,"exposure":2}},"battery":{"tick":3,"treated":{"events":1,"exposure":2}},
            "drain":{"days":{"40":50},"large":120,"tick":3},"early":{"evidence":{"sums":[0,0,0,0,0,0],
            "treated":{"events":0,"exposure":1},"control":{"events":0,"exposure":1}},
            "open":{"since":60000,"treated":{"events":0,"exposure":1},"control":{"events":0,"exposure":1}}}}"#;
        let read: Control = serde_json::from_str(old).unwrap();
        assert_eq!((read.held, read.crashed, read.drained), (7, Paired::default(), Drained::default()));
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
            control.crashed.evidence(200 * hour, Pace::of_health(&policy)).ln_e()
        };
        assert!(played(1) < 0.0 && played(4) > 10.0, "{} {}", played(1), played(4));
    }
}
