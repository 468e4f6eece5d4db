//! What a plan would do, worked out without doing it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ModelId, ProductId, RolloutId};
use tern_protocol::position::Salt;

use super::Service;
use super::command::{Refusal, RefusalKind, chain, refuse};
use super::start::{pooled, reserve};
use crate::core::rollout::baseline::Baseline;
use crate::core::rollout::detect::{Detectable, detectable};
use crate::core::rollout::phase;
use crate::core::rollout::plan::{Phase, Plan, Reach};
use crate::core::rollout::record::Rollout;

impl Service {
    /// Returns the failure rate of the release that a rollout is measured by, over all models; nothing is known: `None`.
    pub fn usual_rate(&self, product: &ProductId, plan: &Plan) -> Option<f64> {
        usual_rate(&self.baseline(product, plan))
    }

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
        self.unless_unknown(plan)?;
        let id: RolloutId = "preview".parse().expect("a valid name");
        let salt = Salt(self.random().0);
        let rollout = Rollout::new(id, product.clone(), rc, salt, plan.clone(), models);
        let models: Vec<ModelId> = rollout.models.iter().cloned().collect();
        let shuffle = tern_protocol::position::Shuffle::new(salt);
        let devices =
            self.fleet.devices.iter().filter(|(_, d)| d.is_active() && d.registry.product == *product);
        let places = phase::places(plan, &models, &shuffle, devices.map(|(id, d)| (id, &d.registry)));
        let fleet = places.len() as u64;
        let baseline = self.baseline(product, plan);
        affordable(plan, &baseline, fleet)?;
        let usual = usual_rate(&baseline);
        let pooled = pooled(&places);
        let strata: BTreeSet<Option<&ModelId>> =
            places.iter().map(|place| (!pooled.contains(&place.model)).then_some(&place.model)).collect();
        let reserve = reserve(&rollout, &places);
        let (mut before, mut included, mut begins) = (BTreeMap::new(), 0, 0);
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
            let waves = plan.waves.sizes(devices, included);
            let opens = if devices > 0 { opens(plan, &waves, begins) } else { Vec::new() };
            included += devices;
            if let Some(last) = opens.last() {
                let wave = waves.last().copied().unwrap_or(0);
                begins = last + paced(plan, wave) + step.rule.soak.as_secs();
            }
            previews.push(PhasePreview {
                phase: step.clone(),
                devices,
                cohort_messages: messages as u64,
                waves,
                held_back: held,
                detects: detectable(&plan.policy, fleet, included, strata.len() as u64, usual),
                opens,
                ends: begins,
            });
            before = goal.cuts;
        }
        Ok(previews)
    }
}

/// Refuses a budget that a release as good as the last one would spend.
pub(super) fn affordable(
    plan: &Plan,
    baseline: &BTreeMap<ModelId, Baseline>,
    fleet: u64,
) -> Result<(), Refusal> {
    let (Some(budget), Some(usual)) = (plan.policy.harm_budget, usual_rate(baseline)) else { return Ok(()) };
    let expected = usual * fleet as f64;
    if budget as f64 >= expected {
        return Ok(());
    }
    let what = format!(
        "a harm budget of {budget} devices is below the {expected:.0} of {fleet} on which a release as good as the last \
         one fails"
    );
    Err(refuse(RefusalKind::Invalid, what, "give a larger one, or none"))
}

/// Returns the failure rate of the last good release, over all models.
fn usual_rate(baseline: &BTreeMap<ModelId, Baseline>) -> Option<f64> {
    let sum = baseline.values().copied().reduce(|mut a, b| {
        a += b;
        a
    });
    sum.and_then(|sum| sum.seen())
}

/// Returns when each wave opens at the earliest, in seconds after the start.
fn opens(plan: &Plan, waves: &[u64], begins: u64) -> Vec<u64> {
    let pause = plan.waves.pause(&plan.policy).as_secs();
    let mut at = begins;
    let open = waves.iter().map(|devices| {
        let opens = at;
        at = at.saturating_add(pause.max(paced(plan, *devices)));
        opens
    });
    open.collect()
}

/// Returns the seconds that a cap takes for so many devices: the last of them begins so long after the first.
fn paced(plan: &Plan, devices: u64) -> u64 {
    let by_rate = plan.rate.map_or(0, |rate| devices.saturating_sub(1) / rate * 3600);
    let soak = plan.policy.device.soak.as_secs();
    let by_places =
        plan.concurrency.map_or(0, |most| (devices.saturating_sub(1) / most).saturating_mul(soak));
    by_rate.max(by_places)
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
    /// When each of its waves opens at the earliest, in seconds after the start.
    #[serde(default)]
    pub opens: Vec<u64>,
    /// When it may be over at the earliest, in seconds after the start.
    #[serde(default)]
    pub ends: u64,
    /// Which rates are detected by its end.
    #[serde(default)]
    pub detects: Detectable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harm_budget_that_a_good_release_would_spend_is_refused_with_the_number() {
        let baseline = BTreeMap::from([("m".parse().unwrap(), Baseline { started: 1000, bad: 10 })]);
        let mut plan = Plan::default();
        let mut asked = |budget| {
            plan.policy.harm_budget = Some(budget);
            affordable(&plan, &baseline, 100_000).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(asked(1000), Ok(()));
        let said = asked(999).unwrap_err();
        assert!(said.contains("999 devices is below the 1000 of 100000"), "{said}");
        assert_eq!(affordable(&Plan::default(), &BTreeMap::new(), 100_000), Ok(()));
    }

    #[test]
    fn waves_open_after_their_pauses_and_a_cap_takes_its_time() {
        let plan = Plan::default();
        let hour = 3600;
        assert_eq!(opens(&plan, &[10, 20, 40], 5), [5, 5 + 2 * hour, 5 + 4 * hour]);
        let slow = Plan { rate: Some(10), ..plan.clone() };
        assert_eq!(opens(&slow, &[10, 40, 50], 0), [0, 2 * hour, 5 * hour]);
        let few = Plan { concurrency: Some(4), ..plan };
        assert_eq!(paced(&few, 41), 10 * 900, "a device takes as long as its soak");
    }
}
