//! What is known of one device: the update machine as its reports tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tern_protocol::id::RolloutId;
use tern_protocol::message::{Registry, Versions};
use tern_protocol::state::{Outcome, StateName};

use super::received::Received;
use super::tale::Tale;
use crate::core::fact::Millis;

/// Anomalies kept per device.
const ANOMALIES_MAX: usize = 32;

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Identity public key, hex.
    pub identity: String,
    /// Telemetry public key, hex, once it was presented.
    pub telemetry: Option<String>,
    /// What it is.
    pub registry: Registry,
    /// Its present epoch; 0 before the first hello.
    pub epoch: u64,
    /// Report numbers seen.
    pub received: Received,
    /// Counter of the release that it said it runs.
    pub running: u64,
    /// Its version floor.
    pub floor: u64,
    /// Signed files that it holds.
    pub versions: Versions,
    /// Version of its agent.
    pub agent: String,
    /// Last report.
    pub seen_at: Option<Millis>,
    /// What it did in each rollout.
    pub attempts: BTreeMap<RolloutId, AttemptRecord>,
    /// Reports that skipped or contradicted the machine.
    pub anomalies: Vec<Anomaly>,
}

/// What a device did in one rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Attempt number.
    pub attempt: u32,
    /// The phase that included it first.
    pub phase: usize,
    /// When its start was recorded.
    pub started_at: Option<Millis>,
    /// It was the how-many-th of its model to start.
    pub rank: u64,
    /// The series of the rollout in which it started.
    #[serde(default)]
    pub series: u32,
    /// The state that it reported last.
    pub state: StateName,
    /// Number of the report that said so.
    #[serde(default)]
    pub state_n: u64,
    /// Its starts and ends in the order in which it made them.
    #[serde(default)]
    pub tale: Tale,
    /// The first outcome; it stands.
    pub outcome: Option<Outcome>,
    /// Why, in the device's words.
    pub reason: Option<String>,
    /// When it said that it had learned of the kill.
    pub halted_at: Option<Millis>,
    /// The state in which it learned of it.
    pub halted_in: Option<StateName>,
    /// When it reported last.
    pub changed_at: Millis,
}

impl AttemptRecord {
    /// Begins, before the first report is told.
    pub(super) fn fresh(attempt: u32, phase: usize, at: Millis) -> Self {
        Self {
            attempt,
            phase,
            started_at: None,
            rank: 0,
            series: 0,
            state: StateName::Idle,
            state_n: 0,
            tale: Tale::default(),
            outcome: None,
            reason: None,
            halted_at: None,
            halted_in: None,
            changed_at: at,
        }
    }
}

/// A report that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// When.
    pub at: Millis,
    /// What.
    pub what: String,
}

impl Device {
    /// Registers a device of a factory list.
    pub fn new(identity: String, registry: Registry) -> Self {
        Self {
            identity,
            telemetry: None,
            registry,
            epoch: 0,
            received: Received::default(),
            running: 0,
            floor: 0,
            versions: Versions::default(),
            agent: String::new(),
            seen_at: None,
            attempts: BTreeMap::new(),
            anomalies: Vec::new(),
        }
    }

    /// Notes something that does not fit; the oldest note gives way.
    pub fn anomaly(&mut self, at: Millis, what: String) {
        if self.anomalies.len() == ANOMALIES_MAX {
            self.anomalies.remove(0);
        }
        self.anomalies.push(Anomaly { at, what });
    }
}
