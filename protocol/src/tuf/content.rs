//! What Tern puts into metadata beyond the TUF specification.
//!
//! Release: `custom` of each target. Rollout, halt and targets: the field `x-tern` of the signed part (TUF 1.0
//! section 4.5 lets a client ignore fields that it does not know).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{CarrierId, DeviceId, ModelId, RegionId, RolloutId};
use crate::position::{Cut, Position, Salt};

/// One artifact of a release: the `custom` of a target in the release role. The target's path is
/// `<product>/<rc>/<component>`; its length and SHA-256 are TUF's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactContent {
    /// Release counter: grows with every release of the product, never reused.
    pub rc: u64,
    /// Version for people.
    pub version: String,
    /// Which part of the device it is for.
    pub component: String,
    /// Models that may run it.
    pub models: Vec<ModelId>,
    /// Lowest running release counter from which the step is supported; 0 for any.
    #[serde(default)]
    pub min_from: u64,
    /// Floor that a device raises itself to after confirming; never above `rc`.
    #[serde(default)]
    pub floor: u64,
    /// Merkle root over the image's chunks.
    pub root: Digest,
}

/// Extension of the rollout role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RolloutContent {
    /// Every active rollout, and per region the last that reached everybody; at most 8. The first entry that
    /// includes a device and is not halted is its offer.
    pub entries: Vec<Entry>,
}

/// What an entry of the rollout role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A rollout in progress: only raises rc.
    Update,
    /// The last rollout that reached everybody in its regions: only raises rc.
    Base,
    /// A rollout back to an earlier approved release: may lower rc, never below the floor.
    Revert,
}

/// When a device may arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// Only with the controller's answer to `started`.
    #[default]
    Acked,
    /// An unexpired timestamp and a known clock suffice; for sites that are cut off.
    Fresh,
}

/// One rollout as devices see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The rollout.
    pub rollout: RolloutId,
    /// The release that it offers.
    pub rc: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// Raised to have failed devices try again.
    pub attempt: u32,
    /// Regions that it covers; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionId>,
    /// Models that it covers; empty for all that the release names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelId>,
    /// Carriers that it covers; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carriers: Vec<CarrierId>,
    /// Shuffles the devices.
    pub salt: Salt,
    /// How far it has widened, per hardware model. A model without a cut is not included.
    pub cuts: BTreeMap<ModelId, Cut>,
    /// Positions that are held back as control, from (inclusive) to (exclusive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_back: Option<(Position, Position)>,
    /// Devices included whatever their position: first eight bytes of SHA-256(device id), hex; at most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<String>,
    /// A device waits hash × spread before its first `get`; seconds.
    #[serde(default)]
    pub spread: u32,
    /// When a device may arm.
    #[serde(default)]
    pub arm: Arm,
}

/// Returns how a device is written in an entry's list.
pub fn listed(device: &DeviceId) -> String {
    format!("{:016x}", Digest::of(device.as_str().as_bytes()).short())
}

/// Extension of the halt role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HaltContent {
    /// Release counters that are dead for ever, ascending.
    pub halted: Vec<u64>,
}

/// Extension of the targets role: keys for messages that are not metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TargetsContent {
    /// The controller's telemetry public keys by number; hex of the uncompressed SEC1 point. Devices use the
    /// highest number.
    pub telemetry: BTreeMap<u32, String>,
    /// The key that answers devices without a telemetry key, same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}
