//! Going back: a rollout of its own that takes devices from a release that was killed to one that is approved.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{RegionId, RolloutId};
use tern_protocol::message::ReportKind;
use tern_protocol::position::Salt;
use tern_protocol::tuf::content::EntryKind;

use super::command::{Outcome, chain, refuse};
use super::start::pooled;
use super::{Fact, Refusal, RefusalKind, Service};
use crate::core::fleet::device::Device;
use crate::core::rollout::hold_back::HoldBack;
use crate::core::rollout::phase::covers;
use crate::core::rollout::plan::{Approval, PHASES_MAX, Phase, Plan, Reach, meet};
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
        plan.as_ref().map_or(Ok(()), |plan| self.unless_unknown(plan))?;
        let plan = Plan {
            hold_back: HoldBack::OFF,
            revert: false,
            ..plan.unwrap_or_else(|| way_back(&source.plan))
        };
        let there = Rollout { plan: plan.clone(), ..source.clone() };
        let rc = to.or_else(|| self.last_good(&there)).ok_or_else(|| {
            let what =
                format!(
                "no release of product {product} has reached everybody in the regions of rollout {killed} before release {}",
                source.rc
            );
            refuse(RefusalKind::Conflict, what, ANEW)
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
        self.unless_untried(&there, rc)?;
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

    /// Tells whether a device may have said just now that it runs what a plan wants to take back.
    pub(super) fn needs_way_back(&self, report: &ReportKind) -> bool {
        let running = match report {
            ReportKind::Hello(hello) => hello.running,
            ReportKind::Outcome { attempt, .. } => attempt.rc,
            _ => return false,
        };
        self.fleet.rollouts.values().any(|rollout| rollout.rc == running && wants_way_back(rollout))
    }

    /// Starts the reverts that plans ask for, once each. Looking at every device is dear: only when one may have come to
    /// run such a release.
    pub(super) fn revert_killed(&mut self) {
        if !std::mem::take(&mut self.look_back) {
            return;
        }
        let wants = |r: &&Rollout| wants_way_back(r) && !self.is_taken_back(r);
        let killed: Vec<Rollout> = self.fleet.rollouts.values().filter(wants).cloned().collect();
        for rollout in killed {
            let id = rollout.id.clone();
            let models: Vec<_> = rollout.models.iter().cloned().collect();
            let runs = |device: &Device| {
                device.is_active()
                    && device.registry.product == rollout.product
                    && device.running == rollout.rc
                    && covers(&rollout.plan, &models, &device.registry)
            };
            if !self.fleet.devices.values().any(runs) {
                continue;
            }
            match self.revert(&id, None, None, None) {
                Ok(_) => self.note(format!("rollout {id}: devices that run its release are taken back")),
                Err(refusal) => {
                    let what =
                        format!("rollout {id}: devices that run its release are not taken back: {refusal}");
                    self.step.alarms.push(what);
                    // Months later nobody expects it to be tried again.
                    self.record(Fact::RevertRefused { rollout: id, because: refusal.to_string() });
                }
            }
        }
    }

    /// Tells whether somebody takes, or took, devices back from a rollout's release, under whatever name.
    fn is_taken_back(&self, killed: &Rollout) -> bool {
        self.fleet.rollouts.values().any(|r| {
            r.kind == EntryKind::Revert
                && r.product == killed.product
                && r.from.contains(&killed.rc)
                && meet(&r.plan.regions, &killed.plan.regions)
        })
    }

    /// Returns the release that reached everybody last before a rollout, wherever that one was: by one rollout for all its
    /// regions, or by one for each.
    pub(super) fn last_good(&self, source: &Rollout) -> Option<u64> {
        let halted = self.fleet.products.get(&source.product).map(|product| &product.halted);
        let alive = |rc: &u64| halted.is_none_or(|halted| !halted.contains(rc));
        self.proven(source).into_iter().find(alive)
    }

    /// Refuses to go back to what nobody has tried: a rollout that takes back cannot be killed.
    fn unless_untried(&self, there: &Rollout, rc: u64) -> Result<(), Refusal> {
        let killed = there.rc;
        if rc >= killed {
            let what = format!("release {rc} is not older than release {killed}, which was killed");
            return Err(refuse(
                RefusalKind::Conflict,
                what,
                "a newer one is started with `tern rollout start`",
            ));
        }
        if self.proven(there).contains(&rc) {
            return Ok(());
        }
        let what = format!(
            "no rollout of release {rc} has reached everybody there before release {killed}, and one that takes devices \
             back cannot be killed"
        );
        let hint = match self.last_good(there) {
            Some(good) => format!("go back to release {good} by leaving out --to, or {ANEW}"),
            None => ANEW.to_owned(),
        };
        Err(refuse(RefusalKind::Conflict, what, hint))
    }

    /// Returns the older releases that reached everybody before a rollout where that one was, the last first.
    fn proven(&self, source: &Rollout) -> Vec<u64> {
        let done = |r: &&Rollout| {
            r.product == source.product
                && r.status == Status::Completed
                && r.kind == EntryKind::Update
                && r.reaches_all()
                && r.order < source.order
                && r.rc < source.rc
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
        done.iter().map(|r| r.rc).filter(|rc| everywhere(*rc)).collect()
    }
}

/// What to do when there is no way back.
const ANEW: &str =
    "publish the bytes that you trust under a new rc, and start that with `tern rollout start`";

/// Tells whether a kill is to be followed by a revert that nobody has refused yet.
fn wants_way_back(rollout: &Rollout) -> bool {
    let killed = rollout.status == Status::Killed && rollout.kind == EntryKind::Update;
    killed && rollout.plan.revert && !rollout.revert_refused
}

/// Makes the plan of a way back from the killed one's.
fn way_back(killed: &Plan) -> Plan {
    // So few devices pass no gate; the tests that stop go on. Its hours were those of another release.
    let mut plan = Plan { times: Times::default(), approval: Approval::None, ..killed.clone() };
    plan.phases.iter_mut().for_each(|phase| phase.rule.gate = None);
    // Everybody goes back who has the release, however far its plan would have taken it.
    if let Some(last) = plan.phases.last().filter(|last| last.reach != Reach::All) {
        let rule = last.rule.clone();
        plan.phases.truncate(PHASES_MAX - 1);
        plan.phases.push(Phase::new(Reach::All, rule));
    }
    // What was started under older rules must not stand in the way of going back.
    let last = &mut plan.policy.silence_deadline.after;
    *last = plan.policy.device.longest().max(*last);
    plan
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
