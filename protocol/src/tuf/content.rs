//! What Tern puts into metadata beyond the TUF specification.
//!
//! Release: `custom` of each target. Rollout, halt and targets: the field `x-tern` of the signed part (TUF 1.0
//! section 4.5 lets a client ignore fields that it does not know).

mod artifact;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::artifact::ArtifactContent;
use super::metadata::{Metadata, TargetsMeta};
use super::{RoleName, TufError};
use crate::digest::Digest;
use crate::id::{CarrierId, DeviceId, ModelId, RegionId, RolloutId};
use crate::limits::{
    ARTIFACTS_MAX, DELEGATIONS_MAX, ENTRIES_MAX, FROM_MAX, HALTED_MAX, LIST_MAX, RELEASES_MAX,
    TELEMETRY_KEYS_MAX,
};
use crate::position::{Cut, Position, Salt};

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

impl Arm {
    /// Tells whether an answer is needed: then a plan does not mention it.
    pub fn is_acked(&self) -> bool {
        *self == Self::Acked
    }
}

/// How far a rollout heeds what holds a device's install back: its windows and its consent. Power, room, load and a dear
/// link hold it back in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Windows and consent count.
    #[default]
    Soft,
    /// They do not.
    Forced,
    /// They count until this moment, Unix seconds, by a clock that the device knows.
    ForcedFrom(u64),
}

impl Urgency {
    /// Tells whether windows and consent count for ever: then an entry does not mention it.
    pub fn is_soft(&self) -> bool {
        *self == Self::Soft
    }
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
    /// When devices report health while others are held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// A revert takes back only these releases: whoever runs another one has nothing to do with it. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<u64>,
    /// Devices included whatever their position: first eight bytes of SHA-256(device id), hex; at most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<String>,
    /// A device waits hash × spread before its first `get`; seconds.
    #[serde(default)]
    pub spread: u32,
    /// When a device may arm.
    #[serde(default)]
    pub arm: Arm,
    /// Whether windows and consent hold it back.
    #[serde(default, skip_serializing_if = "Urgency::is_soft")]
    pub urgency: Urgency,
}

/// When devices report health while a rollout is compared with a control; seconds, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct Schedule {
    /// The early silence deadline.
    pub early: u32,
    /// The last silence deadline.
    pub last: u32,
    /// In each window of this length both arms report once.
    pub window: u32,
}

impl From<(u32, u32, u32)> for Schedule {
    fn from((early, last, window): (u32, u32, u32)) -> Self {
        Self { early, last, window }
    }
}

impl From<Schedule> for (u32, u32, u32) {
    fn from(schedule: Schedule) -> Self {
        (schedule.early, schedule.last, schedule.window)
    }
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

impl TargetsContent {
    /// Returns the telemetry keys by number.
    pub fn telemetry_keys(&self) -> Result<BTreeMap<u32, p256::PublicKey>, String> {
        self.telemetry.iter().map(|(number, text)| Ok((*number, point(text)?))).collect()
    }

    /// Returns the time key.
    pub fn time_key(&self) -> Result<Option<p256::PublicKey>, String> {
        self.time.as_deref().map(point).transpose()
    }
}

/// Writes a public key the way [`TargetsContent`] holds it.
pub fn point_hex(key: &p256::PublicKey) -> String {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    hex::encode(key.to_encoded_point(false).as_bytes())
}

fn point(text: &str) -> Result<p256::PublicKey, String> {
    let bytes = hex::decode(text).map_err(|_| "a key that is not hex")?;
    p256::PublicKey::from_sec1_bytes(&bytes).map_err(|_| "a key that is no point of P-256".into())
}

/// Artifacts that release approves, by path: the `custom` of its targets.
pub type ReleaseContent = BTreeMap<String, ArtifactContent>;

/// A file of targets, release, rollout or halt, with what Tern adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets<C> {
    /// What TUF defines.
    pub meta: TargetsMeta,
    /// What Tern adds.
    pub content: C,
}

/// What Tern adds to one of those roles.
pub trait Content: Clone + Send + Sync + Sized + 'static {
    /// Reads it and checks its ceilings.
    fn of(meta: &TargetsMeta) -> Result<Self, String>;
}

impl<C: Content> Metadata for Targets<C> {
    fn read(role: impl Into<RoleName>, signed: &Value) -> Result<Self, TufError> {
        let role = &role.into();
        let meta = TargetsMeta::read(role, signed)?;
        if meta.delegations.as_ref().is_some_and(|delegations| delegations.roles.len() > DELEGATIONS_MAX) {
            let why = format!("it delegates to more than {DELEGATIONS_MAX} roles");
            return Err(TufError::malformed(role, why));
        }
        let content = C::of(&meta).map_err(|why| TufError::malformed(role, why))?;
        Ok(Self { meta, content })
    }
    fn version(&self) -> u32 {
        self.meta.version
    }
    fn expires(&self) -> u64 {
        self.meta.expires
    }
}

impl Content for TargetsContent {
    fn of(meta: &TargetsMeta) -> Result<Self, String> {
        let content: Self = extension(meta)?;
        if content.telemetry.len() > TELEMETRY_KEYS_MAX {
            return Err(format!("more than {TELEMETRY_KEYS_MAX} telemetry keys"));
        }
        content.telemetry_keys()?;
        content.time_key()?;
        Ok(content)
    }
}

impl Content for ReleaseContent {
    fn of(meta: &TargetsMeta) -> Result<Self, String> {
        let mut artifacts = Self::new();
        let mut releases = BTreeMap::<u64, usize>::new();
        for (path, target) in &meta.targets {
            let custom = target.custom.as_ref().ok_or_else(|| format!("{path:.80} has no custom"))?;
            let content = ArtifactContent::deserialize(custom).map_err(|e| e.to_string())?;
            if content.floor > content.rc {
                return Err(format!("{path:.80} has a floor above its rc"));
            }
            if let Some(why) = content.too_much() {
                return Err(format!("{path:.80} {why}"));
            }
            *releases.entry(content.rc).or_default() += 1;
            artifacts.insert(path.clone(), content);
        }
        if releases.len() > RELEASES_MAX || releases.values().any(|count| *count > ARTIFACTS_MAX) {
            return Err(format!("more than {RELEASES_MAX} releases, or {ARTIFACTS_MAX} artifacts of one"));
        }
        Ok(artifacts)
    }
}

impl Content for RolloutContent {
    fn of(meta: &TargetsMeta) -> Result<Self, String> {
        let content: Self = extension(meta)?;
        if content.entries.len() > ENTRIES_MAX || content.entries.iter().any(|e| e.list.len() > LIST_MAX) {
            return Err(format!("more than {ENTRIES_MAX} entries, or {LIST_MAX} devices in a list"));
        }
        if content.entries.iter().any(|e| e.from.len() > FROM_MAX) {
            return Err(format!("an entry takes back more than {FROM_MAX} releases"));
        }
        Ok(content)
    }
}

impl Content for HaltContent {
    fn of(meta: &TargetsMeta) -> Result<Self, String> {
        let content: Self = extension(meta)?;
        if content.halted.len() > HALTED_MAX {
            return Err(format!("more than {HALTED_MAX} halted releases"));
        }
        Ok(content)
    }
}

/// Reads `x-tern`; a file without one adds nothing.
fn extension<T: Default + serde::de::DeserializeOwned>(meta: &TargetsMeta) -> Result<T, String> {
    meta.extension.as_ref().map_or(Ok(T::default()), |value| T::deserialize(value).map_err(|e| e.to_string()))
}
