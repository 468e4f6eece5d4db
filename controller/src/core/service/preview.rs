//! What a plan would do, worked out without doing it.

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ModelId, ProductId, RolloutId};
use tern_protocol::position::Salt;

use super::Service;
use super::command::{Refusal, RefusalKind, chain, refuse};
use crate::core::rollout::phase;
use crate::core::rollout::plan::{Phase, Plan};
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
        let mut before = std::collections::BTreeMap::new();
        let mut previews = Vec::new();
        for step in &plan.phases {
            let cuts = phase::cuts(step.reach, &places, &rollout.models, &before);
            let new =
                places.iter().filter(|p| phase::includes(&cuts, p) && !phase::includes(&before, p)).count();
            let messages = phase::new_cohorts(&places, &before, &cuts).len();
            previews.push(PhasePreview {
                phase: step.clone(),
                devices: new as u64,
                cohort_messages: messages as u64,
            });
            before = cuts;
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
}
