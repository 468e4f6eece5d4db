//! A rollout's parameters: whom, in which steps, under which policy.

use serde::{Deserialize, Serialize};
use tern_protocol::id::{CarrierId, ModelId, RegionId};

use super::policy::{PhaseRule, Policy, PolicyError, WAIT_MAX};

/// Phases of one rollout.
pub const PHASES_MAX: usize = 20;

/// A rollout's parameters; unknown keys are refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The steps, in order; the last one should reach everybody.
    pub phases: Vec<Phase>,
    /// Regions; empty for all.
    pub regions: Vec<RegionId>,
    /// Hardware models; empty for all that the release is for.
    pub models: Vec<ModelId>,
    /// Carriers; empty for all.
    pub carriers: Vec<CarrierId>,
    /// Budgets, limits and waits.
    pub policy: Policy,
    /// Devices of a wave spread their first request over this many seconds.
    pub spread: u32,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// How many devices are included from here on, in all.
    pub reach: Reach,
    /// What is asked for before the next step.
    #[serde(flatten)]
    pub rule: PhaseRule,
}

/// How far a phase reaches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// This share of the covered devices, above 0 and at most 100.
    Percent(f64),
    /// This many devices more than the phase before.
    Devices(u64),
    /// Everybody.
    All,
}

/// Says what is wrong with a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// No phases, or too many.
    #[error("a plan has 1 to {PHASES_MAX} phases, this one has {0}")]
    Phases(usize),
    /// A percentage outside 0 to 100.
    #[error("phase {phase} reaches {percent} %: give a percentage above 0 and at most 100")]
    Percent {
        /// Number of the phase, from 1.
        phase: usize,
        /// What was given.
        percent: f64,
    },
    /// A phase of no devices.
    #[error("phase {phase} reaches no device more: a phase of no devices proves nothing")]
    NoDevices {
        /// Number of the phase, from 1.
        phase: usize,
    },
    /// A phase after the one that reaches everybody.
    #[error("phase {phase} reaches all, so nothing can come after it")]
    AfterAll {
        /// Number of the phase that reaches all, from 1.
        phase: usize,
    },
    /// First requests are spread too far.
    #[error("spread is {found} s, at most {} s (90 days) are possible", WAIT_MAX.as_secs())]
    Spread {
        /// What was given, in seconds.
        found: u32,
    },
    /// A budget or limit is out of range.
    #[error("the policy cannot be used")]
    Policy(#[from] PolicyError),
}

impl Default for Plan {
    fn default() -> Self {
        let phase = |reach| Phase { reach, rule: PhaseRule::default() };
        Self {
            phases: vec![
                phase(Reach::Percent(1.0)),
                phase(Reach::Percent(10.0)),
                phase(Reach::Percent(50.0)),
                Phase { reach: Reach::All, rule: PhaseRule { gate: None, ..PhaseRule::default() } },
            ],
            regions: Vec::new(),
            models: Vec::new(),
            carriers: Vec::new(),
            policy: Policy::default(),
            spread: 0,
        }
    }
}

impl Plan {
    /// Checks everything that can be checked without the fleet.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.phases.is_empty() || self.phases.len() > PHASES_MAX {
            return Err(PlanError::Phases(self.phases.len()));
        }
        for (phase, step) in (1..).zip(&self.phases) {
            step.rule.check()?;
            match step.reach {
                Reach::Percent(percent) if !(percent > 0.0 && percent <= 100.0) => {
                    return Err(PlanError::Percent { phase, percent });
                }
                Reach::Devices(0) => return Err(PlanError::NoDevices { phase }),
                Reach::All if phase < self.phases.len() => return Err(PlanError::AfterAll { phase }),
                Reach::Percent(_) | Reach::Devices(_) | Reach::All => {}
            }
        }
        if u64::from(self.spread) > WAIT_MAX.as_secs() {
            return Err(PlanError::Spread { found: self.spread });
        }
        self.policy.check().map_err(PlanError::from)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn phase(reach: Reach) -> Phase {
        Phase { reach, rule: PhaseRule::default() }
    }

    fn refused(change: impl FnOnce(&mut Plan)) -> PlanError {
        let mut plan = Plan::default();
        assert_eq!(plan.check(), Ok(()));
        change(&mut plan);
        plan.check().unwrap_err()
    }

    #[test]
    fn a_plan_refuses_what_the_flags_refuse() {
        assert_eq!(refused(|p| p.phases[1].reach = Reach::Devices(0)), PlanError::NoDevices { phase: 2 });
        assert_eq!(refused(|p| p.phases[2].reach = Reach::All), PlanError::AfterAll { phase: 3 });
        assert_eq!(refused(|p| p.phases.push(phase(Reach::Devices(1)))), PlanError::AfterAll { phase: 4 });
        assert!(matches!(
            refused(|p| p.phases[0].reach = Reach::Percent(f64::NAN)),
            PlanError::Percent { .. }
        ));
    }

    #[test]
    fn nobody_can_plan_a_wait_of_more_than_ninety_days() {
        let long = Duration::from_secs(u64::MAX);

        assert!(matches!(
            refused(|p| p.phases[0].rule.soak = long),
            PlanError::Policy(PolicyError::Wait { .. })
        ));
        assert!(matches!(
            refused(|p| p.policy.gate_timeout = long),
            PlanError::Policy(PolicyError::Wait { .. })
        ));
        assert_eq!(refused(|p| p.spread = u32::MAX), PlanError::Spread { found: u32::MAX });
        let mut plan = Plan::default();
        plan.phases[0].rule.soak = WAIT_MAX;
        assert_eq!(plan.check(), Ok(()));
    }
}
