//! What each test and the gate have now, and what would decide them.

use serde::{Deserialize, Serialize};
use tern_protocol::id::ModelId;
use tern_protocol::tuf::content::EntryKind;

use super::evidence::{Arm, PairEvidence, fewest_to_pass, kill_evidence};
use super::explain::{percent, span};
use super::gate::{Observed, Tested, all_tests, alpha, beside, prove, tests_together, unreachable};
use super::judgement::{EVERYBODY, subject};
use super::policy::CONTROL_MIN;
use super::record::Rollout;
use super::verdict::{Evidence, Proof, Test};
use crate::core::fact::Millis;

/// How far ahead it is looked: among so many devices that come next.
const AHEAD: [u64; 3] = [10, 100, 1000];

/// One test or gate: its present evidence, and what would decide it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// "model=B3" where several strata are judged; empty where it is about all of the rollout.
    pub subject: String,
    /// What it is.
    pub of: Tells,
    /// What the next devices would have to show for the release to be killed; absent: nothing that they show does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kills: Option<More>,
    /// The same for a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pauses: Option<More>,
    /// Devices that have to end well before the gate passes, if no other turns bad; absent: no gate, or the phase has too few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<u64>,
    /// All of that in words.
    pub line: String,
}

/// Which test or gate, with its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tells {
    /// A test that may kill or pause.
    Test(Evidence),
    /// Bad ones among the first that started.
    HardStop {
        /// So many are.
        bad: u64,
        /// So many kill.
        most: u64,
        /// Of so many that are looked at.
        first: u64,
    },
    /// The budget of bad devices.
    HarmBudget {
        /// So many are.
        bad: u64,
        /// So many pause.
        most: u64,
    },
    /// The gate of the present phase.
    Gate(Proof),
}

/// So many bad of the devices that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// Bad ones.
    pub bad: u64,
    /// Of so many.
    pub of: u64,
}

impl Rollout {
    /// Returns what every test and the gate of the present phase have, and what would decide them; the strata in their order,
    /// the gate last. `fleet` and `observed` as for [`Rollout::judgement`].
    pub fn outlook(&self, fleet: u64, observed: Millis) -> Vec<Outlook> {
        if self.phases.is_empty() {
            return Vec::new();
        }
        let (rule, record) = self.present();
        let policy = &self.plan.policy;
        let common = self.common(record, fleet, observed);
        let mut strata = self.strata();
        // Nobody of a model may have begun; its tests stand at nothing and have an outlook all the same.
        for model in self.phases[0].cuts.keys().chain(self.phases[0].goal.keys()) {
            let models = strata.entry((!self.pooled.contains(model)).then_some(model)).or_default();
            if !models.contains(&model) {
                models.push(model);
            }
        }
        let mut all = Vec::new();
        for (stratum, models) in &strata {
            let seen = self.seen(models, record, observed, &common);
            let subject = subject(*stratum, strata.len());
            let mut suspicions = all_tests(policy, &seen, policy.alpha_pause);
            let mut tests =
                all_tests(policy, &seen, alpha(policy, &seen)).into_iter().map(Some).collect::<Vec<_>>();
            if seen.controls < CONTROL_MIN {
                suspicions.push(unreachable(policy, &seen));
                tests.push(None);
            }
            for (test, suspicion) in tests.into_iter().zip(suspicions) {
                // Nobody halts the release that a revert goes back to; silence beside an outage only pauses.
                let may_kill =
                    |test: &Tested| self.kind != EntryKind::Revert && !(seen.outage && test.alone());
                let kills =
                    test.as_ref().filter(|test| may_kill(test)).and_then(|test| more(&seen, &test.evidence));
                let pauses = more(&seen, &suspicion.evidence);
                let evidence = test.unwrap_or(suspicion).evidence;
                let line = format!("{evidence}{}", decided(evidence.test, kills, pauses));
                all.push(Outlook {
                    subject: subject.clone(),
                    of: Tells::Test(evidence),
                    kills,
                    pauses,
                    clean: None,
                    line,
                });
            }
            all.extend(self.counted(&seen, &subject));
        }
        if common.together && strata.len() > 1 {
            let models: Vec<&ModelId> = strata.values().flatten().copied().collect();
            let seen = self.seen(&models, record, observed, &common);
            let tests = tests_together(policy, &seen, alpha(policy, &seen));
            for (test, suspicion) in tests.into_iter().zip(tests_together(policy, &seen, policy.alpha_pause))
            {
                let kills = Some(&test.evidence).filter(|_| self.kind != EntryKind::Revert);
                let kills = kills.and_then(|evidence| more(&seen, evidence));
                let pauses = more(&seen, &suspicion.evidence);
                let line = format!("{}{}", test.evidence, decided(test.evidence.test, kills, pauses));
                let subject = EVERYBODY.to_owned();
                all.push(Outlook {
                    subject,
                    of: Tells::Test(test.evidence),
                    kills,
                    pauses,
                    clean: None,
                    line,
                });
            }
        }
        if let Some(p_max) = rule.gate {
            let seen = self.seen_by_gate(record, observed, common);
            let (proof, passes) = prove(policy, p_max, &seen.fresh);
            let resolved = proof.n - proof.pending.min(proof.n);
            let enough = fewest_to_pass(proof.bad, p_max, policy.beta, seen.devices.max(proof.n));
            let clean = enough.map(|enough| enough.saturating_sub(resolved));
            let next = match clean {
                _ if passes => "passes".to_owned(),
                Some(clean) => format!("{clean} more clean ones pass it"),
                None => format!("{} devices are too few to pass it now", seen.devices.max(proof.n)),
            };
            let (below, need) = (percent(proof.bound), percent(proof.p_max));
            let soak = format!("soak {} of {}", span(seen.soaked), span(rule.soak));
            let line = format!("gate: {proof}; proven < {below}, need < {need}; {next}; {soak}");
            let subject = String::new();
            all.push(Outlook { subject, of: Tells::Gate(proof), kills: None, pauses: None, clean, line });
        }
        all
    }

    /// Returns the rules that count and weigh nothing.
    fn counted(&self, seen: &Observed, subject: &str) -> Vec<Outlook> {
        let policy = &self.plan.policy;
        let mut rules = Vec::new();
        if let Some(stop) = policy.hard_stop {
            let (bad, most) = (seen.first_bad, stop.bad);
            let of = Tells::HardStop { bad, most, first: stop.first };
            let left = most.saturating_sub(bad);
            let first = stop.first;
            rules.push((
                of,
                format!("hard stop: {bad} bad of the first {first} started; {left} more of those stop it"),
            ));
        }
        if let Some(most) = policy.harm_budget {
            let bad = seen.total.confirmed_bad();
            let left = most.saturating_sub(bad);
            rules.push((
                Tells::HarmBudget { bad, most },
                format!("harm budget: {bad} bad of {most}; {left} more pause it"),
            ));
        }
        let outlook = |(of, line)| Outlook {
            subject: subject.to_owned(),
            of,
            kills: None,
            pauses: None,
            clean: None,
            line,
        };
        rules.into_iter().map(outlook).collect()
    }
}

fn decided(test: Test, kills: Option<More>, pauses: Option<More>) -> String {
    let word = match test {
        Test::Outcome => "bad",
        Test::Silence | Test::SilenceEarly => "silent",
        Test::Crash => "crashing",
        Test::Battery => "draining",
        Test::Unreachable => "unreachable",
    };
    let mut text = String::new();
    for (more, what) in [(kills, "kill"), (pauses, "pause")] {
        if let Some(More { bad, of }) = more {
            text.push_str(&format!("; {bad} more {word} of the next {of} would {what}"));
        }
    }
    if text.is_empty() { "; whatever the next 1000 do, it stands".to_owned() } else { text }
}

/// Returns the fewest bad ones of the devices that come next with which a test crosses its threshold. Devices that are on trial
/// come next; a test of outcomes counts them already. Beside a control as many of it are well.
fn more(seen: &Observed, evidence: &Evidence) -> Option<More> {
    let pending = match evidence.test {
        Test::Outcome | Test::Unreachable => seen.total.pending(),
        _ => 0,
    };
    let crosses = |bad: u64, of: u64| {
        let ln_e = match (evidence.control, pair(seen, evidence.test)) {
            (Some(_), mut pair) => {
                let arm = |events| Arm { events, exposure: of };
                pair.tick(arm(bad), arm(0), evidence.p);
                evidence.allowed.map_or_else(|| pair.ln_e(), |allowed| beside(&pair, allowed))
            }
            (None, _) => kill_evidence(evidence.n + of.saturating_sub(pending), evidence.f + bad, evidence.p),
        };
        ln_e >= evidence.threshold
    };
    let of = AHEAD.into_iter().find(|of| crosses(*of, *of))?;
    let (mut fails, mut enough) = (0, of);
    while enough - fails > 1 {
        let middle = u64::midpoint(fails, enough);
        if crosses(middle, of) { enough = middle } else { fails = middle }
    }
    Some(More { bad: enough, of })
}

fn pair(seen: &Observed, test: Test) -> PairEvidence {
    let pairs = &seen.pairs;
    let pair = match test {
        Test::Silence => pairs.silence,
        Test::SilenceEarly => pairs.silence_early,
        Test::Crash => pairs.crash,
        Test::Battery => pairs.battery,
        Test::Outcome | Test::Unreachable => None,
    };
    pair.unwrap_or_default()
}

#[cfg(test)]
#[path = "outlook_tests.rs"]
mod tests;
