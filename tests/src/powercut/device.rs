//! One device: the agent's core and its hold on the device, on a disk with a power switch.

use std::collections::VecDeque;
use std::sync::Arc;

use tern_agent::component::{self, Component, ComponentError};
use tern_agent::core::SlotName;
use tern_agent::core::agent::{
    Agent, BootFacts, ComponentFacts, Done, Input, Job, Output, Settings, Target, Transfer,
};
use tern_agent::core::conditions::Surroundings;
use tern_agent::core::state::State;
use tern_agent::core::timing::Now;
use tern_agent::device::Device;
use tern_agent::record::{RecordError, RecordFile};
use tern_agent::slot::SlotLabel;
use tern_agent::slot::signed::StoredFile;
use tern_agent::storage::Disk;
use tern_protocol::delta::Profile;
use tern_protocol::digest::Digest;
use tern_protocol::message::ReportKind;
use tern_protocol::state::Outcome as Told;
use tern_protocol::topic::{Topic, UpKind};

use super::board::{Board, COMPONENTS, NoBoot};
use super::disk::{FakeDisk, Medium, Moment};
use super::outcome::Outcome;
use super::service::{ChipKeys, Service, WALL, registry};
use super::story::ON_TRIAL;

/// Inputs that a device may take until a story is over: more is a device that comes to no end.
const INPUTS: u32 = 4000;
/// Boots of one story: more is a loop.
const BOOTS: u64 = 24;
/// Starts of the agent in one boot, which a supervisor makes when it ends by itself.
const STARTS: u32 = 5;

/// What befalls the device from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fate {
    /// Probes on trial fail.
    pub sick: bool,
    /// The release is killed once the trial runs.
    pub killed: bool,
    /// The device does not go down when it is told to for the first time, and the release is killed then.
    pub stays_up: bool,
    /// The last component cannot be installed.
    pub jams: bool,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// What was waited for is so.
    Done,
    /// The power failed.
    Cut,
    /// Something must never happen, and did.
    Broken(String),
}

/// A device that is off, with its service: everything that a power cut leaves.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// What it is.
    pub board: Arc<Board>,
    /// Its disk.
    pub disk: FakeDisk,
    /// The other end.
    pub service: Service,
    /// What befalls it.
    pub fate: Fate,
    /// How often it was powered on.
    pub boots: u64,
    /// The highest floor that it ever had.
    pub floor: u64,
    /// Release that it has reported as taken for good.
    pub taken: Option<u64>,
    /// Release that it has reported as gone back from: it never runs again.
    pub left: Option<u64>,
    /// The release that ran last.
    pub runs: Option<u64>,
    /// Version of the rollout role in the files that it has kept: a device that forgets it can be shown old ones.
    pub kept: u32,
    /// What was noted as written and was read back as something else: only a medium that fails does that.
    pub lost: Option<String>,
    /// Whether an agent was killed before it had come up.
    pub died_starting: bool,
    /// Inputs since it was off.
    inputs: u32,
    /// What it was, all but the disk, after so many operations; kept while they are recorded.
    notes: Option<Vec<(u64, Arc<Terminal>)>>,
}

/// A moment at which the power can fail, and what there is then.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Of the disk.
    pub moment: Moment,
    terminal: Arc<Terminal>,
}

impl Cut {
    /// Returns the device as every different outcome of the cut leaves it.
    pub fn futures(&self, outcomes: &[Outcome]) -> Vec<(Outcome, Terminal)> {
        let futures = self.moment.futures(outcomes).into_iter();
        futures.map(|(outcome, medium)| (outcome, self.terminal.with_disk(medium))).collect()
    }
}

/// A device that is on.
struct Running {
    device: Device,
    agent: Agent,
    uptime: u64,
    queue: VecDeque<Input>,
}

/// What one step of a running device came to.
enum Step {
    On,
    Reboots,
    Ends(String),
}

impl Terminal {
    /// Takes a device from its factory.
    pub fn new(board: Arc<Board>, disk: FakeDisk, service: Service) -> Self {
        let (fate, boots, floor, kept, inputs) = Default::default();
        let (taken, left, runs, lost, notes, died_starting) = Default::default();
        Self {
            board,
            disk,
            service,
            fate,
            boots,
            floor,
            taken,
            left,
            runs,
            kept,
            lost,
            died_starting,
            inputs,
            notes,
        }
    }

    /// Returns the same device on another disk.
    pub fn with_disk(&self, medium: Medium) -> Self {
        let disk = FakeDisk::of(medium);
        disk.lie(self.disk.lie_told());
        Self { disk, inputs: 0, notes: None, ..self.clone() }
    }

    /// Returns what tells it, once it is off, from every other one of its story: two with the same go on alike, for what it
    /// does comes from its disk, its service and the number of its boot alone.
    pub fn state(&self) -> Digest {
        let Self { service, fate, boots, floor, taken, left, kept, lost, .. } = self;
        let rest = format!("{fate:?} {boots} {floor} {taken:?} {left:?} {kept} {lost:?} {}", service.state());
        Digest::of_parts(&[&self.disk.fingerprint().0, rest.as_bytes()])
    }

    /// Plays, and returns every moment at which the power could have failed.
    pub fn recorded(&mut self, play: impl FnOnce(&mut Self) -> Ended) -> (Ended, Vec<Cut>) {
        self.disk.record();
        self.notes = Some(Vec::new());
        let ended = play(self);
        let mut notes = self.notes.take().unwrap_or_default().into_iter().peekable();
        let mut terminal = Arc::new(self.clone());
        let cut = |moment: Moment| {
            while let Some((_, noted)) = notes.next_if(|(done, _)| *done < moment.number) {
                terminal = noted;
            }
            Cut { moment, terminal: Arc::clone(&terminal) }
        };
        let cuts = self.disk.recorded().into_iter().map(cut).collect();
        (ended, cuts)
    }

    /// Notes what it is before it does something, for whoever records.
    fn note(&mut self) {
        let Some(mut notes) = self.notes.take() else { return };
        notes.push((self.disk.done(), Arc::new(self.clone())));
        self.notes = Some(notes);
    }

    /// Begins a story: counts anew.
    pub fn begin(&mut self, fate: Fate) {
        (self.fate, self.boots, self.inputs) = (fate, 0, 0);
    }

    /// Powers the device on and lets it do what it does until `done`.
    pub fn run(&mut self, done: &dyn Fn(&Self, &Agent) -> bool) -> Ended {
        loop {
            self.boots += 1;
            if self.boots > BOOTS {
                return Ended::Broken("it boots for ever".into());
            }
            self.note();
            let powered =
                self.disk.sparing(true, || self.board.power_on(&self.disk, &self.service, self.boots));
            match powered {
                Ok(()) => {}
                Err(NoBoot::Cut) => return Ended::Cut,
                Err(NoBoot::Stranded(why)) => return Ended::Broken(format!("nothing boots: {why}")),
            }
            match self.lives(done) {
                Some(ended) => return ended,
                None => self.disk.restart(),
            }
        }
    }

    /// One boot; nothing if it ends by a reboot.
    fn lives(&mut self, done: &dyn Fn(&Self, &Agent) -> bool) -> Option<Ended> {
        let mut reason = String::new();
        if let Some(damaged) = self.damaged() {
            return Some(Ended::Broken(damaged));
        }
        for start in 0..STARTS {
            self.disk.revive();
            self.note();
            let mut running = match self.start(start) {
                Ok(running) => running,
                Err(_) if self.disk.is_dead() => return Some(Ended::Cut),
                Err(error) => {
                    reason = format!("it does not start: {error}");
                    self.died_starting |= self.disk.is_killed();
                    continue;
                }
            };
            if let Some(broken) = self.came_up(&running) {
                return Some(Ended::Broken(broken));
            }
            match self.goes_on(&mut running, done) {
                Ok(()) => return Some(Ended::Done),
                Err(_) if self.disk.is_dead() => return Some(Ended::Cut),
                Err(Step::Reboots) => return None,
                Err(Step::Ends(why)) => reason = why,
                Err(Step::On) => return Some(Ended::Broken("it comes to no end".into())),
            }
        }
        Some(Ended::Broken(format!("the agent ends again and again: {reason}")))
    }

    /// No power cut leaves a record of which no copy is whole: that would be damage, and would be said to a person.
    fn damaged(&self) -> Option<String> {
        let disk: Disk = Arc::new(self.disk.clone());
        let config = &self.board.config;
        let places = [
            (&config.data_dir, vec!["journal", "trust"]),
            (
                &config.slots.dir,
                vec!["boot", "a.label", "b.label", "a.signed", "b.signed", "recovery", "recovery-tries"],
            ),
        ];
        let components = config.components.iter().map(|component| {
            let folder = config.data_dir.join("components").join(&component.name);
            (folder, vec!["installed", "a.label", "b.label"])
        });
        let components: Vec<_> = components.collect();
        let places =
            places.into_iter().chain(components.iter().map(|(folder, names)| (folder, names.clone())));
        let records = places.flat_map(|(folder, names)| names.into_iter().map(move |name| (folder, name)));
        records.into_iter().find_map(|(folder, name)| {
            let record = RecordFile::<serde_json::Value>::on(&disk, folder, name).ok()?;
            let damaged = matches!(record.load(), Err(RecordError::Corrupt(_)));
            damaged.then(|| format!("no copy of the record {name} is whole"))
        })
    }

    fn start(&self, start: u32) -> Result<Running, String> {
        let disk: Disk = Arc::new(self.disk.clone());
        let config = &self.board.config;
        self.disk.starts();
        let device = Device::on(&disk, config).map_err(|error| chain(&error))?;
        let durable = device.load_journal().map_err(|error| chain(&error))?;
        let trust = device.load_trust(&config.root).map_err(|error| chain(&error))?;
        let settings = Settings {
            fleet: config.fleet.clone(),
            device: config.device.clone(),
            registry: registry(),
            component: config.component.clone(),
            claim: None,
            version: "test".into(),
            timing: config.timing.core(0.0),
            conditions: config.when.conditions.clone(),
            hooks: Default::default(),
            transfer: Transfer { profiles: vec![Profile::Mcu.id()], ..Transfer::default() },
        };
        let mut seed = [u8::try_from(start).unwrap_or(0); 32];
        seed[..8].copy_from_slice(&self.boots.to_be_bytes());
        let agent = Agent::new(settings, Box::new(ChipKeys), durable, trust, seed);
        let facts = device.facts().map_err(|error| chain(&error))?;
        let head = self.service.head();
        let topic = Topic::Head(registry().product);
        let queue = [Input::Up(facts), Input::LinkUp, Input::Message { topic, payload: head }];
        Ok(Running { device, agent, uptime: 5000, queue: queue.into() })
    }

    /// What must be true whenever a device comes up.
    fn came_up(&mut self, running: &Running) -> Option<String> {
        let facts = match running.queue.front() {
            Some(Input::Up(facts)) => facts.clone(),
            _ => return None,
        };
        let Some(rc) = self.board.release_in(&self.disk, &self.service, &self.board.runs_from(facts.slot))
        else {
            return Some(format!("slot {} runs, and nobody has approved its bytes", facts.slot));
        };
        self.runs = Some(rc);
        if facts.running != rc {
            return Some(format!("it says that it runs release {}, and it runs {rc}", facts.running));
        }
        if self.left == Some(rc) {
            return Some(format!("it went back from release {rc}, which runs and {ON_TRIAL}"));
        }
        // On trial once more it would go back by itself, the next time but one.
        let confirmed = self.board.release_in(&self.disk, &self.service, &self.board.slot(facts.active));
        if self.taken.is_some_and(|taken| taken != rc || Some(taken) != confirmed) {
            let taken = self.taken;
            return Some(format!(
                "it took release {taken:?} for good, runs {rc}, and would go back to {confirmed:?}"
            ));
        }
        let kept = running.agent.trust().versions().rollout;
        if kept < self.kept {
            return Some(format!("it kept rollout {} and knows {kept}", self.kept));
        }
        // Whoever wrote it, this one goes on from it.
        self.kept = kept;
        let floor = running.agent.durable().floor.max(facts.floor);
        if floor < self.floor {
            return Some(format!("its floor fell from {} to {floor}", self.floor));
        }
        self.confirmed_is_whole(&facts).or_else(|| self.unsigned()).or_else(|| self.component_in_part())
    }

    /// Whatever vouches for a slot's bytes, the files that signed them came before; a factory leaves none.
    fn unsigned(&self) -> Option<String> {
        let disk: Disk = Arc::new(self.disk.clone());
        let folder = &self.board.config.slots.dir;
        let label = |slot: SlotName| {
            RecordFile::<SlotLabel>::on(&disk, folder, &format!("{slot}.label")).ok()?.load().ok()?
        };
        let is_signed = |slot: SlotName| {
            let record = RecordFile::<Vec<StoredFile>>::on(&disk, folder, &format!("{slot}.signed"));
            matches!(record.and_then(|record| record.load()), Ok(Some(files)) if !files.is_empty())
        };
        let is_vouched =
            |slot: &SlotName| matches!(label(*slot), Some(SlotLabel::Holds(image)) if image.rc > 1);
        let unsigned = SlotName::BOTH.into_iter().filter(is_vouched).find(|slot| !is_signed(*slot))?;
        Some(format!("slot {unsigned} is vouched for, and what signed it is gone"))
    }

    /// Returns what a component has.
    pub fn component(&self, name: &str) -> Option<Vec<u8>> {
        self.disk.bytes(&self.board.component(name))
    }

    /// Whatever uses a component may do so before the agent has come up: it is one that was approved or, until one was taken
    /// for good, the factory's.
    fn component_in_part(&self) -> Option<String> {
        let components = self.board.config.components.iter().map(|component| component.name.as_str());
        let is_whole = |name: &&str| {
            let found = self.component(name);
            (self.taken.is_none() && found == self.board.factory_component(name))
                || found.is_some_and(|bytes| self.service.has_package(name, &bytes))
        };
        let name = components.into_iter().find(|name| !is_whole(name))?;
        Some(format!("component {name} holds what nobody has approved"))
    }

    /// The confirmed slot holds something that was approved, at every boot: a trial alone is not enough.
    fn confirmed_is_whole(&self, facts: &BootFacts) -> Option<String> {
        let slot = self.board.slot(facts.active);
        let is_whole = self.board.release_in(&self.disk, &self.service, &slot).is_some();
        (!is_whole).then(|| format!("the confirmed slot {} holds nothing that boots", facts.active))
    }

    fn goes_on(&mut self, running: &mut Running, done: &dyn Fn(&Self, &Agent) -> bool) -> Result<(), Step> {
        loop {
            let Some(input) = running.queue.pop_front() else {
                if done(self, &running.agent) {
                    return Ok(());
                }
                running.uptime = running.agent.wake_at().min(running.uptime + 600_000);
                running.queue.push_back(Input::Time);
                continue;
            };
            self.inputs += 1;
            if self.inputs > INPUTS {
                return Err(Step::On);
            }
            let now = Now { uptime: running.uptime, wall: WALL };
            let outputs = running.agent.handle(input, now);
            self.floor = self.floor.max(running.agent.durable().floor);
            for output in outputs {
                self.note();
                self.carry_out(running, output)?;
            }
            if self.fate.killed && matches!(running.agent.durable().state, State::VerifyPost { .. }) {
                self.kill_release(running);
            }
        }
    }

    fn kill_release(&mut self, running: &mut Running) {
        (self.fate.killed, self.fate.stays_up) = (false, false);
        self.service.halt();
        let topic = Topic::Head(registry().product);
        running.queue.push_back(Input::Message { topic, payload: self.service.head() });
    }

    fn carry_out(&mut self, running: &mut Running, output: Output) -> Result<(), Step> {
        let ends = |error: &dyn std::error::Error| Step::Ends(chain(error));
        let id = self.board.config.device.clone();
        match output {
            Output::SaveTrust(files) => {
                running.device.save_trust(&files).map_err(|error| ends(&error))?;
                self.kept = running.agent.trust().versions().rollout;
            }
            Output::SaveJournal => {
                running.device.save_journal(running.agent.durable()).map_err(|error| ends(&error))?;
            }
            Output::Publish { topic: Topic::Up(_, UpKind::Report), payload } => {
                self.heard(&payload);
                for payload in self.service.report(&payload) {
                    running.queue.push_back(Input::Message { topic: Topic::DeviceIn(id.clone()), payload });
                }
            }
            Output::Publish { topic: Topic::Up(_, UpKind::Get), payload } => {
                for payload in self.service.packs(&payload) {
                    running.queue.push_back(Input::Message { topic: Topic::DevicePack(id.clone()), payload });
                }
            }
            Output::Write { target, offset, bytes } => running.device.write(target, offset, &bytes),
            Output::Start { job, work: Job::Reboot } if self.fate.stays_up => {
                let result = Done::Failed("the manager is busy".into());
                running.queue.push_back(Input::Done { job, result });
                self.kill_release(running);
            }
            Output::Start { job, work } => {
                let what = format!("{work:?}");
                let Some(result) = self.job(running, work) else { return Err(Step::Reboots) };
                if self.disk.is_killed() {
                    return Err(Step::Ends("the agent was killed".into()));
                }
                if result == Done::Mismatch {
                    self.lost = Some(what);
                }
                running.queue.push_back(Input::Done { job, result });
            }
            _ => {}
        }
        match (self.disk.is_dead(), self.disk.is_killed()) {
            (true, _) => Err(Step::On),
            (_, true) => Err(Step::Ends("the agent was killed".into())),
            _ => Ok(()),
        }
    }

    fn job(&self, running: &mut Running, work: Job) -> Option<Done> {
        let device = &mut running.device;
        Some(match work {
            Job::MarkBad(target) => device.mark_bad(target),
            Job::Sync(target, _) => device.sync(target),
            Job::Decode(order) => device.decode(order)(),
            Job::Compare { target, length, first, leaves } => {
                device.compare(&target, length, first, leaves)()
            }
            Job::Hash { target: Target::Slot(slot), artifact, rc, version } => {
                device.hash(slot, artifact, rc, version, running.agent.trust().files())()
            }
            Job::Hash { target: Target::Component(name), artifact, rc, version } => {
                device.hash_component(&name, artifact, rc, version)()
            }
            Job::Install { component, rc } if self.fate.jams && component == COMPONENTS[1] => {
                match changed(device, &component, async |it| it.install(rc).await) {
                    Done::Component(_) => Done::Failed("it does not answer".into()),
                    failed => failed,
                }
            }
            Job::Install { component, rc } => changed(device, &component, async |it| it.install(rc).await),
            Job::Revert(component) => changed(device, &component, async |it| it.revert().await),
            Job::Keep(component) => changed(device, &component, async |it| it.keep().await),
            Job::Arm { slot, rc } => device.arm(slot, rc),
            Job::Disarm => device.disarm(),
            Job::Confirm(slot) => device.confirm(slot),
            Job::Probe if self.fate.sick => Done::Failed("the modem does not register".into()),
            Job::Reboot => match device.reboot() {
                Done::Ok => return None,
                failed => failed,
            },
            Job::RunHooks(_) | Job::UndoHooks | Job::Probe => Done::Ok,
            Job::Look(_) => Done::Looked(Surroundings::default()),
        })
    }

    /// Notes what the device claims.
    fn heard(&mut self, payload: &[u8]) {
        let reports = self.service.peek(payload).into_iter().flatten();
        reports.for_each(|report| self.claims(report.kind));
    }

    fn claims(&mut self, kind: ReportKind) {
        // What it has said before, and repeats after a loss, it claimed then.
        let is_new = !self.service.heard.values().any(|before| *before == kind);
        if let ReportKind::Outcome { attempt, outcome, .. } = kind
            && is_new
        {
            match outcome {
                Told::Success => self.taken = Some(attempt.rc),
                Told::RolledBack | Told::Recalled => self.left = Some(attempt.rc),
                _ => {}
            }
        }
    }

    /// Returns the bytes of a slot.
    pub fn slot(&self, slot: SlotName) -> Vec<u8> {
        self.disk.bytes(&self.board.slot(slot)).unwrap_or_default()
    }
}

/// Does something with a component, in a runtime that ends with it.
fn changed(
    device: &Device,
    name: &str,
    work: impl AsyncFnOnce(&Component) -> Result<ComponentFacts, ComponentError>,
) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    match device.component(name) {
        Some(component) => component::done(runtime.block_on(work(&component))),
        None => Done::Failed(format!("there is no component {name}")),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
