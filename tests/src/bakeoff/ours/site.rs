//! A service with a fleet that it knows, and what each device was before the rollout began.

use std::sync::Arc;

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use tern_agent::core::agent::Settings;
use tern_agent::core::durable::Durable;
use tern_agent::core::timing::Timing;
use tern_controller::core::fact::{DeviceEntry, Entry, Fact};
use tern_controller::core::rollout::plan::Plan;
use tern_controller::core::rollout::record::Rollout;
use tern_controller::core::service::{Command, Input, Output, Service};
use tern_protocol::chunk::{leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ModelId, ProductId, RolloutId};
use tern_protocol::mac::PairSecret;
use tern_protocol::message::{Hello, Presence, Registry, ReportKind, Versions};
use tern_protocol::offer::Artifact;
use tern_protocol::position::{Cohort, Cut, Position, Shuffle};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::{Opened, Role, Trusted};

use super::super::device::Traits;
use super::super::scenario::MODELS;
use super::terminal::SharedKeys;
use crate::sim::clock::EPOCH;
use crate::sim::controller::{Controller, secret_key};

/// The release that is rolled out; before it devices ran what the factory gave them.
pub(super) const RC: u64 = 1;
/// Its image: what is compared is when devices get it, not how.
const IMAGE: &[u8] = b"the release of the bake-off";
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
    cohorts: Vec<Cohort>,
    keys: SharedKeys,
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
        let cohorts = ids.iter().map(Cohort::of).collect();
        let keys = SharedKeys { secret, own };
        let mut made =
            Self { fleet: name("fleet"), product, registries, ids, cohorts, keys, ledger: Vec::new() };
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

/// What a rollout says to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Said {
    /// Nothing yet.
    #[default]
    Nothing,
    /// It is held back as control.
    HoldBack,
    /// It is offered the release.
    Update,
}

/// The service, and what its devices begin with.
pub(super) struct Site<'a> {
    devices: &'a Devices,
    controller: Controller,
    rollout: RolloutId,
    positions: Vec<Position>,
    trust: Option<Trusted>,
    timing: Timing,
    /// Messages that retain something or answer somebody, not taken yet.
    pub(super) sent: Vec<(Topic, Vec<u8>)>,
}

impl<'a> Site<'a> {
    /// Starts a service that knows these devices, and a signed release for all of them.
    pub(super) fn new(devices: &'a Devices, seed: u64) -> Self {
        let mut controller = Controller::drawn(KEYS, seed, devices.fleet.clone(), devices.product.clone());
        let files = controller.offline_files();
        let add = Command::AddProduct { product: devices.product.clone(), files };
        controller.handle(Input::Command { id: 0, by: None, command: Box::new(add) }, 0);
        let artifact = Artifact {
            component: "rootfs".to_owned(),
            length: IMAGE.len() as u64,
            sha256: Digest::of(IMAGE),
            root: image_root(),
        };
        let models: Vec<ModelId> = (0..MODELS).map(|model| name(&format!("m{model:02}"))).collect();
        let file = controller.sign_release(RC, 0, &models, &artifact);
        let product = devices.product.clone();
        let publish = Command::PublishRelease { product, file };
        controller.handle(Input::Command { id: 0, by: None, command: Box::new(publish) }, 0);
        controller.ledger.extend(devices.ledger.iter().cloned());
        controller.start();
        // What follows is asked of the service itself.
        controller.ledger = Vec::new();
        let mut site = Self {
            devices,
            controller,
            rollout: name("r1"),
            positions: Vec::new(),
            trust: None,
            timing: Timing::default(),
            sent: Vec::new(),
        };
        site.handle(vec![Input::BrokerUp], 0);
        let state = site.controller.live().and_then(|fleet| fleet.products.get(&devices.product));
        let files = state.expect("the product was added").signed(&Role::ALL);
        let trust = Trusted::restore(&files).expect("the service signs what devices believe");
        site.trust = Some(trust.sharing(Arc::new(Opened::default())));
        site
    }

    /// Returns the root and the bytes of the image.
    pub(super) fn image() -> (Digest, Vec<u8>) {
        (image_root(), IMAGE.to_vec())
    }

    /// Starts the rollout.
    pub(super) fn start(&mut self, plan: Plan) {
        let (rollout, product) = (self.rollout.clone(), self.devices.product.clone());
        let command = Box::new(Command::Start { rollout, product, rc: RC, attempt: 1, plan });
        self.handle(vec![Input::Command { id: 0, by: None, command }], 0);
        let shuffle = Shuffle::new(self.rollout().salt);
        self.positions = self.devices.ids.iter().map(|id| shuffle.position(id)).collect();
    }

    fn service(&mut self) -> &mut Service {
        self.controller.service().expect("the service runs")
    }

    /// Hands the service what happened; returns what it recorded.
    pub(super) fn handle(&mut self, inputs: Vec<Input>, at: u64) -> Vec<Fact> {
        let step = self.service().handle(inputs, EPOCH + at);
        for output in step.outputs {
            match output {
                Output::Reply { result, .. } => {
                    result.expect("the bake-off asks for nothing that is refused");
                }
                Output::Publish { topic, payload } => self.sent.push((topic, payload)),
            }
        }
        step.facts
    }

    /// Returns the rollout.
    pub(super) fn rollout(&self) -> &Rollout {
        let live = self.controller.live().expect("the service runs");
        live.rollouts.get(&self.rollout).expect("the rollout was started")
    }

    /// Tells what the rollout says to each device now.
    pub(super) fn said(&self) -> Vec<Said> {
        let rollout = self.rollout();
        let (cuts, held_from) = (rollout.cuts(), rollout.held_from);
        let said = |(registry, position): (&Registry, &Position)| {
            let cut = cuts.get(&registry.model).copied().unwrap_or(Cut::NONE);
            if cut == Cut::NONE {
                Said::Nothing
            } else if held_from.is_some_and(|from| from <= *position) {
                Said::HoldBack
            } else if cut.includes(*position) {
                Said::Update
            } else {
                Said::Nothing
            }
        };
        self.devices.registries.iter().zip(&self.positions).map(said).collect()
    }

    /// Returns what device `d` is told when it starts.
    pub(super) fn settings(&self, d: usize) -> Settings {
        Settings {
            fleet: self.devices.fleet.clone(),
            device: self.devices.ids[d].clone(),
            registry: self.devices.registries[d].clone(),
            component: "rootfs".to_owned(),
            claim: None,
            version: "bakeoff".to_owned(),
            timing: self.timing.clone(),
        }
    }

    /// Returns what the disk of device `d` holds when the rollout begins: it has enrolled, booted once and said hello,
    /// and it knows what was published then.
    pub(super) fn disk(&self, d: usize) -> (Durable, Trusted) {
        let mut durable = Durable {
            epoch: 1,
            boot_id: "1".to_owned(),
            registry: Some(self.devices.registries[d].clone()),
            enrolled: true,
            ..Durable::default()
        };
        durable.outbox.raise(1);
        (durable, self.trust.clone().expect("files were published"))
    }

    pub(super) fn keys(&self) -> &'a SharedKeys {
        &self.devices.keys
    }

    pub(super) fn fleet(&self) -> FleetId {
        self.devices.fleet.clone()
    }

    pub(super) fn place(&self, d: usize) -> (&'a tern_protocol::id::RegionId, Cohort) {
        (&self.devices.registries[d].region, self.devices.cohorts[d])
    }

    /// Returns which device has this name.
    pub(super) fn number(&self, id: &DeviceId) -> Option<usize> {
        id.as_str().strip_prefix('d')?.parse().ok()
    }

    /// What the broker says of a device's connection.
    pub(super) fn presence(&self, d: usize, online: bool) -> Input {
        let payload = serde_json::to_vec(&Presence { online }).expect("our own messages serialise");
        Input::Message { topic: Topic::Up(self.devices.ids[d].clone(), UpKind::Presence), payload }
    }
}

fn image_root() -> Digest {
    root(&[leaf(IMAGE)])
}
