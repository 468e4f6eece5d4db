//! Health: what devices counted about themselves, in both arms of a comparison.
//!
//! A device counts once in a window until it has had its first event, and not after that: chance has put it into its arm
//! once, so that a few devices that crash every day, whatever they run, must not speak against the same arm every day. Which drain is large is said in
//! [`drain`](crate::core::rollout::drain).

use std::collections::BTreeMap;

use tern_protocol::id::DeviceId;
use tern_protocol::state::Outcome;

use super::Fleet;
use super::device::SPENT;
use crate::core::fact::Millis;
use crate::core::rollout::paired::Side;
use crate::core::rollout::record::Status;

/// Figures that count what should never happen.
const CRASHES: [&str; 4] = ["crashes", "panics", "watchdog-resets", "modem-resets"];
/// Boots in a window that are a boot loop; an update takes one, a rollback another.
const BOOT_LOOP: u64 = 4;
/// Battery that was used, in tenths of a percent a day.
const DRAIN: &str = "drain";

impl Fleet {
    /// Takes in a device's health, for every rollout in which it is compared.
    pub(super) fn fared(&mut self, at: Millis, id: &DeviceId, metrics: &BTreeMap<String, u64>) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let observed = self.reception.observed(at);
        let count = |name: &str| metrics.get(name).copied().unwrap_or(0);
        let crashed = CRASHES.iter().any(|name| count(name) > 0) || count("boots") >= BOOT_LOOP;
        for (rollout, mut attempt) in device.attempts.iter_mut() {
            let side = match attempt.outcome {
                _ if attempt.beside.is_some() => Side::Control,
                Some(Outcome::Success) => Side::Treated,
                _ => continue,
            };
            let Some(rollout) = self.rollouts.get_mut(rollout) else { continue };
            let active = matches!(rollout.status, Status::Running | Status::Paused);
            let window = observed / rollout.plan.policy.health_length();
            if !active || attempt.health.is_some_and(|counted| counted >= window) {
                continue;
            }
            // One first day of each: whoever drains much does so every day, and would count against its arm on each.
            let drain = metrics.get(DRAIN).copied().filter(|_| attempt.health.is_none());
            attempt.health = Some(if crashed { SPENT } else { window });
            rollout.compare_health(&device.registry.model, side, crashed, drain, observed);
        }
    }
}
