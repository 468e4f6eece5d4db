//! What the journal keeps: one record, saved whole before anything is done because of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tern_protocol::message::Registry;
use tern_protocol::tuf::Teachers;

use super::comparison::Compared;
use super::hold::Waiting;
use super::hook::Hooked;
use super::outbox::Outbox;
use super::state::State;
use super::time::TimeFloor;

/// The journal's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The update machine.
    pub state: State,
    /// Boots of the operating system, as the controller knows them.
    pub epoch: u64,
    /// The boot that `epoch` counts; an agent restart keeps it.
    pub boot_id: String,
    /// Reports that wait for their ack, and the counter that numbers them.
    pub outbox: Outbox,
    /// Lowest release counter that is accepted.
    pub floor: u64,
    /// Release counters that are dead for ever.
    pub halted: BTreeSet<u64>,
    /// Where the clock stood when it was saved last.
    pub time_floor: TimeFloor,
    /// The keys from which the time and the halted releases were learned: what is learned from a key goes with it.
    #[serde(default)]
    pub teachers: Teachers,
    /// Version of the timestamp whose end was reported last.
    #[serde(default)]
    pub stale_said: u32,
    /// What the controller's registry says the device is.
    pub registry: Option<Registry>,
    /// The controller has answered with a code of ours: it knows our telemetry key.
    pub enrolled: bool,
    /// Versions of the components that run.
    pub components: BTreeMap<String, String>,
    /// The comparison that the device takes part in.
    #[serde(default)]
    pub compared: Option<Compared>,
    /// What is waited for, while that is no state of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Which hooks may have run, and which are still to be told.
    #[serde(default)]
    pub hooks: Hooked,
    /// Boots that were asked for to leave a trial, and have not left it.
    #[serde(default)]
    pub leaving: u32,
}

impl Default for Durable {
    fn default() -> Self {
        Self {
            state: State::Idle { not_before: None },
            epoch: 0,
            boot_id: String::new(),
            outbox: Outbox::default(),
            floor: 0,
            halted: BTreeSet::new(),
            time_floor: TimeFloor::default(),
            teachers: Teachers::default(),
            stale_said: 0,
            registry: None,
            enrolled: false,
            components: BTreeMap::new(),
            compared: None,
            waiting: None,
            hooks: Hooked::default(),
            leaving: 0,
        }
    }
}
