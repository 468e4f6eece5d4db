//! What the facts of enrolment change: who is a device, with which keys, and what it may do.

use tern_protocol::id::DeviceId;
use tern_protocol::state::Outcome;

use super::Fleet;
use super::device::{Device, Standing};
use crate::core::enrolment::claim::{Applicant, Claim, short};
use crate::core::enrolment::factory::Factory;
use crate::core::fact::{DeviceEntry, Fact, Millis};
use crate::core::rollout::record::{Rollout, Status};

impl Fleet {
    /// Takes in a fact of enrolment; others change nothing.
    pub(super) fn admission(&mut self, at: Millis, fact: &Fact) {
        match fact {
            Fact::DevicesAdded { devices, .. } => devices.iter().for_each(|entry| self.listed(entry)),
            Fact::FactoryAdded { factory, key } => {
                let fresh = Factory { key: key.clone(), added_at: at, revoked: false };
                self.factories.insert(factory.clone(), fresh);
            }
            Fact::FactoryRevoked { factory } => {
                if let Some(factory) = self.factories.get_mut(factory) {
                    factory.revoked = true;
                }
            }
            Fact::ClaimCreated { claim, terms, key } => {
                self.claims.insert(claim.clone(), Claim::new(terms.clone(), *key, at));
            }
            Fact::ClaimRevoked { claim } => {
                if let Some(claim) = self.claims.get_mut(claim) {
                    claim.revoked = true;
                }
            }
            Fact::Applied { device, claim, identity, telemetry, registry } => {
                if let Some(claim) = self.claims.get_mut(claim) {
                    claim.used += 1;
                }
                let applicant = Applicant {
                    claim: claim.clone(),
                    identity: identity.clone(),
                    telemetry: telemetry.clone(),
                    registry: registry.clone(),
                    at,
                };
                self.pending.insert(device.clone(), applicant);
            }
            Fact::Approved { device, .. } => self.let_in(device),
            Fact::Rejected { device } => {
                let Some(applicant) = self.pending.remove(device) else { return };
                if let Some(claim) = self.claims.get_mut(&applicant.claim) {
                    claim.rejected.insert(short(&applicant.identity));
                }
            }
            Fact::StandingChanged { device, standing, because } => self.stands(device, *standing, because),
            Fact::Enrolled { device, telemetry } => {
                if let Some(device) = self.devices.get_mut(device) {
                    if let Some(former) = device.telemetry.take() {
                        device.retire(&former);
                    }
                    device.telemetry = Some(telemetry.clone());
                }
            }
            Fact::IdentityReplaced { device, identity, telemetry } => {
                if let Some(device) = self.devices.get_mut(device) {
                    device.take_keys(identity, Some(telemetry));
                }
            }
            _ => {}
        }
    }

    /// A list speaks for itself: it needs no approval, and it wins over whoever waits under the same name.
    fn listed(&mut self, entry: &DeviceEntry) {
        self.pending.remove(&entry.device);
        let fresh = || Device::new(entry.identity.clone(), entry.registry.clone());
        let device = self.devices.get_or_insert_with(&entry.device, fresh);
        device.registry = entry.registry.clone();
        if device.standing == Standing::Reset && device.identity != entry.identity {
            device.take_keys(&entry.identity, None);
            device.standing = Standing::Active;
            device.because.clear();
        }
    }

    fn let_in(&mut self, id: &DeviceId) {
        let Some(applicant) = self.pending.remove(id) else { return };
        let Applicant { identity, telemetry, registry, .. } = applicant;
        let fresh = || Device::new(identity.clone(), registry.clone());
        let device = self.devices.get_or_insert_with(id, fresh);
        device.take_keys(&identity, Some(&telemetry));
        device.registry = registry;
        device.standing = Standing::Active;
        device.because.clear();
    }

    fn stands(&mut self, id: &DeviceId, standing: Standing, because: &str) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.standing = standing;
        because.clone_into(&mut device.because);
        if standing == Standing::Reset {
            // Whoever holds the old keys, the device it was is not asked about it again.
            let (identity, telemetry) = (device.identity.clone(), device.telemetry.take());
            device.retire(&identity);
            if let Some(telemetry) = telemetry {
                device.retire(&telemetry);
            }
        }
        if standing != Standing::Active {
            self.withdraw(id);
        }
    }

    /// Takes a device's open starts out of the counts: how they end is not believed any more, and a start without
    /// an end would hold a gate for ever. What has ended stays counted.
    pub(super) fn withdraw(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let model = &device.registry.model;
        device.attempts.retain(|id, record| {
            if record.beside.is_some()
                && let Some(rollout) = self.rollouts.get_mut(id)
            {
                rollout.leave_control(model);
            }
            record.beside.is_none()
        });
        for (rollout, mut record) in device.attempts.iter_mut() {
            let sum = record.tale.sum();
            if record.withdrawn || record.is_silent() || !sum.begun || sum.outcome.is_some() {
                continue;
            }
            let active = |rollout: &&mut Rollout| matches!(rollout.status, Status::Running | Status::Paused);
            // What a rollout that is over has counted is history.
            if let Some(rollout) = self.rollouts.get_mut(rollout).filter(active) {
                record.withdrawn = true;
                let place = (record.series, record.rank);
                rollout.count_outcome(model, record.phase, place, Outcome::Deferred);
            }
        }
    }
}

impl Device {
    /// Takes new keys and retires the former ones.
    fn take_keys(&mut self, identity: &str, telemetry: Option<&String>) {
        if self.identity != identity {
            let former = std::mem::replace(&mut self.identity, identity.to_owned());
            self.retire(&former);
        }
        if self.telemetry.as_ref() != telemetry {
            if let Some(former) = self.telemetry.take() {
                self.retire(&former);
            }
            self.telemetry = telemetry.cloned();
        }
    }
}
