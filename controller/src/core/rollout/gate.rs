//! From counters to a verdict. Killing is decided before anything else, widening after everything else.
//!
//! ```text
//! counters ──> hard stop, tests at alpha ───────────> Kill
//!          ──> first bad, budget, tests at pause ───> Pause
//!          ──> gate of the phase ──> proof and soak > Advance
//!                                └─> otherwise ─────> Hold
//! ```

use std::time::Duration;

use super::baseline::Baseline;
use super::counts::Counts;
use super::evidence::{
    PairEvidence, fewest_to_pass, gate_evidence, gate_threshold, kill_evidence, kill_threshold, rounded,
    silence_evidence, upper_bound,
};
use super::policy::{
    BASELINE_MIN, CONTROL_MIN, Claim, HARD_STOP_BASELINE_MAX, PhaseRule, Policy, SILENCE_RATIO, SilenceRule,
    TINY_ALPHA, TINY_FIRST, TINY_FLEET, TOGETHER,
};
use super::verdict::{AdvanceReason, Evidence, HoldReason, KillReason, PauseReason, Proof, Test, Verdict};

/// No claim allows more: a few devices of a former release bound nothing.
const ALLOWED_MAX: f64 = 0.9;

/// What is known about one stratum of a rollout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Devices that the rollout is for, over all strata.
    pub fleet: u64,
    /// Strata that are judged separately; each gets an equal share of `alpha`. 0 counts as 1.
    pub strata: u64,
    /// Strata are compared with a control together as well; see [`judge_together`].
    pub together: bool,
    /// How the last good release fared in this stratum.
    pub baseline: Option<Baseline>,
    /// Counters since the series began, over all phases.
    pub total: Counts,
    /// Bad ones (failed, rolled back) among the first that started, as many as the hard stop looks at.
    pub first_bad: u64,
    /// Held-back devices whose exposure began.
    pub controls: u64,
    /// Comparisons with them.
    pub pairs: Pairs,
    /// What a control that is gone has spoken about: silence is judged of the others.
    pub compared: Counts,
    /// A fifth of the region's devices outside the rollout are offline by presence, which nobody vouches for:
    /// it may soften a kill into a pause, and nothing else.
    pub outage: bool,
    /// Counters of devices that this phase newly included.
    pub fresh: Counts,
    /// Devices that this phase newly includes, started or not.
    pub devices: u64,
    /// Those of them that had started before the series began, and are judged no more; of devices by name also those that
    /// run the release without having started it.
    pub spent: u64,
    /// None of them was heard since the phase opened.
    pub away: bool,
    /// Nobody is left to open the rollout for but its control, which is let go after this long though nobody begins.
    pub control_waits: Option<Duration>,
    /// Time since the phase opened, not counting time in which nothing was received.
    pub soaked: Duration,
    /// The wave that stands, while there are more to come in this phase.
    pub wave: Option<Wave>,
}

/// The last wave that opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wave {
    /// Its number, from 1.
    pub number: u64,
    /// Waves of the phase.
    pub of: u64,
    /// Devices that the phase has included so far.
    pub included: u64,
    /// Those of them that have begun.
    pub started: u64,
    /// How long it has been open, not counting time in which nothing was received.
    pub open: Duration,
    /// The least time that it is.
    pub pause: Duration,
    /// Devices of it for whom there was no room yet; until they are included no other wave opens.
    pub owed: u64,
    /// The next one may open.
    pub is_over: bool,
}

/// Comparisons with a concurrent control; absent where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pairs {
    /// Silent or unreachable at the last deadline.
    pub silence: Option<PairEvidence>,
    /// Silent at the early deadline.
    pub silence_early: Option<PairEvidence>,
    /// Devices that crashed, each once in 24 h.
    pub crash: Option<PairEvidence>,
    /// Devices that drained more than nine in ten did in the same hours.
    pub battery: Option<PairEvidence>,
}

/// Judges one stratum of a rollout.
pub fn judge(policy: &Policy, phase: &PhaseRule, observed: &Observed) -> Verdict {
    if let Some(reason) = kill(policy, observed) {
        return Verdict::Kill(reason);
    }
    if let Some(reason) = pause(policy, observed) {
        return Verdict::Pause(reason);
    }
    gate(policy, phase, observed)
}

fn kill(policy: &Policy, observed: &Observed) -> Option<KillReason> {
    let usual = observed.baseline.and_then(|baseline| baseline.seen());
    let steady = usual.is_none_or(|rate| rate <= HARD_STOP_BASELINE_MAX);
    if let Some(stop) = policy.hard_stop.filter(|_| steady)
        && observed.first_bad >= stop.bad
    {
        return Some(KillReason::HardStop { bad: observed.first_bad, first: stop.first });
    }
    all_tests(policy, observed, alpha(policy, observed))
        .into_iter()
        .find(|tested| tested.crossed && !(observed.outage && tested.alone()))
        .map(|tested| KillReason::Evidence(tested.evidence))
}

fn pause(policy: &Policy, observed: &Observed) -> Option<PauseReason> {
    let (bad, started) = (observed.total.bad, observed.total.judged());
    if observed.fleet < TINY_FLEET && bad > 0 && started < TINY_FIRST {
        return Some(PauseReason::FirstBad { bad, started });
    }
    let harmed = observed.total.confirmed_bad();
    if let Some(budget) = policy.harm_budget.filter(|budget| harmed >= *budget) {
        return Some(PauseReason::HarmBudget { bad: harmed, budget });
    }
    let softened = all_tests(policy, observed, alpha(policy, observed)).into_iter().find(|t| t.crossed);
    if let Some(tested) = softened {
        return Some(PauseReason::Outage(tested.evidence));
    }
    let mut suspicions = all_tests(policy, observed, policy.alpha_pause);
    // Beside a control it is judged together with silence.
    if observed.controls < CONTROL_MIN {
        suspicions.push(unreachable(policy, observed));
    }
    suspicions.into_iter().find(|t| t.crossed).map(|tested| PauseReason::Evidence(tested.evidence))
}

fn gate(policy: &Policy, phase: &PhaseRule, observed: &Observed) -> Verdict {
    let soaked = observed.soaked;
    let n = observed.fresh.judged();
    if let Some(wave) = observed.wave {
        let (bad, devices) = (observed.fresh.confirmed_bad(), observed.devices);
        return if wave.owed > 0 {
            let Wave { number, of, owed, .. } = wave;
            Verdict::Advance(AdvanceReason::Room { wave: number, of, owed, bad, started: n })
        } else if wave.is_over {
            Verdict::Advance(AdvanceReason::Wave {
                wave: wave.number + 1,
                of: wave.of,
                bad,
                started: n,
                soaked: wave.open,
            })
        } else {
            let Wave { number, of, included, started, open, pause, .. } = wave;
            Verdict::Hold(HoldReason::Wave { wave: number, of, included, devices, started, bad, open, pause })
        };
    }
    // After a resumption nobody may be left to start: then only time, or a person, can open the next phase.
    let spent = observed.devices > 0 && observed.spent >= observed.devices;
    let passed = Verdict::Advance(AdvanceReason::Soaked { started: n, soaked });
    // The control must not be held back for ever by devices that are away.
    if let Some(patience) = observed.control_waits.filter(|_| n == 0 && phase.gate.is_none()) {
        let soak = phase.soak.max(if observed.spent > 0 { Duration::ZERO } else { patience });
        return if soaked < soak { Verdict::Hold(HoldReason::Soaking { soaked, soak }) } else { passed };
    }
    if n == 0 && !(spent && phase.gate.is_none()) {
        let devices = observed.devices;
        return Verdict::Hold(match observed.away {
            _ if spent => HoldReason::Spent { devices },
            true => HoldReason::Away { devices },
            false => HoldReason::NothingStarted,
        });
    }
    let still_soaking =
        (soaked < phase.soak).then_some(Verdict::Hold(HoldReason::Soaking { soaked, soak: phase.soak }));
    let Some(p_max) = phase.gate else {
        return still_soaking.unwrap_or(passed);
    };

    let (proof, passes) = prove(policy, p_max, &observed.fresh);
    let bad = proof.bad;
    if passes {
        return still_soaking.unwrap_or(Verdict::Advance(AdvanceReason::Proven { proof, soaked }));
    }

    let devices = observed.devices.max(n);
    let could_pass = |bad| fewest_to_pass(bad, p_max, policy.beta, devices);
    if could_pass(0).is_none() {
        return Verdict::Hold(HoldReason::Unproven { proof, devices });
    }
    if soaked >= policy.gate_timeout {
        return Verdict::Hold(HoldReason::TimedOut { proof, soaked });
    }
    Verdict::Hold(HoldReason::Gate { enough: could_pass(bad), proof })
}

/// Returns what a gate at `p_max` has to show, and whether that suffices.
pub(super) fn prove(policy: &Policy, p_max: f64, fresh: &Counts) -> (Proof, bool) {
    let (n, bad, pending) = (fresh.judged(), fresh.confirmed_bad(), fresh.pending());
    let held_against = bad.saturating_add(pending);
    let (ln_e, threshold) = (gate_evidence(n, held_against, p_max), gate_threshold(policy.beta));
    let proof = Proof {
        n,
        bad,
        pending,
        p_max,
        beta: policy.beta,
        ln_e: rounded(ln_e),
        threshold: rounded(threshold),
        bound: rounded(upper_bound(n, held_against, policy.beta)),
    };
    (proof, ln_e >= threshold)
}

/// A test's result, before anybody decided what it means.
pub(super) struct Tested {
    pub(super) evidence: Evidence,
    /// Compared before rounding.
    pub(super) crossed: bool,
}

impl Tested {
    /// Tells whether this is silence that no control was compared with.
    pub(super) fn alone(&self) -> bool {
        self.evidence.control.is_none() && matches!(self.evidence.test, Test::Silence | Test::SilenceEarly)
    }
}

pub(super) fn alpha(policy: &Policy, observed: &Observed) -> f64 {
    if observed.fleet < TINY_FLEET { policy.alpha.max(TINY_ALPHA) } else { policy.alpha }
}

/// Runs every test that may kill, in the order of the budget's shares.
pub(super) fn all_tests(policy: &Policy, observed: &Observed, alpha: f64) -> Vec<Tested> {
    let weights = &policy.weights;
    let total = &observed.total;
    let bench = Bench { alpha, strata: observed.strata.max(1) };
    let part = part(observed);
    let mut results = Vec::new();

    let claims = claims(policy, observed.baseline);
    for p in &claims {
        let weight = weights.outcome / claims.len() as f64;
        let ln_e = kill_evidence(total.judged(), total.bad, *p);
        results.push(bench.rate(Test::Outcome, (total.judged(), total.bad), *p, weight, ln_e));
    }

    let silence = |test, pair: Option<PairEvidence>, rule: &SilenceRule, due, silent, weight: f64| {
        let weight = weight * part;
        // A control that went through the same hours is the better judge of silence.
        let control = (observed.controls >= CONTROL_MIN).then(|| pair.unwrap_or_default());
        let mut tested = match control {
            Some(pair) => bench.silence(test, &pair, rule, weight),
            None => {
                let ln_e = silence_evidence(due, silent, rule.max_rate);
                bench.rate(test, (due, silent), rule.max_rate, weight, ln_e)
            }
        };
        tested.evidence.after = rule.after;
        tested
    };
    let (last, early) = (&policy.silence_deadline, &policy.silence_early);
    let (pairs, before) = (&observed.pairs, &observed.compared);
    let (due, silent) = (total.due.saturating_sub(before.due), total.silent.saturating_sub(before.silent));
    results.push(silence(Test::Silence, pairs.silence, last, due, silent, weights.silence));
    let due = total.due_early.saturating_sub(before.due_early);
    let silent = total.silent_early.saturating_sub(before.silent_early);
    results.push(silence(Test::SilenceEarly, pairs.silence_early, early, due, silent, weights.silence_early));

    let ratio = 1.0 + policy.max_regression;
    for (test, pair, weight) in
        [(Test::Crash, pairs.crash, weights.crash), (Test::Battery, pairs.battery, weights.battery)]
    {
        results.extend(pair.map(|pair| bench.pair(test, &pair, ratio, weight * part)));
    }
    results
}

/// Returns which part of the weight of silence and health a stratum's tests share.
fn part(observed: &Observed) -> f64 {
    if observed.together { 1.0 - TOGETHER } else { 1.0 }
}

/// Judges the comparisons of all strata together; `observed` sums them up.
///
/// A control of some hundred devices is a few dozen of each of many models, too few to tell what a tenth of the devices
/// does. Each tick of a model is still compared with the same model, and what the ticks show is added up: no mix of models
/// can shift. What is refuted is that no model fares worse than allowed.
pub fn judge_together(policy: &Policy, observed: &Observed) -> Option<Verdict> {
    let crossed = |alpha| tests_together(policy, observed, alpha).into_iter().find(|tested| tested.crossed);
    let kill = crossed(alpha(policy, observed)).map(|t| Verdict::Kill(KillReason::Evidence(t.evidence)));
    kill.or_else(|| {
        let tested = crossed(policy.alpha_pause)?;
        Some(Verdict::Pause(PauseReason::Evidence(tested.evidence)))
    })
}

pub(super) fn tests_together(policy: &Policy, observed: &Observed, alpha: f64) -> Vec<Tested> {
    let (weights, pairs) = (&policy.weights, &observed.pairs);
    let bench = Bench { alpha, strata: 1 };
    let ratio = 1.0 + policy.max_regression;
    // As in a stratum: a few held-back devices say nothing about silence.
    let silence = |test, pair: Option<PairEvidence>, rule: &SilenceRule, weight: f64| {
        let pair = pair.filter(|_| observed.controls >= CONTROL_MIN)?;
        let mut tested = bench.silence(test, &pair, rule, weight * TOGETHER);
        tested.evidence.after = rule.after;
        Some(tested)
    };
    let health = |test, pair: Option<PairEvidence>, weight: f64| {
        Some(bench.pair(test, &pair?, ratio, weight * TOGETHER))
    };
    let tests = [
        silence(Test::Silence, pairs.silence, &policy.silence_deadline, weights.silence),
        silence(Test::SilenceEarly, pairs.silence_early, &policy.silence_early, weights.silence_early),
        health(Test::Crash, pairs.crash, weights.crash),
        health(Test::Battery, pairs.battery, weights.battery),
    ];
    tests.into_iter().flatten().collect()
}

/// Judges `unreachable` without a control. That can only pause: the network may be what nobody reached.
pub(super) fn unreachable(policy: &Policy, observed: &Observed) -> Tested {
    let (total, before) = (&observed.total, &observed.compared);
    let n = total.judged().saturating_sub(before.judged());
    let (f, p) = (total.unreachable.saturating_sub(before.unreachable), policy.silence_deadline.max_rate);
    let bench = Bench { alpha: policy.alpha_pause, strata: observed.strata.max(1) };
    bench.rate(Test::Unreachable, (n, f), p, policy.weights.silence * part(observed), kill_evidence(n, f, p))
}

/// Returns the bad rates that the kill test tries to refute, to nine decimals: the ledger then reads back the
/// very number that was used. A claim that allows more than the other is not worth half the weight.
fn claims(policy: &Policy, baseline: Option<Baseline>) -> Vec<f64> {
    let relative = baseline.filter(|baseline| baseline.started > 0).map(|baseline| {
        let allowed = baseline.bound().max(BASELINE_MIN) * (1.0 + policy.max_regression);
        libm::round(allowed.min(ALLOWED_MAX) * 1e9) / 1e9
    });
    match (policy.claim, relative) {
        (Claim::Absolute, _) | (_, None) => vec![policy.max_failure_rate],
        (Claim::Relative, Some(relative)) => vec![relative],
        (Claim::Either, Some(relative)) if relative >= policy.max_failure_rate => {
            vec![policy.max_failure_rate]
        }
        (Claim::Either, Some(relative)) => vec![policy.max_failure_rate, relative],
    }
}

/// Returns the evidence that more devices are silent than beside them and than `allowed`: the lesser of both.
pub(super) fn beside(pair: &PairEvidence, allowed: f64) -> f64 {
    let treated = pair.treated();
    pair.ln_e().min(silence_evidence(treated.exposure, treated.events, allowed))
}

/// The budget that a round of tests shares.
struct Bench {
    alpha: f64,
    strata: u64,
}

impl Bench {
    fn rate(&self, test: Test, (n, f): (u64, u64), p: f64, weight: f64, ln_e: f64) -> Tested {
        let weight = weight / self.strata as f64;
        let threshold = kill_threshold(self.alpha, weight);
        let evidence = Evidence {
            test,
            n,
            f,
            p,
            control: None,
            allowed: None,
            after: Duration::ZERO,
            alpha: self.alpha,
            weight: rounded(weight),
            ln_e: rounded(ln_e),
            threshold: rounded(threshold),
        };
        Tested { evidence, crossed: ln_e >= threshold }
    }

    fn pair(&self, test: Test, pair: &PairEvidence, ratio: f64, weight: f64) -> Tested {
        let (treated, control) = (pair.treated(), pair.control());
        let mut tested = self.rate(test, (treated.exposure, treated.events), ratio, weight, pair.ln_e());
        tested.evidence.control = Some(control);
        tested
    }

    /// Silence beside a control takes both: more than the control, and more than is allowed without one. An update costs
    /// a boot, after which a few devices of any fleet come back late or never; nobody boots a held-back device.
    fn silence(&self, test: Test, pair: &PairEvidence, rule: &SilenceRule, weight: f64) -> Tested {
        let mut tested = self.pair(test, pair, SILENCE_RATIO, weight);
        let ln_e = beside(pair, rule.max_rate);
        tested.crossed = ln_e >= kill_threshold(self.alpha, weight / self.strata as f64);
        tested.evidence.ln_e = rounded(ln_e);
        tested.evidence.allowed = Some(rule.max_rate);
        tested
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
