//! What a rollout's counters add up to: kills and pauses by stratum, the gate over the whole phase.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tern_protocol::id::ModelId;
use tern_protocol::tuf::content::EntryKind;

use super::baseline::Baseline;
use super::control::Control;
use super::counts::Counts;
use super::evidence::PairEvidence;
use super::gate::{Observed, Pairs, Wave, judge, judge_together};
use super::paired::Pace;
use super::policy::PhaseRule;
use super::record::{PhaseRecord, Rollout};
use super::verdict::{HoldReason, KillReason, PauseReason, Verdict};
use crate::core::fact::Millis;

/// A verdict, and whom it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What should happen.
    pub verdict: Verdict,
    /// "model=B3" where one of several strata decided, "all models" where they did together; empty where all of it did.
    pub subject: String,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.verdict.explain(&self.subject))
    }
}

/// Whom a verdict is about that all strata have come to together.
pub(super) const EVERYBODY: &str = "all models";

/// Devices that a phase includes by name and nobody else, of whom no start was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Named {
    /// Those of them that run the release already: nothing will come from them.
    pub running: u64,
    /// None of the phase was heard since it opened.
    pub away: bool,
}

/// A hardware model, or all those together that a rollout has few devices of.
pub(super) type Stratum<'a> = Option<&'a ModelId>;

impl Rollout {
    /// Judges the rollout. `fleet`: devices that the plan covers; `observed`: the clock of reception.
    pub fn judge(&self, fleet: u64, observed: Millis) -> Verdict {
        self.judgement(fleet, observed).verdict
    }

    /// The same, and which stratum it was that decided; nothing is known of devices by name that have not started.
    pub fn judgement(&self, fleet: u64, observed: Millis) -> Judgement {
        self.judgement_with(fleet, observed, Named::default())
    }

    /// The same, with what is known of the devices that the present phase includes by name.
    pub fn judgement_with(&self, fleet: u64, observed: Millis, named: Named) -> Judgement {
        if self.phases.is_empty() {
            return Judgement { verdict: Verdict::Hold(HoldReason::NothingStarted), subject: String::new() };
        }
        let (rule, record) = self.present();
        let strata = self.strata();
        let common = self.common(record, fleet, observed);
        // What one stratum is paused for must not hide that another is to be killed.
        let mut paused = None;
        for (stratum, models) in &strata {
            let seen = self.seen(models, record, observed, &common);
            let verdict = self.softened(judge(&self.plan.policy, rule, &seen), &seen);
            let judgement =
                || Judgement { verdict: verdict.clone(), subject: subject(*stratum, strata.len()) };
            match verdict {
                Verdict::Kill(_) => return judgement(),
                Verdict::Pause(_) => paused = paused.or_else(|| Some(judgement())),
                _ => {}
            }
        }
        if common.together && strata.len() > 1 {
            let models: Vec<&ModelId> = strata.values().flatten().copied().collect();
            let seen = self.seen(&models, record, observed, &common);
            if let Some(verdict) = judge_together(&self.plan.policy, &seen) {
                let verdict = self.softened(verdict, &seen);
                let judgement = Judgement { verdict, subject: EVERYBODY.to_owned() };
                if matches!(judgement.verdict, Verdict::Kill(_)) {
                    return judgement;
                }
                paused = paused.or(Some(judgement));
            }
        }
        if let Some(paused) = paused {
            return paused;
        }
        // The tests above have spent the budget; here only the gate speaks.
        let mut seen = self.seen_by_gate(record, observed, common);
        seen.spent += named.running;
        seen.away = named.away;
        Judgement { verdict: judge(&self.plan.policy, rule, &seen), subject: String::new() }
    }

    /// Returns what the present phase asks for, and what is recorded of it. There must be one.
    pub(super) fn present(&self) -> (&PhaseRule, &PhaseRecord) {
        let phase = self.phase();
        (&self.plan.phases[phase.min(self.plan.phases.len() - 1)].rule, &self.phases[phase])
    }

    /// Returns what is the same for every stratum.
    pub(super) fn common(&self, record: &PhaseRecord, fleet: u64, observed: Millis) -> Observed {
        Observed {
            fleet,
            strata: self.shares(),
            // From the first phase to the end, whether or not the control is there still: shares do not change midway.
            together: self.shares() > 1 && (self.held_from.is_some() || self.let_go),
            devices: record.devices,
            soaked: Duration::from_millis(observed.saturating_sub(record.observed)),
            control_waits: self.only_control_waits().then(|| self.plan.waves.patience(&self.plan.policy)),
            outage: self.outage,
            ..Observed::default()
        }
    }

    /// Returns what the gate looks at: the phase over all models.
    pub(super) fn seen_by_gate(&self, record: &PhaseRecord, observed: Millis, common: Observed) -> Observed {
        let fresh = record.judged.values().fold(Counts::default(), |a, b| a + *b);
        let ever = record.counts.values().fold(Counts::default(), |a, b| a + *b);
        let spent = ever.judged().saturating_sub(fresh.judged());
        Observed { fresh, spent, wave: self.wave(record, ever, observed), ..common }
    }

    /// The release that a revert goes back to is an approved one: whatever its devices say, it is not halted, and a person
    /// looks.
    fn softened(&self, verdict: Verdict, seen: &Observed) -> Verdict {
        match verdict {
            Verdict::Kill(reason) if self.kind == EntryKind::Revert => Verdict::Pause(match reason {
                KillReason::Evidence(evidence) => PauseReason::Evidence(evidence),
                KillReason::HardStop { bad, .. } => {
                    PauseReason::FirstBad { bad, started: seen.total.judged() }
                }
            }),
            verdict => verdict,
        }
    }

    pub(super) fn seen(
        &self,
        models: &[&ModelId],
        record: &PhaseRecord,
        observed: Millis,
        common: &Observed,
    ) -> Observed {
        let sum = |of: &dyn Fn(&ModelId) -> Counts| {
            models.iter().map(|model| of(model)).fold(Counts::default(), |a, b| a + b)
        };
        let known = models.iter().filter_map(|model| self.baseline.get(*model));
        let baseline = known.copied().reduce(|mut a: Baseline, b| {
            a += b;
            a
        });
        let (silence, health) = (Pace::of_silence(&self.plan.policy), Pace::of_health(&self.plan.policy));
        let controls: Vec<&Control> = models.iter().filter_map(|model| self.control.get(*model)).collect();
        let pair = |of: &dyn Fn(&Control) -> PairEvidence| {
            let mut sums = controls.iter().map(|control| of(control));
            let first = sums.next()?;
            Some(sums.fold(first, |mut a, b| {
                a.merge(&b);
                a
            }))
        };
        Observed {
            baseline,
            total: sum(&|model| self.judged_of(model)),
            // Each model has its own first ones.
            first_bad: models
                .iter()
                .filter_map(|model| self.first_bad.get(*model))
                .copied()
                .max()
                .unwrap_or(0),
            fresh: sum(&|model| record.judged.get(model).copied().unwrap_or_default()),
            // Once it is let go nobody is beside the others.
            controls: if self.held_from.is_some() && !self.let_go {
                controls.iter().map(|control| control.held).sum()
            } else {
                0
            },
            compared: models
                .iter()
                .filter_map(|model| self.compared.get(*model))
                .fold(Counts::default(), |a, b| a + *b),
            pairs: Pairs {
                silence: pair(&|control| control.last.evidence(observed, silence)),
                silence_early: pair(&|control| control.early.evidence(observed, silence)),
                crash: pair(&|control| control.crashed.evidence(observed, health)),
                battery: pair(&|control| control.drained.evidence(observed, health)),
            },
            ..common.clone()
        }
    }

    /// Returns the strata that have begun, with their models.
    pub(super) fn strata(&self) -> BTreeMap<Stratum<'_>, Vec<&ModelId>> {
        let mut strata: BTreeMap<Stratum<'_>, Vec<&ModelId>> = BTreeMap::new();
        for model in self.phases.iter().flat_map(|phase| phase.judged.keys()) {
            let stratum = (!self.pooled.contains(model)).then_some(model);
            let models = strata.entry(stratum).or_default();
            if !models.contains(&model) {
                models.push(model);
            }
        }
        strata
    }

    /// Tells whether every phase is open and its control alone is to be let go.
    fn only_control_waits(&self) -> bool {
        let whole = self.phases.last().is_some_and(PhaseRecord::is_open);
        whole && self.phases.len() >= self.plan.phases.len() && self.held_from.is_some()
    }

    /// Returns the wave that stands, while there are more to come.
    fn wave(&self, record: &PhaseRecord, counts: Counts, observed: Millis) -> Option<Wave> {
        if record.is_open() {
            return None;
        }
        let (policy, waves) = (&self.plan.policy, &self.plan.waves);
        let open = Duration::from_millis(observed.saturating_sub(record.observed));
        let started = counts.judged();
        Some(Wave {
            number: record.waves,
            of: waves.sizes(record.chosen(), record.before).len() as u64,
            included: record.included,
            started,
            open,
            pause: waves.pause(policy),
            owed: record.owed,
            is_over: record.owed > 0 || waves.is_due(policy, open, started, record.included),
        })
    }
}

pub(super) fn subject(stratum: Stratum<'_>, strata: usize) -> String {
    match stratum {
        _ if strata < 2 => String::new(),
        Some(model) => format!("model={model}"),
        None => "other models".to_owned(),
    }
}
