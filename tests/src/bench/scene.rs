//! A controller and some enrolled devices in one thread, without a network: what the benches of the cores measure.

use tern_controller::core::fact::DeviceEntry;
use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::service::{Command, Input, Output, Service};
use tern_protocol::digest::Digest;
use tern_protocol::id::FleetId;
use tern_protocol::mac::{Direction, MacKey, PairSecret};
use tern_protocol::message::{Attempt, Registry, Report, ReportKind};
use tern_protocol::offer::Artifact;
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};

use super::load::LoadDevice;
use crate::lab::{MODEL, PRODUCT};
use crate::sim::controller::{Controller, secret_key};
use crate::sim::operator::plan;

const SEED: u64 = 3;
/// The epoch in which every device is.
pub(super) const PRESENT: u64 = 7;

/// A device of the scene, with the key under which it reports.
pub(super) struct Known {
    pub(super) device: LoadDevice,
    pub(super) key: MacKey,
}

/// A service that knows its devices, and has heard a hello of each.
pub(super) struct Scene {
    pub(super) fleet: FleetId,
    pub(super) controller: Controller,
    pub(super) devices: Vec<Known>,
    /// What the controller's telemetry key agrees with.
    controller_key: p256::PublicKey,
    number: u64,
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("the bench uses valid names")
}

/// What every device of the scene is.
pub(super) fn registry() -> Registry {
    Registry { product: name(PRODUCT), model: name(MODEL), carrier: name("none"), region: name("eu") }
}

impl Scene {
    /// Enrols `count` devices.
    pub(super) fn new(count: u32) -> Self {
        let fleet: FleetId = name("lab");
        let controller = Controller::new(SEED, fleet.clone(), name(PRODUCT));
        let controller_key = secret_key(SEED, "telemetry").public_key();
        let mut scene = Self { fleet, controller, devices: Vec::new(), controller_key, number: 1 };
        let files = scene.controller.offline_files();
        scene.command(Command::AddProduct { product: name(PRODUCT), files });
        let devices: Vec<LoadDevice> = (0..count).map(LoadDevice::new).collect();
        let entry = |device: &LoadDevice| DeviceEntry {
            device: device.id.clone(),
            identity: device.identity(),
            registry: registry(),
        };
        let entries = devices.iter().map(entry).collect();
        scene.command(Command::AddUnsignedDevices { devices: entries });
        for device in devices {
            let topic = Topic::Up(device.id.clone(), UpKind::Enrol);
            scene.hand_in(Input::Message { topic, payload: device.enrol(&scene.fleet) });
            let key = scene.secret(&device).key(Direction::Up, &scene.fleet, &device.id, 1, PRESENT);
            scene.devices.push(Known { device, key });
        }
        // The first epoch that a device says is a stranger's; a grant would be the usual way to a higher one.
        scene.raise_epochs();
        scene
    }

    /// Says hello in every epoch from the first to [`PRESENT`], as a device does at each boot.
    fn raise_epochs(&mut self) {
        for epoch in 1..=PRESENT {
            self.number += 1;
            let payloads: Vec<_> = self
                .devices
                .iter()
                .map(|Known { device, .. }| {
                    let key = self.secret(device).key(Direction::Up, &self.fleet, &device.id, 1, epoch);
                    let report = Report { e: epoch, k: 1, n: self.number, low: 1, kind: device.hello() };
                    (Topic::Up(device.id.clone(), UpKind::Report), key.seal(&report))
                })
                .collect();
            for (topic, payload) in payloads {
                self.hand_in(Input::Message { topic, payload });
            }
        }
        let live = self.controller.live().expect("the service runs");
        assert!(live.devices.values().all(|device| device.epoch == PRESENT), "every hello was heard");
    }

    /// Returns what a device and the controller share.
    pub(super) fn secret(&self, device: &LoadDevice) -> PairSecret {
        device.agree(&self.controller_key)
    }

    /// Returns the service, to be measured by itself.
    pub(super) fn service(&mut self) -> &mut Service {
        self.controller.service().expect("the service runs")
    }

    /// Seals the next report of every device: the kind that a fleet sends most.
    pub(super) fn reports(&mut self) -> Vec<(Topic, Vec<u8>)> {
        self.number += 1;
        let (n, low) = (self.number, self.number);
        let attempt = Attempt { rc: 2, rollout: name("r2"), attempt: 1 };
        let (from, to) = if n.is_multiple_of(2) {
            (StateName::Downloading, StateName::Retry)
        } else {
            (StateName::Retry, StateName::Downloading)
        };
        let report = |known: &Known| {
            let kind = ReportKind::Transition { attempt: attempt.clone(), from, to, reason: None };
            let payload = known.key.seal(&Report { e: PRESENT, k: 1, n, low, kind });
            (Topic::Up(known.device.id.clone(), UpKind::Report), payload)
        };
        self.devices.iter().map(report).collect()
    }

    /// Signs and publishes release `rc`, and starts its rollout with these phases; returns what was published.
    pub(super) fn release(&mut self, rc: u64, reaches: &[Reach]) -> Vec<(Topic, Vec<u8>)> {
        let digest = Digest::of(&rc.to_be_bytes());
        let artifact = Artifact::new("rootfs", 21 << 20, digest, digest);
        let file = self.controller.sign_release(rc, 0, &[name(MODEL)], &artifact);
        let product = name(PRODUCT);
        self.command(Command::PublishRelease { product, file });
        let plan = plan(reaches, 60);
        let (rollout, product) = (name(&format!("r{rc}")), name(PRODUCT));
        self.command(Command::Start { rollout, product, rc, attempt: 1, plan })
    }

    fn command(&mut self, command: Command) -> Vec<(Topic, Vec<u8>)> {
        self.hand_in(Input::Command { id: 0, by: None, command: Box::new(command) })
    }

    fn hand_in(&mut self, input: Input) -> Vec<(Topic, Vec<u8>)> {
        let step = self.controller.handle(input, 0);
        let published = step.outputs.into_iter().filter_map(|output| match output {
            Output::Publish { topic, payload } => Some((topic, payload)),
            Output::Reply { result, .. } => {
                result.expect("the bench asks for nothing that is refused");
                None
            }
        });
        published.collect()
    }
}
