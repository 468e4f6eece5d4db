//! One deterministic world: real agents, the real service, and everything around them made of values.
//!
//! ```text
//!            Output::Publish            Fact, Output::Publish
//!  devices ────────────────> network ─────────────────────────> controller ──> ledger (in memory)
//!     ^  disks, boot loaders    │  lose, repeat, delay, reorder
//!     └──── retained, packs ────┘
//! ```
//! The same seed and the same commands give the same [`Sim::log`], line by line. After every event the invariants
//! are checked; what they find is in [`Sim::violations`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | virtual time and chance |
//! | [`broker`] | retained messages, links, the chunk server |
//! | [`disk`] | slots, boot record, boot loader, journal |
//! | [`device`] | a device around the real agent core: power, processes, connections |
//! | `jobs` | what a device does for its agent |
//! | [`controller`] | the real service and the operator's keys |
//! | [`invariants`] | what must always hold |
//! | [`permission`] | what a device may run |
//! | [`convergence`] | when everybody is where the signed files want them |
//! | [`hostile`] | a broker that somebody has taken over |
//! | [`operator`] | what scenarios do to the world |
//! | [`restore`] | yesterday's data folder, put back |

pub mod broker;
pub mod clock;
pub mod controller;
pub mod convergence;
pub mod device;
pub mod disk;
pub mod hostile;
pub mod invariants;
mod jobs;
pub mod operator;
pub mod permission;
pub mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tern_agent::core::agent::Input;
use tern_agent::core::conditions::Conditions;
use tern_agent::core::hook::HookStep;
use tern_agent::core::timing::Timing;
use tern_controller::core::fleet::Fleet;
use tern_controller::core::service::{Input as ServiceInput, Output, Refusal, Reply, Step};
use tern_protocol::bundle::Bundle;
use tern_protocol::id::{DeviceId, FleetId, ProductId};
use tern_protocol::message::ReportKind;
use tern_protocol::offer::Artifact;
use tern_protocol::topic::{Topic, UpKind};

use self::broker::{Broker, Network};
use self::clock::{Queue, Rng, SECOND};
use self::controller::Controller;
use self::device::Device;
use self::hostile::{Fate, Hostile, Hostility};
use crate::apart::service::Deaths;

/// How often the service looks at the time when nothing happens; judging costs more than anything it waits for.
const TICK: u64 = 15 * SECOND;

/// What a simulation begins with.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// How many devices.
    pub devices: usize,
    /// Their models, in turn.
    pub models: Vec<&'static str>,
    /// Bytes of every image.
    pub image: usize,
    /// Every wait of the agents.
    pub timing: Timing,
    /// What the owners of the devices ask for; all of it holds, but see [`Sim::no_consent_until`].
    pub conditions: Conditions,
    /// Steps at which devices have hooks.
    pub hooks: BTreeSet<HookStep>,
    /// What the network does.
    pub network: Network,
    /// Random faults.
    pub faults: Faults,
    /// A broker that works against everybody.
    pub hostility: Option<Hostility>,
    /// Cut the power of the device at this effect; see [`Sim::effects`].
    pub cut_at: Option<u64>,
    /// Something that is wrong on purpose.
    pub broken: Option<Broken>,
    /// Run the service in a process of its own, of this program, that dies like this.
    pub apart: Option<(PathBuf, Deaths)>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            devices: 20,
            models: vec!["B3", "C1"],
            image: 150_000,
            timing: Timing::default(),
            conditions: Conditions::default(),
            hooks: [HookStep::PreUpdate].into(),
            network: Network::default(),
            faults: Faults::default(),
            hostility: None,
            cut_at: None,
            broken: None,
            apart: None,
        }
    }
}

/// Faults that come by chance: the mean time between two of a kind, for one device or the service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Nothing happens after this moment.
    pub until: u64,
    /// Between power cuts of a device.
    pub power_cut: Option<u64>,
    /// Between restarts of a device's agent.
    pub agent_restart: Option<u64>,
    /// Between broken connections of a device.
    pub disconnect: Option<u64>,
    /// Between restarts of the service.
    pub service_restart: Option<u64>,
}

/// Ways to be wrong that the invariants must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The journal is never saved.
    JournalNeverSaved,
    /// Arming makes the new slot the active one, without a trial.
    NoTrial,
    /// The slot is labelled without reading it back.
    SlotNeverReadBack,
    /// After a kill the controller answers as before and publishes nothing.
    KillsForgotten,
    /// A service that was restored sees neither that its folder is a copy nor what devices claim.
    NeverCompares,
}

/// How a release behaves on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trial {
    /// It works.
    #[default]
    Healthy,
    /// A probe fails.
    Sick,
    /// It reaches nobody.
    Mute,
    /// It resets before the agent starts.
    Looping,
    /// The device never comes up again.
    Bricking,
    /// It is confirmed, and crashes far more often than the release before.
    Crashing,
    /// It is confirmed, and drains the battery.
    Thirsty,
}

/// An image that was signed; number 0 is the factory's.
#[derive(Debug, Clone)]
pub struct Image {
    /// Release counter.
    pub rc: u64,
    /// What a slot holds.
    pub bytes: Vec<u8>,
    /// How metadata names it; none for the factory's.
    pub artifact: Option<Artifact>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    PowerCut(usize),
    AgentRestart(usize),
    Disconnect(usize),
    ServiceRestart,
}

#[derive(Debug)]
enum Event {
    ToDevice { d: usize, connection: u64, topic: Topic, payload: Vec<u8> },
    ToService { topic: Topic, payload: Vec<u8> },
    Wake { d: usize, process: u64, token: u64 },
    JobEnds { d: usize, process: u64, number: u64 },
    Collected { d: usize, process: u64, figures: BTreeMap<String, u64> },
    PowerOn { d: usize, process: u64 },
    PowerCut { d: usize, process: u64 },
    Connect { d: usize, process: u64 },
    ServiceUp,
    Tick,
    Fault(Fault),
    HostileAct,
}

/// The simulation.
pub struct Sim {
    /// What it began with.
    pub config: SimConfig,
    /// The devices.
    pub devices: Vec<Device>,
    /// The controller.
    pub controller: Controller,
    /// Everything that happened, in order.
    pub log: Vec<String>,
    /// What the invariants found.
    pub violations: Vec<String>,
    /// Effects carried out so far: saves, publishes, writes, and both ends of every job.
    pub effects: u64,
    /// Hooks say "not now" this many times more.
    pub hook_refusals: u32,
    /// Nobody agrees to an install before this moment, where devices ask for consent.
    pub no_consent_until: u64,
    /// The broker gives no signed files to devices.
    pub withholds_files: bool,
    /// The chunk server gives no packs.
    pub withholds_packs: bool,
    /// Devices that should boot do not get round to it.
    pub hold_reboots: bool,
    queue: Queue<Event>,
    rng: Rng,
    network_rng: Rng,
    fault_rng: Rng,
    seed: u64,
    fleet: FleetId,
    product: ProductId,
    broker: Broker,
    images: Vec<Image>,
    trials: BTreeMap<(u64, Option<usize>), Trial>,
    reported: BTreeMap<(DeviceId, u64), ReportKind>,
    /// Reports that were acknowledged and went with a lost data folder.
    lost: BTreeSet<(DeviceId, u64)>,
    /// What each lost data folder said.
    before: Vec<Fleet>,
    partitioned: bool,
    lose_outputs: bool,
    hostile: Option<Hostile>,
}

impl Sim {
    /// Goes on until `done`; false when the virtual time is over before. Stops at the first violation.
    pub fn run_until(&mut self, done: impl Fn(&Sim) -> bool, at_most: u64) -> bool {
        let end = self.queue.now() + at_most;
        while self.violations.is_empty() {
            if done(self) {
                return true;
            }
            match self.queue.next_at() {
                Some(at) if at <= end => {}
                _ => break,
            }
            if let Some(event) = self.queue.take() {
                self.happen(event);
            }
        }
        self.queue.wait_until(end.min(self.queue.next_at().unwrap_or(end)));
        self.violations.is_empty() && done(self)
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: u64) {
        let end = self.queue.now() + time;
        self.run_until(|sim| sim.queue.now() >= end, time);
    }

    /// Returns the present moment.
    pub fn now(&self) -> u64 {
        self.queue.now()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToDevice { d, connection, topic, payload } if self.is_connected(d, connection) => {
                self.hand_in(d, Input::Message { topic, payload });
            }
            Event::ToService { topic, payload } => {
                let blind = self.config.broken == Some(Broken::NeverCompares);
                let payload = if blind { self.unclaimed(&topic, payload) } else { payload };
                self.serve(ServiceInput::Message { topic, payload });
            }
            Event::Wake { d, process, token } if self.devices[d].process == process => self.wake(d, token),
            Event::JobEnds { d, process, number } if self.devices[d].process == process => {
                self.job_ends(d, number);
            }
            Event::Collected { d, process, figures } if self.devices[d].process == process => {
                self.hand_in(d, Input::Collected(figures));
            }
            Event::PowerOn { d, process } if self.devices[d].process == process => self.power_on(d),
            Event::PowerCut { d, process } if self.devices[d].process == process => self.power_cut(d),
            Event::Connect { d, process } if self.devices[d].process == process => self.connect(d),
            Event::ServiceUp => self.service_up(),
            Event::Tick => {
                self.serve(ServiceInput::Time);
                self.queue.plan(self.queue.now() + TICK, Event::Tick);
            }
            Event::Fault(fault) => self.fault(fault),
            Event::HostileAct => self.hostile_act(),
            // The process or the connection that this was meant for is gone.
            _ => {}
        }
    }

    fn is_connected(&self, d: usize, connection: u64) -> bool {
        self.devices[d].link && self.devices[d].connection == connection
    }

    /// Writes a line into the log.
    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        let line = format!("{:>10} {}", self.queue.now(), text(self));
        self.log.push(line);
    }

    /// Counts an effect of a device; true when the power goes here.
    fn cut_here(&mut self, d: usize) -> bool {
        self.effects += 1;
        let cut = self.config.cut_at == Some(self.effects);
        if cut {
            self.power_cut(d);
        }
        cut
    }

    /// Sends from a device to the controller or the chunk server.
    fn send_up(&mut self, d: usize, topic: Topic, payload: Vec<u8>) {
        if matches!(topic, Topic::Up(_, UpKind::Report)) {
            self.watch_published(d, &payload);
        }
        if !self.devices[d].link {
            return;
        }
        let now = self.queue.now();
        let Some(payload) =
            self.past_the_broker(&topic, payload, |topic, payload| Event::ToService { topic, payload })
        else {
            return;
        };
        let last = &mut self.devices[d].last_up;
        let arrivals = self.config.network.arrivals(&mut self.network_rng, now, last);
        if matches!(topic, Topic::Up(_, UpKind::Get)) {
            // One way is enough to lose a request; the packs have theirs.
            if !arrivals.is_empty() {
                self.answer_get(d, &payload);
            }
            return;
        }
        for at in arrivals {
            self.queue.plan(at, Event::ToService { topic: topic.clone(), payload: payload.clone() });
        }
    }

    fn answer_get(&mut self, d: usize, request: &[u8]) {
        let id = self.devices[d].id.clone();
        let (packs, files) = self.broker.answer(request);
        for mut pack in packs {
            if self.network_rng.chance(self.config.network.poison) {
                pack.payload[0] ^= 0xff;
            }
            self.send_down(d, &Topic::DevicePack(id.clone()), &pack.write());
        }
        for files in files {
            self.send_down(d, &Topic::DeviceIn(id.clone()), &files);
        }
    }

    fn send_down(&mut self, d: usize, topic: &Topic, payload: &[u8]) {
        let now = self.queue.now();
        let device = &mut self.devices[d];
        let is_file = Bundle::looks_like(payload);
        if !device.link
            || (self.withholds_files && is_file)
            || (self.withholds_packs && matches!(topic, Topic::DevicePack(_)))
        {
            return;
        }
        let connection = device.connection;
        let late = |topic, payload| Event::ToDevice { d, connection, topic, payload };
        let Some(payload) = self.past_the_broker(topic, payload.to_vec(), late) else { return };
        let device = &mut self.devices[d];
        let arrivals = self.config.network.arrivals(&mut self.network_rng, now, &mut device.last_down);
        for at in arrivals {
            let (topic, payload) = (topic.clone(), payload.clone());
            self.queue.plan(at, Event::ToDevice { d, connection, topic, payload });
        }
    }

    /// What a hostile broker leaves of a message that is on its way now.
    fn past_the_broker(
        &mut self,
        topic: &Topic,
        payload: Vec<u8>,
        later: impl FnOnce(Topic, Vec<u8>) -> Event,
    ) -> Option<Vec<u8>> {
        let now = self.queue.now();
        let Some(hostile) = &mut self.hostile else { return Some(payload) };
        match hostile.judge(now, topic, &payload, matches!(topic, Topic::Up(..))) {
            Fate::Passes(payload) => Some(payload),
            Fate::Lost => None,
            Fate::Held(_) if matches!(topic, Topic::Up(_, UpKind::Get)) => None,
            Fate::Held(wait) => {
                self.queue.plan(now + wait, later(topic.clone(), payload));
                None
            }
            Fate::Twice(_) if matches!(topic, Topic::Up(_, UpKind::Get)) => Some(payload),
            Fate::Twice(wait) => {
                self.queue.plan(now + wait, later(topic.clone(), payload.clone()));
                Some(payload)
            }
        }
    }

    fn send_retained(&mut self, d: usize, keys: &[String]) {
        for key in keys {
            if let Some((topic, payload)) = self.broker.retained(key).cloned() {
                self.send_down(d, &topic, &payload);
            }
        }
    }

    /// Hands something to the service and lets its outputs out.
    fn serve(&mut self, input: ServiceInput) {
        let step = self.controller.handle(input, self.queue.now());
        self.let_out(step);
    }

    fn let_out(&mut self, step: Step) -> Option<Result<Reply, Refusal>> {
        for fact in &step.facts {
            self.note(|_| format!("ledger: {}", Controller::say(fact)));
            self.watch_fact(fact);
        }
        for text in step.notes {
            self.note(|_| format!("service: {text}"));
        }
        // The process died between the ledger's sync and the broker.
        let lost = std::mem::take(&mut self.lose_outputs);
        let mut reply = None;
        for output in step.outputs {
            match output {
                Output::Publish { topic, payload } if !lost => self.spread(&topic, &payload),
                Output::Publish { .. } => {}
                Output::Reply { result, .. } => reply = Some(result),
            }
        }
        if lost {
            self.service_restart();
        }
        self.see_if_it_died();
        reply
    }

    fn spread(&mut self, topic: &Topic, payload: &[u8]) {
        let key = topic.render(&self.fleet);
        self.broker.keep(key.clone(), topic, payload);
        let listening: Vec<usize> =
            (0..self.devices.len()).filter(|d| self.devices[*d].subscriptions.contains(&key)).collect();
        for d in listening {
            self.send_down(d, topic, payload);
        }
    }

    fn service_up(&mut self) {
        if self.controller.is_up() {
            return;
        }
        self.controller.start();
        if self.see_if_it_died() {
            return;
        }
        self.note(|_| "the service is up again".to_owned());
        self.serve(ServiceInput::BrokerUp);
    }

    /// A service that died in its own process is started again by its supervisor.
    fn see_if_it_died(&mut self) -> bool {
        let died = self.controller.apart.as_mut().is_some_and(|apart| std::mem::take(&mut apart.died));
        if died {
            self.note(|_| "the service died".to_owned());
            self.queue.plan(self.queue.now() + 5 * SECOND, Event::ServiceUp);
        }
        died
    }

    fn fault(&mut self, fault: Fault) {
        if self.queue.now() >= self.config.faults.until {
            return;
        }
        match fault {
            Fault::PowerCut(d) if self.devices[d].agent.is_some() => self.power_cut(d),
            Fault::PowerCut(_) => {}
            Fault::AgentRestart(d) => self.agent_restart(d),
            Fault::Disconnect(d) => self.disconnect(d),
            Fault::ServiceRestart if self.fault_rng.chance(0.5) => self.lose_outputs = true,
            Fault::ServiceRestart => self.service_restart(),
        }
        self.plan_fault(fault);
    }

    fn plan_fault(&mut self, fault: Fault) {
        let faults = self.config.faults;
        let mean = match fault {
            Fault::PowerCut(_) => faults.power_cut,
            Fault::AgentRestart(_) => faults.agent_restart,
            Fault::Disconnect(_) => faults.disconnect,
            Fault::ServiceRestart => faults.service_restart,
        };
        if let Some(mean) = mean {
            let wait = self.fault_rng.below(2 * mean);
            self.queue.plan(self.queue.now() + wait, Event::Fault(fault));
        }
    }
}
