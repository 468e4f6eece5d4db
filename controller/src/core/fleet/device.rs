//! What is known of one device: the update machine as its reports tell it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{RolloutId, TagId};
use tern_protocol::message::{Registry, Versions};
use tern_protocol::state::{Outcome, StateName};

use super::attempts::Attempts;
use super::components::Components;
use super::received::Received;
use super::tale::Tale;
use crate::core::enrolment::claim::short;
use crate::core::fact::Millis;
use crate::core::rollout::silence::{Beside, Watch};

/// Anomalies kept per device.
const ANOMALIES_MAX: usize = 32;

/// Keys that a device has had and may not come back to. A device that uses up so many has to be reset.
pub const RETIRED_MAX: usize = 64;

/// What a registered device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// All that devices do.
    #[default]
    Active,
    /// It is heard and has no vote; it starts nothing new, and ends what it has begun.
    Quarantined,
    /// Nothing: it is neither heard nor answered.
    Revoked,
    /// Nothing, until it enrols again with new keys by a claim or a list.
    Reset,
}

impl Standing {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
            Self::Reset => "reset",
        }
    }

    /// Tells whether its messages are refused unread.
    pub fn is_silenced(self) -> bool {
        matches!(self, Self::Revoked | Self::Reset)
    }
}

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
    /// Versions of the components that it runs.
    pub components: Components,
    /// Last report.
    pub seen_at: Option<Millis>,
    /// What it did in each rollout.
    pub attempts: Attempts,
    /// Reports that skipped or contradicted the machine.
    pub anomalies: Vec<Anomaly>,
    /// What it may do.
    pub standing: Standing,
    /// Why, if somebody changed it.
    pub because: String,
    /// Keys that it may not come back to, by the short form of their digests: an old enrolment that somebody
    /// repeats must not bring back a key that was replaced for a reason.
    pub retired: Vec<u64>,
    /// Labels that operators gave it.
    pub tags: BTreeSet<TagId>,
    /// It claimed signed files once and did not present them: its claims alone do not stop the service any more.
    pub doubted: bool,
}

/// Stands for the last window of a device whose health is compared no more.
pub const SPENT: u64 = u64::MAX;

/// What a device did in one rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Attempt number.
    pub attempt: u32,
    /// The phase that included it first.
    pub phase: usize,
    /// When its start was recorded.
    pub started_at: Option<Millis>,
    /// It was the how-many-th of its model to start; 0 if a hard stop does not look so far.
    pub rank: u64,
    /// The series of the rollout in which it started.
    pub series: u32,
    /// The state that it reported last.
    pub state: StateName,
    /// Number of the report that said so.
    pub state_n: u64,
    /// Its starts and ends in the order in which it made them.
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
    /// What is waited for since it started.
    pub watch: Option<Watch>,
    /// Reports that it reached nobody, by number, while it was we who were away: those starts do not count.
    pub excused: Vec<u64>,
    /// The last window in which its health was compared; [`SPENT`]: it has had its event.
    pub health: Option<u64>,
    /// It is held back, and stands beside the others as control.
    pub beside: Option<Beside>,
    /// Its start was taken out of the counts, as nobody trusted the device to say how it ends.
    pub withdrawn: bool,
    /// Its end may be among the reports that went with a lost data folder; nothing was heard of it since.
    pub lost: bool,
}

impl AttemptRecord {
    /// Tells whether a deadline has found it silent; held back, whether it is silent now.
    pub fn was_silent(&self) -> bool {
        let watched = |watch: Watch| watch.early == Some(true) || watch.last == Some(true);
        self.watch.is_some_and(watched)
            || self.beside.is_some_and(|beside| beside.early.away || beside.last.away)
    }

    /// Tells whether it was silent at the last deadline: that verdict stands, and nothing that it says later counts.
    pub fn is_silent(&self) -> bool {
        self.watch.is_some_and(|watch| watch.last == Some(true))
    }

    /// Begins, before the first report is told.
    pub(crate) fn fresh(attempt: u32, phase: usize, at: Millis) -> Self {
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
            watch: None,
            excused: Vec::new(),
            beside: None,
            health: None,
            withdrawn: false,
            lost: false,
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
            components: Components::default(),
            seen_at: None,
            attempts: Attempts::default(),
            anomalies: Vec::new(),
            standing: Standing::Active,
            because: String::new(),
            retired: Vec::new(),
            tags: BTreeSet::new(),
            doubted: false,
        }
    }

    /// Tells whether it takes part in rollouts.
    pub fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }

    /// Tells whether a quarantined device may still get an answer about a rollout: it has begun, and should be able
    /// to end.
    pub fn has_begun(&self, rollout: &RolloutId) -> bool {
        self.attempts.get(rollout).is_some_and(|record| record.started_at.is_some())
    }

    /// Tells whether it had this key before.
    pub fn had(&self, key: &str) -> bool {
        self.retired.contains(&short(key))
    }

    /// Never takes this key again.
    pub(super) fn retire(&mut self, key: &str) {
        let key = short(key);
        if self.retired.contains(&key) {
            return;
        }
        if self.retired.len() == RETIRED_MAX {
            self.retired.remove(0);
        }
        self.retired.push(key);
    }

    /// Notes something that does not fit; the oldest note gives way.
    pub fn anomaly(&mut self, at: Millis, what: String) {
        if self.anomalies.len() == ANOMALIES_MAX {
            self.anomalies.remove(0);
        }
        self.anomalies.push(Anomaly { at, what });
    }
}
