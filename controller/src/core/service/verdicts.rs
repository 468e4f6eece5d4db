//! From evidence to moves: widen, pause, kill, complete. Every move is a fact with its reason.

use std::collections::BTreeSet;

use tern_protocol::id::RolloutId;
use tern_protocol::tuf::content::EntryKind;

use super::{Fact, Service};
use crate::core::fleet::device::Device;
use crate::core::rollout::judgement::Judgement;
use crate::core::rollout::outlook::Outlook;
use crate::core::rollout::phase;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::verdict::Verdict;

impl Service {
    /// Judges every rollout that this step touched.
    pub(super) fn decide(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            self.decide_one(&id);
        }
    }

    fn decide_one(&mut self, id: &RolloutId) {
        let Some(rollout) = self.fleet.rollouts.get(id).filter(|r| !r.phases.is_empty()).cloned() else {
            return;
        };
        if !matches!(rollout.status, Status::Running | Status::Paused) {
            return;
        }
        let covered = self.covered(&rollout);
        self.covered.insert(id.clone(), covered);
        let observed = self.fleet.reception.observed(self.now);
        let named = self.fleet.named(&rollout);
        let mut judgement = rollout.judgement_with(covered, observed, named);
        self.look_for_outage(id, &judgement.verdict);
        if let Some(softened) = self.fleet.rollouts.get(id).filter(|now| now.outage != rollout.outage) {
            judgement = softened.judgement_with(covered, observed, named);
        }
        let because = judgement.to_string();
        match judgement.verdict {
            // Stopping never waits for anybody, and a pause does not protect from a kill.
            Verdict::Kill(_) => self.kill(id, because),
            Verdict::Pause(_) if rollout.status == Status::Running => {
                self.note(format!("rollout {id}: {because}"));
                self.record(Fact::Paused { rollout: id.clone(), because });
            }
            Verdict::Advance(_) if rollout.status == Status::Running => self.widen(&rollout, because),
            _ => {}
        }
        self.complete(id);
    }

    /// Judges a rollout as it stands.
    pub fn judge(&self, rollout: &Rollout) -> Judgement {
        let observed = self.fleet.reception.observed(self.now);
        rollout.judgement_with(self.covered(rollout), observed, self.fleet.named(rollout))
    }

    /// Returns what each of its tests has, and what would decide it.
    pub fn outlook(&self, rollout: &Rollout) -> Vec<Outlook> {
        rollout.outlook(self.covered(rollout), self.fleet.reception.observed(self.now))
    }

    /// Returns how many devices a rollout covers.
    pub fn covered(&self, rollout: &Rollout) -> u64 {
        if let Some(known) = self.covered.get(&rollout.id) {
            return *known;
        }
        self.fleet.covered(rollout)
    }

    pub(super) fn kill(&mut self, id: &RolloutId, because: String) {
        self.note(format!("rollout {id}: {because}"));
        // Signing follows in the same step; a restart in between completes it before any report is read.
        self.record(Fact::Killed { rollout: id.clone(), because });
    }

    /// A rollout that reaches everybody is complete when every device that it covers has come to an end.
    fn complete(&mut self, id: &RolloutId) {
        let Some(rollout) = self.fleet.rollouts.get(id) else { return };
        if rollout.status != Status::Running || !rollout.reaches_all() || rollout.total().good == 0 {
            return;
        }
        // Looking at every device is dear: only when nobody is on the way.
        if rollout.total().pending() > 0 {
            return;
        }
        let models: BTreeSet<_> = rollout.models.iter().collect();
        let covered: Vec<_> = rollout.models.iter().cloned().collect();
        let over = |d: &Device| match d.attempts.get(id) {
            attempt if rollout.kind == EntryKind::Revert => {
                let over = attempt.is_some_and(|attempt| attempt.outcome.is_some() || attempt.is_silent());
                over || !rollout.concerns(d.running)
            }
            // A trial says hello from the new release too; only its outcome ends it.
            // After a restore that outcome may be lost: then what it runs is all that there is.
            Some(attempt) if attempt.lost => d.running >= rollout.rc,
            Some(attempt) => attempt.outcome.is_some() || attempt.is_silent() || d.running > rollout.rc,
            None => d.running >= rollout.rc,
        };
        let is_open = |d: &Device| {
            d.is_active()
                && d.registry.product == rollout.product
                && models.contains(&d.registry.model)
                && phase::covers(&rollout.plan, &covered, &d.registry)
                && !over(d)
        };
        // One that is known to be open suffices.
        if self.held_up.get(id).and_then(|one| self.fleet.devices.get(one)).is_some_and(is_open) {
            return;
        }
        if let Some((one, _)) = self.fleet.devices.iter().find(|(_, device)| is_open(device)) {
            self.held_up.insert(id.clone(), one.clone());
            return;
        }
        let total = rollout.total();
        let bad = total.confirmed_bad();
        let because = format!(
            "COMPLETE: {} of {} devices on release {}, {bad} bad",
            total.good, total.started, rollout.rc
        );
        self.note(format!("rollout {id}: {because}"));
        self.record(Fact::Completed { rollout: id.clone(), because });
    }
}
