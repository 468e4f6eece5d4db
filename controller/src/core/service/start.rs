//! How a rollout starts, and what makes room for it.

use tern_protocol::id::{ProductId, RegionId, RolloutId};
use tern_protocol::position::Salt;
use tern_protocol::tuf::content::EntryKind;

use super::command::{Outcome, chain, refuse};
use super::{Fact, RefusalKind, Reply, Service};
use crate::core::rollout::phase;
use crate::core::rollout::plan::Plan;
use crate::core::rollout::record::{Rollout, Status};

impl Service {
    pub(super) fn start(
        &mut self,
        id: RolloutId,
        product: ProductId,
        rc: u64,
        attempt: u32,
        plan: Plan,
    ) -> Outcome {
        plan.check().map_err(|e| refuse(RefusalKind::Invalid, chain(&e), "correct the plan"))?;
        if self.fleet.rollouts.contains_key(&id) {
            let what = format!("a rollout {id} exists already");
            return Err(refuse(RefusalKind::Conflict, what, "choose another name with --name"));
        }
        let state = self.product(&product)?;
        if state.halted.contains(&rc) {
            let what = format!("release {rc} was halted and is dead for ever");
            return Err(refuse(RefusalKind::Conflict, what, "publish the same bytes under a new rc"));
        }
        let models = state.models_of(rc);
        if models.is_empty() {
            let what = format!("product {product} has no release {rc}");
            return Err(refuse(RefusalKind::NotFound, what, "publish it with `tern release publish`"));
        }
        let overlap = self.fleet.rollouts.values().find(|r| {
            r.product == product
                && matches!(r.status, Status::Running | Status::Paused)
                && regions_meet(&r.plan.regions, &plan.regions)
        });
        let overlap = overlap.filter(|r| !has_settled(r));
        if let Some(other) = overlap {
            let what = format!("rollout {} is active in the same regions", other.id);
            let hint = format!("see what it waits for with `tern rollout explain {}`, or stop it", other.id);
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        if let Some(why) = self.trouble.get(&product) {
            let what = format!("nothing can be signed for product {product}: {why}");
            return Err(refuse(
                RefusalKind::Unsigned,
                what,
                "mend that and restart the service, then start again",
            ));
        }
        let salt = Salt(self.random().0);
        let preview = Rollout::new(id.clone(), product.clone(), rc, salt, plan.clone(), models);
        let places = self.places(&preview);
        let behind = |place: &phase::Place| {
            self.fleet.devices.get(&place.device).is_some_and(|device| device.running < rc)
        };
        if !places.is_empty() && !places.iter().any(behind) {
            let what = format!("every device that the plan covers runs release {rc} or a newer one already");
            return Err(refuse(RefusalKind::Conflict, what, "nothing is left to do; see `tern device list`"));
        }
        if places.is_empty() {
            let what = format!("no registered device of product {product} is covered by the plan");
            return Err(refuse(RefusalKind::Invalid, what, "see `tern device list`"));
        }
        self.supersede(&id, &product, &plan);
        let kind = EntryKind::Update;
        self.record(Fact::RolloutStarted { rollout: id.clone(), product, rc, kind, attempt, salt, plan });
        let rollout = self.fleet.rollouts.get(&id).cloned().expect("it was recorded just now");
        self.open_phase(&rollout, 0, format!("started by {}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} started") })
    }

    /// Opens the first phase of a rollout whose start was recorded, and the phase not: the power went in between. Nobody
    /// was told that it had started, and without this it would neither go on nor make room for another.
    pub(super) fn complete_starts(&mut self) {
        if self.is_comparing() || !std::mem::take(&mut self.unopened) {
            return;
        }
        let begun = |rollout: &&Rollout| rollout.status == Status::Running && rollout.phases.is_empty();
        let begun: Vec<Rollout> = self.fleet.rollouts.values().filter(begun).cloned().collect();
        for rollout in begun {
            let because = "started; the service ended before it had opened this phase".to_owned();
            self.open_phase(&rollout, 0, because);
        }
    }

    /// A rollout that reaches everybody and has nobody on the way waits only for devices that are away; it must
    /// not hold up what comes after it. It stays as the base, and those devices take whatever is newest.
    fn supersede(&mut self, by: &RolloutId, product: &ProductId, plan: &Plan) {
        let settled: Vec<(RolloutId, String)> = self
            .fleet
            .rollouts
            .values()
            .filter(|r| r.product == *product && r.status == Status::Running && has_settled(r))
            .filter(|r| regions_meet(&r.plan.regions, &plan.regions))
            .map(|r| {
                let (good, covered) = (r.total().good, self.covered(r));
                let rc = r.rc;
                (
                    r.id.clone(),
                    format!("COMPLETE: {good} of {covered} devices on release {rc}; superseded by {by}"),
                )
            })
            .collect();
        for (rollout, because) in settled {
            self.note(format!("rollout {rollout}: {because}"));
            self.record(Fact::Completed { rollout, because });
        }
    }
}

/// Tells whether a rollout reaches everybody and nobody is on the way.
fn has_settled(rollout: &Rollout) -> bool {
    rollout.status == Status::Running && rollout.reaches_all() && rollout.total().pending() == 0
}

fn regions_meet(a: &[RegionId], b: &[RegionId]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|region| b.contains(region))
}
