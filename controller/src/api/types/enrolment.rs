//! Shapes of who may become a device.

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ClaimId, DeviceId, FactoryId};
use tern_protocol::message::Registry;

use crate::core::enrolment::claim::Terms;
use crate::core::fact::DeviceEntry;
pub use crate::core::service::{NewClaim, OneTimeToken};

/// `POST /v1/devices`: devices that nobody vouches for. From loopback only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDevices {
    /// The devices.
    pub devices: Vec<DeviceEntry>,
    /// That the list is not signed must be said: without it the request is refused.
    #[serde(default)]
    pub unsigned: bool,
}

/// `POST /v1/factory-lists`: devices that a factory vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedList {
    /// The list, byte for byte.
    pub list: String,
    /// The signature, hex of DER.
    pub signature: String,
}

/// Answer to `POST /v1/devices` and `POST /v1/factory-lists`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedDevices {
    /// New ones.
    pub added: usize,
    /// Known ones whose entry was renewed.
    pub renewed: usize,
}

/// `POST /v1/devices/{device}/{approve,reject,quarantine,readmit,revoke,reset}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Why, for the ledger.
    #[serde(default)]
    pub reason: String,
}

/// One line of `GET /v1/pending`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingLine {
    /// The device.
    pub device: DeviceId,
    /// What it says that it is.
    #[serde(flatten)]
    pub registry: Registry,
    /// The claim whose token it has.
    pub claim: ClaimId,
    /// Identity public key, hex: compare it with the device's own `tern-agent identity`.
    pub identity: String,
    /// Since when it waits, Unix ms.
    pub since: u64,
    /// A device of this name was reset, and this one would take its place.
    pub replaces: bool,
}

/// One line of `GET /v1/claims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimLine {
    /// The claim.
    pub claim: ClaimId,
    /// What its token is good for.
    #[serde(flatten)]
    pub terms: Terms,
    /// Devices that applied with it.
    pub used: u64,
    /// Devices of it that wait.
    pub waiting: u64,
    /// Made, Unix ms.
    pub created_at: u64,
    /// `open`, `expired`, `used-up` or `revoked`.
    pub status: String,
}

/// Answer to `POST /v1/claims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedClaim {
    /// The claim.
    pub claim: ClaimId,
    /// Its token: shown once, kept nowhere.
    pub token: OneTimeToken,
}

/// `POST /v1/factories`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFactory {
    /// Its name.
    pub factory: FactoryId,
    /// Its public key, hex of the uncompressed point.
    pub key: String,
}

/// One line of `GET /v1/factories`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactoryLine {
    /// Its name.
    pub factory: FactoryId,
    /// Its public key, hex of the uncompressed point.
    pub key: String,
    /// Registered, Unix ms.
    pub added_at: u64,
    /// Its lists are refused.
    pub revoked: bool,
}
