//! What the operator allows: budgets, limits and waits, with their defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest soak, deadline or time-out: what takes longer was a slip of the hand.
pub const WAIT_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// Fleets below this size follow the rules for tiny fleets.
pub const TINY_FLEET: u64 = 200;
/// False-kill budget of a tiny fleet: with few devices to lose, waiting costs more than a false alarm.
pub const TINY_ALPHA: f64 = 0.01;
/// A tiny fleet pauses on its first bad device while fewer than this many have started.
pub const TINY_FIRST: u64 = 10;
/// The hard stop is off above this baseline, where it would often hit a healthy release.
pub const HARD_STOP_BASELINE_MAX: f64 = 0.02;
/// Smallest baseline that is believed: an upper bound from few devices may be smaller than is real.
pub const BASELINE_MIN: f64 = 0.001;
/// Part of the weight of silence and health that the strata share when they are compared with a control together as well;
/// the rest is the strata's own.
pub const TOGETHER: f64 = 0.5;
/// Fewest devices of a control for it to replace the one-sample silence test.
pub const CONTROL_MIN: u64 = 20;
/// How many times the control's rate of silence is allowed.
pub const SILENCE_RATIO: f64 = 2.0;

/// A rollout's budgets and limits. Every key has a default; unknown keys are refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Share of bad devices above which a release is taken back, and below which a gate wants proof.
    pub max_failure_rate: f64,
    /// How much worse than the baseline or the control a release may be; 0.25 is a quarter worse.
    pub max_regression: f64,
    /// Which claim about the outcome the kill test tries to refute.
    pub claim: Claim,
    /// Chance that a healthy release is killed, over its whole life.
    pub alpha: f64,
    /// The same of a pause, which can be taken back.
    pub alpha_pause: f64,
    /// Chance that one gate passes a release worse than its limit.
    pub beta: f64,
    /// How `alpha` is shared among the tests.
    pub weights: Weights,
    /// Silence that is allowed shortly after the start.
    pub silence_early: SilenceRule,
    /// Silence that is allowed at last.
    pub silence_deadline: SilenceRule,
    /// What the agents of its devices are set to: nobody may count as silent who is still testing a release.
    pub device: DeviceTimes,
    /// Health is compared with the control in windows of this length, each device once in each.
    #[serde(with = "seconds")]
    pub health_window: Duration,
    /// Stop at this many bad among the first started, whatever the evidence; absent: off.
    pub hard_stop: Option<HardStop>,
    /// Pause at this many bad devices; absent: off.
    pub harm_budget: Option<u64>,
    /// An undecided gate asks a person after this long. It never passes by itself.
    #[serde(with = "seconds")]
    pub gate_timeout: Duration,
}

/// Which claim about the outcome the kill test tries to refute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// "The bad rate is at most `max_failure_rate`."
    Absolute,
    /// "The bad rate is at most the baseline, and `max_regression` more." Absolute without a baseline.
    Relative,
    /// Both, each with half the weight. Absolute without a baseline.
    #[default]
    Either,
}

/// How `alpha` is shared among the tests; the sum is at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Failed and rolled back.
    pub outcome: f64,
    /// Silent at the last deadline.
    pub silence: f64,
    /// Silent at the early deadline.
    pub silence_early: f64,
    /// Crashes, resets, boot loops.
    pub crash: f64,
    /// Battery drain.
    pub battery: f64,
}

/// How long a started device may stay silent, and how many may longer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceRule {
    /// Time since the start, not counting time in which nothing was received.
    #[serde(with = "seconds")]
    pub after: Duration,
    /// Share of devices that may still be silent then.
    pub max_rate: f64,
}

/// Times of an agent, as its configuration names them; the defaults are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceTimes {
    /// All probes of a release together.
    #[serde(with = "seconds")]
    pub probe_deadline: Duration,
    /// How long a release runs well before it is confirmed.
    #[serde(with = "seconds")]
    pub soak: Duration,
    /// How long a trial waits for a connection.
    #[serde(with = "seconds")]
    pub connect_deadline: Duration,
}

impl Default for DeviceTimes {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self { probe_deadline: minutes(10), soak: minutes(15), connect_deadline: minutes(35) }
    }
}

impl DeviceTimes {
    /// Returns how long a healthy device may take to say how its trial ended.
    pub fn longest(&self) -> Duration {
        self.probe_deadline.saturating_add(self.soak).saturating_add(self.connect_deadline)
    }
}

/// "3 bad of the first 10 started": deterministic, on top of `alpha`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardStop {
    /// Bad devices that stop.
    pub bad: u64,
    /// Among this many that started first.
    pub first: u64,
}

/// What a phase asks for before the next one opens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseRule {
    /// Gate: proof, from devices of this phase alone, that the bad rate is below this; absent: soak only.
    #[serde(default)]
    pub gate: Option<f64>,
    /// Least observed time in the phase.
    #[serde(with = "seconds", default = "day")]
    pub soak: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_failure_rate: 0.05,
            max_regression: 0.25,
            claim: Claim::Either,
            alpha: 0.001,
            alpha_pause: 0.05,
            beta: 0.05,
            weights: Weights::default(),
            silence_early: SilenceRule { after: Duration::from_secs(3600), max_rate: 0.20 },
            silence_deadline: SilenceRule { after: Duration::from_secs(6 * 3600), max_rate: 0.02 },
            device: DeviceTimes::default(),
            health_window: day(),
            hard_stop: Some(HardStop { bad: 3, first: 10 }),
            harm_budget: None,
            gate_timeout: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { outcome: 0.5, silence: 0.2, silence_early: 0.1, crash: 0.1, battery: 0.1 }
    }
}

impl Default for PhaseRule {
    fn default() -> Self {
        Self { gate: Some(0.05), soak: day() }
    }
}

impl Policy {
    /// Returns the length of a window of health in milliseconds; at least 1.
    pub(in crate::core) fn health_length(&self) -> u64 {
        u64::try_from(self.health_window.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Checks every figure; a gate of a [`PhaseRule`] is checked by [`PhaseRule::check`].
    pub fn check(&self) -> Result<(), PolicyError> {
        let w = &self.weights;
        rate("max_failure_rate", self.max_failure_rate)?;
        rate("alpha", self.alpha)?;
        rate("alpha_pause", self.alpha_pause)?;
        rate("beta", self.beta)?;
        rate("silence_early.max_rate", self.silence_early.max_rate)?;
        rate("silence_deadline.max_rate", self.silence_deadline.max_rate)?;
        for weight in [w.outcome, w.silence, w.silence_early, w.crash, w.battery] {
            rate("a weight", weight)?;
        }
        let sum = w.outcome + w.silence + w.silence_early + w.crash + w.battery;
        // 0.5 + 0.2 + 0.1 + 0.1 + 0.1 is not exactly 1 in binary.
        if sum > 1.0 + 1e-9 {
            return Err(PolicyError::Weights { sum });
        }
        if !(0.0..=100.0).contains(&self.max_regression) {
            return Err(PolicyError::Regression { found: self.max_regression });
        }
        wait("silence_deadline.after", self.silence_deadline.after)?;
        wait("gate_timeout", self.gate_timeout)?;
        wait("health_window", self.health_window)?;
        if self.health_window.is_zero() {
            return Err(PolicyError::Wait { what: "health_window", found: self.health_window });
        }
        if self.silence_early.after.is_zero() || self.silence_early.after >= self.silence_deadline.after {
            return Err(PolicyError::Deadlines);
        }
        let (found, least) = (self.silence_deadline.after, self.device.longest());
        if found < least {
            return Err(PolicyError::TooSoon { found, least, device: self.device });
        }
        if self.hard_stop.is_some_and(|stop| stop.bad == 0 || stop.bad > stop.first) {
            return Err(PolicyError::HardStop);
        }
        Ok(())
    }
}

impl PhaseRule {
    /// Checks the gate's rate and the soak.
    pub fn check(&self) -> Result<(), PolicyError> {
        wait("a phase's soak", self.soak)?;
        self.gate.map_or(Ok(()), |p_max| rate("a phase's gate", p_max))
    }
}

/// Says which figure of a policy cannot be meant.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// A share that is not between 0 and 1.
    #[error("{what} must lie between 0 and 1, found {found}")]
    Rate {
        /// Its name.
        what: &'static str,
        /// Its value.
        found: f64,
    },
    /// A wait that nobody means.
    #[error("{what} is {} s, at most {} s (90 days) are possible", found.as_secs(), WAIT_MAX.as_secs())]
    Wait {
        /// Its name.
        what: &'static str,
        /// Its value.
        found: Duration,
    },
    /// More is given out than there is.
    #[error("the weights share one budget and may add up to 1, found {sum}")]
    Weights {
        /// Their sum.
        sum: f64,
    },
    /// A negative or absurd regression.
    #[error("max_regression must lie between 0 and 100, found {found}")]
    Regression {
        /// Its value.
        found: f64,
    },
    /// The early deadline is not early.
    #[error("silence_early must be above 0 s and come before silence_deadline")]
    Deadlines,
    /// Healthy devices would count as silent.
    #[error(
        "silence_deadline is {} s after a start, and a healthy device may take {} s to say how it ended (probe_deadline \
         {}, soak {} and connect_deadline {} of its agent): it would count as silent; give silence_deadline.after at \
         least that, or say in policy.device what your agents are set to",
        found.as_secs(), least.as_secs(), device.probe_deadline.as_secs(), device.soak.as_secs(),
        device.connect_deadline.as_secs()
    )]
    TooSoon {
        /// The deadline.
        found: Duration,
        /// What a healthy device may take.
        least: Duration,
        /// What that is made of.
        device: DeviceTimes,
    },
    /// A hard stop that always or never stops.
    #[error("hard_stop needs at least one bad device, and no more than the first devices it looks at")]
    HardStop,
}

fn rate(what: &'static str, found: f64) -> Result<(), PolicyError> {
    if found > 0.0 && found < 1.0 { Ok(()) } else { Err(PolicyError::Rate { what, found }) }
}

pub(super) fn wait(what: &'static str, found: Duration) -> Result<(), PolicyError> {
    if found <= WAIT_MAX { Ok(()) } else { Err(PolicyError::Wait { what, found }) }
}

fn day() -> Duration {
    Duration::from_secs(24 * 3600)
}

/// Durations as whole seconds, as they stand in signed files and configurations.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(value.as_secs())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        u64::deserialize(input).map(Duration::from_secs)
    }
}

/// The same where they may be absent.
pub(crate) mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => out.serialize_some(&value.as_secs()),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(input)?.map(Duration::from_secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_survive_json() {
        let policy = Policy::default();
        let text = serde_json::to_string(&policy).unwrap();

        assert_eq!(policy.check(), Ok(()));
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), policy);
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_by_name() {
        let error = serde_json::from_str::<Policy>("{\"max_failure\":0.1}").unwrap_err();
        assert!(error.to_string().contains("max_failure"), "{error}");
    }

    #[test]
    fn figures_that_cannot_be_meant_are_refused() {
        let refused = |change: fn(&mut Policy)| {
            let mut policy = Policy::default();
            change(&mut policy);
            policy.check().unwrap_err()
        };
        assert!(matches!(refused(|p| p.max_failure_rate = 5.0), PolicyError::Rate { .. }));
        assert!(matches!(refused(|p| p.alpha = f64::NAN), PolicyError::Rate { .. }));
        assert!(matches!(refused(|p| p.weights.outcome = 0.9), PolicyError::Weights { .. }));
        assert!(matches!(refused(|p| p.max_regression = -1.0), PolicyError::Regression { .. }));
        assert_eq!(refused(|p| p.silence_early.after = day()), PolicyError::Deadlines);
        let hour = Duration::from_secs(3600);
        let soon = |p: &mut Policy| p.silence_deadline.after = Duration::from_secs(3660);
        let mut policy = Policy::default();
        soon(&mut policy);
        assert_eq!((policy.check(), policy.device.longest()), (Ok(()), hour), "defaults of an agent");
        policy.device.connect_deadline = hour;
        let said = policy.check().unwrap_err().to_string();
        assert!(said.contains("3660 s after a start") && said.contains("connect_deadline 3600"), "{said}");
        assert_eq!(refused(|p| p.hard_stop = Some(HardStop { bad: 4, first: 3 })), PolicyError::HardStop);
    }
}
