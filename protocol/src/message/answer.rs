//! Answers: what the controller tells one device, sealed with the key of the other direction.

use serde::{Deserialize, Serialize};

use super::Nonce;
use crate::id::{CarrierId, ModelId, ProductId, RegionId};
use crate::tuf::Role;

/// An answer on `d/<device>/in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Epoch of the key that sealed it. 0 for a challenge and a grant, which come before an epoch is agreed, and for
    /// `present`, which a service may have to ask that has lost the epoch.
    pub e: u64,
    /// Number of the controller's telemetry key.
    pub k: u32,
    /// What it says.
    #[serde(flatten)]
    pub kind: AnswerKind,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "kebab-case")]
pub enum AnswerKind {
    /// These reports are in the ledger; the device may forget them.
    Ack {
        /// Inclusive ranges of report numbers.
        ranges: Vec<(u64, u64)>,
        /// After a hello: what the registry says the device is. It wins over the device's own belief.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        registry: Option<Registry>,
    },
    /// Answers the nonce of an `ask` or a `started`.
    Answer {
        /// The nonce.
        nonce: Nonce,
        /// Unix time, seconds.
        time: u64,
        /// Current version of the rollout role.
        rollout: u32,
        /// Current version of the halt role.
        halt: u32,
        /// Reports that are in the ledger, as in an ack: most questions come with reports.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ranges: Vec<(u64, u64)>,
    },
    /// The epoch of a hello was not expected: sign this with the identity key.
    Challenge {
        /// What to sign.
        challenge: Nonce,
    },
    /// The signed challenge was right.
    Grant {
        /// The challenge.
        challenge: Nonce,
        /// The epoch to use from now on.
        epoch: u64,
        /// A report number above every one that was ever seen.
        counter: u64,
    },
    /// The service compares itself with its devices: present these files as they were signed, each in a bundle of its
    /// own on `report`. Without roles: say hello again.
    Present {
        /// Whose files.
        roles: Vec<Role>,
    },
}

/// What the registry knows of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Registry {
    /// Product.
    pub product: ProductId,
    /// Hardware model, the stratum of the evidence.
    pub model: ModelId,
    /// Carrier.
    pub carrier: CarrierId,
    /// Region.
    pub region: RegionId,
}
