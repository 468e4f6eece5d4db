//! What an operator should know before starting: numbers first, then warnings.

use std::collections::BTreeMap;
use std::time::Duration;

use tern_protocol::id::ModelId;

use super::types::{PhasePreview, Preview, StartRollout};
use crate::clock;
use crate::core::fleet::Fleet;
use crate::core::fleet::misfits::Misfits;
use crate::core::fleet::product::lacking;
use crate::core::rollout::evidence::fewest_to_pass;
use crate::core::rollout::phase;
use crate::core::rollout::plan::{Plan, Reach, meet};
use crate::core::rollout::policy::TINY_FLEET;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::service::{Refusal, Service};

/// Gates that want more devices than this want too much of any fleet.
const SEARCH: u64 = 1_000_000;

/// Works out what a rollout would do, without starting it.
pub(super) fn preview(service: &mut Service, wanted: &StartRollout) -> Result<Preview, Refusal> {
    let phases = service.preview(&wanted.product, wanted.rc, &wanted.plan)?;
    let usual = service.usual_rate(&wanted.product, &wanted.plan);
    let fleet = service.fleet();
    let product = fleet.products.get(&wanted.product);
    let models: Vec<ModelId> =
        product.map(|p| p.models_of(wanted.rc).into_iter().collect()).unwrap_or_default();
    let covered = fleet.devices.values().filter(|d| {
        d.is_active()
            && d.registry.product == wanted.product
            && phase::covers(&wanted.plan, &models, &d.registry)
    });
    let (mut devices, mut behind) = (0, Vec::new());
    for device in covered {
        devices += 1;
        behind.extend(Some(device).filter(|device| device.running < wanted.rc));
    }
    let ahead = devices - behind.len() as u64;
    let release = product.and_then(|p| p.releases().remove(&wanted.rc));
    let misfits = release.map(|release| Misfits::of(&release, behind.into_iter())).unwrap_or_default();
    let mut warnings = warnings(&wanted.plan, &phases, devices, usual);
    warnings.extend(left_out(&misfits.no_variant, "are offered nothing"));
    warnings.extend(left_out(&misfits.unmet, "refuse the release"));
    warnings.extend(product.and_then(|p| lacking(&p.releases(), wanted.rc)));
    if ahead > 0 {
        warnings.push(format!("{ahead} of them run release {} or a later one already", wanted.rc));
    }
    if product.is_some_and(|p| p.halted.contains(&wanted.rc)) {
        warnings.push(format!("release {} was halted and is dead for ever: it cannot start", wanted.rc));
    }
    let now = clock::now();
    let rollouts = fleet.rollouts.values().filter(|r| r.product == wanted.product);
    warnings.extend(rollouts.filter_map(|other| in_the_way(fleet, other, &wanted.plan, now)));
    let sum = |by: &BTreeMap<String, u64>| by.values().sum();
    let (no_variant, unmet, bytes_each) = (sum(&misfits.no_variant), sum(&misfits.unmet), misfits.bytes);
    Ok(Preview { devices, no_variant, unmet, bytes_each, usual, phases, warnings })
}

/// Reasons that are told for devices that a release leaves out, the most frequent first.
const REASONS: usize = 4;

/// Says which devices a release leaves out, and why.
fn left_out(by: &BTreeMap<String, u64>, what: &str) -> Option<String> {
    let mut reasons: Vec<(&String, u64)> = by.iter().map(|(why, devices)| (why, *devices)).collect();
    reasons.sort_by_key(|(_, devices)| std::cmp::Reverse(*devices));
    let all: u64 = reasons.iter().map(|(_, devices)| devices).sum();
    let told = reasons.iter().take(REASONS).map(|(why, devices)| format!("{why} ({devices})"));
    let told: Vec<String> = told.collect();
    let rest = reasons.len().saturating_sub(REASONS);
    let rest = if rest == 0 { String::new() } else { format!(", and {rest} more reasons") };
    (all > 0).then(|| format!("{all} of them {what}: {}{rest}", told.join("; ")))
}

/// Says what the start would meet: nothing, a rollout that it ends, or one that forbids it.
fn in_the_way(fleet: &Fleet, other: &Rollout, plan: &Plan, now: u64) -> Option<String> {
    if !meet(&other.plan.regions, &plan.regions) || !matches!(other.status, Status::Running | Status::Paused)
    {
        return None;
    }
    if fleet.makes_room(other, now) && !other.plan.meets(plan) {
        return None;
    }
    Some(if fleet.makes_room(other, now) && !other.reaches_all() {
        format!(
            "rollout {} stays as it is, for its time is over: starting completes it, and devices that it \
             includes keep its offer until the new one includes them",
            other.id
        )
    } else if fleet.makes_room(other, now) {
        format!(
            "rollout {} reaches everybody and has nobody on the way: starting completes it, and devices that are \
             away take the newest release",
            other.id
        )
    } else {
        format!("rollout {0} is active in the same regions: it cannot start before {0} has ended", other.id)
    })
}

/// An early deadline below this leaves no room for a boot on a slow link.
const EARLY_MIN: Duration = Duration::from_secs(20 * 60);
/// A gate passes a release reliably that fails on less than this part of its limit.
const GATE_MARGIN: f64 = 4.0;

/// Returns what the numbers alone say against a plan.
fn warnings(plan: &Plan, phases: &[PhasePreview], devices: u64, usual: Option<f64>) -> Vec<String> {
    let mut warnings = Vec::new();
    if devices == 0 {
        warnings.push("no registered device is covered: see `tern device list`".to_owned());
        return warnings;
    }
    if devices < TINY_FLEET {
        warnings.push(format!(
            "{} a tiny fleet (below {TINY_FLEET}): the first bad device among the first ten \
             pauses, and a release is killed on weaker evidence",
            if devices == 1 { "1 device is".to_owned() } else { format!("{devices} devices are") }
        ));
    }
    let (early, late) = (plan.policy.silence_early.after, plan.policy.silence_deadline.after);
    if early < EARLY_MIN {
        warnings.push(format!(
            "silence is judged {} s after a start: a healthy device needs minutes to come up, on a slow link many; a \
             shorter deadline than {} s kills healthy releases",
            early.as_secs(),
            EARLY_MIN.as_secs()
        ));
    }
    if let Some(first) = phases.first().filter(|step| step.detects.failing.is_none()) {
        warnings.push(format!(
            "phase 1 kills nothing by evidence, whatever the release does: {} are too few",
            counted(first.devices)
        ));
    }
    let last = phases.len();
    let mut gated = false;
    for (number, step) in (1..).zip(phases) {
        if step.devices == 0 {
            warnings.push(format!("phase {number} includes nobody: the phases before it took all devices"));
            continue;
        }
        let Some(p_max) = step.phase.rule.gate else {
            if number < last {
                let soon =
                    if step.phase.rule.soak < late { ", before its last silence deadline" } else { "" };
                warnings.push(format!(
                    "phase {number} has no gate: it widens after its soak{soon}, whatever is silent"
                ));
            }
            continue;
        };
        gated = true;
        let enough = fewest_to_pass(0, p_max, plan.policy.beta, SEARCH);
        let limit = percent(p_max);
        if let Some(usual) = usual.filter(|usual| usual * GATE_MARGIN > p_max) {
            warnings.push(format!(
                "phase {number} has a gate at {limit}, and the last good release failed on {}: a release as good as \
                 that seldom passes",
                percent(usual)
            ));
        }
        match enough {
            Some(enough) if enough > step.devices => warnings.push(format!(
                "phase {number} has {}, its gate at {limit} needs {enough} clean ones: it cannot pass \
                 by itself, only with `tern rollout promote`",
                counted(step.devices)
            )),
            None => warnings.push(format!("phase {number}: no number of devices passes a gate at {limit}")),
            Some(_) => {}
        }
    }
    if gated && usual.is_none() {
        warnings.push(
            "a gate is passed reliably only by a release that fails on less than a quarter of the gate's \
             limit: choose each limit at least four times the failure rate that you are used to"
                .to_owned(),
        );
    }
    if !matches!(plan.phases.last().map(|phase| phase.reach), Some(Reach::All)) {
        let included: u64 = phases.iter().map(|step| step.devices).sum();
        warnings.push(format!(
            "the last phase does not reach everybody: {} and all newcomers are never offered it, and \
             the rollout never completes",
            counted(devices.saturating_sub(included))
        ));
    }
    warnings
}

fn counted(devices: u64) -> String {
    if devices == 1 { "1 device".to_owned() } else { format!("{devices} devices") }
}

fn percent(rate: f64) -> String {
    format!("{} %", (rate * 1e4).round() / 1e2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::detect::detectable;
    use crate::core::rollout::plan::Phase;
    use crate::core::rollout::policy::PhaseRule;

    fn said(steps: &[(u64, Option<f64>, Reach)], devices: u64) -> String {
        let phase = |(_, gate, reach): &(u64, Option<f64>, Reach)| {
            Phase::new(*reach, PhaseRule { gate: *gate, ..PhaseRule::default() })
        };
        let plan = Plan { phases: steps.iter().map(phase).collect(), ..Plan::default() };
        let previews: Vec<PhasePreview> = steps
            .iter()
            .map(|step| PhasePreview {
                phase: phase(step),
                devices: step.0,
                cohort_messages: 1,
                waves: vec![step.0],
                held_back: 0,
                opens: vec![0],
                ends: 86_400,
                detects: detectable(&plan.policy, devices, step.0, 1, None),
            })
            .collect();
        warnings(&plan, &previews, devices, None).join("\n")
    }

    #[test]
    fn a_gate_that_its_phase_is_too_small_for_is_named_with_the_number_that_it_needs() {
        let small = said(&[(63, Some(0.05), Reach::Devices(63)), (937, None, Reach::All)], 1000);
        let enough = said(&[(64, Some(0.05), Reach::Devices(64)), (936, None, Reach::All)], 1000);

        assert!(small.contains("needs 64 clean ones"), "{small}");
        assert!(!enough.contains("needs"), "{enough}");
    }

    #[test]
    fn a_plan_that_leaves_somebody_out_or_a_tiny_fleet_is_named() {
        let said = said(&[(100, Some(0.05), Reach::Devices(100))], 150);

        assert!(said.contains("50 devices and all newcomers"), "{said}");
        assert!(said.contains("tiny fleet"), "{said}");
    }

    #[test]
    fn a_canary_that_detects_nothing_and_a_gate_that_good_releases_do_not_pass_are_named() {
        let few = said(&[(3, None, Reach::Devices(3)), (997, None, Reach::All)], 1000);
        assert!(
            few.contains("phase 1 kills nothing by evidence") && few.contains("3 devices are too few"),
            "{few}"
        );
        assert!(!few.contains("before its last silence deadline"), "its soak is longer: {few}");

        let steps = [PhasePreview {
            phase: Phase::new(Reach::All, PhaseRule::default()),
            devices: 1000,
            cohort_messages: 1,
            waves: vec![1000],
            held_back: 0,
            opens: vec![0],
            ends: 86_400,
            detects: detectable(&Plan::default().policy, 1000, 1000, 1, None),
        }];
        let heard = |usual| warnings(&Plan::default(), &steps, 1000, Some(usual)).join("\n");
        assert!(heard(0.02).contains("the last good release failed on 2 %"), "{}", heard(0.02));
        assert_eq!(heard(0.01), "", "known to be good enough");
    }

    #[test]
    fn a_sound_plan_hears_only_the_rule_of_four() {
        let said = said(&[(100, Some(0.05), Reach::Percent(10.0)), (900, None, Reach::All)], 1000);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
