//! The whole controller as one value: inputs in, facts and outputs out, no I/O.
//!
//! ```text
//! reports ─┐                       ┌─> facts ──> ledger, synced by the shell
//! commands ┼─> Service::handle ────┤                     │ only then
//! time ────┘   (folds its own      └─> outputs ──────────┴─> acks, answers, signed files, replies
//!               facts at once)
//! ```
//! A step's facts are already folded into [`Service::fleet`] when it returns; its outputs may leave only after the
//! facts are synced. If the sync fails the process ends, so a state ahead of the ledger is never seen.

mod admit;
mod command;
mod compare;
mod counters;
mod deadlines;
mod deltas;
mod enrol;
#[cfg(test)]
mod enrol_tests;
mod ingest;
#[cfg(test)]
mod ingest_tests;
mod keys;
mod offered;
mod offline;
mod presence;
mod present;
mod preview;
mod publish;
mod releases;
mod revert;
mod revocation;
mod rotation;
mod start;
mod steer;
mod time;
mod tokens;
mod trial;
mod verdicts;
mod widen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use tern_protocol::id::{ClaimId, DeviceId, ProductId, RolloutId};
use tern_protocol::message::Nonce;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::Signer;

use super::access::TokenName;
use super::fact::{Fact, Millis};
use super::fleet::Fleet;
use super::fleet::device::Standing;
use super::fleet::holders;
use super::replay::RULES;

pub use admit::{Admission, NewClaim, OneTimeToken};
pub use command::{Command, Refusal, RefusalKind, Reply};
pub use compare::Progress;
pub use counters::Counters;
pub use deltas::DeltaKeys;
pub use preview::PhasePreview;
pub use tokens::MintToken;

/// The keys that the service holds for one product.
pub struct OnlineKeys {
    /// Signs rollout, and deltas: those beside the engine.
    pub rollout: Arc<dyn Signer + Send + Sync>,
    /// Signs halt.
    pub halt: Box<dyn Signer + Send + Sync>,
    /// Signs snapshot.
    pub snapshot: Box<dyn Signer + Send + Sync>,
    /// Signs timestamp.
    pub timestamp: Box<dyn Signer + Send + Sync>,
    /// Agree with devices' telemetry keys, by the numbers that targets gives them. Devices use the highest that their
    /// files name; the others are for those that have not heard of it yet.
    pub telemetry: BTreeMap<u32, SecretKey>,
    /// Answers devices that share no code with the service yet; none where targets names none.
    pub time: Option<SigningKey>,
}

impl OnlineKeys {
    /// Returns the telemetry key that devices should use, with its number.
    pub fn newest(&self) -> Option<(u32, &SecretKey)> {
        self.telemetry.last_key_value().map(|(kid, key)| (*kid, key))
    }
}

/// How long signed files live, seconds, and how often the heartbeat is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    /// Of timestamp.
    pub timestamp: u64,
    /// Of snapshot.
    pub snapshot: u64,
    /// Of rollout.
    pub rollout: u64,
    /// Of halt.
    pub halt: u64,
    /// Between heartbeats.
    pub heartbeat: u64,
}

impl Default for Lives {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            timestamp: 3 * DAY,
            snapshot: 30 * DAY,
            rollout: 30 * DAY,
            halt: 365 * DAY,
            heartbeat: DAY / 4,
        }
    }
}

/// Inputs of one step: so many together mean that more are waiting.
pub const BATCH: usize = 2048;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A message arrived.
    Message {
        /// Where.
        topic: Topic,
        /// What.
        payload: Vec<u8>,
    },
    /// An operator wants something.
    Command {
        /// Number to reply with.
        id: u64,
        /// Whose token asked; nobody's when the service wants it itself.
        by: Option<TokenName>,
        /// What.
        command: Box<Command>,
    },
    /// The connection to the broker came up: everything retained is published again.
    BrokerUp,
    /// The connection to the broker is gone.
    BrokerDown,
    /// Nothing but time passed.
    Time,
}

/// Something to send once the step's facts are synced.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Publish; retained as the topic says.
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        payload: Vec<u8>,
    },
    /// Reply to a command.
    Reply {
        /// Its number.
        id: u64,
        /// How it went.
        result: Result<Reply, Refusal>,
    },
}

/// What one step gave.
#[derive(Debug, Default)]
pub struct Step {
    /// When the facts were applied; their entries in the ledger carry it, so that a replay comes to the same state.
    pub at: Millis,
    /// For the ledger, in order; to be synced before any output leaves.
    pub facts: Vec<Fact>,
    /// Whose token asked for which of them, by place; the others followed by themselves.
    pub actors: BTreeMap<usize, TokenName>,
    /// To send then, in order.
    pub outputs: Vec<Output>,
    /// What an operator would tell a colleague.
    pub notes: Vec<String>,
    /// What an operator must be woken for.
    pub alarms: Vec<String>,
}

/// A clock that is set back further than this is told to people.
const CLOCK_BACK_MAX: Millis = 10 * 60 * 1000;

/// The controller.
pub struct Service {
    fleet: Fleet,
    keys: BTreeMap<ProductId, OnlineKeys>,
    /// Keys that wait for the files that name them.
    staged: BTreeMap<ProductId, OnlineKeys>,
    lives: Lives,
    /// By device, one for each telemetry key of ours that it was heard under.
    secrets: BTreeMap<DeviceId, keys::Agreed>,
    challenges: BTreeMap<DeviceId, (Nonce, Millis)>,
    seed: [u8; 32],
    drawn: u64,
    /// Whose command is being run.
    acting: Option<TokenName>,
    step: Step,
    now: Millis,
    /// Devices to acknowledge in this step, and whether the registry goes along.
    acks: BTreeMap<DeviceId, Acks>,
    /// Nonces to answer at the end of this step, when every verdict is in.
    asks: Vec<(DeviceId, Line, Nonce)>,
    /// Cohort topics that hold something, by product and rollout.
    cohorts: BTreeMap<(ProductId, RolloutId), offered::Offered>,
    /// Rollouts whose evidence may have changed in this step.
    touched: BTreeSet<RolloutId>,
    refreshed_at: BTreeMap<ProductId, Millis>,
    /// Signed files may differ from what the fleet's state asks for.
    unsettled: bool,
    /// Who is revoked may differ from what fronts were told.
    revoked_anew: bool,
    /// Products whose root or targets may be newer than what was signed under them.
    renewed: BTreeSet<ProductId>,
    /// Devices that each rollout covers, counted once until devices are added.
    covered: BTreeMap<RolloutId, u64>,
    counters: Counters,
    /// Products for which nothing can be signed, and why: until that is mended no device learns of anything.
    trouble: BTreeMap<ProductId, String>,
    /// When a signature of an enrolment was last found wrong, by device or claim: the next one waits its turn.
    wrong: BTreeMap<String, Millis>,
    /// Answers of the time keys.
    clockwork: time::Clockwork,
    /// When a hello of another epoch was last found forged, by device: the next one waits its turn.
    strange: BTreeMap<DeviceId, Millis>,
    /// When each claim was last complained about.
    complained: BTreeMap<ClaimId, Millis>,
    /// When the log last told of somebody with other keys under a device's name.
    posed: BTreeMap<DeviceId, Millis>,
    /// Whom the service asked to present files, or to say hello, since it began to compare.
    presents: BTreeMap<DeviceId, present::Asked>,
    /// The data folder is a copy, and that is not in the ledger yet.
    copied: Option<String>,
    /// Which products' devices hold the newest keys and kills, and when that was counted.
    holders: (Millis, BTreeMap<ProductId, (holders::Held, bool)>),
    /// Everything retained is published at the end of this step.
    publish_all: bool,
    /// The clock was set back, and that was said.
    set_back: bool,
    /// A device may run a release that was killed, and that its plan takes back.
    look_back: bool,
    /// What the last look at every device of a capped rollout gave.
    looked: BTreeMap<RolloutId, trial::Looked>,
    /// A device for which each rollout that reaches everybody waits: while it does not end, no other is looked at.
    held_up: BTreeMap<RolloutId, DeviceId>,
    /// Silence deadlines that are open.
    deadlines: deadlines::Deadlines,
    /// Who is connected, by hearsay.
    presences: presence::Presences,
    sites: presence::Sites,
}

/// Under which key a device speaks, and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Line {
    /// Number of our telemetry key.
    kid: u32,
    /// The device's epoch.
    epoch: u64,
}

#[derive(Debug, Default)]
struct Acks {
    line: Line,
    numbers: Vec<u64>,
    registry: bool,
    in_answer: bool,
}

impl Acks {
    fn ranges(mut self) -> Vec<(u64, u64)> {
        self.numbers.sort_unstable();
        self.numbers.dedup();
        self.numbers.chunk_by(|a, b| b - a == 1).map(|run| (run[0], run[run.len() - 1])).collect()
    }
}

impl Service {
    /// Starts from what the ledger gave; `seed` is random and never used twice.
    pub fn new(fleet: Fleet, keys: BTreeMap<ProductId, OnlineKeys>, lives: Lives, seed: [u8; 32]) -> Self {
        let mut service = Self {
            fleet,
            keys,
            staged: BTreeMap::new(),
            lives,
            secrets: BTreeMap::new(),
            challenges: BTreeMap::new(),
            seed,
            drawn: 0,
            acting: None,
            step: Step::default(),
            now: 0,
            acks: BTreeMap::new(),
            asks: Vec::new(),
            cohorts: BTreeMap::new(),
            touched: BTreeSet::new(),
            refreshed_at: BTreeMap::new(),
            unsettled: true,
            revoked_anew: false,
            renewed: BTreeSet::new(),
            covered: BTreeMap::new(),
            counters: Counters::default(),
            trouble: BTreeMap::new(),
            wrong: BTreeMap::new(),
            clockwork: time::Clockwork::default(),
            strange: BTreeMap::new(),
            complained: BTreeMap::new(),
            posed: BTreeMap::new(),
            presents: BTreeMap::new(),
            copied: None,
            holders: Default::default(),
            publish_all: false,
            set_back: false,
            look_back: true,
            looked: BTreeMap::new(),
            held_up: BTreeMap::new(),
            deadlines: deadlines::Deadlines::default(),
            presences: presence::Presences::new(),
            sites: presence::Sites::new(),
        };
        service.deadlines = deadlines::Deadlines::of(&service.fleet);
        // A rotation that was recorded and not signed is completed like a kill.
        service.renewed = service.fleet.products.keys().cloned().collect();
        service.recall_cohorts();
        service
    }

    /// Returns what the ledger says.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Returns the products for which nothing can be signed, and why.
    pub fn trouble(&self) -> &BTreeMap<ProductId, String> {
        &self.trouble
    }

    /// Returns what was taken in and what was refused.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The service came up: whatever was sent since the last frame of the ledger, nobody received it.
    pub fn came_up(&mut self, version: &str, now: Millis) -> Step {
        self.now = self.now.max(now);
        self.record(Fact::ServiceStarted { version: version.to_owned(), rules: RULES });
        Step { at: self.now, ..std::mem::take(&mut self.step) }
    }

    /// Takes what happened, in order, and returns what to record and then to send.
    pub fn handle(&mut self, inputs: Vec<Input>, now: Millis) -> Step {
        self.look_at_clock(now);
        self.now = self.now.max(now);
        self.begin_if_copied();
        // An unfinished kill is completed before any report is read; what only widens comes after it.
        self.reconcile();
        // More is waiting: it may hold the report of a device that is due.
        let full = inputs.len() >= BATCH;
        let mut replies = Vec::new();
        for input in inputs {
            match input {
                Input::Message { topic, payload } => self.message(&topic, &payload),
                Input::Command { id, by, command } => {
                    let signs = command.signs();
                    let result = self.command_by(by, *command);
                    replies.push((id, signs, result));
                }
                Input::BrokerUp => {
                    if !self.fleet.reception.is_on() {
                        self.record(Fact::ReceptionBegan);
                        // Wills that were spoken meanwhile were not heard.
                        self.presences.retain(|_, known| !known.is_online());
                    }
                    // Older files must not take the place of newer ones that the broker still retains.
                    if !self.is_comparing() {
                        self.publish_everything();
                    }
                }
                Input::BrokerDown if self.fleet.reception.is_on() => self.record(Fact::ReceptionEnded),
                Input::BrokerDown => {}
                Input::Time => {
                    self.touched.extend(self.fleet.rollouts.keys().cloned());
                    self.attend_comparison();
                    self.renew();
                    self.say_that_we_receive();
                    self.keep_hours();
                }
            }
        }
        if !full {
            self.pass_deadlines();
        }
        self.decide();
        self.reconcile();
        // The kill is signed by now; what takes devices back comes after it.
        if !self.is_comparing() {
            self.revert_killed();
            self.reconcile();
        }
        if std::mem::take(&mut self.publish_all) {
            self.publish_everything();
        }
        self.tell_revoked();
        for (id, signs, result) in replies {
            let result = self.unless_unsigned(signs.as_ref(), result);
            self.step.outputs.push(Output::Reply { id, result });
        }
        self.acknowledge();
        Step { at: self.now, ..std::mem::take(&mut self.step) }
    }

    /// A clock that was set back far stops everything that waits, silence deadlines too. Said once.
    fn look_at_clock(&mut self, now: Millis) {
        let back = self.now.saturating_sub(now);
        if back > CLOCK_BACK_MAX && !std::mem::replace(&mut self.set_back, true) {
            let minutes = back / 60_000;
            self.step.alarms.push(format!(
                "the clock was set back by {minutes} min: until it has caught up no soak and no silence deadline ends; \
                 restart the service to go on from the present time"
            ));
        }
        self.set_back &= back > 0;
    }

    /// Records a fact and folds it in.
    fn record(&mut self, fact: Fact) {
        match &fact {
            Fact::DevicesAdded { .. } | Fact::Approved { .. } | Fact::StandingChanged { .. } => {
                self.covered.clear();
                self.touched.extend(self.fleet.rollouts.keys().cloned());
                self.revoked_anew |= matches!(fact, Fact::StandingChanged { .. });
                self.look_back = true;
            }
            Fact::Applied { .. } | Fact::Rejected { .. } | Fact::IdentityReplaced { .. } => {}
            Fact::Killed { .. } | Fact::FilesPresented { .. } | Fact::ComparisonEnded { .. } => {
                (self.unsettled, self.look_back) = (true, true);
            }
            Fact::RevertRefused { .. } => {}
            Fact::TokenCreated { .. } | Fact::TokenRevoked { .. } | Fact::TokenUsed { .. } => {}
            Fact::ProductAdded { product, .. } => {
                self.renewed.insert(product.clone());
                self.unsettled = true;
            }
            Fact::Tagged { .. } | Fact::PhaseApproved { .. } => {}
            Fact::ServiceStarted { .. } | Fact::ReceptionBegan | Fact::ReceptionEnded | Fact::Receiving => {}
            Fact::DeadlinePassed { rollout, .. } | Fact::OutageSeen { rollout, .. } => {
                self.touched.insert(rollout.clone());
            }
            Fact::Reported { report, .. } => self.look_back |= self.needs_way_back(report),
            Fact::Enrolled { .. } | Fact::Granted { .. } | Fact::Signed { .. } => {}
            _ => self.unsettled = true,
        }
        self.fleet.apply(self.now, &fact);
        if let Some(actor) = &self.acting {
            self.step.actors.insert(self.step.facts.len(), actor.clone());
        }
        self.step.facts.push(fact);
    }

    /// Nothing can be signed for a product. Said once for each reason, for it is tried again and again.
    fn alarm(&mut self, product: &ProductId, why: String) {
        if self.trouble.get(product) != Some(&why) {
            self.step.alarms.push(format!("product {product}: nothing can be signed: {why}"));
            self.trouble.insert(product.clone(), why);
        }
    }

    fn all_clear(&mut self, product: &ProductId) {
        if self.trouble.remove(product).is_some() {
            self.note(format!("product {product}: files are signed again"));
        }
    }

    fn note(&mut self, text: String) {
        self.step.notes.push(text);
    }

    fn random(&mut self) -> Nonce {
        self.drawn += 1;
        let digest = tern_protocol::digest::Digest::of_parts(&[&self.seed, &self.drawn.to_be_bytes()]);
        let mut out = [0; 16];
        out.copy_from_slice(&digest.0[..16]);
        Nonce(out)
    }

    fn publish(&mut self, topic: Topic, payload: Vec<u8>) {
        self.step.outputs.push(Output::Publish { topic, payload });
    }
}

#[cfg(test)]
mod tests;
