//! A service with a fleet that it knows, and what each device was before the rollout began.

use std::sync::Arc;

use tern_agent::core::agent::Settings;
use tern_agent::core::conditions::Conditions;
use tern_agent::core::durable::Durable;
use tern_agent::core::hook::HookStep;
use tern_agent::core::timing::Timing;
use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::plan::Plan;
use tern_controller::core::rollout::record::Rollout;
use tern_controller::core::service::{Command, Input, Output, Service};
use tern_protocol::chunk::{leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ModelId, RolloutId};
use tern_protocol::message::{Presence, Registry};
use tern_protocol::offer::Artifact;
use tern_protocol::position::{Cohort, Cut, Position, Shuffle};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::{Opened, Role, Trusted};

use super::super::scenario::MODELS;
use super::devices::{Devices, KEYS, name};
use super::terminal::SharedKeys;
use crate::sim::clock::EPOCH;
use crate::sim::controller::Controller;

/// The release that is rolled out; before it devices ran what the factory gave them.
pub(super) const RC: u64 = 1;
/// Its image: what is compared is when devices get it, not how.
const IMAGE: &[u8] = b"the release of the bake-off";

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
        let artifact = Artifact::new("rootfs", IMAGE.len() as u64, Digest::of(IMAGE), image_root());
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
            conditions: Conditions::default(),
            hooks: [HookStep::PreUpdate].into(),
            transfer: Default::default(),
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
