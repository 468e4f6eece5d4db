//! A decision with the numbers that led to it, as the ledger keeps it and the operator reads it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::Arm;
use super::policy::seconds;

/// What should happen to a rollout now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "kebab-case")]
pub enum Verdict {
    /// Open the next phase.
    Advance(AdvanceReason),
    /// Change nothing yet.
    Hold(HoldReason),
    /// Stop offering; may be resumed, which begins a new series.
    Pause(PauseReason),
    /// Take the release back, for ever.
    Kill(KillReason),
}

/// Why a release is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillReason {
    /// A test's evidence crossed its threshold.
    Evidence(Evidence),
    /// Too many of the first devices are bad.
    HardStop {
        /// Bad ones among the first.
        bad: u64,
        /// How many are looked at.
        first: u64,
    },
}

/// Why nothing is offered for now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PauseReason {
    /// The evidence suffices for a pause, not for a kill.
    Evidence(Evidence),
    /// Silence would have killed, but devices outside the rollout went offline too.
    Outage(Evidence),
    /// A tiny fleet saw its first bad device.
    FirstBad {
        /// Bad devices.
        bad: u64,
        /// Devices that started.
        started: u64,
    },
    /// The operator's budget of bad devices is spent.
    HarmBudget {
        /// Bad devices.
        bad: u64,
        /// The budget.
        budget: u64,
    },
}

/// Why a phase does not end yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// More waves of the phase are to come.
    Wave {
        /// The wave that opened last, from 1.
        wave: u64,
        /// Waves of the phase.
        of: u64,
        /// Devices that the phase has included so far.
        included: u64,
        /// Devices of the whole phase.
        devices: u64,
        /// Those included that have begun.
        started: u64,
        /// Bad, silent or unreachable ones.
        bad: u64,
        /// Observed time since it opened.
        #[serde(with = "seconds")]
        open: Duration,
        /// The least time that it is open.
        #[serde(with = "seconds")]
        pause: Duration,
    },
    /// No device of the phase has started.
    NothingStarted,
    /// Nor was any of them heard since it opened.
    Away {
        /// Devices of the phase.
        devices: u64,
    },
    /// Every device of the phase had started before the rollout was resumed: nobody is left to prove anything.
    Spent {
        /// Devices of the phase.
        devices: u64,
    },
    /// Only time is missing.
    Soaking {
        /// Observed time in the phase.
        #[serde(with = "seconds")]
        soaked: Duration,
        /// What the phase asks for.
        #[serde(with = "seconds")]
        soak: Duration,
    },
    /// The gate wants more proof.
    Gate {
        /// What it has.
        proof: Proof,
        /// Devices that suffice if no other turns bad; absent when the phase has too few.
        enough: Option<u64>,
    },
    /// The phase is too small for its gate ever to pass: wants soak, no bad device and an operator's word.
    Unproven {
        /// What the gate has.
        proof: Proof,
        /// Devices that the phase has.
        devices: u64,
    },
    /// The gate has been undecided for too long: a person decides.
    TimedOut {
        /// What it has.
        proof: Proof,
        /// Observed time in the phase.
        #[serde(with = "seconds")]
        soaked: Duration,
    },
}

/// Why the next phase opens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdvanceReason {
    /// The next wave of the phase opens.
    Wave {
        /// Its number, from 1.
        wave: u64,
        /// Waves of the phase.
        of: u64,
        /// Bad, silent or unreachable devices so far.
        bad: u64,
        /// Devices that started.
        started: u64,
        /// Observed time since the wave before.
        #[serde(with = "seconds")]
        soaked: Duration,
    },
    /// The wave goes on, as far as there is room.
    Room {
        /// Its number, from 1.
        wave: u64,
        /// Waves of the phase.
        of: u64,
        /// Devices of it that are not included yet.
        owed: u64,
        /// Bad, silent or unreachable devices so far.
        bad: u64,
        /// Devices that started.
        started: u64,
    },
    /// The gate's proof suffices.
    Proven {
        /// What it has.
        proof: Proof,
        /// Observed time in the phase.
        #[serde(with = "seconds")]
        soaked: Duration,
    },
    /// The phase has no gate, and its time is up.
    Soaked {
        /// Devices that started.
        started: u64,
        /// Observed time in the phase.
        #[serde(with = "seconds")]
        soaked: Duration,
    },
}

/// Which test spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// Failed or rolled back.
    Outcome,
    /// Silent at the last deadline.
    Silence,
    /// Silent at the early deadline.
    SilenceEarly,
    /// Crashes, resets, boot loops.
    Crash,
    /// Battery drain.
    Battery,
    /// Went back because nobody could be reached; can only pause.
    Unreachable,
}

/// Everything that it takes to work a test's result out again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The test.
    pub test: Test,
    /// Devices; against a control: exposure.
    pub n: u64,
    /// Bad ones; against a control: events.
    pub f: u64,
    /// Allowed rate; against a control: allowed ratio.
    pub p: f64,
    /// The control, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Arm>,
    /// Rate of silence that is allowed whatever the control shows; against a control alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<f64>,
    /// Deadline that a silence test looks at; zero otherwise.
    #[serde(with = "seconds")]
    pub after: Duration,
    /// Chance of a false alarm, over all tests.
    pub alpha: f64,
    /// This test's share of it.
    pub weight: f64,
    /// Evidence, to six decimals.
    pub ln_e: f64,
    /// What it takes, to six decimals.
    pub threshold: f64,
}

/// What a gate has to show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Devices of the phase that started.
    pub n: u64,
    /// Bad, silent or unreachable ones.
    pub bad: u64,
    /// Not resolved yet; the gate counts them as bad.
    pub pending: u64,
    /// Rate that the gate wants proof against.
    pub p_max: f64,
    /// Chance of passing a release that is worse.
    pub beta: f64,
    /// Evidence, to six decimals.
    pub ln_e: f64,
    /// What it takes, to six decimals.
    pub threshold: f64,
    /// The rate is below this with confidence 1 − `beta`, to six decimals.
    pub bound: f64,
}

impl Verdict {
    /// Ranks verdicts, the kindest first: of several strata the severest decides.
    pub fn severity(&self) -> u8 {
        match self {
            Self::Advance(_) => 0,
            Self::Hold(_) => 1,
            Self::Pause(_) => 2,
            Self::Kill(_) => 3,
        }
    }

    /// Returns the verdict in one line, about `subject` ("fw 2.4.1 model=B3").
    pub fn explain(&self, subject: &str) -> String {
        let (name, reason): (_, &dyn fmt::Display) = match self {
            Self::Advance(reason) => ("ADVANCE", reason),
            Self::Hold(reason) => ("HOLD", reason),
            Self::Pause(reason) => ("PAUSE", reason),
            Self::Kill(reason) => ("KILL", reason),
        };
        let gap = if subject.is_empty() { "" } else { " " };
        format!("{name}{gap}{subject}: {reason}.")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.explain(""))
    }
}
