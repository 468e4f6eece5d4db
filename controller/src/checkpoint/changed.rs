//! What the facts since the last checkpoint have changed.

use std::collections::BTreeSet;

use tern_protocol::id::{DeviceId, ProductId, RolloutId};
use tern_protocol::message::ReportKind;

use super::Kept;
use crate::core::fact::Fact;
use crate::core::fleet::Fleet;
use crate::core::rollout::record::{Rollout, Status};
use crate::store::{Key, Meta};

/// What changed since the last checkpoint, before this start too: a checkpoint that says that it has a frame must have
/// what the frame did.
#[derive(Debug, Default)]
pub struct Changed {
    /// Pages of devices.
    pages: BTreeSet<u32>,
    rollouts: BTreeSet<RolloutId>,
    products: BTreeSet<ProductId>,
    /// Devices that wait, or waited.
    pending: BTreeSet<DeviceId>,
    /// Some claim.
    claims: bool,
    /// Some factory.
    factories: bool,
    /// Some token of the API.
    access: bool,
    /// Some rollout of a device that does not take part any more, or that is compared.
    every_rollout: bool,
    /// The comparison with the devices, and whatever its end has changed.
    compared: bool,
}

impl Changed {
    /// Everything: for a checkpoint that begins with what dropped frames added up to.
    pub(super) fn everything(fleet: &Fleet) -> Self {
        Self {
            pages: BTreeSet::new(),
            rollouts: fleet.rollouts.keys().cloned().collect(),
            products: fleet.products.keys().cloned().collect(),
            pending: fleet.pending.keys().cloned().collect(),
            claims: true,
            factories: true,
            access: true,
            every_rollout: true,
            compared: true,
        }
    }

    /// Notes what a fact has changed that `fleet` has taken in.
    pub(super) fn note(&mut self, fact: &Fact, fleet: &Fleet) {
        let pages = &mut self.pages;
        let mut device = |id: &DeviceId| pages.extend(fleet.devices.page_of(id));
        match fact {
            // The clock that they move goes along with every checkpoint.
            Fact::ServiceStarted { .. } | Fact::ReceptionBegan | Fact::ReceptionEnded | Fact::Receiving => {}
            Fact::DeadlinePassed { rollout, heard, silent, .. } => {
                self.rollouts.insert(rollout.clone());
                heard.iter().chain(silent).for_each(device);
            }
            Fact::ProductAdded { product, .. }
            | Fact::Signed { product, .. }
            | Fact::ReleasePublished { product, .. } => {
                self.products.insert(product.clone());
            }
            Fact::DevicesAdded { devices, .. } => {
                devices.iter().for_each(|entry| device(&entry.device));
                self.pending.extend(devices.iter().map(|d| d.device.clone()));
            }
            Fact::Enrolled { device: id, .. }
            | Fact::Granted { device: id, .. }
            | Fact::IdentityReplaced { device: id, .. } => device(id),
            // An open start that is withdrawn changes the counts of its rollout.
            Fact::StandingChanged { device: id, .. } => {
                device(id);
                self.every_rollout = true;
            }
            Fact::Applied { device: id, .. }
            | Fact::Approved { device: id, .. }
            | Fact::Rejected { device: id } => {
                device(id);
                self.pending.insert(id.clone());
                self.claims = true;
            }
            Fact::ComparisonBegan { .. } | Fact::FilesPresented { .. } | Fact::ComparisonEnded { .. } => {
                self.compared = true;
            }
            Fact::ClaimCreated { .. } | Fact::ClaimRevoked { .. } => self.claims = true,
            Fact::FactoryAdded { .. } | Fact::FactoryRevoked { .. } => self.factories = true,
            Fact::TokenCreated { .. } | Fact::TokenRevoked { .. } | Fact::TokenUsed { .. } => {
                self.access = true
            }
            Fact::Tagged { devices, .. } => devices.iter().for_each(device),
            Fact::Reported { device: id, report, .. } => {
                device(id);
                // Health counts in every rollout in which the device is compared.
                self.every_rollout |=
                    matches!(report, ReportKind::Health { metrics, .. } if !metrics.is_empty());
                if let Some(attempt) = report.attempt().filter(|a| !self.rollouts.contains(&a.rollout)) {
                    self.rollouts.insert(attempt.rollout.clone());
                }
            }
            // Devices that are no longer held back lose what was kept of them.
            Fact::PhaseOpened { rollout, .. } | Fact::HoldBackEnded { rollout, .. } => {
                self.rollouts.insert(rollout.clone());
                self.compared = true;
            }
            Fact::WaveOpened { rollout, .. } => {
                self.rollouts.insert(rollout.clone());
                // Where it keeps nobody back now it may have before.
                let has = |rollout: &Rollout| rollout.reserve.is_some() || !rollout.control.is_empty();
                self.compared |= fleet.rollouts.get(rollout).is_some_and(has);
            }
            Fact::RolloutStarted { rollout, .. }
            | Fact::OutageSeen { rollout, .. }
            | Fact::PhaseApproved { rollout, .. }
            | Fact::Paused { rollout, .. }
            | Fact::Resumed { rollout, .. }
            | Fact::Killed { rollout, .. }
            | Fact::RevertRefused { rollout, .. }
            | Fact::Completed { rollout, .. } => {
                self.rollouts.insert(rollout.clone());
            }
        }
    }

    /// Returns the pages whose devices have changed.
    pub(super) fn pages(&self, fleet: &Fleet) -> BTreeSet<u32> {
        // These are rare, and may have touched every device.
        if self.compared { (0..fleet.devices.pages()).collect() } else { self.pages.clone() }
    }

    /// Returns what the checkpoint is to hold from now on beside the pages, and `None` for what it is not to hold any
    /// more.
    pub(super) fn values(&self, fleet: &Fleet) -> Result<Vec<Kept>, serde_json::Error> {
        let mut values = Vec::new();
        let mut put = |key: Key, value: Vec<u8>| values.push((key, Some(value)));
        // Few are in force at once, so all of them go when one has changed.
        for (id, claim) in fleet.claims.iter().filter(|_| self.claims) {
            put(Key::Claim(id.clone()), serde_json::to_vec(claim)?);
        }
        for (id, factory) in fleet.factories.iter().filter(|_| self.factories) {
            put(Key::Factory(id.clone()), serde_json::to_vec(factory)?);
        }
        if self.access {
            put(Key::Meta(Meta::Access), serde_json::to_vec(&fleet.access)?);
        }
        for (id, rollout) in &fleet.rollouts {
            if self.every_rollout || self.compared || self.rollouts.contains(id) {
                put(Key::Rollout(id.clone()), serde_json::to_vec(rollout)?);
            }
        }
        // A kill is of a rollout, and its product keeps the release dead.
        let killed = self.rollouts.iter().filter_map(|id| fleet.rollouts.get(id));
        let killed =
            killed.filter(|rollout| rollout.status == Status::Killed).map(|rollout| &rollout.product);
        let learned = fleet.products.keys().filter(|_| self.compared);
        for id in self.products.iter().chain(killed).chain(learned).collect::<BTreeSet<_>>() {
            if let Some(product) = fleet.products.get(id) {
                put(Key::Product(id.clone()), serde_json::to_vec(product)?);
            }
        }
        // Every hello goes into it while it lasts.
        if self.compared || fleet.comparison.is_some() {
            put(Key::Meta(Meta::Comparison), serde_json::to_vec(&fleet.comparison)?);
        }
        // The mark moves even when nothing that is kept has changed.
        put(Key::Meta(Meta::Reports), serde_json::to_vec(&fleet.reports)?);
        put(Key::Meta(Meta::Reception), serde_json::to_vec(&fleet.reception)?);
        for id in &self.pending {
            let applicant = fleet.pending.get(id).map(serde_json::to_vec).transpose()?;
            values.push((Key::Pending(id.clone()), applicant));
        }
        Ok(values)
    }
}
