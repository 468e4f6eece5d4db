//! How many devices hold the newest keys and kills: whether what is sent to all of them must bring those along.

use std::collections::BTreeMap;

use tern_protocol::id::ProductId;
use tern_protocol::message::Versions;

use super::Fleet;
use crate::core::fact::Millis;

/// Of a hundred devices, how many may lack them and ask.
const LACKING_MAX: u64 = 1;
/// A device that was not heard for so long is not waited for: some never come back.
const HEARD: Millis = 30 * 24 * 3600 * 1000;

/// What a file is packed against, and what nobody should have to ask for.
pub type Held = (u32, u32, u32);

/// Versions of root, targets and halt.
pub fn held(versions: &Versions) -> Held {
    (versions.root, versions.targets, versions.halt)
}

impl Fleet {
    /// Tells of every product whether its devices hold the newest root, targets and halt file, all but a few, by what they said
    /// in their last hellos. One pass over all devices.
    pub fn holders(&self, now: Millis) -> BTreeMap<ProductId, (Held, bool)> {
        let mut counts: BTreeMap<&ProductId, (Held, u64, u64)> =
            self.products.iter().map(|(id, product)| (id, (held(&product.versions()), 0, 0))).collect();
        for device in self.devices.values().filter(|device| !device.standing.is_silenced()) {
            let lately = device.seen_at.is_some_and(|at| now.saturating_sub(at) < HEARD);
            if device.epoch == 0 || !lately {
                continue;
            }
            if let Some(((root, targets, halt), heard, lacking)) = counts.get_mut(&device.registry.product) {
                let has = &device.versions;
                *heard += 1;
                *lacking += u64::from(has.root < *root || has.targets < *targets || has.halt < *halt);
            }
        }
        let told = |(id, (newest, heard, lacking)): (&ProductId, (Held, u64, u64))| {
            let hold = newest.1 > 0 && heard > 0 && lacking * 100 <= heard * LACKING_MAX;
            (id.clone(), (newest, hold))
        };
        counts.into_iter().map(told).collect()
    }
}
