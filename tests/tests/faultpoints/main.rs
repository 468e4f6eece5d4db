//! The service dies at every operation of its ledger, its store and its sending, in a story with three rollouts of which
//! two are killed. Whatever it had promised to anybody must stand, and every verdict be taken once.
//!
//! A few of the points each time; `.ci/long faultpoints` takes them all.

mod campaign;
mod story;

use campaign::{Plan, run_all};
use tern_tests::apart::service::Deaths;
use tern_tests::apart::wire::Broken;

/// Runs of the quick campaign, controls aside.
const QUICK: usize = 18;

#[test]
fn a_service_that_dies_at_any_operation_keeps_every_promise() {
    let plan = Plan::of_the_story();
    let asked: String = std::env::var("TERN_FAULTPOINTS").unwrap_or_default();
    let part: Option<(usize, usize)> =
        asked.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let cases = match (part, asked.parse()) {
        // The first of so many parts that together are all cases: "1/10".
        (Some((part, of)), _) => plan.every_case().into_iter().skip(part - 1).step_by(of).collect(),
        // For who looks into a failure: the log of its story is printed whole.
        (None, Ok(point)) => plan.cases_of(point),
        (None, Err(_)) => plan.some_cases(QUICK),
    };

    let failures = run_all(&plan, &cases);

    campaign::tell(&plan, &cases, &failures);
    assert!(failures.is_empty(), "{} of {} cases failed", failures.len(), cases.len());
}

/// Runs cases with something that is wrong on purpose; what the campaign says of it must be said.
fn found(broken: Broken, cases: impl FnOnce(&Plan) -> Vec<Deaths>, what: &str) {
    let plan = Plan::of_the_story();
    let cases: Vec<Deaths> =
        cases(&plan).into_iter().map(|deaths| Deaths { broken: Some(broken), ..deaths }).collect();

    let failures = run_all(&plan, &cases);

    let hits = failures.iter().filter(|failure| failure.why.contains(what)).count();
    campaign::say(&format!("{broken:?}: found in {hits} of {} cases: {what}", cases.len()));
    let others: Vec<_> = failures.iter().filter_map(|failure| failure.why.lines().next()).collect();
    assert!(hits > 0, "nothing like {what:?} in {others:?}");
}

#[test]
fn should_find_acknowledgements_that_leave_before_the_sync() {
    found(Broken::AcksEarly, Plan::without_the_kills, "which is not in the ledger");
}

#[test]
fn should_find_bundles_that_leave_before_the_kill_is_synced() {
    found(Broken::BundlesEarly, Plan::without_the_kills, "was published and is not in the ledger");
}

#[test]
fn should_find_a_start_that_does_not_complete_a_kill() {
    found(Broken::KillNotCompleted, Plan::with_unfinished_kills, "no signed file halts release");
}
