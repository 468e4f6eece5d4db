//! Reports: what a device tells the controller, sealed and numbered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Nonce;
use crate::digest::Digest;
use crate::id::{CarrierId, DeviceId, ModelId, ProductId, RegionId, RolloutId};
use crate::state::{Outcome, StateName};

/// A report. `n` counts for the device's life; (device, n) is its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "super::flat::FlatReport")]
pub struct Report {
    /// Epoch of the key that sealed it; changes when it is sent again after a boot.
    pub e: u64,
    /// Number of the controller's telemetry key.
    pub k: u32,
    /// Number of the report; stays when it is sent again.
    pub n: u64,
    /// Lowest number still in the device's outbox.
    pub low: u64,
    /// What it says.
    #[serde(flatten)]
    pub kind: ReportKind,
}

/// One attempt of one device at one release.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// Release counter.
    pub rc: u64,
    /// The rollout that offered it.
    pub rollout: RolloutId,
    /// Raised by the operator to have failed devices try again.
    pub attempt: u32,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "kebab-case", try_from = "super::flat::FlatReport")]
pub enum ReportKind {
    /// Opens an epoch, and after every connection says what the device is and runs.
    Hello(Box<Hello>),
    /// Wants an answer to a nonce; not counted.
    Ask {
        /// To be repeated by the answer.
        nonce: Nonce,
        /// What the device is about to do.
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// Is about to arm: the device counts as started from here.
    Started {
        /// To be repeated by the answer; nothing is armed before it.
        nonce: Nonce,
        /// Which attempt.
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// A held-back device would have started now: its control exposure begins.
    ControlStart {
        /// Which attempt it is the control of.
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// Entered another state of the update machine.
    Transition {
        /// Which attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// State left.
        from: StateName,
        /// State entered.
        to: StateName,
        /// Why, where it is not obvious.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The attempt ended.
    Outcome {
        /// Which attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// How.
        outcome: Outcome,
        /// Why, where it is not obvious.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Counters since the last health report: crashes, modem resets, boots, battery drain.
    Health {
        /// The release that runs.
        rc: u64,
        /// Metric name to count.
        metrics: BTreeMap<String, u64>,
    },
    /// Learned of a kill with this attempt open.
    Halted {
        /// Which attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// The state in which it was learned.
        state: StateName,
    },
}

impl ReportKind {
    /// Returns the attempt that it is about, if any.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Hello(_) | Self::Health { .. } => None,
            Self::Ask { attempt, .. }
            | Self::Started { attempt, .. }
            | Self::ControlStart { attempt }
            | Self::Transition { attempt, .. }
            | Self::Outcome { attempt, .. }
            | Self::Halted { attempt, .. } => Some(attempt),
        }
    }

    /// Returns the word that names the kind in messages and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Ask { .. } => "ask",
            Self::Started { .. } => "started",
            Self::ControlStart { .. } => "control-start",
            Self::Transition { .. } => "transition",
            Self::Outcome { .. } => "outcome",
            Self::Health { .. } => "health",
            Self::Halted { .. } => "halted",
        }
    }
}

/// What a device is and runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Counter of the running release; 0 for a factory image without one.
    pub running: u64,
    /// The agent's own version.
    pub agent: String,
    /// Product that the device believes in.
    pub product: ProductId,
    /// Hardware model.
    pub model: ModelId,
    /// Carrier.
    pub carrier: CarrierId,
    /// Region.
    pub region: RegionId,
    /// Lowest release counter that it accepts.
    pub floor: u64,
    /// Highest versions of signed files that it holds.
    pub versions: Versions,
    /// Halted release counters that it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub halted: Vec<u64>,
    /// Component name to version, for what it runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, String>,
    /// Answer to a challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// Versions of signed files; 0 where none is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Versions {
    /// Of root.
    pub root: u32,
    /// Of timestamp.
    pub timestamp: u32,
    /// Of snapshot.
    pub snapshot: u32,
    /// Of targets.
    pub targets: u32,
    /// Of release.
    pub release: u32,
    /// Of rollout.
    pub rollout: u32,
    /// Of halt.
    pub halt: u32,
}

/// A challenge, signed by the identity key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The challenge that is answered.
    pub challenge: Nonce,
    /// Highest report number that the device remembers to have used.
    pub counter: u64,
    /// Hex of the DER signature over [`challenge_signing_input`].
    pub signature: String,
}

/// Returns what the identity key signs to answer a challenge.
pub fn challenge_signing_input(device: &DeviceId, challenge: Nonce, counter: u64) -> Vec<u8> {
    let device = Digest::of(device.as_str().as_bytes());
    [b"tern-challenge-v1".as_slice(), &device.0, &challenge.0, &counter.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_it_was_written() {
        let attempt = Attempt { rc: 7, rollout: "r7".parse().unwrap(), attempt: 1 };
        let kind = ReportKind::Started { nonce: Nonce([9; 16]), attempt };
        let report = Report { e: 2, k: 1, n: 40, low: 38, kind };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.starts_with(r#"{"e":2,"k":1,"n":40,"low":38,"t":"started""#), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert!(serde_json::from_str::<Report>(r#"{"e":1,"k":1,"n":1,"low":1,"t":"reboot"}"#).is_err());
    }
}
