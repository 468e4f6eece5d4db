//! Enrolment: a device presents its telemetry key, signed by its identity key.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{DeviceId, FleetId};
use crate::message::{Nonce, Registry};

/// An enrolment. Keys are hex of the uncompressed SEC1 point (65 bytes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// Identity key: signs, never agrees.
    pub identity: String,
    /// Telemetry key: agrees, never signs.
    pub telemetry: String,
    /// Hex of the DER signature of the identity key over [`enrol_signing_input`].
    pub proof: String,
    /// Proof of a claim's token (see [`crate::claim`]), from devices that no factory list names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// What the device says that it is; beside `claim`, whose proof covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<Registry>,
    /// Hex of the DER signature of the present identity key over [`enrol_signing_input`], when `identity` is to
    /// replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Asks for the time with this nonce (see [`super::TimeAnswer`]). Not signed: it asks, it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Nonce>,
}

/// Returns what the identity key signs to prove that both keys belong to the device.
pub fn enrol_signing_input(fleet: &FleetId, device: &DeviceId, identity: &[u8], telemetry: &[u8]) -> Vec<u8> {
    let mut input = b"tern-enrol-v1".to_vec();
    for part in [fleet.as_str().as_bytes(), device.as_str().as_bytes(), identity, telemetry] {
        input.extend_from_slice(&Digest::of(part).0);
    }
    input
}
