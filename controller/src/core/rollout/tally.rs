//! What a rollout's devices did, counted into its phases: for people, and for the series that is judged.

use std::collections::BTreeSet;

use tern_protocol::id::ModelId;
use tern_protocol::state::Outcome;

use super::counts::Counts;
use super::paired::Side;
use super::record::Rollout;
use super::silence::Deadline;
use crate::core::fact::Millis;

impl Rollout {
    /// Counts a device's start in the phase that included it; returns that it is the how-many-th of its model, or 0 if the
    /// hard stop does not look so far.
    pub fn count_start(&mut self, model: &ModelId, phase: usize) -> u64 {
        let series = self.series;
        self.count(model, phase, series, |counts| counts.started += 1);
        let rank = self.first.entry(model.clone()).or_default();
        *rank += 1;
        if self.plan.policy.hard_stop.is_some_and(|stop| *rank <= stop.first) { *rank } else { 0 }
    }

    /// Counts another start of a device that has started in this series before. It keeps its place: one that begins, defers
    /// and begins again must not use up those that the hard stop looks at.
    pub fn count_start_again(&mut self, model: &ModelId, phase: usize) {
        self.count(model, phase, self.series, |counts| counts.started += 1);
    }

    /// Counts a device's outcome. It was the `rank`-th of its model to start, in `series`.
    pub fn count_outcome(
        &mut self,
        model: &ModelId,
        phase: usize,
        (series, rank): (u32, u64),
        outcome: Outcome,
    ) {
        let bad = matches!(outcome, Outcome::Failed | Outcome::RolledBack);
        if bad && series == self.series && rank > 0 {
            *self.first_bad.entry(model.clone()).or_default() += 1;
        }
        self.count(model, phase, series, |counts| *counts.ended(outcome) += 1);
    }

    /// Takes an outcome back that was counted: a report that had been overtaken shows that the start before it was
    /// taken back.
    pub fn uncount_outcome(
        &mut self,
        model: &ModelId,
        phase: usize,
        (series, rank): (u32, u64),
        outcome: Outcome,
    ) {
        let bad = matches!(outcome, Outcome::Failed | Outcome::RolledBack);
        if bad && series == self.series && rank > 0 {
            let first = self.first_bad.entry(model.clone()).or_default();
            *first = first.saturating_sub(1);
        }
        let less = |counts: &mut Counts| {
            let ended = counts.ended(outcome);
            *ended = ended.saturating_sub(1);
        };
        self.count(model, phase, series, less);
    }

    /// Counts what a silence deadline found of either arm, at a time on the clock of reception; of the treated one
    /// `bad` includes those that reached nobody.
    pub fn compare(
        &mut self,
        model: &ModelId,
        deadline: Deadline,
        (side, bad): (Side, bool),
        observed: Millis,
    ) {
        if self.held_from.is_some() || self.control.contains_key(model) {
            let control = self.control.entry(model.clone()).or_default();
            control.due(deadline, side, bad, observed, &self.plan.policy);
        }
    }

    /// Counts how a device of either arm fared in a window, at a time on the clock of reception.
    pub fn compare_health(
        &mut self,
        model: &ModelId,
        side: Side,
        crashed: bool,
        drain: Option<u64>,
        observed: Millis,
    ) {
        let policy = &self.plan.policy;
        let control = self.control.entry(model.clone()).or_default();
        control.fared(side, crashed, drain, observed, policy);
    }

    /// Counts what a silence deadline found of a device that started in `series`.
    pub fn count_deadline(
        &mut self,
        model: &ModelId,
        phase: usize,
        series: u32,
        deadline: Deadline,
        silent: bool,
    ) {
        self.count(model, phase, series, |counts| {
            let (due, found) = match deadline {
                Deadline::Early => (&mut counts.due_early, &mut counts.silent_early),
                Deadline::Last => (&mut counts.due, &mut counts.silent),
            };
            *due += 1;
            *found += u64::from(silent);
        });
    }

    /// Counts for people, and for the present series if the device started in it.
    fn count(&mut self, model: &ModelId, phase: usize, series: u32, add: impl Fn(&mut Counts)) {
        let last = self.phases.len().saturating_sub(1);
        let phase = &mut self.phases[phase.min(last)];
        add(phase.counts.entry(model.clone()).or_default());
        if series == self.series {
            add(phase.judged.entry(model.clone()).or_default());
        }
    }

    /// A device is no longer beside the others.
    pub fn leave_control(&mut self, model: &ModelId) {
        if let Some(control) = self.control.get_mut(model) {
            control.held = control.held.saturating_sub(1);
        }
    }

    /// Returns what the present series judges of one model, over all phases.
    pub(super) fn judged_of(&self, model: &ModelId) -> Counts {
        self.phases.iter().filter_map(|phase| phase.judged.get(model)).fold(Counts::default(), |a, b| a + *b)
    }

    /// Returns the counters of all models over all phases.
    pub fn total(&self) -> Counts {
        self.phases.iter().flat_map(|phase| phase.counts.values()).fold(Counts::default(), |a, b| a + *b)
    }

    /// Returns how many strata share the budget of false alarms: those that the first phase knew. The shares are given out
    /// once: if each new model that starts took from the others, those would have spent more than is left.
    pub fn shares(&self) -> u64 {
        let known =
            self.phases.first().into_iter().flat_map(|phase| phase.cuts.keys().chain(phase.goal.keys()));
        let judged = self.phases.iter().flat_map(|phase| phase.judged.keys());
        let strata: BTreeSet<Option<&ModelId>> =
            known.chain(judged).map(|model| (!self.pooled.contains(model)).then_some(model)).collect();
        strata.len() as u64
    }
}
