//! The whole agent as one value: inputs in, outputs out, no I/O.
//!
//! The shell (or a simulation) hands in what happened and carries out what comes back, in order: saves come
//! before everything that relies on them. One local job runs at a time; a new job replaces the old one, and what
//! the old one still says is ignored by its number.

use std::collections::BTreeMap;

use tern_protocol::bundle::File;
use tern_protocol::claim::Token;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::PairSecret;
use tern_protocol::message::{Pack, Registry, ReportKind, Versions};
use tern_protocol::offer::{Artifact, Selection};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::{Pool, Role, Trusted, TufError};

use super::SlotName;
use super::download::{Accepted, Download};
use super::durable::Durable;
use super::eligibility::{self, Facts};
use super::exchange::Exchange;
use super::machine::reports;
use super::reader::Reader;
use super::state::{Effect, Event, State, UpdatingStep};
use super::timing::{Backoff, Now, Stamp, Timing};
use super::trust::Missing;

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
    /// The boot record holds a trial.
    pub armed: bool,
    /// The release that runs, from its slot's label; 0 for a factory image without one.
    pub running: u64,
    /// Its version.
    pub running_version: String,
    /// Bytes that the inactive slot can hold.
    pub capacity: u64,
    /// The image that the inactive slot holds whole, if any.
    pub inactive: Option<Artifact>,
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
    /// Write verified bytes into the inactive slot; needs no answer, [`Job::Sync`] follows.
    Write {
        /// The slot.
        slot: SlotName,
        /// Where in the slot.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
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
    /// Mark a slot bad, durably.
    MarkBad(SlotName),
    /// Sync the slot's bytes; these chunks are then durable.
    Sync(SlotName, Vec<u32>),
    /// Read the slot back, compare, and label it when it matches.
    Hash {
        /// The slot.
        slot: SlotName,
        /// What it must hold.
        artifact: Artifact,
        /// Release counter for the label.
        rc: u64,
        /// Version for the label.
        version: String,
    },
    /// Run the pre-update hooks.
    RunHooks,
    /// Undo them.
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

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It did what it should.
    Ok,
    /// A hash did not match.
    Mismatch,
    /// A hook said "not now".
    NotNow(String),
    /// It failed.
    Failed(String),
}

/// The agent.
pub struct Agent {
    pub(super) settings: Settings,
    pub(super) keys: Box<dyn Keys + Send>,
    pub(super) durable: Durable,
    pub(super) saved: bool,
    pub(super) trust: Trusted,
    pub(super) pool: Pool,
    pub(super) reader: Reader,
    pub(super) exchange: Exchange,
    pub(super) missing: Option<Missing>,
    pub(super) entropy: Entropy,
    /// What the files of these versions offer to a device of this registry entry.
    pub(super) selected: Option<(Versions, Registry, Option<Selection>)>,
    boot: Option<BootFacts>,
    download: Option<Download>,
    job: Option<(u64, Job)>,
    jobs: u64,
    job_retry: Backoff,
    job_not_before: u64,
    looked_at: Now,
    pub(super) out: Vec<Output>,
}

impl Agent {
    /// Starts from what was saved; `seed` is random and never used twice.
    pub fn new(
        settings: Settings,
        keys: Box<dyn Keys + Send>,
        mut durable: Durable,
        trust: Trusted,
        seed: [u8; 32],
    ) -> Self {
        durable.outbox.after_restart();
        let job_retry = Backoff::new(settings.timing.retry_first, settings.timing.retry_most);
        let exchange = Exchange::new(&settings.timing, keys.replaces());
        Self {
            settings,
            keys,
            durable,
            saved: true,
            trust,
            pool: Pool::default(),
            reader: Reader::default(),
            exchange,
            missing: None,
            entropy: Entropy { seed, used: 0 },
            selected: None,
            boot: None,
            download: None,
            job: None,
            jobs: 0,
            job_retry,
            job_not_before: 0,
            looked_at: Now::default(),
            out: Vec::new(),
        }
    }

    /// Returns what must be saved by [`Output::SaveJournal`].
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Returns the signed files that are trusted now.
    pub fn trust(&self) -> &Trusted {
        &self.trust
    }

    /// Returns what boot record and slots said when the agent came up.
    pub fn boot(&self) -> Option<&BootFacts> {
        self.boot.as_ref()
    }

    /// Returns what the device is, as far as it knows.
    pub(super) fn registry(&self) -> &Registry {
        self.durable.registry.as_ref().unwrap_or(&self.settings.registry)
    }

    /// Takes something that happened and returns what to do, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        self.looked_at = now;
        match input {
            Input::Up(facts) => self.came_up(facts, now),
            Input::LinkUp => self.link_up(now),
            Input::LinkDown => self.exchange.link_down(),
            Input::Message { topic, payload } => self.message(&topic, &payload, now),
            Input::Done { job, result } => self.done(job, result, now),
            // A deferral may be over.
            Input::Time if matches!(self.durable.state, State::Idle { not_before: Some(_) }) => {
                self.evaluate(now)
            }
            Input::Time => {}
        }
        self.step(&Event::Time, now);
        self.attend_trust(now);
        self.attend_exchange(now);
        self.attend_work(now);
        self.finish()
    }

    /// Returns the uptime at which [`Input::Time`] should be handed in at the latest.
    ///
    /// Judged as of the last input, not as of the call: what came due in between was not looked at yet.
    pub fn wake_at(&self) -> u64 {
        let now = self.looked_at;
        let timing = &self.settings.timing;
        let mut at = self.exchange.due().min(self.trust_due());
        if let Some(download) = self.download.as_ref().filter(|_| self.exchange.is_up()) {
            at = at.min(download.due());
        }
        if self.job.is_none() && self.job_not_before > now.uptime {
            at = at.min(self.job_not_before);
        }
        let until = |since: Stamp, wait: u64| {
            if since.epoch == self.durable.epoch { since.uptime.saturating_add(wait) } else { now.uptime }
        };
        match &self.durable.state {
            State::Idle { not_before: Some(since) } => {
                let over = until(*since, timing.deferral);
                // With nothing on offer the deferral stays when it is over, and is no reason to wake.
                if over > now.uptime {
                    at = at.min(over);
                }
            }
            State::Retry { since, wait, .. } => at = at.min(until(*since, *wait)),
            State::Updating { step: UpdatingStep::Announce { since }, .. } => {
                at = at.min(until(*since, timing.started_timeout));
            }
            State::VerifyPost { since, heard, .. } => {
                let soak = until(*since, timing.soak);
                if soak > now.uptime {
                    at = at.min(soak);
                }
                if !heard {
                    at = at.min(until(*since, timing.connect_deadline));
                }
            }
            _ => {}
        }
        at.max(now.uptime + 1)
    }

    fn came_up(&mut self, facts: BootFacts, now: Now) {
        let rebooted = facts.boot_id != self.durable.boot_id;
        if rebooted {
            self.durable.boot_id.clone_from(&facts.boot_id);
            self.durable.epoch += 1;
            self.saved = false;
        }
        let components = BTreeMap::from([(self.settings.component.clone(), facts.running_version.clone())]);
        if self.durable.components != components {
            self.durable.components = components;
            self.saved = false;
        }
        self.listen();
        let event = Event::Booted { slot: facts.slot, armed: facts.armed, rebooted };
        self.boot = Some(facts);
        self.step(&event, now);
        self.evaluate(now);
    }

    pub(super) fn listen(&mut self) {
        let registry = self.registry().clone();
        let topics = Topic::of_device(&self.settings.device, &registry.product, &registry.region);
        self.out.push(Output::Listen(topics.to_vec()));
    }

    pub(super) fn stamp(&self, now: Now) -> Stamp {
        Stamp { epoch: self.durable.epoch, uptime: now.uptime }
    }

    /// Feeds one fact to the machine and keeps what the controller must hear of it.
    pub(super) fn step(&mut self, event: &Event, now: Now) {
        let before = self.durable.state.clone();
        let at = self.stamp(now);
        let after = before.clone().after(event, at, &self.settings.timing);
        if after == before {
            return;
        }
        for kind in reports(&before, &after, event) {
            self.durable.outbox.push(kind);
        }
        if let Some(work) = announced(&after) {
            let nonce = self.entropy.nonce();
            let attempt = work.offer.attempt.clone();
            self.exchange.expect(nonce, now.uptime);
            self.durable.outbox.push(ReportKind::Started { nonce, attempt });
        }
        if let (State::Success { work }, State::Idle { .. }) = (&before, &after) {
            self.durable.floor = self.durable.floor.max(work.offer.floor);
        }
        if before.name() != after.name() {
            self.exchange.ask_anew();
        }
        self.durable.state = after;
        self.saved = false;
    }

    fn message(&mut self, topic: &Topic, payload: &[u8], now: Now) {
        match topic {
            Topic::DevicePack(device) if *device == self.settings.device => self.pack(payload, now),
            Topic::DeviceIn(device) if *device == self.settings.device => {
                if tern_protocol::bundle::Bundle::looks_like(payload) {
                    self.bundle(topic, payload, now);
                } else {
                    self.answer(payload, now);
                }
            }
            Topic::Timestamp(_) | Topic::Root(..) | Topic::Head(_) | Topic::Cohort(..) => {
                self.bundle(topic, payload, now)
            }
            _ => {}
        }
    }

    fn pack(&mut self, payload: &[u8], now: Now) {
        let (Some(download), State::Downloading { work, marked: true, .. }) =
            (&mut self.download, &self.durable.state)
        else {
            return;
        };
        let Ok(pack) = Pack::read(payload) else { return };
        if let Accepted::Chunk { index, bytes } = download.accept(pack, now.uptime) {
            let offset = u64::from(index) * tern_protocol::limits::CHUNK as u64;
            self.out.push(Output::Write { slot: work.slot, offset, bytes });
        }
    }

    fn done(&mut self, job: u64, result: Done, now: Now) {
        let Some((_, work)) = self.job.take_if(|(number, _)| *number == job) else { return };
        let failed = |result: Done| match result {
            Done::Failed(reason) | Done::NotNow(reason) => reason,
            Done::Ok | Done::Mismatch => "it did not say why".to_owned(),
        };
        let event = match (work, result) {
            (Job::MarkBad(_), Done::Ok) => {
                self.set_inactive(None);
                Event::SlotMarked
            }
            (Job::Sync(_, chunks), Done::Ok) => Event::Written(chunks),
            (Job::MarkBad(_) | Job::Sync(..), result) => {
                self.download = None;
                Event::WriteFailed(failed(result))
            }
            (Job::Hash { artifact, .. }, Done::Ok) => {
                self.set_inactive(Some(artifact));
                Event::Hashed { matches: true }
            }
            (Job::Hash { .. }, Done::Mismatch) => Event::Hashed { matches: false },
            (Job::RunHooks, Done::Ok) => Event::HooksDone,
            (Job::RunHooks, Done::NotNow(reason)) => Event::HooksPostponed(reason),
            (Job::RunHooks, result) => Event::HooksFailed(failed(result)),
            // A hook that cannot be undone must not hold the device where it is.
            (Job::UndoHooks, _) => Event::Undone,
            (Job::Arm { .. }, Done::Ok) => Event::Armed,
            (Job::Arm { .. }, result) => Event::ArmFailed(failed(result)),
            (Job::Disarm, Done::Ok) => match &self.boot {
                Some(boot) => Event::Disarmed { running: boot.slot },
                None => return,
            },
            (Job::Probe, Done::Ok) => Event::ProbesPassed,
            (Job::Probe, result) => Event::ProbeFailed(failed(result)),
            (Job::Confirm(_), Done::Ok) => Event::Confirmed,
            (Job::Hash { .. } | Job::Disarm | Job::Confirm(_) | Job::Reboot, _) => {
                // The medium would not do it now; nothing is decided, so try again later.
                self.job_not_before = now.uptime + self.job_retry.step();
                return;
            }
        };
        self.job_retry.reset();
        self.step(&event, now);
        if event == Event::Confirmed {
            self.confirmed();
        }
        self.evaluate(now);
    }

    fn set_inactive(&mut self, artifact: Option<Artifact>) {
        if let Some(boot) = &mut self.boot {
            boot.inactive = artifact;
        }
    }

    /// Judges the open check and starts what the state owes.
    fn attend_work(&mut self, now: Now) {
        loop {
            let owed = self.durable.state.owes(self.stamp(now), &self.settings.timing);
            if owed != Some(Effect::Check) {
                return self.attend_effect(owed, now);
            }
            let Some(event) = self.check() else { return };
            self.step(&event, now);
        }
    }

    fn check(&self) -> Option<Event> {
        let (State::Checking { work }, Some(boot)) = (&self.durable.state, &self.boot) else { return None };
        let facts = Facts {
            running: boot.running,
            floor: self.durable.floor,
            model: &self.registry().model,
            component: &self.settings.component,
            capacity: boot.capacity,
            inactive: boot.inactive.as_ref().map(|artifact| (artifact.root, artifact.length)),
        };
        Some(eligibility::judge(&work.offer, &facts))
    }

    fn attend_effect(&mut self, owed: Option<Effect>, now: Now) {
        let (Some(effect), Some(work)) = (owed, self.durable.state.work().cloned()) else {
            self.download = None;
            self.job = None;
            return;
        };
        if effect != Effect::Fetch {
            self.download = None;
        }
        let Some(artifact) = work.offer.artifacts.first() else { return };
        let rc = work.offer.attempt.rc;
        let job = match effect {
            Effect::Check | Effect::Ask | Effect::Announce | Effect::Soak => {
                self.job = None;
                return;
            }
            Effect::Fetch => return self.attend_download(now),
            Effect::MarkBad => Job::MarkBad(work.slot),
            Effect::Hash => Job::Hash {
                slot: work.slot,
                artifact: artifact.clone(),
                rc,
                version: work.offer.version.clone(),
            },
            Effect::RunHooks => Job::RunHooks,
            Effect::UndoHooks => Job::UndoHooks,
            Effect::Arm => Job::Arm { slot: work.slot, rc },
            Effect::Reboot => Job::Reboot,
            Effect::Disarm => Job::Disarm,
            Effect::Probe => Job::Probe,
            Effect::Confirm => Job::Confirm(work.slot),
        };
        self.start(job, now);
    }

    fn start(&mut self, work: Job, now: Now) {
        if self.job.as_ref().is_some_and(|(_, running)| *running == work) || now.uptime < self.job_not_before
        {
            return;
        }
        self.jobs += 1;
        self.job = Some((self.jobs, work.clone()));
        self.out.push(Output::Start { job: self.jobs, work });
    }

    fn attend_download(&mut self, now: Now) {
        let State::Downloading { work, have, .. } = &self.durable.state else { return };
        let (slot, Some(artifact)) = (work.slot, work.offer.artifacts.first().cloned()) else { return };
        if !self.download.as_ref().is_some_and(|d| d.is_of(&artifact)) {
            let mut download = Download::new(&artifact, have, &self.settings.timing);
            download.wait_until(now.uptime + self.spread(work.offer.spread));
            self.download = Some(download);
        }
        let Some(download) = &mut self.download else { return };
        if self.exchange.is_up()
            && let Some(get) = download.request(now.uptime)
        {
            let topic = Topic::Up(self.settings.device.clone(), UpKind::Get);
            self.out.push(Output::Publish { topic, payload: get.write() });
        }
        if !matches!(self.job, Some((_, Job::Sync(..))))
            && let Some(chunks) = download.to_sync()
        {
            self.start(Job::Sync(slot, chunks), now);
        }
    }

    /// A device waits hash × spread before its first `get`, so that a wave does not ask all at once.
    fn spread(&self, seconds: u32) -> u64 {
        let hash = tern_protocol::digest::Digest::of(self.settings.device.as_str().as_bytes()).short();
        // The upper half of the hash as a fraction of 2³².
        (u64::from(seconds) * 1000 * (hash >> 32)) >> 32
    }

    fn confirmed(&mut self) {
        // What was on trial is now what runs; the boot record says so, and so will the next start.
        if let Some(boot) = &mut self.boot {
            boot.armed = false;
        }
    }

    fn finish(&mut self) -> Vec<Output> {
        let mut out = std::mem::take(&mut self.out);
        if !self.saved {
            self.saved = true;
            let after_trust = out.iter().take_while(|o| matches!(o, Output::SaveTrust(_))).count();
            out.insert(after_trust, Output::SaveJournal);
        }
        out
    }
}

/// Returns the attempt whose start is being announced.
fn announced(state: &State) -> Option<&super::state::Work> {
    match state {
        State::Updating { work, step: UpdatingStep::Announce { .. } } => Some(work),
        _ => None,
    }
}

/// Random values from one seed, so that the core itself stays deterministic.
pub(super) struct Entropy {
    seed: [u8; 32],
    used: u64,
}

impl Entropy {
    pub(super) fn nonce(&mut self) -> tern_protocol::message::Nonce {
        self.used += 1;
        let digest = tern_protocol::digest::Digest::of_parts(&[&self.seed, &self.used.to_be_bytes()]);
        let mut out = [0; 16];
        out.copy_from_slice(&digest.0[..16]);
        tern_protocol::message::Nonce(out)
    }
}
