//! What a plan would do, worked out without doing it.

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ModelId, ProductId, RolloutId};
use tern_protocol::position::Salt;

use super::Service;
use super::command::{Refusal, RefusalKind, chain, refuse};
use super::start::reserve;
use crate::core::rollout::phase;
use crate::core::rollout::plan::{Phase, Plan, Reach};
use crate::core::rollout::record::Rollout;

impl Service {
    /// Works out what a plan would do, without doing it: devices newly included by each phase.
    pub fn preview(
        &mut self,
        product: &ProductId,
        rc: u64,
        plan: &Plan,
    ) -> Result<Vec<PhasePreview>, Refusal> {
        plan.check().map_err(|e| refuse(RefusalKind::Invalid, chain(&e), "correct the plan"))?;
        let models = self.product(product)?.models_of(rc);
        if models.is_empty() {
            let what = format!("product {product} has no release {rc}");
            return Err(refuse(RefusalKind::NotFound, what, "publish it with `tern release publish`"));
        }
        let id: RolloutId = "preview".parse().expect("a valid name");
        let salt = Salt(self.random().0);
        let rollout = Rollout::new(id, product.clone(), rc, salt, plan.clone(), models);
        let models: Vec<ModelId> = rollout.models.iter().cloned().collect();
        let shuffle = tern_protocol::position::Shuffle::new(salt);
        let devices =
            self.fleet.devices.iter().filter(|(_, d)| d.is_active() && d.registry.product == *product);
        let places = phase::places(plan, &models, &shuffle, devices.map(|(id, d)| (id, &d.registry)));
        let fleet = places.len() as u64;
        let reserve = reserve(&rollout, &places);
        let (mut before, mut included) = (std::collections::BTreeMap::new(), 0);
        let mut previews = Vec::new();
        for (number, step) in plan.phases.iter().enumerate() {
            let end = match (step.reach, reserve) {
                (Reach::All, _) | (_, None) => places.len(),
                (_, Some(reserve)) => places.partition_point(|place| place.position < reserve),
            };
            let open = &places[..end];
            let named = |place: &&phase::Place| {
                let device = self.fleet.devices.get(&place.device);
                step.list.contains(&place.device)
                    || device.is_some_and(|device| step.tags.iter().any(|tag| device.tags.contains(tag)))
            };
            let named = if step.names() { places.iter().filter(named).count() as u64 } else { 0 };
            let goal = phase::goal(plan, number, (open, fleet), &rollout.models, &before);
            let messages = phase::new_cohorts(open, &before, &goal.cuts).len();
            let held = if reserve.is_some() { plan.hold_back.size(fleet, number, goal.devices) } else { 0 };
            let devices = goal.devices + named;
            previews.push(PhasePreview {
                phase: step.clone(),
                devices,
                cohort_messages: messages as u64,
                waves: plan.waves.sizes(devices, included),
                held_back: held,
            });
            included += devices;
            before = goal.cuts;
        }
        Ok(previews)
    }
}

/// What one phase of a plan would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhasePreview {
    /// The phase.
    #[serde(flatten)]
    pub phase: Phase,
    /// Devices that it newly includes.
    pub devices: u64,
    /// Cohort messages that it takes.
    pub cohort_messages: u64,
    /// Devices of each of its waves.
    #[serde(default)]
    pub waves: Vec<u64>,
    /// Devices that are held back beside it.
    #[serde(default)]
    pub held_back: u64,
}
