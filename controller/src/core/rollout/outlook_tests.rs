//! What an outlook promises comes true: with one bad device less nothing happens.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::ModelId;
use tern_protocol::position::{Cut, Position, Salt};
use tern_protocol::state::Outcome;

use super::*;
use crate::core::rollout::plan::Plan;
use crate::core::rollout::record::PhaseRecord;
use crate::core::rollout::silence::Deadline;
use crate::core::rollout::verdict::Verdict;

const FLEET: u64 = 1000;

fn model() -> ModelId {
    "m".parse().unwrap()
}

fn rollout(change: impl Fn(&mut Plan)) -> Rollout {
    let mut plan = Plan::default();
    plan.policy.hard_stop = None;
    change(&mut plan);
    let (id, product) = ("r".parse().unwrap(), "p".parse().unwrap());
    let phases = vec![PhaseRecord::new(BTreeMap::from([(model(), Cut(1))]), 200, 0, 0)];
    Rollout { phases, ..Rollout::new(id, product, 2, Salt([0; 16]), plan, BTreeSet::from([model()])) }
}

/// So many start; of them the first end badly, the next well, and others not yet.
fn go(rollout: &mut Rollout, started: u64, bad: u64, good: u64) {
    let ranks: Vec<u64> = (0..started).map(|_| rollout.count_start(&model(), 0)).collect();
    for (index, rank) in (0..).zip(ranks) {
        let outcome = if index < bad { Outcome::RolledBack } else { Outcome::Success };
        if index < bad + good {
            rollout.count_outcome(&model(), 0, (0, rank), outcome);
        }
    }
}

fn of(rollout: &Rollout, test: Test) -> Outlook {
    let all = rollout.outlook(FLEET, 1);
    let one = all.into_iter().find(|one| matches!(&one.of, Tells::Test(evidence) if evidence.test == test));
    one.expect("every test has an outlook")
}

#[test]
fn so_many_more_bad_of_the_next_ten_kill_and_one_less_does_not() {
    let mut before = rollout(|_| ());
    // Four are on trial and count already: the next ten are they and six others.
    go(&mut before, 40, 2, 34);
    let outlook = of(&before, Test::Outcome);
    let (kills, pauses) = (outlook.kills.unwrap(), outlook.pauses.unwrap());
    assert!(kills.of == 10 && pauses.of == 10 && pauses.bad < kills.bad, "{}", outlook.line);
    assert!(
        outlook.line.contains(&format!("; {} more bad of the next 10 would kill", kills.bad)),
        "{}",
        outlook.line
    );

    let judged = |bad: u64| {
        let mut after = rollout(|_| ());
        go(&mut after, 46, 2 + bad, 34);
        after.judge(FLEET, 1)
    };
    assert!(matches!(judged(kills.bad), Verdict::Kill(_)));
    assert!(matches!(judged(kills.bad - 1), Verdict::Pause(_)));
    assert!(matches!(judged(pauses.bad), Verdict::Pause(_)));
    assert!(matches!(judged(pauses.bad - 1), Verdict::Hold(_)));
}

#[test]
fn a_gate_says_how_many_clean_ones_pass_it_and_they_do() {
    let mut open = rollout(|plan| plan.phases[0].rule.soak = std::time::Duration::ZERO);
    go(&mut open, 50, 0, 47);
    let gate = open.outlook(FLEET, 1).pop().unwrap();
    assert_eq!(gate.clean, Some(64 - 47), "{}", gate.line);
    assert!(gate.line.contains("17 more clean ones pass it; soak 0 s of 0 s"), "{}", gate.line);

    let passes = |clean: u64| {
        let mut after = rollout(|plan| plan.phases[0].rule.soak = std::time::Duration::ZERO);
        go(&mut after, 47 + clean, 0, 47 + clean);
        matches!(after.judge(FLEET, 1), Verdict::Advance(_))
    };
    assert!(passes(17) && !passes(16));
    open.phases[0].devices = 60;
    let gate = open.outlook(FLEET, 1).pop().unwrap();
    assert!(gate.clean.is_none() && gate.line.contains("60 devices are too few"), "{}", gate.line);
}

#[test]
fn silence_beside_a_control_and_rules_that_only_count_have_an_outlook_too() {
    let mut held = rollout(|plan| {
        plan.policy.hard_stop = Some(crate::core::rollout::policy::HardStop { bad: 3, first: 10 });
        plan.policy.harm_budget = Some(5);
    });
    held.held_from = Some(Position(9));
    held.control.entry(model()).or_default().held = 30;
    go(&mut held, 10, 1, 9);
    let lines: Vec<String> = held.outlook(FLEET, 1).into_iter().map(|one| one.line).collect();
    let all = lines.join("\n");
    assert!(all.contains("silent: released 0/0 vs control 0/0; allowed 2 % and ratio > 2"), "{all}");
    assert!(all.contains("hard stop: 1 bad of the first 10 started; 2 more of those stop it"), "{all}");
    assert!(all.contains("harm budget: 1 bad of 5; 4 more pause it"), "{all}");
    let early = of(&held, Test::SilenceEarly);
    assert_eq!(early.kills.map(|more| more.of), Some(100), "ten beside ten are too few: {}", early.line);
    assert!(early.line.contains("more silent of the next 100 would kill"), "{}", early.line);

    held.held_from = None;
    for _ in 0..8 {
        held.count_deadline(&model(), 0, 0, Deadline::Early, false);
    }
    let text = serde_json::to_string(&held.outlook(FLEET, 1)).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Outlook>>(&text).unwrap(), held.outlook(FLEET, 1));
}
