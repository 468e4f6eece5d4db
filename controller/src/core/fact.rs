//! Facts: what the ledger records, and the only thing that changes the fleet's state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tern_protocol::bundle::File;
use tern_protocol::digest::Digest;
use tern_protocol::id::{ClaimId, DeviceId, FactoryId, ModelId, ProductId, RolloutId, TagId};
use tern_protocol::message::{Registry, ReportKind};
use tern_protocol::position::{Cut, Position, Salt};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::content::EntryKind;

use super::access::{Made, Role as AccessRole, TokenName};
use super::enrolment::claim::{Approval, Terms};
use super::enrolment::factory::Vouched;
use super::fleet::device::Standing;
use super::rollout::baseline::Baseline;
use super::rollout::plan::Plan;
use super::rollout::silence::Deadline;

/// Unix time in milliseconds.
pub type Millis = u64;

/// One frame of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When the service took it in.
    pub at: Millis,
    /// Whose token asked for it; nobody's when the service did it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<TokenName>,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// An [`Entry`] for writing.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EntryRef<'a> {
    /// When the service took it in.
    pub at: Millis,
    /// Whose token asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<&'a TokenName>,
    /// What happened.
    #[serde(flatten)]
    pub fact: &'a Fact,
}

/// What happened.
#[expect(
    clippy::large_enum_variant,
    reason = "facts are made one at a time and written, never kept by the thousand"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// The service came up; since the frame before this one nothing was received.
    ServiceStarted {
        /// Its version.
        version: String,
        /// By which rules it counts and judges: [`RULES`](super::replay::RULES). Services of before did not say.
        #[serde(default)]
        rules: u32,
    },
    /// Messages of devices arrive from here on.
    ReceptionBegan,
    /// Messages of devices do not arrive from here on: the clock of deadlines and soaks stands.
    ReceptionEnded,
    /// Messages of devices arrive still.
    Receiving,
    /// A silence deadline has passed for these devices.
    DeadlinePassed {
        /// The rollout.
        rollout: RolloutId,
        /// Which deadline.
        deadline: Deadline,
        /// Devices that had reported in time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        heard: Vec<DeviceId>,
        /// Devices that had not. Nothing that they say later changes that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        silent: Vec<DeviceId>,
    },
    /// A product's repository was set up or given new offline files.
    ProductAdded {
        /// The product.
        product: ProductId,
        /// Root and targets, as signed.
        files: Vec<SignedFile>,
    },
    /// Devices of a factory list.
    DevicesAdded {
        /// The devices.
        devices: Vec<DeviceEntry>,
        /// Who vouched for them; ledgers from before there were factory keys do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Vouched>,
    },
    /// A factory's key was registered; its lists are accepted from here on.
    FactoryAdded {
        /// The factory.
        factory: FactoryId,
        /// Its public key, hex of the uncompressed point.
        key: String,
    },
    /// A factory's lists are refused from here on.
    FactoryRevoked {
        /// The factory.
        factory: FactoryId,
    },
    /// A claim was made.
    ClaimCreated {
        /// The claim.
        claim: ClaimId,
        /// What its token is good for.
        terms: Terms,
        /// Hash of the token, the key of its proofs.
        key: Digest,
    },
    /// A claim was taken back.
    ClaimRevoked {
        /// The claim.
        claim: ClaimId,
    },
    /// A device proved a claim's token and both its keys; it waits to be let in.
    Applied {
        /// The device.
        device: DeviceId,
        /// The claim.
        claim: ClaimId,
        /// Identity public key, hex.
        identity: String,
        /// Telemetry public key, hex.
        telemetry: String,
        /// What it says that it is.
        registry: Registry,
    },
    /// A waiting device was let in.
    Approved {
        /// The device.
        device: DeviceId,
        /// Who did it.
        by: Approval,
    },
    /// A waiting device was turned away.
    Rejected {
        /// The device.
        device: DeviceId,
    },
    /// An operator changed what a device may do.
    StandingChanged {
        /// The device.
        device: DeviceId,
        /// What it may do from here on.
        standing: Standing,
        /// Why.
        because: String,
    },
    /// A device's keys were replaced; its former identity key vouched for the new one.
    IdentityReplaced {
        /// The device.
        device: DeviceId,
        /// New identity public key, hex.
        identity: String,
        /// New telemetry public key, hex.
        telemetry: String,
    },
    /// A device presented its telemetry key, signed by its identity key.
    Enrolled {
        /// The device.
        device: DeviceId,
        /// Telemetry public key, hex of the uncompressed point.
        telemetry: String,
    },
    /// A device proved its identity after its epoch was not the expected one.
    Granted {
        /// The device.
        device: DeviceId,
        /// Its epoch from now on.
        epoch: u64,
        /// Report numbers continue above this.
        counter: u64,
    },
    /// An authenticated report, new by its number.
    Reported {
        /// The device.
        device: DeviceId,
        /// Epoch.
        e: u64,
        /// Number.
        n: u64,
        /// Lowest number still in the device's outbox.
        low: u64,
        /// What it says.
        report: ReportKind,
    },
    /// Devices that have nothing to do with a rollout went away as its silent ones did: until it is resumed, silence
    /// pauses it and does not kill.
    OutageSeen {
        /// The rollout.
        rollout: RolloutId,
        /// Other devices of those regions that are away.
        away: u64,
        /// Other devices of those regions whose presence is known.
        others: u64,
    },
    /// A token of the API was made.
    TokenCreated {
        /// Its name.
        token: TokenName,
        /// What its holder may do.
        role: AccessRole,
        /// Finds it; no secret.
        id: String,
        /// SHA-256 of its secret: the secret itself is nowhere.
        hash: Digest,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Millis>,
        /// How it came to be.
        made: Made,
    },
    /// A token of the API was taken back.
    TokenRevoked {
        /// The token.
        token: TokenName,
    },
    /// A token of the API was used: the first time in this hour, or from another address in it.
    TokenUsed {
        /// The token.
        token: TokenName,
        /// What its holder may do.
        role: AccessRole,
        /// From where.
        peer: IpAddr,
    },
    /// The release role named a new release.
    ReleasePublished {
        /// The product.
        product: ProductId,
        /// Its counter.
        rc: u64,
        /// Its version.
        version: String,
    },
    /// New signed files.
    Signed {
        /// The product.
        product: ProductId,
        /// The files.
        files: Vec<SignedFile>,
    },
    /// A rollout was started; its first phase opens with a frame of its own.
    RolloutStarted {
        /// The rollout.
        rollout: RolloutId,
        /// The product.
        product: ProductId,
        /// The release.
        rc: u64,
        /// What for.
        kind: EntryKind,
        /// Attempt number.
        attempt: u32,
        /// Shuffles the devices.
        salt: Salt,
        /// Parameters.
        plan: Plan,
        /// Whose token asked for it; a phase that needs a second person's word needs another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        starter: Option<TokenName>,
        /// A revert takes back these releases.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<u64>,
        /// How the last good release fared, by model.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        baseline: BTreeMap<ModelId, Baseline>,
        /// Models that it covers few devices of; they are judged together.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pooled: BTreeSet<ModelId>,
        /// Positions from here on are never in a phase before the last: the control is taken from them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserve: Option<Position>,
    },
    /// A phase opened, with its first wave.
    PhaseOpened {
        /// The rollout.
        rollout: RolloutId,
        /// The phase's number, from 0.
        phase: usize,
        /// How far its first wave reaches, by model.
        cuts: BTreeMap<ModelId, Cut>,
        /// Devices that it newly includes, when all its waves are open.
        devices: u64,
        /// How far it will reach then; empty when its first wave is all of it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        goal: BTreeMap<ModelId, Cut>,
        /// Devices that its first wave newly includes; absent: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        included: Option<u64>,
        /// Devices of that wave for whom there is no room yet.
        #[serde(default, skip_serializing_if = "is_zero")]
        owed: u64,
        /// Positions from here on are held back as control.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held_from: Option<Position>,
        /// Devices that it includes by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        listed: Vec<DeviceId>,
        /// The key of the request that promoted to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Why, with the numbers.
        because: String,
    },
    /// Somebody agreed that a phase may open.
    PhaseApproved {
        /// The rollout.
        rollout: RolloutId,
        /// The phase's number, from 0.
        phase: usize,
        /// In words, with who it was.
        because: String,
    },
    /// Devices got a label, or lost it.
    Tagged {
        /// The devices.
        devices: Vec<DeviceId>,
        /// The label.
        tag: TagId,
        /// They have it from here on.
        on: bool,
    },
    /// The next wave of a phase opened, or another part of one for which there was no room.
    WaveOpened {
        /// The rollout.
        rollout: RolloutId,
        /// The wave's number in its phase, from 1.
        wave: u64,
        /// How far it reaches, by model.
        cuts: BTreeMap<ModelId, Cut>,
        /// Devices that it newly includes.
        devices: u64,
        /// The how-many-th other part of the wave it is; 0: the wave begins.
        #[serde(default, skip_serializing_if = "is_zero")]
        step: u64,
        /// Devices of the wave for whom there is no room yet.
        #[serde(default, skip_serializing_if = "is_zero")]
        owed: u64,
        /// Devices that it includes by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        listed: Vec<DeviceId>,
        /// Positions from here on are held back as control.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held_from: Option<Position>,
        /// The key of the request that promoted to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Why, with the numbers.
        because: String,
    },
    /// The control is let go: its devices are offered the release like all others.
    HoldBackEnded {
        /// The rollout.
        rollout: RolloutId,
        /// Devices that are let go.
        devices: u64,
        /// Positions from here on still wait for room, and are compared with nobody any more; absent: nobody waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held_from: Option<Position>,
        /// The key of the request that promoted to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Why, with the numbers.
        because: String,
    },
    /// A rollout stopped offering; reversible.
    Paused {
        /// The rollout.
        rollout: RolloutId,
        /// Why, with the numbers.
        because: String,
    },
    /// A paused rollout goes on; its gate starts over.
    Resumed {
        /// The rollout.
        rollout: RolloutId,
        /// Why.
        because: String,
    },
    /// A release was taken back for ever.
    Killed {
        /// The rollout.
        rollout: RolloutId,
        /// Why, with the numbers.
        because: String,
    },
    /// A kill was to be followed by a revert, and that was refused: it is not tried again, people may.
    RevertRefused {
        /// The rollout that was killed.
        rollout: RolloutId,
        /// Why.
        because: String,
    },
    /// The service compares itself with its devices: it signs nothing until it knows what they know.
    ComparisonBegan {
        /// Why.
        because: String,
        /// The device whose claim it was, if one was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<DeviceId>,
    },
    /// Signed files that the service had lost, or never seen.
    FilesPresented {
        /// The product.
        product: ProductId,
        /// Who presented them; nobody: an operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<DeviceId>,
        /// The files; each was verified.
        files: Vec<SignedFile>,
    },
    /// The comparison is over.
    ComparisonEnded {
        /// Why, with the numbers.
        because: String,
        /// Devices that claimed more and presented nothing to prove it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unproved: Vec<DeviceId>,
    },
    /// Every device that a rollout covers has come to an end.
    Completed {
        /// The rollout.
        rollout: RolloutId,
        /// With the numbers.
        because: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A signed file, as text: metadata is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFile {
    /// The role that it speaks for.
    pub role: Role,
    /// The file, byte for byte.
    pub text: String,
}

impl From<&SignedFile> for File {
    fn from(file: &SignedFile) -> File {
        File { role: file.role, bytes: file.text.clone().into_bytes() }
    }
}

impl SignedFile {
    /// Keeps a file's bytes; `None` if they are not text, which no metadata file is.
    pub fn new(role: Role, bytes: &[u8]) -> Option<Self> {
        Some(Self { role, text: String::from_utf8(bytes.to_vec()).ok()? })
    }
}

/// A device as a factory list names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceEntry {
    /// The device.
    pub device: DeviceId,
    /// Identity public key, hex of the uncompressed point.
    pub identity: String,
    /// What it is.
    #[serde(flatten)]
    pub registry: Registry,
}
