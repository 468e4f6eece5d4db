//! Yesterday's data folder, put back: the ledger is older than the fleet.

use std::collections::BTreeSet;

use tern_controller::core::fact::{Entry, Fact};
use tern_controller::core::rollout::plan::Plan;
use tern_controller::core::service::Command;
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::id::RolloutId;
use tern_protocol::message::{Hello, Report, ReportKind, Versions};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::content::HaltContent;
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::{Role, build, sign};

use super::clock::{EPOCH, SECOND};
use super::controller::secret_key;
use super::{Broken, Event, Sim};

/// How the service comes to know of the copy, and what is left of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// The shell sees that the folder is a copy; the broker is embedded, so everybody connects anew.
    Marked,
    /// The same with a broker of its own: devices stay connected, and it retains what it had.
    MarkedBesideABroker,
    /// Nothing but the devices' claims shows it: a virtual machine was set back.
    Unmarked,
}

impl Sim {
    /// Returns a copy of the service's data folder.
    pub fn copy(&self) -> Vec<Entry> {
        self.controller.ledger.clone()
    }

    /// Puts a copy in the place of the data folder and starts the service.
    pub fn restore(&mut self, copy: Vec<Entry>, how: Restore) {
        self.note(|_| format!("the data folder is restored: {how:?}"));
        self.before.push(self.controller.fleet());
        self.controller.stop();
        let kept: BTreeSet<_> = copy
            .iter()
            .filter_map(|entry| match &entry.fact {
                Fact::Reported { device, n, .. } => Some((device.clone(), *n)),
                _ => None,
            })
            .collect();
        let reported = std::mem::take(&mut self.reported);
        for (key, kind) in reported {
            if kept.contains(&key) {
                self.reported.insert(key, kind);
            } else {
                self.lost.insert(key);
            }
        }
        self.controller.ledger = copy;
        self.controller.copied =
            how != Restore::Unmarked && self.config.broken != Some(Broken::NeverCompares);
        if how != Restore::MarkedBesideABroker {
            self.broker_forgets();
            (0..self.devices.len()).for_each(|d| self.disconnect(d));
        }
        self.queue.plan(self.queue.now() + SECOND, Event::ServiceUp);
    }

    /// Starts a rollout under a name of its own.
    pub fn start_as(&mut self, name: &str, rc: u64, plan: Plan) -> RolloutId {
        let rollout: RolloutId = name.parse().expect("the harness uses valid names");
        let (product, id) = (self.product.clone(), rollout.clone());
        self.must(Command::Start { rollout: id, product, rc, attempt: 1, plan });
        rollout
    }

    /// Tells whether the service compares itself with its devices.
    pub fn is_comparing(&self) -> bool {
        self.controller.live().is_some_and(|fleet| fleet.comparison.is_some())
    }

    /// Returns the highest versions that any device holds.
    pub fn highest_held(&self) -> Versions {
        let mut highest = Versions::default();
        for held in
            self.devices.iter().filter_map(|device| device.agent()).map(|agent| agent.trust().versions())
        {
            highest.root = highest.root.max(held.root);
            highest.timestamp = highest.timestamp.max(held.timestamp);
            highest.snapshot = highest.snapshot.max(held.snapshot);
            highest.targets = highest.targets.max(held.targets);
            highest.release = highest.release.max(held.release);
            highest.rollout = highest.rollout.max(held.rollout);
            highest.halt = highest.halt.max(held.halt);
        }
        highest
    }

    /// Has a device that somebody owns say a hello of its own, with its own keys.
    pub fn lie(&mut self, d: usize, n: u64, lie: impl FnOnce(&mut Hello)) {
        let device = &self.devices[d];
        let known = self.controller.fleet().devices[&device.id].clone();
        let mut hello = Hello {
            running: known.running,
            agent: known.agent.clone(),
            product: device.registry.product.clone(),
            model: device.registry.model.clone(),
            carrier: device.registry.carrier.clone(),
            region: device.registry.region.clone(),
            floor: known.floor,
            versions: known.versions,
            halted: Vec::new(),
            components: Default::default(),
            proof: None,
        };
        lie(&mut hello);
        let id = device.id.clone();
        let report = Report { e: known.epoch, k: 1, n, low: 1, kind: ReportKind::Hello(Box::new(hello)) };
        let payload = self.controller.seal_report(&id, &report);
        self.queue
            .plan(self.queue.now() + 1, Event::ToService { topic: Topic::Up(id, UpKind::Report), payload });
    }

    /// Has a device present a halt file that somebody without the halt key has signed.
    pub fn present_forged_halt(&mut self, d: usize, version: u32, rc: u64) {
        let content = HaltContent { halted: vec![rc] };
        let value = build::halt(version, EPOCH / 1000 + 1_000_000, &content);
        let thief = P256Signer::new(secret_key(self.seed, "thief").into());
        let bytes = sign::sign(value, &[&thief]).expect("a thief's file signs too");
        let payload = Bundle { root: 1, files: vec![File { role: Role::Halt, bytes }] }.pack_stored();
        let topic = Topic::Up(self.devices[d].id.clone(), UpKind::Report);
        self.queue.plan(self.queue.now() + 1, Event::ToService { topic, payload });
    }

    /// What reaches a service that never looks at claims.
    pub(super) fn unclaimed(&self, topic: &Topic, payload: Vec<u8>) -> Vec<u8> {
        let Topic::Up(id, UpKind::Report) = topic else { return payload };
        let Some(mut report) = self.controller.open_report(id, &payload) else { return payload };
        let ReportKind::Hello(hello) = &mut report.kind else { return payload };
        (hello.versions, hello.floor) = (Versions::default(), 0);
        hello.halted.clear();
        self.controller.seal_report(id, &report)
    }
}
