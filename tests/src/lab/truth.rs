//! The harness's own list of reports: what devices made, opened with the laboratory's keys, against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use p256::SecretKey;
use p256::pkcs8::DecodePrivateKey as _;
use serde_json::Value;
use tern_bridge::front::frame::Publish;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::{Direction, MacKey, PairSecret};
use tern_protocol::message::{ReportKind, Reports};
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};

use super::{Heard, Lab, LabDevice, PRODUCT, Sum};

/// Reports at their creation, by device and number.
#[derive(Debug, Default)]
pub struct Truth {
    created: BTreeMap<(String, u64), ReportKind>,
}

fn fleet() -> FleetId {
    "lab".parse().expect("a fleet")
}

/// Returns the key under which a device seals, read from the disks of both sides.
pub fn seal_of(lab: &Lab, device: &LabDevice, kid: u32, epoch: u64) -> MacKey {
    let pem = std::fs::read_to_string(device.dir.join("data/telemetry.pem")).expect("a telemetry key");
    let own = SecretKey::from_pkcs8_pem(&pem).expect("a key");
    let product = PRODUCT.parse().expect("a product");
    let online = tern_controller::keys::load_online(&lab.data(), &product).expect("the service's keys");
    let (_, ours) = online.newest().expect("a telemetry key");
    let id: DeviceId = device.name.parse().expect("a device");
    PairSecret::agree(&own, &ours.public_key()).key(Direction::Up, &fleet(), &id, kid, epoch)
}

impl Truth {
    /// Reads what devices sent, as they sent it.
    ///
    /// # Panics
    /// When a device sent a report that it had not sealed, or two different ones under one number.
    pub fn of(lab: &Lab, devices: &[LabDevice], sent: &[Publish]) -> Self {
        let mut truth = Self::default();
        let mut keys = BTreeMap::new();
        for message in sent {
            let Ok(Topic::Up(id, UpKind::Report)) = Topic::parse(&fleet(), &message.topic) else { continue };
            // Files that it presents are no reports.
            let Ok(open) = serde_json::from_slice::<Value>(&message.payload) else { continue };
            let device = devices.iter().find(|d| d.name == id.as_str()).expect("one of ours");
            let (kid, epoch) = (open["k"].as_u64().expect("a key"), open["e"].as_u64().expect("an epoch"));
            let key = keys
                .entry((id.clone(), kid, epoch))
                .or_insert_with(|| seal_of(lab, device, u32::try_from(kid).expect("a small number"), epoch));
            let body = key.open(&message.payload).expect("a device seals what it sends");
            let reports: Reports = serde_json::from_slice(&body).expect("reports");
            for report in reports {
                let before = truth.created.insert((id.to_string(), report.n), report.kind.clone());
                assert!(before.is_none_or(|kind| kind == report.kind), "{id} used number {} twice", report.n);
            }
        }
        truth
    }

    /// Compares with the ledger once nothing is on its way: says what it invented, changed, doubled or lost.
    pub fn lies(&self, heard: &Heard) -> Vec<String> {
        let lasting = |kind: &ReportKind| !matches!(kind, ReportKind::Hello(_) | ReportKind::Ask { .. });
        let mut lies = self.inventions(heard);
        for ((device, n), kind) in self.created.iter().filter(|(_, kind)| lasting(kind)) {
            if !heard.reports.contains_key(&(device.clone(), *n)) {
                lies.push(format!("{device} made report {n} ({}), which the ledger lost", kind.word()));
            }
        }
        lies
    }

    /// Compares with the ledger while something may be on its way: the ledger holds at most what was made.
    pub fn inventions(&self, heard: &Heard) -> Vec<String> {
        let mut lies: Vec<String> = heard.doubled.iter().map(|at| format!("{at:?} counts twice")).collect();
        for (at, kind) in &heard.reports {
            match self.created.get(at) {
                Some(made) if made == kind => {}
                Some(made) => lies.push(format!("{at:?} says {kind:?}; made was {made:?}")),
                None => lies.push(format!("{at:?} says {}, and was never made", kind.word())),
            }
        }
        lies
    }

    /// Returns how many devices ever said that they start, or something that implies it, in a rollout.
    pub fn ever_started(&self, rollout: &str) -> u64 {
        let starts = |kind: &ReportKind| {
            let begun = matches!(
                kind,
                ReportKind::Started { .. } | ReportKind::Transition { to: StateName::VerifyPost, .. }
            );
            begun && kind.attempt().is_some_and(|attempt| attempt.rollout.as_str() == rollout)
        };
        let devices: BTreeSet<&str> =
            self.created.iter().filter(|(_, kind)| starts(kind)).map(|((device, _), _)| &**device).collect();
        devices.len() as u64
    }

    /// Adds up a rollout.
    pub fn sum(&self, rollout: &str) -> Sum {
        Heard::of(&self.created).sum(rollout)
    }
}
