//! The devices of a fleet, as a ledger names them.

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use tern_controller::core::fact::{DeviceEntry, Entry, Fact};
use tern_protocol::id::{DeviceId, FleetId, ProductId};
use tern_protocol::mac::PairSecret;
use tern_protocol::message::Registry;
use tern_protocol::position::Cohort;

use super::super::device::Traits;
use super::terminal::SharedKeys;
use crate::sim::clock::EPOCH;
use crate::sim::controller::secret_key;
use crate::sim::device::hello;

/// Keys of the service: the same in every run.
pub(super) const KEYS: u64 = 20_261_126;

pub(super) fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("the harness uses valid names")
}

/// The devices of a fleet, as a ledger names them: made once and used by every run.
///
/// They share one telemetry key, so that a hundred thousand need not be made; what seals a report differs all the same,
/// for the device's name is in every key.
pub struct Devices {
    pub(super) fleet: FleetId,
    pub(super) product: ProductId,
    pub(super) registries: Vec<Registry>,
    pub(super) ids: Vec<DeviceId>,
    pub(super) cohorts: Vec<Cohort>,
    pub(super) keys: SharedKeys,
    pub(super) ledger: Vec<Entry>,
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
            report: hello(&self.registries[d], 0),
        };
        std::iter::once(added)
            .chain(self.ids.iter().map(enrolled))
            .chain((0..self.ids.len()).map(hello))
            .map(entry)
            .collect()
    }
}
