//! An event log as its file holds it: what devices sent and when it arrived, and the policy of the rollout. It holds
//! no verdict and no deadline that passed: whoever reads it counts by itself.

use serde::{Deserialize, Serialize};
use tern_controller::core::rollout::policy::Policy;
use tern_protocol::id::{DeviceId, ModelId};
use tern_protocol::state::Outcome;

/// One log, one line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Log {
    /// Its number.
    pub(crate) log: u64,
    /// What kind of release and fleet it tells of.
    pub(crate) profile: String,
    /// Budgets, limits, deadlines.
    pub(crate) policy: Policy,
    /// Every device that the rollout covers, with its hardware model; some never speak.
    pub(crate) devices: Vec<(DeviceId, ModelId)>,
    /// What arrived, by time.
    pub(crate) lines: Vec<Line>,
}

/// One report that arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since the rollout started.
    pub(crate) at: u64,
    /// Who sent it.
    pub(crate) device: DeviceId,
    /// The device's epoch when it sent it: one for each boot.
    pub(crate) e: u64,
    /// Its number: the same when it is sent again.
    pub(crate) n: u64,
    /// What it says.
    #[serde(flatten)]
    pub(crate) said: Said,
}

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Said {
    /// The device came up.
    Hello,
    /// It is about to arm the release.
    Started,
    /// It runs the release on trial.
    Trial,
    /// Its attempt ended.
    Outcome {
        /// How.
        outcome: Outcome,
    },
}

impl Said {
    /// Tells whether the device counts as started once this is known.
    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Started | Self::Trial)
    }
}
