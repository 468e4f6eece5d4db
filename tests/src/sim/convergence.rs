//! When a fleet has come to where the signed files want it, or has truthfully said why not.

use tern_controller::core::fleet::Fleet;
use tern_controller::core::rollout::record::Status;
use tern_protocol::id::RolloutId;
use tern_protocol::message::ReportKind;
use tern_protocol::state::Outcome;

use super::Sim;

impl Sim {
    /// Tells whether a device does what the newest offer to it says: it runs that release for good, or it has told
    /// why not, and the controller has recorded exactly that. Without an offer, being at rest is all.
    pub fn has_converged(&self, d: usize) -> bool {
        let Some(fleet) = self.controller.live() else { return false };
        let device = &self.devices[d];
        let position = |salt| tern_protocol::position::position(salt, &device.id);
        let offers = fleet.rollouts.values().filter(|rollout| {
            rollout.offers()
                && rollout.phase_of(&device.id, &device.registry, position(rollout.salt)).is_some()
        });
        let newest = offers.max_by_key(|rollout| rollout.rc);
        let reason = |rollout: &RolloutId| {
            device.watched.created.values().rev().find_map(|report| match report {
                ReportKind::Outcome { attempt, outcome, .. } if attempt.rollout == *rollout => Some(*outcome),
                _ => None,
            })
        };
        self.is_at_rest(d)
            && device.link
            && newest.is_none_or(|rollout| {
                let told = reason(&rollout.id);
                let bad = told.is_some_and(|o| !matches!(o, Outcome::Success | Outcome::Deferred));
                let known = self.outcome(d, &rollout.id);
                // A trial that reached nobody is counted, and made again; how that ends changes no count.
                let first = known == Some(Outcome::Unreachable) && told.is_some();
                (device.running_rc() == rollout.rc || bad) && (told == known || first)
            })
    }

    /// Tells whether everybody has converged, every report is in the ledger, and no rollout has anything left to do.
    pub fn all_have_converged(&self) -> bool {
        let over = |fleet: &Fleet| fleet.rollouts.values().all(|rollout| rollout.status != Status::Running);
        self.controller.live().is_some_and(over)
            && self.is_drained()
            && (0..self.devices.len()).all(|d| self.has_converged(d))
    }
}
