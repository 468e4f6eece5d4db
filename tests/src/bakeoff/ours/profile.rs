//! Which plan the service is given.

use tern_controller::core::rollout::hold_back::HoldBack;
use tern_controller::core::rollout::plan::Plan;
use tern_controller::core::rollout::policy::{Claim, PhaseRule, Policy};

use super::super::scenario::BASELINE;

/// Which policy the service is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What a plan has when nothing is said.
    Default,
    /// One relative claim at 1.25 times the usual failure rate, and no hard stop: what a baseline will give.
    Relative,
    /// Deliberately wrong: deadlines of weeks and no control, so that silence is never heard.
    Deaf,
    /// Deliberately wrong: gates that pass by time alone, and tests that never stop.
    Blind,
}

impl Profile {
    /// Returns the plan: phases of 1, 10, 50 and 100 % with their gates, and this policy.
    pub fn plan(self) -> Plan {
        let mut plan = Plan::default();
        let policy = &mut plan.policy;
        match self {
            Self::Default => {}
            Self::Relative => {
                *policy = Policy {
                    claim: Claim::Absolute,
                    max_failure_rate: BASELINE * 1.25,
                    hard_stop: None,
                    ..Policy::default()
                };
            }
            Self::Deaf | Self::Blind => {
                plan.hold_back = HoldBack::OFF;
                let day = std::time::Duration::from_secs(24 * 3600);
                (policy.silence_early.after, policy.silence_deadline.after) = (80 * day, 90 * day);
                plan.waves.pause = Some(day / 12);
            }
        }
        if self == Self::Blind {
            (policy.max_failure_rate, policy.hard_stop) = (0.99, None);
            plan.phases
                .iter_mut()
                .for_each(|phase| phase.rule = PhaseRule { gate: None, ..phase.rule.clone() });
        }
        plan
    }
}
