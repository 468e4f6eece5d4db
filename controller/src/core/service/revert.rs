//! Going back: a rollout of its own that takes devices from a release that was killed to one that is approved.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{RegionId, RolloutId};
use tern_protocol::position::Salt;
use tern_protocol::tuf::content::EntryKind;

use super::command::{Outcome, chain, refuse};
use super::start::pooled;
use super::{Fact, Refusal, RefusalKind, Service};
use crate::core::fleet::device::Device;
use crate::core::rollout::hold_back::HoldBack;
use crate::core::rollout::phase::covers;
use crate::core::rollout::plan::{Approval, Plan};
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::times::Times;

impl Service {
    /// Takes devices back from a release that was killed.
    pub(super) fn revert(
        &mut self,
        killed: &RolloutId,
        name: Option<RolloutId>,
        to: Option<u64>,
        plan: Option<Plan>,
    ) -> Outcome {
        let source = self.rollout(killed)?.clone();
        if source.status != Status::Killed {
            let what = format!("rollout {killed} is not killed");
            let hint =
                format!("devices are taken back from what is dead: `tern rollout kill {killed}` first");
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        let id = name.map_or_else(|| revert_name(killed), Ok)?;
        if self.fleet.rollouts.contains_key(&id) {
            let what = format!("a rollout {id} exists already");
            return Err(refuse(RefusalKind::Conflict, what, "choose another name with --name"));
        }
        let product = source.product.clone();
        let rc = to.or_else(|| self.last_good(&source)).ok_or_else(|| {
            let what =
                format!(
                "no release of product {product} has reached everybody in the regions of rollout {killed} before release {}",
                source.rc
            );
            refuse(RefusalKind::Conflict, what, "say with --to to which release devices should go back")
        })?;
        let state = self.product(&product)?;
        if state.halted.contains(&rc) {
            let what = format!("release {rc} was halted and is dead for ever");
            return Err(refuse(RefusalKind::Conflict, what, "go back to another one with --to"));
        }
        let models = state.models_of(rc);
        if models.is_empty() {
            let what = format!("product {product} lists no release {rc} any more");
            let hint = "publish a release file that names it, or go back to another one with --to";
            return Err(refuse(RefusalKind::NotFound, what, hint));
        }
        // Those who are taken back are few and known: nobody is held back from that.
        let plan = plan.unwrap_or_else(|| {
            // So few devices pass no gate; the tests that stop go on. Its hours were those of another release.
            let mut plan = Plan { times: Times::default(), approval: Approval::None, ..source.plan.clone() };
            plan.phases.iter_mut().for_each(|phase| phase.rule.gate = None);
            // What was started under older rules must not stand in the way of going back.
            let last = &mut plan.policy.silence_deadline.after;
            *last = plan.policy.device.longest().max(*last);
            plan
        });
        let plan = Plan { hold_back: HoldBack::OFF, revert: false, ..plan };
        self.unless_overlapping(&product, &plan)?;
        plan.check().map_err(|e| refuse(RefusalKind::Invalid, chain(&e), "correct the plan"))?;
        let (salt, from) = (Salt(self.random().0), vec![source.rc]);
        let fresh = Rollout::new(id.clone(), product.clone(), rc, salt, plan.clone(), models);
        let places = self.places(&Rollout { from: from.clone(), ..fresh });
        if places.is_empty() {
            let what = format!("no device that the plan covers runs release {}", source.rc);
            let hint = "nobody has to be taken back; see `tern device list`";
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        self.record(Fact::RolloutStarted {
            rollout: id.clone(),
            product,
            rc,
            kind: EntryKind::Revert,
            attempt: 1,
            salt,
            plan,
            starter: self.acting.clone(),
            from,
            baseline: BTreeMap::new(),
            pooled: pooled(&places),
            reserve: None,
        });
        self.begin_rollout(&id)
    }

    /// Starts the reverts that plans ask for, once each.
    pub(super) fn revert_killed(&mut self) {
        let wants = |r: &&Rollout| r.status == Status::Killed && r.kind == EntryKind::Update && r.plan.revert;
        let killed: Vec<Rollout> = self.fleet.rollouts.values().filter(wants).cloned().collect();
        for rollout in killed {
            let id = rollout.id.clone();
            let Ok(name) = revert_name(&id) else { continue };
            let runs = |device: &Device| {
                device.is_active()
                    && device.registry.product == rollout.product
                    && device.running == rollout.rc
            };
            if self.fleet.rollouts.contains_key(&name)
                || self.no_revert.contains(&id)
                || !self.fleet.devices.values().any(runs)
            {
                continue;
            }
            match self.revert(&id, Some(name), None, None) {
                Ok(_) => self.note(format!("rollout {id}: devices that run its release are taken back")),
                Err(refusal) => {
                    let what =
                        format!("rollout {id}: devices that run its release are not taken back: {refusal}");
                    self.step.alarms.push(what);
                    self.no_revert.insert(id);
                }
            }
        }
    }

    /// Returns the release that reached everybody last before a rollout, wherever that one was: by one rollout for all its
    /// regions, or by one for each.
    pub(super) fn last_good(&self, source: &Rollout) -> Option<u64> {
        let halted = self.fleet.products.get(&source.product).map(|product| &product.halted);
        let done = |r: &&Rollout| {
            r.product == source.product
                && r.status == Status::Completed
                && r.kind == EntryKind::Update
                && r.reaches_all()
                && r.order < source.order
                && r.rc != source.rc
                && halted.is_none_or(|halted| !halted.contains(&r.rc))
                && within(&source.plan.models, &r.plan.models)
                && within(&source.plan.carriers, &r.plan.carriers)
        };
        let mut done: Vec<&Rollout> = self.fleet.rollouts.values().filter(done).collect();
        done.sort_by_key(|r| std::cmp::Reverse(r.order));
        let models: Vec<_> = source.models.iter().cloned().collect();
        let theirs = self.fleet.devices.values().filter(|device| {
            device.registry.product == source.product && covers(&source.plan, &models, &device.registry)
        });
        let regions: BTreeSet<&RegionId> = theirs.map(|device| &device.registry.region).collect();
        let everywhere = |rc: u64| {
            regions.iter().all(|region| {
                done.iter()
                    .any(|r| r.rc == rc && (r.plan.regions.is_empty() || r.plan.regions.contains(region)))
            })
        };
        done.iter().map(|r| r.rc).find(|rc| everywhere(*rc))
    }
}

/// Tells whether what a plan names is among what another names; to name nothing means everything.
fn within<T: PartialEq>(narrow: &[T], wide: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|name| wide.contains(name)))
}

/// Returns what a revert is called that nobody has named.
fn revert_name(killed: &RolloutId) -> Result<RolloutId, Refusal> {
    format!("{killed}-revert").parse().map_err(|_| {
        let what = format!("the name of rollout {killed} leaves no room for \"-revert\"");
        refuse(RefusalKind::Invalid, what, "give the revert a name with --name")
    })
}
