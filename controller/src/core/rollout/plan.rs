//! A rollout's parameters: whom, in which steps, under which policy.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{CarrierId, DeviceId, ModelId, RegionId, TagId};
use tern_protocol::limits::LIST_MAX;
use tern_protocol::tuf::content::{Arm, Schedule, Urgency};

use super::hold_back::HoldBack;
use super::policy::{PhaseRule, Policy, PolicyError, WAIT_MAX, wait};
use super::times::{Times, TimesError};
use super::wave::Waves;

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
    /// How a phase opens.
    pub waves: Waves,
    /// Most devices that are on trial at once, or are offered the release and have not begun; absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// Most devices that are newly offered the release in an hour; absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Whom it is compared with.
    pub hold_back: HoldBack,
    /// Fewest devices of a first phase that is given in percent, where the fleet has twice as many.
    pub canary_min: u64,
    /// Fewest devices of each hardware model in a phase, where there are so many.
    pub model_min: u64,
    /// When it may widen.
    pub times: Times,
    /// A second person has to agree before phases open.
    pub approval: Approval,
    /// A kill is followed by a rollout of its own that takes devices back that run the release already.
    pub revert: bool,
    /// Devices of a wave spread their first request over this many seconds.
    pub spread: u32,
    /// Whether the devices' own windows and consent hold it back.
    #[serde(skip_serializing_if = "Urgency::is_soft")]
    pub urgency: Urgency,
    /// Whether devices that nobody can answer install all the same.
    #[serde(skip_serializing_if = "Arm::is_acked")]
    pub arm: Arm,
}

/// Tells whether two scopes share something; an empty one stands for all there is.
pub fn meet<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|it| b.contains(it))
}

/// What a second person has to agree to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Nothing.
    #[default]
    None,
    /// To the start.
    Start,
    /// To the start and to every phase after it.
    Phases,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// How many devices are included from here on, in all.
    pub reach: Reach,
    /// Devices that are included by name, whatever their position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<DeviceId>,
    /// Devices with one of these labels, the same; read when the phase opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<TagId>,
    /// What is asked for before the next step.
    #[serde(flatten)]
    pub rule: PhaseRule,
}

impl Phase {
    /// A phase of devices that hash chooses.
    pub fn new(reach: Reach, rule: PhaseRule) -> Self {
        Self { reach, list: Vec::new(), tags: Vec::new(), rule }
    }

    /// Tells whether it names its devices.
    pub fn names(&self) -> bool {
        !self.list.is_empty() || !self.tags.is_empty()
    }
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
    /// Waves that do not grow, or of nobody.
    #[error("waves need a first of at least 1 device and a factor from 1 to 100, found {first} and {factor}")]
    Waves {
        /// Devices of the first.
        first: u64,
        /// How they grow.
        factor: f64,
    },
    /// Nobody could ever begin.
    #[error("{0} must be at least 1 device; leave it out to mean any number")]
    Cap(&'static str),
    /// Everybody would be held back, or nobody.
    #[error(
        "hold_back.percent must lie above 0 and be at most 10, found {0}; `hold_back = {{ on = false }}` holds nobody back"
    )]
    HoldBack(f64),
    /// More devices by name than devices accept.
    #[error("phases may name {LIST_MAX} devices in all, these name {0}; choose the others by reach")]
    List(usize),
    /// A time that cannot be meant.
    #[error("the times cannot be used")]
    Times(#[from] TimesError),
    /// Nobody of a model.
    #[error("model_min must be from 1 to 1000, found {0}")]
    ModelMin(u64),
    /// A budget or limit is out of range.
    #[error("the policy cannot be used")]
    Policy(#[from] PolicyError),
}

impl Default for Plan {
    fn default() -> Self {
        let phase = |reach| Phase::new(reach, PhaseRule::default());
        Self {
            phases: vec![
                phase(Reach::Percent(1.0)),
                phase(Reach::Percent(10.0)),
                phase(Reach::Percent(50.0)),
                Phase::new(Reach::All, PhaseRule { gate: None, ..PhaseRule::default() }),
            ],
            regions: Vec::new(),
            models: Vec::new(),
            carriers: Vec::new(),
            policy: Policy::default(),
            waves: Waves::default(),
            concurrency: None,
            rate: None,
            hold_back: HoldBack::default(),
            canary_min: 10,
            model_min: 1,
            times: Times::default(),
            approval: Approval::None,
            revert: false,
            spread: 0,
            urgency: Urgency::Soft,
            arm: Arm::Acked,
        }
    }
}

impl Plan {
    /// Tells whether some device may be covered by both.
    pub fn meets(&self, other: &Self) -> bool {
        let Self { regions, models, carriers, .. } = self;
        meet(regions, &other.regions) && meet(models, &other.models) && meet(carriers, &other.carriers)
    }

    /// Returns when devices report health while others are held back.
    pub fn schedule(&self) -> Schedule {
        let seconds = |wait: Duration| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1);
        Schedule {
            early: seconds(self.policy.silence_early.after),
            last: seconds(self.policy.silence_deadline.after),
            window: seconds(self.policy.health_window),
        }
    }

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
                Reach::Devices(0) if !step.names() => return Err(PlanError::NoDevices { phase }),
                Reach::All if phase < self.phases.len() => return Err(PlanError::AfterAll { phase }),
                Reach::Percent(_) | Reach::Devices(_) | Reach::All => {}
            }
        }
        if u64::from(self.spread) > WAIT_MAX.as_secs() {
            return Err(PlanError::Spread { found: self.spread });
        }
        let named: usize = self.phases.iter().map(|phase| phase.list.len()).sum();
        if named > LIST_MAX {
            return Err(PlanError::List(named));
        }
        self.times.check()?;
        let Waves { first, factor, pause, .. } = self.waves;
        if first == 0 || !(1.0..=100.0).contains(&factor) {
            return Err(PlanError::Waves { first, factor });
        }
        wait("waves.pause", pause.unwrap_or_default())?;
        for (what, cap) in [("concurrency", self.concurrency), ("rate", self.rate)] {
            if cap == Some(0) {
                return Err(PlanError::Cap(what));
            }
        }
        if !(self.hold_back.percent > 0.0 && self.hold_back.percent <= 10.0) {
            return Err(PlanError::HoldBack(self.hold_back.percent));
        }
        if !(1..=1000).contains(&self.model_min) {
            return Err(PlanError::ModelMin(self.model_min));
        }
        self.policy.check().map_err(PlanError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(reach: Reach) -> Phase {
        Phase::new(reach, PhaseRule::default())
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
        assert_eq!(refused(|p| p.rate = Some(0)), PlanError::Cap("rate"));
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
