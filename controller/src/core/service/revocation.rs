//! Tells fronts which devices they should not let in.
//!
//! It only saves the fleet's broker from them: that a revoked device is neither heard nor answered does not depend on
//! it.

use tern_protocol::id::DeviceId;
use tern_protocol::message::Revoked;
use tern_protocol::topic::Topic;

use super::Service;
use crate::core::fleet::device::Standing;

impl Service {
    /// Publishes who is revoked, if that has changed in this step.
    pub(super) fn tell_revoked(&mut self) {
        if std::mem::take(&mut self.revoked_anew) {
            self.publish_revoked();
        }
    }

    /// Publishes who is revoked. A device that was reset may come back with its old place at the broker, and is not
    /// among them.
    pub(super) fn publish_revoked(&mut self) {
        let revoked = |(id, standing): (_, Standing)| (standing == Standing::Revoked).then_some(id);
        let devices: Vec<DeviceId> =
            self.fleet.devices.iter().filter_map(|(id, d)| revoked((id, d.standing))).cloned().collect();
        let (list, left_out) = Revoked::list(&devices);
        if left_out > 0 {
            let told = list.len();
            self.note(format!(
                "{left_out} revoked devices more than the {told} that fronts can be told of: take their passwords or \
                 certificates away"
            ));
        }
        self.publish(Topic::Revoked, list.write());
    }
}
