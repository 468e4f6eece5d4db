//! A rollout's parameters: whom, in which steps, under which policy.

use serde::{Deserialize, Serialize};
use tern_protocol::id::{CarrierId, ModelId, RegionId};

use super::policy::{PhaseRule, Policy, PolicyError};

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
            if let Reach::Percent(percent) = step.reach
                && !(percent > 0.0 && percent <= 100.0)
            {
                return Err(PlanError::Percent { phase, percent });
            }
        }
        self.policy.check().map_err(PlanError::from)
    }
}
