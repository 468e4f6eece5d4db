//! What devices, chunk servers, edges and the controller say to one another, apart from signed files.
//!
//! Sealed messages (see [`crate::mac`]) start with `{"e":<epoch>,` so that a receiver can judge the epoch
//! before it derives a key. Unknown fields are ignored, unknown kinds are errors: a newer device must not be
//! half understood.

mod answer;
mod enrol;
mod flat;
mod get;
mod pack;
mod report;
mod reports;
mod revoked;
mod time;

pub use answer::{Answer, AnswerKind, Registry};
pub use enrol::{Enrol, enrol_signing_input};
pub use get::{Get, GetError, Want};
pub use pack::{Pack, PackError, PackKind};
pub use report::{Attempt, Hello, Proof, Report, ReportKind, Versions, challenge_signing_input};
pub use reports::Reports;
pub use revoked::{Revoked, RevokedError};
pub use time::{TimeAnswer, TimeAnswerError};

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

/// Sixteen random bytes that tie an answer to a question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; 16]);

impl std::fmt::Debug for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}…", hex::encode(&self.0[..4]))
    }
}

impl TryFrom<String> for Nonce {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut out = [0; 16];
        hex::decode_to_slice(text, &mut out)?;
        Ok(Self(out))
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        hex::encode(nonce.0)
    }
}

/// Online or offline, said by the device or by its will. Unauthenticated: for display, and to soften a kill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether the device is there.
    pub online: bool,
}

/// What an edge says about itself every 60 s. May only stop clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Whether the edge's uplink is up; `false` in its will.
    pub online: bool,
    /// Reports that wait for the uplink.
    pub queue: u64,
    /// Devices that are connected to it.
    pub seen: Vec<DeviceId>,
    /// What it counts; absent in its will.
    #[serde(default, rename = "site", skip_serializing_if = "Option::is_none")]
    pub figures: Option<SiteFigures>,
}

/// What an edge counts since its start, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteFigures {
    /// Packs answered from what it has.
    pub hits: u64,
    /// Packs that came from upstream and are what was asked for.
    pub fetched: u64,
    /// Packs that came and are not.
    pub refused: u64,
    /// Packs of its cache that were found damaged.
    pub damaged: u64,
    /// MQTT bytes that came from upstream.
    pub down: u64,
    /// MQTT bytes that went there.
    pub up: u64,
    /// Bytes of its cache.
    pub cached: u64,
    /// Packs that devices wait for.
    pub wanted: u64,
    /// Unix seconds at which the oldest stored report came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// Reports that were dropped, for want of room.
    pub dropped: u64,
    /// What is wrong, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Unix seconds since when it is cut off from upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<u64>,
}
