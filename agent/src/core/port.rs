//! What the shell hands to the core and what it gets back: plain values, and the device's keys behind a port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tern_protocol::bundle::File;
use tern_protocol::chunk::PieceId;
use tern_protocol::claim::Token;
use tern_protocol::delta::DeltaManifest;
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::PairSecret;
use tern_protocol::message::{Pack, Registry};
use tern_protocol::offer::Artifact;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::{Role, TufError};

use super::SlotName;
pub use super::component::{ComponentFacts, Target};
use super::conditions::{Conditions, Stage, Surroundings};
use super::hook::HookStep;
pub use super::reconcile::{Content, Seen};
use super::timing::Timing;

/// What never changes while the agent runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The fleet.
    pub fleet: FleetId,
    /// This device.
    pub device: DeviceId,
    /// What the device believes it is, until the controller's registry says otherwise.
    pub registry: Registry,
    /// The component that the slots hold.
    pub component: String,
    /// Token for a device that no factory list names.
    pub claim: Option<Token>,
    /// The agent's own version, for reports.
    pub version: String,
    /// Every wait.
    pub timing: Timing,
    /// When it may download and install.
    pub conditions: Conditions,
    /// Steps at which hooks are configured.
    pub hooks: BTreeSet<HookStep>,
    /// How bytes are fetched.
    pub transfer: Transfer,
}

/// How bytes are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// Profiles of deltas that the device decodes; without one it takes images as they are.
    pub profiles: Vec<u8>,
    /// Bytes a second that it asks for, in the long run; without a bound as many as the link gives.
    pub rate: Option<u64>,
    /// Web servers that are asked before the broker, in this order, as the log and reports name them.
    pub prefixes: Vec<String>,
}

/// What a web server is asked for: parts of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebGet {
    /// The object's Merkle root.
    pub of: Digest,
    /// Chunks of an image, or packs of a delta.
    pub parts: u32,
    /// Bytes of an image; the packs of a delta have each their own length.
    pub length: Option<u64>,
    /// Pieces of its tree, which are needed first.
    pub pieces: Vec<PieceId>,
    /// Half-open ranges of chunks or packs.
    pub ranges: Vec<(u32, u32)>,
}

/// What a web server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Web {
    /// Something that was asked for; in the order of [`WebGet`], pieces first.
    Pack(Pack),
    /// That was all.
    Ended,
    /// Nothing more comes.
    Failed(WebFailure),
}

/// Why a web server gave nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebFailure {
    /// Why.
    pub reason: String,
    /// It may go better the next time: it was silent, broke off, or had too much to do.
    pub may_pass: bool,
}

/// The device's keys, behind a port: files, or a chip.
pub trait Keys {
    /// Returns the identity key's public half, uncompressed SEC1.
    fn identity(&self) -> Vec<u8>;
    /// Returns the telemetry key's public half, uncompressed SEC1.
    fn telemetry(&self) -> Vec<u8>;
    /// Signs with the identity key; DER.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
    /// Agrees with the controller's telemetry key.
    fn agree(&self, peer: &p256::PublicKey) -> PairSecret;
    /// Tells whether these keys are to replace others that the controller still believes in.
    fn replaces(&self) -> bool {
        false
    }
    /// Signs with the identity key that is to be replaced; DER.
    fn sign_as_former(&self, _message: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// What boot record and slots say when the agent comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFacts {
    /// The slot that runs.
    pub slot: SlotName,
    /// Changes with every boot of the operating system.
    pub boot_id: String,
    /// The confirmed slot, by the boot record.
    pub active: SlotName,
    /// The slot on trial, by the boot record.
    pub trial: Option<SlotName>,
    /// The release that runs, from its slot's label; 0 for a factory image without one.
    pub running: u64,
    /// Its version.
    pub running_version: String,
    /// The floor that was signed with the release in the confirmed slot; 0 if its signed file is not there.
    pub floor: u64,
    /// Bytes that the inactive slot can hold.
    pub capacity: u64,
    /// What the slots hold, by their labels, in the order of [`SlotName::BOTH`].
    pub contents: [Content; 2],
    /// The components beside the slots, by name.
    pub components: BTreeMap<String, ComponentFacts>,
}

impl BootFacts {
    /// Returns what the journal is held against.
    pub fn seen(&self) -> Seen {
        Seen { slot: self.slot, active: self.active, trial: self.trial, contents: self.contents }
    }
}

/// The image that a slot holds whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its Merkle root.
    pub root: Digest,
    /// Its bytes.
    pub length: u64,
}

impl Held {
    /// Returns what a slot holds once `artifact` is in it.
    pub fn of(artifact: &Artifact) -> Self {
        Self { root: artifact.root, length: artifact.length }
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The agent's process came up.
    Up(BootFacts),
    /// Connected and subscribed.
    LinkUp,
    /// Not connected any more.
    LinkDown,
    /// A message arrived.
    Message {
        /// Where.
        topic: Topic,
        /// What.
        payload: Vec<u8>,
    },
    /// A job came to its end.
    Done {
        /// Its number.
        job: u64,
        /// How.
        result: Done,
    },
    /// What a web server gave for a request.
    Web {
        /// The request's number.
        request: u64,
        /// What it gave.
        said: Web,
    },
    /// How the device fared since the last time: counts by the name of what was counted.
    Collected(BTreeMap<String, u64>),
    /// What the probes of the soak found: well since its end, or the reason why not, at any time of the trial.
    Soaked(Result<(), String>),
    /// Nothing but time passed.
    Time,
}

/// Something to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Make these signed files durable.
    SaveTrust(Vec<File>),
    /// Make the journal durable. Everything after it relies on that.
    SaveJournal,
    /// Listen to exactly these topics.
    Listen(Vec<Topic>),
    /// The controller has answered under the new keys: forget the ones that they replace.
    SettleKeys,
    /// Subscribe again, so that retained messages come again.
    ListenAgain,
    /// Somebody sent a signed file that is bad; it changed nothing. For the log.
    Refused {
        /// Its role.
        role: Role,
        /// Why.
        error: TufError,
    },
    /// Send.
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        payload: Vec<u8>,
    },
    /// Ask a web server; [`Input::Web`] tells what comes of it. Four at once at most.
    Web {
        /// Number to answer with.
        request: u64,
        /// Which of [`Transfer::prefixes`].
        prefix: usize,
        /// What for.
        get: WebGet,
    },
    /// What comes of this request is not wanted any more.
    StopWeb(u64),
    /// A web server did not give what it should; for the log.
    WebFailed {
        /// Which.
        prefix: String,
        /// Why.
        reason: String,
        /// Who is asked now: another web server, or the broker. Nobody else, if it is tried again.
        next: Option<String>,
    },
    /// Write verified bytes; needs no answer, [`Job::Sync`] follows.
    Write {
        /// Into what.
        target: Target,
        /// Where in it.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// An artifact is here, to be read back; for the log.
    Fetched {
        /// Into what.
        target: Target,
        /// By which way it came.
        by: &'static str,
        /// Bytes of the packs that this process has taken for it.
        bytes: u64,
        /// Bytes of chunks in place of what a delta did not give.
        mended: u64,
        /// Those of `bytes` that web servers gave.
        web: u64,
    },
    /// Say how the device fared, with [`Input::Collected`].
    Collect,
    /// Something that is owed cannot be done at present. It is tried again; for the log.
    Failing {
        /// What.
        work: Job,
        /// Why.
        reason: String,
        /// How often in a row.
        times: u32,
    },
    /// Do this and say how it ended; it replaces the job before it.
    Start {
        /// Number to answer with.
        job: u64,
        /// What to do.
        work: Job,
    },
}

/// Local work with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Mark it bad, durably.
    MarkBad(Target),
    /// Sync its bytes; these chunks are then durable.
    Sync(Target, Vec<u32>),
    /// Decode a pack into it.
    Decode(Decode),
    /// Read some of its chunks back and say which are right.
    Compare {
        /// What.
        target: Target,
        /// Bytes of the image.
        length: u64,
        /// The first chunk.
        first: u32,
        /// The leaves of this and those behind it.
        leaves: Vec<Digest>,
    },
    /// Read it back, compare, and label it when it matches.
    Hash {
        /// What.
        target: Target,
        /// What it must hold.
        artifact: Artifact,
        /// Release counter for the label.
        rc: u64,
        /// Version for the label.
        version: String,
    },
    /// Install the package that waits in a component's free place.
    Install {
        /// The component.
        component: String,
        /// The release that it belongs to.
        rc: u64,
    },
    /// Put back what a component had before.
    Revert(String),
    /// What a component has is for good.
    Keep(String),
    /// Run the hooks of a step.
    RunHooks(HookStep),
    /// Measure what the conditions ask for.
    Look(Stage),
    /// Undo the hooks that may have run.
    UndoHooks,
    /// Write a boot record with a trial of this slot.
    Arm {
        /// The slot.
        slot: SlotName,
        /// The release in it.
        rc: u64,
    },
    /// Write a boot record without a trial.
    Disarm,
    /// Boot.
    Reboot,
    /// Run the health probes.
    Probe,
    /// Make this slot the active one.
    Confirm(SlotName),
}

/// A pack of a delta that is to be decoded: it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decode {
    /// Into what. A delta of a slot leads from what the other one holds.
    pub target: Target,
    /// The delta.
    pub manifest: Box<DeltaManifest>,
    /// Which of its packs.
    pub number: u32,
    /// The pack.
    pub pack: Arc<Vec<u8>>,
    /// What was decoded so far is synced after it.
    pub syncs: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It did what it should.
    Ok,
    /// A hash did not match.
    Mismatch,
    /// Chunks that are as they should be, and durable.
    Compared(Vec<u32>),
    /// From this byte of the image on the pack does not give what it should: the base is another one. What comes before is
    /// synced.
    Undecoded(u64),
    /// The pack breaks the rules of its format.
    Useless(String),
    /// A hook said "not now".
    NotNow(String),
    /// What was measured.
    Looked(Surroundings),
    /// A component is so now.
    Component(Box<ComponentFacts>),
    /// It failed.
    Failed(String),
}
