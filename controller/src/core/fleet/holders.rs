//! How many devices hold the newest keys: whether what is sent to all of them must bring those along.

use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;

use super::Fleet;

/// Of a hundred devices that were heard, how many may lack the newest targets and ask for them. Some are never heard again.
const LACKING_MAX: usize = 1;

impl Fleet {
    /// Tells whether the devices of a product hold its newest root and targets, all but a few, by what they said last.
    pub fn holds_keys(&self, product: &ProductId) -> bool {
        let Some(newest) = self.products.get(product).map(|state| state.versions()) else { return false };
        let (mut heard, mut lacking) = (0, 0);
        let ours = self.devices.values().filter(|device| device.registry.product == *product);
        for device in ours.filter(|device| device.epoch > 0 && !device.standing.is_silenced()) {
            heard += 1;
            let held = &device.versions;
            lacking += usize::from(held.root < newest.root || held.targets < newest.targets);
        }
        let has_targets = self.products.get(product).is_some_and(|s| s.files.contains_key(&Role::Targets));
        has_targets && heard > 0 && lacking * 100 <= heard * LACKING_MAX
    }
}
