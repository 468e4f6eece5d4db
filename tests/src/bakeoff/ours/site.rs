//! A service with a fleet that it knows, and the devices' side of what they say to it.

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use tern_controller::core::fact::{DeviceEntry, Entry, Fact};
use tern_controller::core::rollout::plan::Plan;
use tern_controller::core::rollout::record::Rollout;
use tern_controller::core::service::{Command, Input, Output, Service};
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ModelId, ProductId, RolloutId};
use tern_protocol::mac::{Direction, PairSecret};
use tern_protocol::message::{Attempt, Hello, Presence, Registry, Report, ReportKind, Versions};
use tern_protocol::offer::Artifact;
use tern_protocol::position::{Position, Shuffle};
use tern_protocol::topic::{Topic, UpKind};

use super::super::device::Traits;
use super::super::scenario::MODELS;
use crate::sim::clock::EPOCH;
use crate::sim::controller::{Controller, secret_key};

const RC: u64 = 1;
/// Keys of the service: the same in every run.
const KEYS: u64 = 20_261_126;

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("the harness uses valid names")
}

/// The devices of a fleet, as a ledger names them: made once and used by every run.
///
/// They share one telemetry key, so that a hundred thousand need not be made; what seals a report differs all the same,
/// for the device's name is in every key.
pub struct Devices {
    fleet: FleetId,
    product: ProductId,
    registries: Vec<Registry>,
    ids: Vec<DeviceId>,
    secret: PairSecret,
    ledger: Vec<Entry>,
}

impl Devices {
    /// Makes the devices of these traits; models and regions are all that counts of them.
    pub fn new(fleet: &[Traits]) -> Self {
        let product: ProductId = name("bakeoff");
        let registry = |traits: &Traits| Registry {
            product: product.clone(),
            model: name(&format!("m{:02}", traits.model)),
            carrier: name("none"),
            region: name(["north", "south"][usize::from(traits.region.min(1))]),
        };
        let registries: Vec<Registry> = fleet.iter().map(registry).collect();
        let ids: Vec<DeviceId> = (0..fleet.len()).map(|d| name(&format!("d{d:06}"))).collect();
        let own = secret_key(KEYS, "devices");
        let secret = PairSecret::agree(&own, &secret_key(KEYS, "telemetry").public_key());
        let point = hex::encode(own.public_key().to_encoded_point(false));
        let mut made = Self { fleet: name("fleet"), product, registries, ids, secret, ledger: Vec::new() };
        made.ledger = made.entries(&point);
        made
    }

    /// What the ledger says of devices that were registered, enrolled, and said hello.
    fn entries(&self, point: &str) -> Vec<Entry> {
        let entry = |fact| Entry { at: EPOCH, actor: None, fact };
        let devices = self.ids.iter().zip(&self.registries).map(|(id, registry)| DeviceEntry {
            device: id.clone(),
            identity: point.to_owned(),
            registry: registry.clone(),
        });
        let added = Fact::DevicesAdded { devices: devices.collect(), by: None };
        let enrolled = |id: &DeviceId| Fact::Enrolled { device: id.clone(), telemetry: point.to_owned() };
        let hello = |d: usize| Fact::Reported {
            device: self.ids[d].clone(),
            e: 1,
            n: 1,
            low: 1,
            report: self.hello(d),
        };
        std::iter::once(added)
            .chain(self.ids.iter().map(enrolled))
            .chain((0..self.ids.len()).map(hello))
            .map(entry)
            .collect()
    }

    fn hello(&self, d: usize) -> ReportKind {
        let Registry { product, model, carrier, region } = self.registries[d].clone();
        ReportKind::Hello(Box::new(Hello {
            running: 0,
            agent: "bakeoff".to_owned(),
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
}

/// The service, and what each device has said.
pub(super) struct Site {
    fleet: FleetId,
    registries: Vec<Registry>,
    ids: Vec<DeviceId>,
    secret: PairSecret,
    hellos: Vec<ReportKind>,
    controller: Controller,
    rollout: RolloutId,
    product: ProductId,
    positions: Vec<Position>,
    /// Epoch and number of the last report, by device.
    said: Vec<(u64, u64)>,
}

impl Site {
    /// Starts a service that knows these devices, and a signed release for all of them.
    pub(super) fn new(devices: &Devices, seed: u64) -> Self {
        let mut controller = Controller::drawn(KEYS, seed, devices.fleet.clone(), devices.product.clone());
        controller.handle(
            Input::Command {
                id: 0,
                by: None,
                command: Box::new(Command::AddProduct {
                    product: devices.product.clone(),
                    files: controller.offline_files(),
                }),
            },
            0,
        );
        let digest = Digest::of(b"release");
        let artifact =
            Artifact { component: "rootfs".to_owned(), length: 20 << 20, sha256: digest, root: digest };
        let models: Vec<ModelId> = (0..MODELS).map(|model| name(&format!("m{model:02}"))).collect();
        let file = controller.sign_release(RC, 0, &models, &artifact);
        let product = devices.product.clone();
        let publish = Command::PublishRelease { product, file };
        controller.handle(Input::Command { id: 0, by: None, command: Box::new(publish) }, 0);
        controller.ledger.extend(devices.ledger.iter().cloned());
        controller.start();
        // What follows is asked of the service itself.
        controller.ledger = Vec::new();
        let hellos = (0..devices.ids.len()).map(|d| devices.hello(d)).collect();
        let mut site = Self {
            fleet: devices.fleet.clone(),
            registries: devices.registries.clone(),
            ids: devices.ids.clone(),
            secret: devices.secret.clone(),
            hellos,
            controller,
            rollout: name("r1"),
            product: devices.product.clone(),
            positions: Vec::new(),
            said: vec![(1, 1); devices.ids.len()],
        };
        site.handle(vec![Input::BrokerUp], 0);
        site
    }

    /// Starts the rollout.
    pub(super) fn start(&mut self, plan: Plan) {
        let (rollout, product) = (self.rollout.clone(), self.product.clone());
        let command = Box::new(Command::Start { rollout, product, rc: RC, attempt: 1, plan });
        self.handle(vec![Input::Command { id: 0, by: None, command }], 0);
        let shuffle = Shuffle::new(self.rollout().salt);
        self.positions = self.ids.iter().map(|id| shuffle.position(id)).collect();
    }

    fn service(&mut self) -> &mut Service {
        self.controller.service().expect("the service runs")
    }

    /// Hands the service what happened; returns what it recorded.
    pub(super) fn handle(&mut self, inputs: Vec<Input>, at: u64) -> Vec<Fact> {
        let step = self.service().handle(inputs, EPOCH + at);
        for output in step.outputs {
            if let Output::Reply { result, .. } = output {
                result.expect("the bake-off asks for nothing that is refused");
            }
        }
        step.facts
    }

    /// Returns the rollout.
    pub(super) fn rollout(&self) -> &Rollout {
        let live = self.controller.live().expect("the service runs");
        live.rollouts.get(&self.rollout).expect("the rollout was started")
    }

    /// Returns the attempt that devices report about.
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { rc: RC, rollout: self.rollout.clone(), attempt: 1 }
    }

    /// Tells of every device whether the cuts include it.
    pub(super) fn included(&self) -> Vec<bool> {
        let cuts = self.rollout().cuts();
        let includes = |(registry, position): (&Registry, &Position)| {
            cuts.get(&registry.model).is_some_and(|cut| cut.includes(*position))
        };
        self.registries.iter().zip(&self.positions).map(includes).collect()
    }

    /// Seals a device's next report.
    pub(super) fn report(&mut self, d: usize, kind: ReportKind) -> Input {
        let (e, n) = &mut self.said[d];
        *n += 1;
        let (e, n) = (*e, *n);
        let key = self.secret.key(Direction::Up, &self.fleet, &self.ids[d], 1, e);
        let payload = key.seal(&Report { e, k: 1, n, low: n, kind });
        Input::Message { topic: Topic::Up(self.ids[d].clone(), UpKind::Report), payload }
    }

    /// Says hello after another boot.
    pub(super) fn boots(&mut self, d: usize) -> Input {
        self.said[d].0 += 1;
        let hello = self.hellos[d].clone();
        self.report(d, hello)
    }

    /// What the broker says of a device's connection.
    pub(super) fn presence(&self, d: usize, online: bool) -> Input {
        let payload = serde_json::to_vec(&Presence { online }).expect("our own messages serialise");
        Input::Message { topic: Topic::Up(self.ids[d].clone(), UpKind::Presence), payload }
    }
}
