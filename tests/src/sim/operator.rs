//! What scenarios do to the world: build it, publish, start, kill, cut off, look.

use std::time::Duration;

use tern_controller::core::fact::{DeviceEntry, Fact};
use tern_controller::core::rollout::hold_back::HoldBack;
use tern_controller::core::rollout::plan::{Phase, Plan, Reach};
use tern_controller::core::rollout::policy::PhaseRule;
use tern_controller::core::rollout::record::{Rollout, Status};
use tern_controller::core::rollout::wave::Waves;
use tern_controller::core::service::{Command, Input, Output, Refusal, Reply};
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ModelId, ProductId, RolloutId};
use tern_protocol::mac::{Direction, PairSecret};
use tern_protocol::message::{Registry, Report, ReportKind};
use tern_protocol::offer::Artifact;
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::{Role, build, sign};

use super::broker::Broker;
use super::clock::{MINUTE, Queue, Rng, SECOND};
use super::controller::Controller;
use super::device::{Device, DeviceKeys};
use super::disk::Disk;
use super::hostile::Hostile;
use super::{Broken, Event, Fault, Image, Sim, SimConfig, Trial};
use crate::apart::service::Apart;

/// How often an operator gives a command whose reply does not come.
const MOST_TRIES: u32 = 5;

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("the harness uses valid names")
}

/// Tells whether a fact says that a command was taken in. Each command of a story begins with one of these.
fn is_by_command(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::ProductAdded { .. }
            | Fact::DevicesAdded { .. }
            | Fact::ReleasePublished { .. }
            | Fact::RolloutStarted { .. }
            | Fact::Killed { .. }
    )
}

/// Returns a plan whose phases end after `soak` seconds without a bad device.
pub fn plan(reaches: &[Reach], soak: u64) -> Plan {
    let rule = PhaseRule { gate: None, soak: Duration::from_secs(soak) };
    let phases = reaches.iter().map(|reach| Phase::new(*reach, rule.clone())).collect();
    Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() }
}

/// Returns what the service of another product retains: genuine, fresh, and under that product's own keys.
fn foreign_messages(seed: u64) -> Vec<(Topic, Vec<u8>)> {
    let mut other = Controller::new(!seed, name("acme"), name("other"));
    let files = other.offline_files();
    let add = Command::AddProduct { product: name("other"), files };
    other.handle(Input::Command { id: 0, by: None, command: Box::new(add) }, 0);
    let published = other.handle(Input::BrokerUp, 0).outputs.into_iter().filter_map(|output| match output {
        Output::Publish { topic, payload } => Some((topic, payload)),
        Output::Reply { .. } => None,
    });
    let published: Vec<_> = published.collect();
    assert!(!published.is_empty(), "a hostile broker without another product's files would swap nothing");
    published
}

impl Sim {
    /// Builds a fleet of factory-fresh devices, registered and switched on within ten seconds.
    pub fn new(seed: u64, config: SimConfig) -> Self {
        let (fleet, product): (FleetId, ProductId) = (name("acme"), name("ap"));
        let factory = Rng::of(seed, "factory").bytes(config.image);
        let mut sim = Self {
            devices: Vec::new(),
            controller: match &config.apart {
                None => Controller::new(seed, fleet.clone(), product.clone()),
                Some((program, deaths)) => {
                    let apart = Apart::new(program, fleet.clone(), product.clone(), seed, deaths.clone());
                    Controller::in_a_process(seed, fleet.clone(), product.clone(), apart)
                }
            },
            log: Vec::new(),
            violations: Vec::new(),
            effects: 0,
            hook_refusals: 0,
            no_consent_until: 0,
            withholds_files: false,
            withholds_packs: false,
            hold_reboots: false,
            queue: Queue::default(),
            rng: Rng::of(seed, "devices"),
            network_rng: Rng::of(seed, "network"),
            fault_rng: Rng::of(seed, "faults"),
            seed,
            fleet,
            product,
            broker: Broker::default(),
            images: vec![Image { rc: 0, bytes: factory, artifact: None }],
            trials: Default::default(),
            reported: Default::default(),
            lost: Default::default(),
            before: Vec::new(),
            partitioned: false,
            lose_outputs: false,
            hostile: config.hostility.map(|how| Hostile::new(seed, how, foreign_messages(seed))),
            config,
        };
        sim.controller.forgets_kills = sim.config.broken == Some(Broken::KillsForgotten);
        let files = sim.controller.offline_files();
        let product = sim.product.clone();
        sim.must(Command::AddProduct { product, files });
        sim.register_devices();
        sim.serve(Input::BrokerUp);
        sim.queue.plan(SECOND, Event::Tick);
        sim.plan_faults();
        if sim.hostile.is_some() {
            sim.queue.plan(SECOND, Event::HostileAct);
        }
        sim
    }

    fn register_devices(&mut self) {
        let trust = self.controller.factory_trust();
        let mut entries = Vec::new();
        for d in 0..self.config.devices {
            let id: DeviceId = name(&format!("d{d}"));
            let keys = DeviceKeys::new(self.seed, &id);
            let registry = Registry {
                product: self.product.clone(),
                model: name(self.config.models[d % self.config.models.len()]),
                carrier: name("none"),
                region: name("eu"),
            };
            self.controller.meet(&id, &keys.telemetry_key());
            let identity = hex::encode(tern_agent::core::agent::Keys::identity(&keys));
            entries.push(DeviceEntry { device: id.clone(), identity, registry: registry.clone() });
            let disk = Disk::new(&self.images[0].bytes, trust.clone());
            self.devices.push(Device::new(id, registry, keys, disk));
            self.watch_provisioned(d);
            let at = self.rng.below(10 * SECOND);
            self.plan_power_on(d, at);
        }
        self.must(Command::AddUnsignedDevices { devices: entries });
    }

    fn plan_faults(&mut self) {
        for d in 0..self.config.devices {
            self.plan_fault(Fault::PowerCut(d));
            self.plan_fault(Fault::AgentRestart(d));
            self.plan_fault(Fault::Disconnect(d));
        }
        self.plan_fault(Fault::ServiceRestart);
    }

    /// Runs an operator's command.
    pub fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.try_command(command).expect("a running service replies to every command")
    }

    /// Runs an operator's command; no reply if the service died before it gave one, or does not run.
    pub fn try_command(&mut self, command: Command) -> Option<Result<Reply, Refusal>> {
        let input = Input::Command { id: 0, by: None, command: Box::new(command) };
        let step = self.controller.handle(input, self.queue.now());
        self.let_out(step)
    }

    /// Runs a command that cannot be refused. An operator whose service dies meanwhile waits until it is back, looks
    /// whether anything was recorded, and asks again if not.
    pub fn must(&mut self, command: Command) {
        for _ in 0..MOST_TRIES {
            let before = self.controller.ledger.len();
            match self.try_command(command.clone()) {
                Some(Ok(_)) => return,
                Some(Err(refusal)) => return self.violated(format!("a command was refused: {refusal}")),
                None => {}
            }
            let recorded = self.controller.ledger[before..].iter().any(|entry| is_by_command(&entry.fact));
            self.run_until(|sim| sim.controller.is_up(), MINUTE);
            if recorded {
                return;
            }
        }
        self.violated("the service never replied to a command".to_owned());
    }

    /// Builds, signs and publishes the next release; returns its counter.
    pub fn publish(&mut self, trial: Trial) -> u64 {
        let length = self.config.image;
        self.publish_image(trial, length, 0)
    }

    /// The same with an image of `length` bytes, which raises the version floor to `floor`.
    pub fn publish_image(&mut self, trial: Trial, length: usize, floor: u64) -> u64 {
        let rc = self.images.last().map_or(0, |image| image.rc) + 1;
        let bytes = Rng::of(self.seed, &format!("release {rc}")).bytes(length);
        let mut hasher = RootHasher::default();
        hasher.update(&bytes);
        let artifact =
            Artifact::new("rootfs", bytes.len() as u64, Digest::of(&bytes), root(&hasher.finish()));
        let models: Vec<ModelId> = self.config.models.iter().map(|m| name(m)).collect();
        let file = self.controller.sign_release(rc, floor, &models, &artifact);
        self.broker.serve(artifact.root, bytes.clone());
        self.images.push(Image { rc, bytes, artifact: Some(artifact) });
        self.trials.insert((rc, None), trial);
        let product = self.product.clone();
        self.must(Command::PublishRelease { product, file });
        rc
    }

    /// Says how a release behaves on one device.
    pub fn on_device(&mut self, d: usize, rc: u64, trial: Trial) {
        self.trials.insert((rc, Some(d)), trial);
    }

    pub(super) fn trial_of(&self, d: usize) -> Trial {
        let rc = self.devices[d].running_rc();
        let own = self.trials.get(&(rc, Some(d)));
        own.or(self.trials.get(&(rc, None))).copied().unwrap_or_default()
    }

    /// Starts a rollout, named after its release.
    pub fn start(&mut self, rc: u64, plan: Plan) -> RolloutId {
        let rollout: RolloutId = name(&format!("r{rc}"));
        let (product, id) = (self.product.clone(), rollout.clone());
        self.must(Command::Start { rollout: id, product, rc, attempt: 1, plan });
        rollout
    }

    /// Takes a release back by hand.
    pub fn kill(&mut self, rollout: &RolloutId) {
        self.must(Command::Kill { rollout: rollout.clone(), reason: "the test says so".to_owned() });
    }

    /// Cuts a device off, or lets it back.
    pub fn set_offline(&mut self, d: usize, offline: bool) {
        self.devices[d].offline = offline;
        if offline {
            self.disconnect(d);
        } else {
            self.plan_connect(d);
        }
    }

    /// Cuts everybody off, or lets everybody back.
    pub fn partition_all(&mut self, partitioned: bool) {
        self.partitioned = partitioned;
        for d in 0..self.devices.len() {
            if partitioned {
                self.disconnect(d);
            } else {
                self.plan_connect(d);
            }
        }
    }

    /// Ends the service; it is back after a few seconds.
    pub fn service_restart(&mut self) {
        self.service_away_for(5 * SECOND);
    }

    /// Takes the service's connection to the broker away, or gives it back; devices reach nobody meanwhile.
    pub fn sever_service(&mut self, severed: bool) {
        self.partition_all(severed);
        self.serve(if severed { Input::BrokerDown } else { Input::BrokerUp });
    }

    /// Ends the service; it is back after this time.
    pub fn service_away_for(&mut self, time: u64) {
        if !self.controller.is_up() {
            return;
        }
        self.note(|_| "the service goes down".to_owned());
        self.controller.stop();
        self.queue.plan(self.queue.now() + time, Event::ServiceUp);
    }

    /// Restarts the service with another rollout key, and with the targets that name it.
    pub fn rotate_rollout_key(&mut self) {
        self.note(|_| "the rollout key is rotated".to_owned());
        self.controller.rotate_rollout_key();
        self.serve(Input::BrokerUp);
        let (product, files) = (self.product.clone(), self.controller.offline_files());
        self.must(Command::AddProduct { product, files });
    }

    /// Publishes new targets with another key of `role` (halt, time).
    pub fn rotate_by_targets(&mut self, role: &'static str) {
        self.controller.rotate_by_targets(role);
        self.hand_offline_files();
    }

    /// Publishes a new root with another timestamp key.
    pub fn rotate_timestamp_key(&mut self) {
        self.controller.rotate_timestamp_key();
        self.hand_offline_files();
    }

    /// Publishes new targets with a further telemetry key.
    pub fn add_telemetry_key(&mut self) {
        self.controller.add_telemetry_key();
        self.hand_offline_files();
    }

    /// Publishes new targets without a telemetry key.
    pub fn remove_telemetry_key(&mut self, kid: u32) {
        self.controller.remove_telemetry_key(kid);
        self.hand_offline_files();
    }

    fn hand_offline_files(&mut self) {
        // The release file that devices hold is newer than the first.
        let files = self.controller.offline_files().into_iter().filter(|f| f.role != Role::Release).collect();
        let product = self.product.clone();
        self.must(Command::AddProduct { product, files });
    }

    /// Gives every device a timestamp that the stolen key has signed: the next version, for the present snapshot, issued
    /// and expiring at these Unix seconds.
    pub fn plant_timestamp(&mut self, issued: u64, expires: u64) {
        let fleet = self.controller.fleet();
        let state = &fleet.products[&self.product];
        let (versions, snapshot) = (state.versions(), state.files[&Role::Snapshot].as_bytes());
        let value =
            build::timestamp(versions.timestamp + 1, expires, versions.snapshot, Some(snapshot), issued);
        let bytes = sign::sign(value, &[&self.controller.stolen("timestamp")]).expect("our own files sign");
        let files = vec![File { role: Role::Timestamp, bytes }];
        let bundle = Bundle { root: versions.root, files }.pack();
        let topic = Topic::Timestamp(self.product.clone());
        for d in 0..self.devices.len() {
            self.send_down(d, &topic, &bundle);
        }
    }

    /// Gives every device files by which the stolen online keys halt a release.
    pub fn plant_halt(&mut self, rc: u64) {
        let fleet = self.controller.fleet();
        let state = &fleet.products[&self.product];
        let mut versions = state.versions();
        let expires = (super::clock::EPOCH + self.queue.now()) / 1000 + 3 * 24 * 3600;
        (versions.halt, versions.snapshot) = (versions.halt + 1, versions.snapshot + 1);
        let mut content = state.halt_content();
        content.halted.push(rc);
        let sign =
            |value, role| sign::sign(value, &[&self.controller.stolen(role)]).expect("our own files sign");
        let halt = sign(build::halt(versions.halt, expires, &content), "halt");
        let snapshot = sign(build::snapshot(versions.snapshot, expires, &versions), "snapshot");
        let timestamp = build::timestamp(
            versions.timestamp + 1,
            expires,
            versions.snapshot,
            Some(&snapshot),
            expires - 3 * 24 * 3600,
        );
        let timestamp = sign(timestamp, "timestamp");
        let files = [(Role::Timestamp, timestamp), (Role::Snapshot, snapshot), (Role::Halt, halt)];
        let files = files.map(|(role, bytes)| File { role, bytes }).into();
        let bundle = Bundle { root: versions.root, files }.pack();
        let topic = Topic::Head(self.product.clone());
        for d in 0..self.devices.len() {
            self.send_down(d, &topic, &bundle);
        }
    }

    /// Hands the service a report of a device that a thief of a telemetry key of the service has sealed; tells whether
    /// it was counted.
    pub fn forge_report(&mut self, d: usize, kid: u32, kind: ReportKind) -> bool {
        let device = &self.devices[d];
        let Some(durable) = device.agent().map(|agent| agent.durable().clone()) else { return false };
        let secret = PairSecret::agree(&self.controller.stolen_telemetry(kid), &device.keys.telemetry_key());
        let (id, epoch, n) = (device.id.clone(), durable.epoch, durable.outbox.highest() + 5000);
        let key = secret.key(Direction::Up, &self.fleet, &id, kid, epoch);
        let payload = key.seal(&Report { e: epoch, k: kid, n, low: 1, kind });
        let before = self.controller.ledger.len();
        self.serve(Input::Message { topic: Topic::Up(id, UpKind::Report), payload });
        let new = &self.controller.ledger[before..];
        new.iter().any(|entry| matches!(&entry.fact, Fact::Reported { n: told, .. } if *told == n))
    }

    /// Returns what the retained heartbeat and `head` are packed against: versions of root and targets.
    pub fn dictionaries(&self) -> [(u32, u32); 2] {
        [Topic::Timestamp(self.product.clone()), Topic::Head(self.product.clone())].map(|topic| {
            let retained = self.broker.retained(&topic.render(&self.fleet));
            let id = retained.and_then(|(_, payload)| Bundle::dictionary_of(payload));
            id.map_or((0, 0), Into::into)
        })
    }

    /// Has the broker forget `head` alone.
    pub fn broker_forgets_head(&mut self) {
        self.broker.forget(&Topic::Head(self.product.clone()).render(&self.fleet));
    }

    /// Ends the service with its next step in the ledger and nothing of it sent.
    pub fn service_dies_before_sending(&mut self) {
        self.lose_outputs = true;
    }

    /// Has the broker forget every retained message of the product.
    pub fn broker_forgets(&mut self) {
        let keys: Vec<String> = self.broker.topics().map(str::to_owned).collect();
        keys.iter().for_each(|key| self.broker.forget(key));
    }

    /// Cuts the power of a device and takes its journal away; slots, boot record and signed files stay.
    pub fn lose_journal(&mut self, d: usize) {
        self.power_cut(d);
        self.devices[d].disk.journal = None;
        self.watch_journal_lost(d);
    }

    /// Damages one byte of a device's inactive slot.
    pub fn rot(&mut self, d: usize, at: usize) {
        let spare = self.devices[d].running().other();
        self.devices[d].disk.slot_mut(spare).rot(at);
    }

    /// Returns a rollout as the ledger tells it.
    pub fn rollout(&self, id: &RolloutId) -> Rollout {
        let live = self.controller.live().and_then(|fleet| fleet.rollouts.get(id)).cloned();
        live.or_else(|| self.controller.fleet().rollouts.remove(id)).expect("the rollout was started")
    }

    /// Returns where a rollout stands; while the service is down, where it stood last is not asked.
    pub fn status(&self, id: &RolloutId) -> Option<Status> {
        self.controller.live()?.rollouts.get(id).map(|rollout| rollout.status)
    }

    /// Returns what the controller holds to be the outcome of a device in a rollout.
    pub fn outcome(&self, d: usize, id: &RolloutId) -> Option<Outcome> {
        let fleet = self.controller.live()?;
        fleet.devices.get(&self.devices[d].id)?.attempts.get(id)?.outcome
    }

    /// Returns how many devices run a release as their confirmed one.
    pub fn settled_on(&self, rc: u64) -> usize {
        let settled = |d: &&Device| d.running_rc() == rc && !d.is_armed() && d.agent().is_some();
        self.devices.iter().filter(settled).count()
    }

    /// Tells whether a device is up and has nothing left to do.
    pub fn is_at_rest(&self, d: usize) -> bool {
        matches!(self.devices[d].state(), Some(StateName::Idle | StateName::Failed))
            && !self.devices[d].is_armed()
    }

    /// Tells whether every device is up, has nothing left to do and was heard out.
    pub fn is_quiet(&self) -> bool {
        (0..self.devices.len()).all(|d| self.is_at_rest(d)) && self.is_drained()
    }

    /// Panics with the end of the log if anything was violated.
    pub fn assert_sound(&self) {
        if let Some(violation) = self.violations.first() {
            panic!("seed {}: {violation}\n{}", self.seed, self.tail(60));
        }
    }

    /// Returns the last lines of the log.
    pub fn tail(&self, lines: usize) -> String {
        self.log[self.log.len().saturating_sub(lines)..].join("\n")
    }

    /// Panics with the end of the log unless `done` becomes true in time.
    pub fn expect(&mut self, what: &str, done: impl Fn(&Sim) -> bool, at_most: u64) {
        let came = self.run_until(done, at_most);
        self.assert_sound();
        assert!(
            came,
            "seed {}: {what} did not happen\n{}",
            self.seed,
            self.tail(if self.config.apart.is_some() { 2000 } else { 80 })
        );
    }

    /// Ends a story: every report arrives, and the controller's counters are the devices' own.
    pub fn finish(&mut self) {
        self.expect("every report arrives", Sim::is_drained, 3 * super::clock::HOUR);
        if !self.controller.is_up() {
            self.service_up();
        }
        self.check_counts();
        self.assert_sound();
    }
}
