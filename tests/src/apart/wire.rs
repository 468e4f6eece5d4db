//! What is said through the pipe: a JSON value a line.

use serde::{Deserialize, Serialize};
use tern_controller::core::service::{Command, Refusal, Reply};
use tern_protocol::id::{FleetId, ProductId};

/// What the process begins with: its first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// The data folder.
    pub data: std::path::PathBuf,
    /// The fleet.
    pub fleet: FleetId,
    /// The product whose keys are drawn from `keys`.
    pub product: ProductId,
    /// What the keys are drawn from.
    pub keys: u64,
    /// Random, and never used twice.
    pub seed: [u8; 32],
    /// The time at the start, Unix time in milliseconds.
    pub now: u64,
    /// Die at this point, counted from 0 in this process.
    pub die_at: Option<u64>,
    /// Something that is wrong on purpose.
    pub broken: Option<Broken>,
}

/// Ways to be wrong that the campaign must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Broken {
    /// Acknowledgements leave before the reports are in the ledger.
    AcksEarly,
    /// Signed files leave before the ledger has them, and the kill that they tell of.
    BundlesEarly,
    /// A start does not look for a kill that was recorded and not signed.
    KillNotCompleted,
}

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A message of a device.
    Message {
        /// The time.
        now: u64,
        /// Its topic, as text.
        topic: String,
        /// Hex.
        payload: String,
    },
    /// An operator's command.
    Command {
        /// The time.
        now: u64,
        /// What.
        command: Box<Command>,
    },
    /// The broker is there.
    BrokerUp {
        /// The time.
        now: u64,
    },
    /// The broker is gone.
    BrokerDown {
        /// The time.
        now: u64,
    },
    /// Time has passed.
    Time {
        /// The time.
        now: u64,
    },
    /// Does the running service know what its ledger adds up to?
    Compare,
}

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Tell {
    /// A message for the broker.
    Publish {
        /// Its topic, as text.
        topic: String,
        /// Hex.
        payload: String,
    },
    /// The reply to a command.
    Reply(Result<Reply, Refusal>),
    /// It took its folder for a copy of the original.
    TakenForACopy,
    /// Whether the running service knows what its ledger adds up to.
    Same(bool),
    /// What was asked is done, and everything that it let out was told before.
    Done,
}
