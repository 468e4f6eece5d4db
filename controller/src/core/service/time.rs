//! The time, for devices that share no code with the service yet. A signature costs a hundred microseconds and anybody
//! may ask, so there is a ceiling for each device and one for all.

use std::collections::BTreeMap;

use tern_protocol::id::{DeviceId, ProductId};
use tern_protocol::message::{Nonce, TimeAnswer};
use tern_protocol::topic::Topic;

use super::{Service, Standing};
use crate::core::fact::Millis;

/// Least time between two answers to one device.
const PAUSE: Millis = 5000;
/// Answers to all devices within a second. Whoever comes too late asks again, ten seconds later and then less often.
const PER_SECOND: u32 = 50;

/// Who was answered lately.
#[derive(Debug, Default)]
pub(super) struct Clockwork {
    /// Answered within the last [`PAUSE`]: at most PAUSE × PER_SECOND devices, and those of one second more.
    lately: BTreeMap<DeviceId, Millis>,
    second: Millis,
    within: u32,
}

impl Clockwork {
    /// Tells whether a device may be answered, and counts it.
    fn admits(&mut self, device: &DeviceId, now: Millis) -> bool {
        if now / 1000 != self.second {
            (self.second, self.within) = (now / 1000, 0);
            self.lately.retain(|_, at| now.saturating_sub(*at) < PAUSE);
        }
        let soon = self.lately.get(device).is_some_and(|at| now.saturating_sub(*at) < PAUSE);
        if soon || self.within >= PER_SECOND {
            return false;
        }
        self.within += 1;
        self.lately.insert(device.clone(), now);
        true
    }
}

impl Service {
    /// Answers the nonce of an enrolment, if the device waits for approval or has not been heard under its key.
    pub(super) fn tell_time(&mut self, id: &DeviceId, identity: &str, nonce: Nonce) {
        let Some(product) = self.codeless(id, identity).cloned() else { return };
        let Some(key) = self.keys.get(&product).and_then(|keys| keys.time.clone()) else { return };
        let Some(versions) = self.fleet.products.get(&product).map(|product| product.versions()) else {
            return;
        };
        // As with codes: no answer may name versions that do not know of a kill.
        if !self.kills_are_signed(&product) {
            return;
        }
        if !self.clockwork.admits(id, self.now) {
            self.counters.untimed += 1;
            return;
        }
        self.counters.timed += 1;
        let (time, rollout, halt) = (self.now / 1000, versions.rollout, versions.halt);
        let answer = TimeAnswer { nonce, time, rollout, halt };
        let payload = answer.sign(&key, &self.fleet.id, &product, id);
        self.publish(Topic::DeviceIn(id.clone()), payload);
    }

    /// Returns the product of a device of this identity that no code was ever shared with.
    fn codeless(&self, id: &DeviceId, identity: &str) -> Option<&ProductId> {
        if let Some(waits) = self.fleet.pending.get(id) {
            return (waits.identity == identity).then_some(&waits.registry.product);
        }
        let device = self.fleet.devices.get(id)?;
        let listed = matches!(device.standing, Standing::Active | Standing::Quarantined);
        let unheard = device.telemetry.is_none() || device.seen_at.is_none();
        (listed && unheard && device.identity == identity).then_some(&device.registry.product)
    }
}
