//! One device: the real agent core on a simulated disk, with a power switch.

use std::collections::BTreeSet;

use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use tern_agent::core::SlotName;
use tern_agent::core::agent::{Agent, BootFacts, Content, Held, Input, Job, Keys, Settings};
use tern_agent::core::durable::Durable;
use tern_agent::core::timing::Now;
use tern_protocol::id::DeviceId;
use tern_protocol::mac::PairSecret;
use tern_protocol::message::{Hello, Presence, Registry, ReportKind, Versions};
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::Trusted;

use super::clock::{EPOCH, SECOND};
use super::controller::secret_key;
use super::disk::Disk;
use super::invariants::Watched;
use super::{Event, Sim, Trial};

/// Bytes of a slot.
const CAPACITY: u64 = 64 << 20;

/// A device's keys in memory.
#[derive(Clone)]
pub struct DeviceKeys {
    identity: SigningKey,
    telemetry: p256::SecretKey,
}

impl DeviceKeys {
    /// Makes the keys of one device.
    pub fn new(seed: u64, device: &DeviceId) -> Self {
        Self {
            identity: SigningKey::from(secret_key(seed, &format!("{device} identity"))),
            telemetry: secret_key(seed, &format!("{device} telemetry")),
        }
    }

    /// Returns the telemetry key's public half.
    pub fn telemetry_key(&self) -> p256::PublicKey {
        self.telemetry.public_key()
    }
}

impl Keys for DeviceKeys {
    fn identity(&self) -> Vec<u8> {
        self.identity.verifying_key().to_encoded_point(false).as_bytes().to_vec()
    }

    fn telemetry(&self) -> Vec<u8> {
        self.telemetry.public_key().to_encoded_point(false).as_bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p256::ecdsa::Signature = self.identity.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    fn agree(&self, peer: &p256::PublicKey) -> PairSecret {
        PairSecret::agree(&self.telemetry, peer)
    }
}

/// What a device says first that runs release `running` and knows nothing else.
pub fn hello(registry: &Registry, running: u64) -> ReportKind {
    let Registry { product, model, carrier, region } = registry.clone();
    ReportKind::Hello(Box::new(Hello {
        running,
        agent: "simulated".to_owned(),
        product,
        model,
        carrier,
        region,
        floor: 0,
        versions: Versions::default(),
        halted: Vec::new(),
        components: Default::default(),
        proof: None,
    }))
}

/// Crashes that a device's counter holds before anybody reads it: more than it will have in a day.
pub const OLDER_CRASHES: u64 = 40;

/// What a device's system clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wall {
    /// The time.
    #[default]
    Right,
    /// There is none: it begins in 1970 with every boot.
    None,
    /// The time, this many seconds off.
    Off(i64),
}

/// One device.
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// What it is.
    pub registry: Registry,
    /// What survives a power cut.
    pub disk: Disk,
    /// What the harness saw of it.
    pub watched: Watched,
    /// Its system clock.
    pub wall: Wall,
    pub(super) keys: DeviceKeys,
    pub(super) agent: Option<Agent>,
    /// Cut off by the scenario.
    pub(super) offline: bool,
    pub(super) link: bool,
    /// Deliveries of an earlier connection are lost with it.
    pub(super) connection: u64,
    /// Jobs and wakes of an earlier process are lost with it.
    pub(super) process: u64,
    pub(super) subscriptions: BTreeSet<String>,
    pub(super) last_down: u64,
    pub(super) last_up: u64,
    running: SlotName,
    boots: u64,
    booted_at: u64,
    wake: u64,
    pub(super) job: Option<(u64, Job)>,
    /// What its counter holds from before it was first read.
    pub(super) older_crashes: u64,
}

impl Device {
    pub(super) fn new(id: DeviceId, registry: Registry, keys: DeviceKeys, disk: Disk) -> Self {
        Self {
            id,
            registry,
            disk,
            watched: Watched::default(),
            wall: Wall::default(),
            keys,
            agent: None,
            offline: false,
            link: false,
            connection: 0,
            process: 0,
            subscriptions: BTreeSet::new(),
            last_down: 0,
            last_up: 0,
            running: SlotName::A,
            boots: 0,
            booted_at: 0,
            wake: 0,
            job: None,
            older_crashes: OLDER_CRASHES,
        }
    }

    /// Returns the agent, if its process runs.
    pub fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Returns the state of the update machine; `None` while the device is off.
    pub fn state(&self) -> Option<StateName> {
        self.agent.as_ref().map(|agent| agent.durable().state.name())
    }

    /// Returns the slot that runs or ran last.
    pub fn running(&self) -> SlotName {
        self.running
    }

    /// Returns the counter of the release in the running slot, by its label.
    pub fn running_rc(&self) -> u64 {
        self.disk.slot(self.running).label.as_ref().map_or(0, |label| label.rc)
    }

    fn at(&self, now: u64) -> Now {
        let (uptime, time) = (now - self.booted_at, (EPOCH + now) / 1000);
        let wall = match self.wall {
            Wall::Right => time,
            Wall::None => uptime / 1000,
            Wall::Off(seconds) => time.saturating_add_signed(seconds),
        };
        Now { uptime, wall }
    }

    /// Returns how far the device believes that it is from the moment `now` of the simulation, in seconds.
    pub fn ahead(&self, now: u64) -> Option<i64> {
        let time = self.agent.as_ref()?.clock().now(self.at(now));
        Some(time.cast_signed() - ((EPOCH + now) / 1000).cast_signed())
    }

    /// Tells whether the boot record holds a trial.
    pub fn is_armed(&self) -> bool {
        self.disk.record.trial.is_some()
    }
}

impl Sim {
    /// Cuts the power; it comes back after a while.
    pub fn power_cut(&mut self, d: usize) {
        self.note(|sim| format!("{} power cut", sim.devices[d].id));
        self.power_off(d);
        let device = &mut self.devices[d];
        device.disk.power_cut(&mut self.rng);
        let back = self.queue.now() + 2 * SECOND + self.rng.below(20 * SECOND);
        self.plan_power_on(d, back);
    }

    pub(super) fn plan_power_on(&mut self, d: usize, at: u64) {
        let process = self.devices[d].process;
        self.queue.plan(at, Event::PowerOn { d, process });
    }

    /// The broker speaks a device's will when its connection breaks.
    fn speak_will(&mut self, d: usize) {
        if self.devices[d].link {
            let topic = Topic::Up(self.devices[d].id.clone(), UpKind::Presence);
            let will = Presence { online: false };
            let payload = serde_json::to_vec(&will).expect("our own messages serialise");
            self.queue.plan(self.queue.now() + 1, Event::ToService { topic, payload });
        }
    }

    pub(super) fn power_off(&mut self, d: usize) {
        self.speak_will(d);
        let device = &mut self.devices[d];
        device.agent = None;
        device.job = None;
        device.link = false;
        device.process += 1;
        device.connection += 1;
    }

    pub(super) fn power_on(&mut self, d: usize) {
        let device = &mut self.devices[d];
        device.running = device.disk.boot();
        device.boots += 1;
        device.booted_at = self.queue.now();
        self.note(|sim| {
            let device = &sim.devices[d];
            format!("{} boots slot {} with release {}", device.id, device.running, device.running_rc())
        });
        self.check_boot(d);
        let device = &self.devices[d];
        let on_trial = device.disk.record.trial.is_some_and(|(slot, _)| slot == device.running);
        if on_trial && self.trial_of(d) == Trial::Looping {
            // The new system never gets as far as the agent.
            self.plan_power_cut(d, 5 * SECOND);
            return;
        }
        if on_trial && self.trial_of(d) == Trial::Bricking {
            // Nobody will ever hear of it again.
            return;
        }
        self.start_agent(d);
    }

    pub(super) fn plan_power_cut(&mut self, d: usize, wait: u64) {
        let process = self.devices[d].process;
        self.queue.plan(self.queue.now() + wait, Event::PowerCut { d, process });
    }

    /// Ends the agent's process and starts another; the system stays up.
    pub fn agent_restart(&mut self, d: usize) {
        if self.devices[d].agent.is_none() {
            return;
        }
        self.note(|sim| format!("{} agent restarts", sim.devices[d].id));
        let device = &mut self.devices[d];
        device.agent = None;
        device.job = None;
        device.link = false;
        device.process += 1;
        device.connection += 1;
        self.start_agent(d);
    }

    fn start_agent(&mut self, d: usize) {
        let seed = self.rng.seed();
        let device = &mut self.devices[d];
        let durable: Durable = match &device.disk.journal {
            Some(bytes) => serde_json::from_slice(bytes).expect("the journal reads as it was written"),
            None => Durable::default(),
        };
        let trust = Trusted::restore(&device.disk.trust).expect("trust reads as it was written");
        let settings = Settings {
            fleet: self.fleet.clone(),
            device: device.id.clone(),
            registry: device.registry.clone(),
            component: "rootfs".to_owned(),
            claim: None,
            version: "sim".to_owned(),
            timing: self.config.timing.clone(),
            conditions: self.config.conditions.clone(),
            hooks: self.config.hooks.clone(),
            transfer: Default::default(),
        };
        let running = device.disk.slot(device.running).label.clone();
        let content = |name| {
            let slot = device.disk.slot(name);
            let artifact = slot.label.as_ref().and_then(|label| label.artifact.as_ref());
            match artifact {
                _ if slot.bad => Content::Bad,
                Some(artifact) => Content::Whole(Held::of(artifact)),
                None => Content::Unknown,
            }
        };
        let facts = BootFacts {
            components: Default::default(),
            slot: device.running,
            boot_id: format!("{}-{}", device.id, device.boots),
            active: device.disk.record.active,
            trial: device.disk.record.trial.map(|(slot, _)| slot),
            running: running.as_ref().map_or(0, |label| label.rc),
            running_version: running.map(|label| label.version).unwrap_or_default(),
            floor: device.disk.slot(device.disk.record.active).label.as_ref().map_or(0, |label| label.floor),
            capacity: CAPACITY,
            contents: SlotName::BOTH.map(content),
        };
        device.agent = Some(Agent::new(settings, Box::new(device.keys.clone()), durable, trust, seed));
        device.watched.came_up();
        self.plan_connect(d);
        self.hand_in(d, Input::Up(facts));
    }

    pub(super) fn plan_connect(&mut self, d: usize) {
        let process = self.devices[d].process;
        let wait = 200 + self.rng.below(3 * SECOND);
        self.queue.plan(self.queue.now() + wait, Event::Connect { d, process });
    }

    pub(super) fn connect(&mut self, d: usize) {
        let mute = self.trial_of(d) == Trial::Mute && self.devices[d].running_rc() > 0;
        let device = &mut self.devices[d];
        if device.link || device.offline || self.partitioned || mute {
            return;
        }
        device.link = true;
        device.connection += 1;
        self.note(|sim| format!("{} connects", sim.devices[d].id));
        let topics: Vec<String> = self.devices[d].subscriptions.iter().cloned().collect();
        self.send_retained(d, &topics);
        self.hand_in(d, Input::LinkUp);
    }

    /// Breaks the connection; the device comes back by itself unless it is cut off.
    pub fn disconnect(&mut self, d: usize) {
        let device = &mut self.devices[d];
        if !device.link {
            return;
        }
        self.speak_will(d);
        let device = &mut self.devices[d];
        device.link = false;
        device.connection += 1;
        self.note(|sim| format!("{} loses its connection", sim.devices[d].id));
        self.hand_in(d, Input::LinkDown);
        self.plan_connect(d);
    }

    pub(super) fn hand_in(&mut self, d: usize, input: Input) {
        let now = self.queue.now();
        let answer = match &input {
            Input::Message { topic: Topic::DeviceIn(_), payload } => Some(payload.clone()),
            _ => None,
        };
        let device = &mut self.devices[d];
        let at = device.at(now);
        let Some(agent) = &mut device.agent else { return };
        let before = agent.durable().state.name();
        let armed_before = super::invariants::is_arming(agent);
        let outputs = agent.handle(input, at);
        let after = agent.durable().state.name();
        let taken = (before != after && after == StateName::Success)
            .then(|| agent.durable().state.work().map(|work| work.offer.attempt.rc))
            .flatten();
        let answered = !armed_before && super::invariants::is_arming(agent);
        if before != after {
            self.note(|sim| format!("{} {before} -> {after}", sim.devices[d].id));
        }
        if let Some(rc) = taken {
            self.check_not_halted(d, rc, "takes as good");
        }
        self.watch_answer(d, answer.as_deref(), answered);
        if self.carry_out(d, outputs) {
            self.plan_wake(d);
            self.check_device(d);
        }
    }

    fn plan_wake(&mut self, d: usize) {
        let device = &mut self.devices[d];
        let Some(agent) = &device.agent else { return };
        let at = agent.wake_at();
        device.wake += 1;
        let (token, process) = (device.wake, device.process);
        if at < u64::MAX {
            let at = device.booted_at.saturating_add(at);
            self.queue.plan(at, Event::Wake { d, process, token });
        }
    }

    pub(super) fn wake(&mut self, d: usize, token: u64) {
        if self.devices[d].wake == token {
            self.watch_wake(d);
            self.hand_in(d, Input::Time);
        }
    }
}
