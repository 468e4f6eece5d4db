//! How a rollout starts, and what makes room for it.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{ModelId, ProductId, RolloutId, TagId};
use tern_protocol::limits::ENTRIES_MAX;
use tern_protocol::position::{Position, Salt};
use tern_protocol::tuf::content::EntryKind;

use super::command::{Outcome, chain, refuse};
use super::preview::affordable;
use super::{Fact, Refusal, RefusalKind, Reply, Service};
use crate::core::rollout::baseline::Baseline;
use crate::core::rollout::plan::{Plan, meet};
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::{hold_back, phase};

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
        self.unless_unknown(&plan)?;
        self.unless_overlapping(&product, &plan)?;
        self.unless_crowded(&product, &plan)?;
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
        let baseline = self.baseline(&product, &plan);
        affordable(&plan, &baseline, places.len() as u64)?;
        self.supersede(&id, &product, &plan);
        let kind = EntryKind::Update;
        let (pooled, reserve) = (pooled(&places), reserve(&preview, &places));
        self.record(Fact::RolloutStarted {
            rollout: id.clone(),
            product,
            rc,
            kind,
            attempt,
            salt,
            plan,
            starter: self.acting.clone(),
            from: Vec::new(),
            baseline,
            pooled,
            reserve,
        });
        self.begin_rollout(&id)
    }

    /// Refuses a plan that names devices or tags which nobody has: mistyped, their phase would be passed over in silence.
    pub(super) fn unless_unknown(&self, plan: &Plan) -> Result<(), Refusal> {
        let mut named = plan.phases.iter().flat_map(|phase| &phase.list);
        if let Some(unknown) = named.find(|id| !self.fleet.devices.contains_key(id)) {
            let what = format!("no device {unknown}, with which the plan begins");
            return Err(refuse(RefusalKind::NotFound, what, "nothing was started; see `tern device list`"));
        }
        let mut tags = plan.phases.iter().flat_map(|phase| &phase.tags);
        let has = |tag: &TagId| self.fleet.devices.values().any(|device| device.tags.contains(tag));
        let Some(unknown) = tags.find(|tag| !has(tag)) else { return Ok(()) };
        let what = format!("no device has the tag {unknown}, with which the plan begins");
        let hint = format!("nothing was started; give it to some with `tern device tag {unknown} DEVICE…`");
        Err(refuse(RefusalKind::NotFound, what, hint))
    }

    /// Refuses what meets an active rollout. One that takes devices back and is paused cannot be killed, and is in nobody's
    /// way.
    pub(super) fn unless_overlapping(&self, product: &ProductId, plan: &Plan) -> Result<(), Refusal> {
        let in_the_way = |r: &&Rollout| {
            let stands = match r.status {
                Status::Running => !self.fleet.makes_room(r, self.now),
                Status::Paused => r.kind != EntryKind::Revert,
                Status::Killed | Status::Completed => false,
            };
            stands && r.product == *product && meet(&r.plan.regions, &plan.regions)
        };
        let Some(other) = self.fleet.rollouts.values().find(in_the_way) else { return Ok(()) };
        let what = format!("rollout {} is active in the same regions", other.id);
        let hint = format!("see what it waits for with `tern rollout explain {}`, or stop it", other.id);
        Err(refuse(RefusalKind::Conflict, what, hint))
    }

    /// Refuses one more where it would push another one out of what devices are told: theirs would stop where they are.
    fn unless_crowded(&self, product: &ProductId, plan: &Plan) -> Result<(), Refusal> {
        let ends = |r: &Rollout| self.fleet.makes_room(r, self.now) && r.plan.meets(plan);
        let active = |r: &&Rollout| {
            let active = matches!(r.status, Status::Running | Status::Paused);
            active && r.product == *product && !ends(r)
        };
        let active: Vec<_> = self.fleet.rollouts.values().filter(active).map(|r| r.id.to_string()).collect();
        if active.len() < ENTRIES_MAX {
            return Ok(());
        }
        let what = format!(
            "{ENTRIES_MAX} rollouts of product {product} are active, and devices are told of no more: {}",
            active.join(", ")
        );
        Err(refuse(
            RefusalKind::Conflict,
            what,
            "wait until one has ended, or kill one; or cover more in one rollout",
        ))
    }

    /// Opens the first phase of a rollout that was recorded just now, if nothing has to be waited for.
    pub(super) fn begin_rollout(&mut self, id: &RolloutId) -> Outcome {
        let rollout = self.fleet.rollouts.get(id).cloned().expect("it was recorded just now");
        if let Some(why) = self.waits(&rollout) {
            return Ok(Reply::Done { what: format!("rollout {id} is made; it {why}") });
        }
        self.advance(&rollout, None, format!("started by {}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} started") })
    }

    /// Returns how the last release of a product fared that reached everybody.
    pub(super) fn baseline(&self, product: &ProductId, plan: &Plan) -> BTreeMap<ModelId, Baseline> {
        // A release that reached three devices of one region says nothing about the others.
        let whole = |r: &Rollout| {
            let theirs = &r.plan;
            (theirs.regions.is_empty() || theirs.regions == plan.regions)
                && (theirs.carriers.is_empty() || theirs.carriers == plan.carriers)
        };
        let done = |r: &&Rollout| {
            let done = r.status == Status::Completed && r.reaches_all();
            r.product == *product && done && r.kind == EntryKind::Update && whole(r)
        };
        let last = self.fleet.rollouts.values().filter(done).max_by_key(|r| r.order);
        let mut baselines: BTreeMap<ModelId, Baseline> = BTreeMap::new();
        for (model, counts) in last.into_iter().flat_map(|r| &r.phases).flat_map(|phase| &phase.counts) {
            *baselines.entry(model.clone()).or_default() += Baseline::of(counts);
        }
        baselines.retain(|_, baseline| baseline.seen().is_some());
        baselines
    }

    /// A rollout that reaches everybody and has nobody on the way waits only for devices that are away; it must
    /// not hold up what comes after it. It stays as the base, and those devices take whatever is newest. One that stays as it
    /// is since its time is over waits for nothing at all.
    fn supersede(&mut self, by: &RolloutId, product: &ProductId, plan: &Plan) {
        let settled: Vec<(RolloutId, String)> = self
            .fleet
            .rollouts
            .values()
            .filter(|r| r.product == *product && self.fleet.makes_room(r, self.now))
            .filter(|r| r.plan.meets(plan))
            .map(|r| {
                let (good, covered) = (r.total().good, self.covered(r));
                let rc = r.rc;
                let over = if r.reaches_all() { "" } else { "its time is over; " };
                let because = format!(
                    "COMPLETE: {over}{good} of {covered} devices on release {rc}; superseded by {by}"
                );
                (r.id.clone(), because)
            })
            .collect();
        for (rollout, because) in settled {
            self.note(format!("rollout {rollout}: {because}"));
            self.record(Fact::Completed { rollout, because });
        }
    }
}

/// Fewer covered devices of a model are judged together with those of other such models.
const STRATUM_MIN: u64 = 20;

/// Returns the models that a rollout covers few devices of.
pub(super) fn pooled(places: &[phase::Place]) -> BTreeSet<ModelId> {
    let mut counts: BTreeMap<&ModelId, u64> = BTreeMap::new();
    for place in places {
        *counts.entry(&place.model).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count < STRATUM_MIN).map(|(model, _)| model.clone()).collect()
}

/// Returns from where on positions are kept for the control, in whichever phase it is largest.
pub(super) fn reserve(rollout: &Rollout, places: &[phase::Place]) -> Option<Position> {
    let (plan, fleet) = (&rollout.plan, places.len() as u64);
    let canary = phase::goal(plan, 0, (places, fleet), &rollout.models, &BTreeMap::new()).devices;
    let largest = (0..plan.phases.len()).map(|phase| plan.hold_back.size(fleet, phase, canary)).max();
    hold_back::from(places, largest.unwrap_or(0))
}
