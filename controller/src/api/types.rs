//! Request and response shapes of the API; the command line prints the same with `--json`.

mod access;
mod enrolment;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tern_protocol::digest::Digest;
use tern_protocol::id::{
    CarrierId, DeviceId, IdError, ModelId, ProductId, RegionId, RolloutId, TagId, VariantId,
};
use tern_protocol::message::Registry;
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::content::Urgency;
use tern_protocol::version::Range;

pub use self::access::{CreatedToken, NewToken, TokenLine};
pub use self::enrolment::{
    AddDevices, AddedDevices, Because, ClaimLine, CreatedClaim, FactoryLine, NewClaim, OneTimeToken,
    PendingLine, SignedList, TrustFactory,
};
use crate::core::fact::Entry;
use crate::core::fleet::device::{Anomaly, Standing};
use crate::core::rollout::counts::Counts;
use crate::core::rollout::outlook::Outlook;
use crate::core::rollout::plan::Plan;
use crate::core::rollout::record::Status;
use crate::core::rollout::verdict::Verdict;
pub use crate::core::service::{Counters, PhasePreview};
use crate::deltas::State;
pub use crate::keys::OnlineKey;

/// An error, as every route answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: String,
    /// What to do next.
    pub hint: String,
}

/// One line of `GET /v1/devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLine {
    /// The device.
    pub device: DeviceId,
    /// What it is.
    #[serde(flatten)]
    pub registry: Registry,
    /// Release that it said it runs.
    pub running: u64,
    /// What it may do.
    pub standing: Standing,
    /// Whether its telemetry key is known.
    pub enrolled: bool,
    /// Last report, Unix ms.
    pub seen_at: Option<u64>,
    /// The state of its latest attempt.
    pub state: Option<StateName>,
}

/// `GET /v1/devices/{device}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// As in the list.
    #[serde(flatten)]
    pub line: DeviceLine,
    /// Its epoch.
    pub epoch: u64,
    /// Why it has its standing, if somebody changed that.
    pub because: String,
    /// Identity public key, hex.
    pub identity: String,
    /// Its version floor.
    pub floor: u64,
    /// Version of its agent.
    pub agent: String,
    /// Versions of the components that it runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, String>,
    /// What it did in each rollout.
    pub attempts: BTreeMap<RolloutId, AttemptView>,
    /// Reports that did not fit.
    pub anomalies: Vec<Anomaly>,
}

/// What a device did in one rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Attempt number.
    pub attempt: u32,
    /// Phase that included it, from 1.
    pub phase: usize,
    /// Start recorded, Unix ms.
    pub started_at: Option<u64>,
    /// State reported last.
    pub state: StateName,
    /// Outcome.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// When it said that it had learned of the kill, Unix ms.
    pub halted_at: Option<u64>,
    /// The state in which it learned of it.
    pub halted_in: Option<StateName>,
    /// It is held back, to be compared with those that get the release; state and phase say nothing then.
    #[serde(default)]
    pub held_back: bool,
    /// A deadline has found it silent: since the early or the last one, or, held back, now.
    #[serde(default)]
    pub silent: bool,
}

/// One release in `GET /v1/products/{product}/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Counter.
    pub rc: u64,
    /// Version.
    pub version: String,
    /// Halted for ever.
    pub halted: bool,
    /// Artifacts.
    pub artifacts: Vec<ArtifactView>,
}

/// One artifact of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Component.
    pub component: String,
    /// Its name among several for the component, of which a device takes the first that is for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<VariantId>,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// When it is installed: lower first, equal ones by component.
    #[serde(default)]
    pub order: u8,
    /// Models that may run it.
    pub models: Vec<ModelId>,
    /// Carriers that it is for; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carriers: Vec<CarrierId>,
    /// Regions that it is for; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionId>,
    /// What has to run, or to come with it, of other components.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, Range>,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// Merkle root over its chunks.
    pub root: Digest,
    /// The service holds its bytes.
    pub stored: bool,
}

/// `GET /v1/products/{product}/release-file`: what the release file must continue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFile {
    /// The present release file.
    pub release: String,
}

/// `POST /v1/products/{product}/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRelease {
    /// The signed release file.
    pub file: String,
    /// Deltas are to be made for the releases that it adds.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub deltas: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_yes(yes: &bool) -> bool {
    *yes
}

/// One delta in `GET /v1/products/{product}/releases/{rc}/deltas`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaView {
    /// Component.
    pub component: String,
    /// Release that devices run; none: the whole image, coded.
    pub from: Option<u64>,
    /// Root of the image that they run.
    pub old: Option<Digest>,
    /// Root of the image of this release.
    pub new: Digest,
    /// Kind of device.
    pub profile: String,
    /// Devices that would take it; of a whole image 0.
    pub devices: u64,
    /// Bytes of the image.
    pub full: u64,
    /// How it is with it.
    #[serde(flatten)]
    pub state: State,
}

/// Answer to `POST /v1/products/{product}/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The releases that the product now has.
    pub releases: Vec<u64>,
}

/// `GET /v1/products/{product}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysView {
    /// The newest file of each role.
    pub files: BTreeMap<Role, String>,
    /// The service's own key files.
    pub online: Vec<OnlineKey>,
}

/// `POST /v1/products/{product}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewOffline {
    /// Signed files of root, targets and release: those that are new.
    pub files: Vec<String>,
}

/// Answer to `PUT /v1/images`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Bytes.
    pub length: u64,
    /// SHA-256.
    pub sha256: Digest,
    /// Merkle root.
    pub root: Digest,
}

/// `POST /v1/rollouts` and `POST /v1/rollouts/preview`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    /// Name; made from release and attempt when absent.
    #[serde(default)]
    pub rollout: Option<RolloutId>,
    /// Product.
    pub product: ProductId,
    /// Release.
    pub rc: u64,
    /// Attempt, from 1.
    #[serde(default = "one")]
    pub attempt: u32,
    /// Parameters.
    #[serde(default)]
    pub plan: Plan,
}

impl StartRollout {
    /// Returns the name that was given, or `<product>-<rc>-<attempt>`.
    pub fn name(&self) -> Result<RolloutId, IdError> {
        match &self.rollout {
            Some(name) => Ok(name.clone()),
            None => format!("{}-{}-{}", self.product, self.rc, self.attempt).parse(),
        }
    }
}

fn one() -> u32 {
    1
}

/// Answer to `POST /v1/rollouts/preview`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// Devices that the plan covers.
    pub devices: u64,
    /// Of them, those for which the release has nothing of some component: they are offered nothing.
    #[serde(default)]
    pub no_variant: u64,
    /// Of them, those that would refuse the release, for they run something else of a component than it requires.
    #[serde(default)]
    pub unmet: u64,
    /// Bytes of the images that a device takes, at most.
    pub bytes_each: u64,
    /// The failure rate of the last good release, which this one is measured by; absent: none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<f64>,
    /// The phases.
    pub phases: Vec<PhasePreview>,
    /// What an operator should know before starting.
    pub warnings: Vec<String>,
}

/// `POST /v1/rollouts/{rollout}/promote`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The phase that the operator saw, from 1.
    pub from_phase: usize,
    /// Names the request, at most 64 characters: sent again, it does nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `POST /v1/rollouts/{rollout}/approve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovePhase {
    /// The phase, from 1.
    pub phase: usize,
}

/// `POST /v1/rollouts/{rollout}/revert`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// What it is called; absent: after the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RolloutId>,
    /// The release to go back to; absent: the last that reached everybody before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Parameters; absent: those of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// `POST /v1/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagDevices {
    /// The devices.
    pub devices: Vec<DeviceId>,
    /// The label.
    pub tag: TagId,
    /// They have it from here on.
    #[serde(default = "yes")]
    pub on: bool,
}

fn yes() -> bool {
    true
}

/// `POST /v1/rollouts/{rollout}/kill`; no body is no reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// Why, for the ledger.
    #[serde(default)]
    pub reason: String,
}

/// Answer to a command on a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneBody {
    /// In words.
    pub done: String,
}

/// One line of `GET /v1/rollouts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutLine {
    /// Name.
    pub rollout: RolloutId,
    /// Product.
    pub product: ProductId,
    /// Release.
    pub rc: u64,
    /// Attempt.
    pub attempt: u32,
    /// Where it stands.
    pub status: Status,
    /// Present phase, from 1.
    pub phase: usize,
    /// Phases of the plan.
    pub phases: usize,
    /// Counters over all phases.
    pub total: Counts,
    /// The last decision, with its numbers.
    pub because: String,
    /// Started, Unix ms.
    pub started_at: u64,
    /// Killed or completed, Unix ms.
    pub ended_at: Option<u64>,
}

/// `GET /v1/rollouts/{rollout}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Name.
    pub rollout: RolloutId,
    /// Product.
    pub product: ProductId,
    /// Release.
    pub rc: u64,
    /// Version.
    pub version: String,
    /// Attempt.
    pub attempt: u32,
    /// Whether the devices' own windows and consent hold it back.
    #[serde(default, skip_serializing_if = "Urgency::is_soft")]
    pub urgency: Urgency,
    /// Where it stands.
    pub status: Status,
    /// Present phase, from 1.
    pub phase: usize,
    /// Phases of the plan.
    pub phases: Vec<PhaseView>,
    /// Devices that the plan covers.
    pub covered: u64,
    /// Counters over all phases.
    pub total: Counts,
    /// Devices that are on trial, or are offered the release and have not begun, where the plan caps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_trial: Option<u64>,
    /// Devices that are held back and compared with the others.
    #[serde(default)]
    pub held_back: u64,
    /// Devices by the state that they reported last.
    pub states: BTreeMap<StateName, u64>,
    /// Devices by their outcome, also of those that never started.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Devices that learned of the kill while they had it open: milliseconds from the kill to their word.
    pub kill_ms: Vec<u64>,
    /// The last decision, with its numbers.
    pub because: String,
    /// What the evidence says now, in one line.
    pub explanation: String,
    /// The same as a value.
    pub verdict: Option<Verdict>,
    /// Every test and the gate: what they have now, and what would decide them.
    #[serde(default)]
    pub tests: Vec<Outlook>,
    /// Started, Unix ms.
    pub started_at: u64,
    /// Killed or completed, Unix ms.
    pub ended_at: Option<u64>,
}

/// One phase of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseView {
    /// Number, from 1.
    pub phase: usize,
    /// Devices that it newly includes; 0 before it opens.
    pub devices: u64,
    /// Those of them that the waves so far have included.
    #[serde(default)]
    pub included: u64,
    /// Waves that are open.
    #[serde(default)]
    pub waves: u64,
    /// Gate, if any.
    pub gate: Option<f64>,
    /// Whether it is open.
    pub open: bool,
    /// Counters of its devices.
    pub counts: Counts,
}

/// `GET /v1/ledger`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerView {
    /// Frames.
    pub frames: u64,
    /// Hash of the last frame.
    pub head: Digest,
}

/// `GET /v1/ledger/frames?from=&limit=`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The frames, in order.
    pub frames: Vec<LedgerFrame>,
    /// Where to go on, unless this is the end.
    pub next: Option<u64>,
    /// The first frame that is kept; older ones were dropped.
    #[serde(default)]
    pub first: u64,
}

/// One frame of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerFrame {
    /// Its place.
    pub seq: u64,
    /// Its hash, which speaks for all before it.
    pub hash: Digest,
    /// What it says.
    pub entry: Entry,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Version of the service.
    pub version: String,
    /// Fleet.
    pub fleet: String,
    /// Registered devices.
    pub devices: u64,
    /// Enrolled devices.
    pub enrolled: u64,
    /// Devices that wait for approval.
    pub pending: u64,
    /// Quarantined devices.
    pub quarantined: u64,
    /// Reports counted in the fleet's life.
    pub reports: u64,
    /// Since the start.
    pub counters: Counters,
    /// Products for which nothing can be signed, and why; no device learns of anything there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trouble: BTreeMap<ProductId, String>,
    /// Whether the service compares itself with its devices after a restore; it signs nothing meanwhile.
    #[serde(default)]
    pub comparing: bool,
    /// The ledger.
    pub ledger: LedgerView,
    /// Bytes of packs sent by the embedded chunk server, and MQTT bytes to devices and from them.
    pub wire: WireBytes,
    /// What the embedded front kept away from the broker.
    pub front: FrontCounters,
    /// Addresses on which devices may connect to the embedded broker.
    pub listeners: Vec<String>,
}

/// What the embedded front refused since the start; all zero with an external broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FrontCounters {
    /// Connections that did not get past CONNECT.
    pub refused_connections: u64,
    /// Connections of revoked devices that were closed.
    pub revoked_connections: u64,
    /// Messages that the policy refused: wrong topic, retained, too large.
    pub refused_messages: u64,
    /// Subscriptions that the policy refused.
    pub refused_subscriptions: u64,
    /// Requests and packets that could not be read.
    pub malformed: u64,
}

/// What only the running service knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EdgeView {
    /// Bytes moved.
    pub wire: WireBytes,
    /// What was refused.
    pub front: FrontCounters,
    /// Addresses on which devices may connect.
    pub listeners: Vec<String>,
}

/// Bytes that the embedded front has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WireBytes {
    /// Payload of packs.
    pub packs: u64,
    /// MQTT bytes to devices.
    pub down: u64,
    /// MQTT bytes from devices.
    pub up: u64,
}

/// `GET /v1/recover`: the comparison with the devices after a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecoverView {
    /// Whether one goes on; without, everything else is empty.
    pub comparing: bool,
    /// Why it began.
    pub because: String,
    /// When it began, Unix ms.
    pub since: u64,
    /// When it ends by itself at the earliest, Unix ms.
    pub until: u64,
    /// Active devices that can be heard.
    pub devices: u64,
    /// Devices that said hello since then.
    pub heard: u64,
    /// Of them, those that claim nothing more than the service has.
    pub compared: u64,
    /// Signed files that were taken over.
    pub files: u64,
    /// Devices that are asked for files; at most 100 are named.
    pub waiting: Vec<DeviceId>,
    /// Devices that claim more and present nothing; at most 100 are named.
    pub unproved: Vec<DeviceId>,
    /// Files that people signed and that nobody has presented.
    pub lacking: Vec<LackingFile>,
}

/// A signed file that is known to exist and is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackingFile {
    /// The product.
    pub product: ProductId,
    /// The role.
    pub role: Role,
    /// The version.
    pub version: u32,
}
