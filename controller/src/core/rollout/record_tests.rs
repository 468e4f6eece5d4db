//! What one rollout adds up to.

use tern_protocol::state::Outcome;

use super::*;
use crate::core::fact::Fact;
use crate::core::rollout::judgement::Judgement;
use crate::core::rollout::paired::Side;
use crate::core::rollout::silence::Deadline;
use crate::core::rollout::verdict::{KillReason, Verdict};

fn rollout() -> Rollout {
    let model: ModelId = "m".parse().unwrap();
    let cuts = BTreeMap::from([(model.clone(), Cut(1))]);
    let (id, product, models) = ("r".parse().unwrap(), "p".parse().unwrap(), BTreeSet::from([model]));
    let phases = vec![PhaseRecord::new(cuts, 100, 0, 0)];
    Rollout { phases, ..Rollout::new(id, product, 2, Salt([0; 16]), Plan::default(), models) }
}

#[test]
fn a_model_that_starts_first_spends_its_own_share_of_the_budget_and_no_more() {
    let [first, other] = ["m", "other"].map(|name| name.parse::<ModelId>().unwrap());
    let mut rollout = rollout();
    rollout.plan.policy.hard_stop = None;
    let started = |rollout: &mut Rollout| {
        for _ in 0..10 {
            let rank = rollout.count_start(&first, 0);
            if rank <= 6 {
                rollout.count_outcome(&first, 0, (0, rank), Outcome::RolledBack);
            }
        }
    };
    let mut alone = rollout.clone();
    rollout.phases[0].cuts.insert(other.clone(), Cut(1));

    started(&mut alone);
    started(&mut rollout);
    let weight = |rollout: &Rollout| match rollout.judge(1000, 1) {
        Verdict::Kill(KillReason::Evidence(evidence)) => evidence.weight,
        other => panic!("{other}"),
    };

    assert_eq!((weight(&alone), weight(&rollout)), (0.5, 0.25), "nobody of the other has started");
    rollout.count_start(&other, 0);
    assert_eq!(weight(&rollout), 0.25);
}

#[test]
fn what_one_model_is_paused_for_does_not_hide_that_another_is_killed() {
    let [first, other] = ["a", "b"].map(|name| name.parse::<ModelId>().unwrap());
    let mut rollout = rollout();
    rollout.plan.policy.harm_budget = Some(1);
    let sick = |rollout: &mut Rollout, model: &ModelId, of: u64, bad: u64| {
        for number in 0..of {
            let rank = rollout.count_start(model, 0);
            if number < bad {
                rollout.count_outcome(model, 0, (0, rank), Outcome::RolledBack);
            }
        }
    };
    sick(&mut rollout, &first, 40, 1);
    assert!(matches!(rollout.judge(1000, 1), Verdict::Pause(_)), "its budget is spent");
    sick(&mut rollout, &other, 10, 8);
    let judgement = rollout.judgement(1000, 1);
    assert!(matches!(judgement.verdict, Verdict::Kill(_)), "{judgement}");
    assert_eq!(judgement.subject, "model=b");
}

/// Twenty models, each with as many released and held-back devices as given; every day so many of either crash.
fn days_beside_a_control(
    exposed: (u64, u64),
    crashing: impl Fn(usize) -> (u64, u64),
) -> Option<(u64, Judgement)> {
    let models: Vec<ModelId> = (0..20).map(|n| format!("m{n:02}").parse().unwrap()).collect();
    let mut rollout = rollout();
    rollout.held_from = Some(Position(9));
    let day = rollout.plan.policy.health_length();
    for model in &models {
        rollout.control.entry(model.clone()).or_default().held = exposed.1;
        rollout.count_start(model, 0);
    }
    (1..=15).find_map(|today| {
        for (number, model) in models.iter().enumerate() {
            let (treated, control) = crashing(number);
            for (side, devices, crash) in
                [(Side::Treated, exposed.0, treated), (Side::Control, exposed.1, control)]
            {
                for device in 0..devices {
                    rollout.compare_health(model, side, device < crash, None, today * day);
                }
            }
        }
        let judgement = rollout.judgement(100_000, today * day);
        matches!(judgement.verdict, Verdict::Kill(_) | Verdict::Pause(_)).then_some((today, judgement))
    })
}

#[test]
fn what_is_too_little_in_every_model_is_enough_in_all_of_them_together() {
    let (day, judgement) = days_beside_a_control((50, 50), |_| (3, 1)).unwrap();

    assert!(day <= 3, "{day}: {judgement}");
    let line = judgement.to_string();
    assert!(
        line.starts_with("KILL all models: crashes: released ")
            || line.starts_with("PAUSE all models: crashes:"),
        "{line}"
    );
}

#[test]
fn models_that_crash_unlike_each_other_say_nothing_together_while_each_crashes_like_its_control() {
    // Half of the models crash often, and of them most devices have the release.
    assert_eq!(
        days_beside_a_control((200, 50), |model| if model % 2 == 0 { (100, 25) } else { (4, 1) }),
        None
    );
    assert_eq!(days_beside_a_control((50, 50), |_| (1, 1)), None);
}

#[test]
fn silence_after_the_control_was_let_go_is_judged_by_itself_and_not_what_it_had_spoken_about() {
    let model: ModelId = "m".parse().unwrap();
    let mut rollout = rollout();
    rollout.held_from = Some(Position(9));
    rollout.control.entry(model.clone()).or_default().held = 30;
    let silent = |rollout: &mut Rollout, count| {
        for _ in 0..count {
            rollout.count_start(&model, 0);
            rollout.count_deadline(&model, 0, 0, Deadline::Early, true);
        }
    };
    silent(&mut rollout, 20);
    assert!(
        matches!(rollout.judge(1000, 1), Verdict::Hold(_)),
        "the control was as silent, or nobody was due"
    );
    let (id, because) = (rollout.id.clone(), String::new());
    rollout.widened(
        &Fact::HoldBackEnded { rollout: id, devices: 30, held_from: None, key: None, because },
        2,
        2,
    );
    assert!(matches!(rollout.judge(1000, 3), Verdict::Hold(_)));
    silent(&mut rollout, 8);
    assert!(matches!(rollout.judge(1000, 4), Verdict::Kill(_)), "eight more, and nobody beside them");
}

#[test]
fn a_control_is_let_go_in_time_though_everybody_else_of_the_last_phase_is_away() {
    const HOUR: Millis = 3_600_000;
    let model: ModelId = "m".parse().unwrap();
    let mut rollout = rollout();
    rollout.plan.phases = vec![rollout.plan.phases.pop().unwrap()];
    rollout.held_from = Some(Position(9));
    let lets_go =
        |rollout: &Rollout, hours: u64| matches!(rollout.judge(1000, hours * HOUR), Verdict::Advance(_));
    assert!(!lets_go(&rollout, 23) && lets_go(&rollout, 24), "nobody ever began");
    rollout.plan.phases[0].rule.gate = Some(0.05);
    assert!(!lets_go(&rollout, 1000), "who asked for proof does not get time for it");
    rollout.plan.phases[0].rule.gate = None;

    rollout.plan.phases[0].rule.soak = std::time::Duration::from_secs(2 * 3600);
    for rank in 1..=60 {
        rollout.count_start(&model, 0);
        rollout.count_outcome(&model, 0, (0, rank), Outcome::Success);
    }
    rollout.resume(5 * HOUR, 5 * HOUR);

    assert!(!lets_go(&rollout, 6) && lets_go(&rollout, 7), "forty are away, and sixty are judged no more");
    rollout.held_from = None;
    assert!(!lets_go(&rollout, 1000), "nothing is left to do");
}

#[test]
fn a_resumed_rollout_is_not_judged_by_what_was_before_and_forgets_nothing() {
    let model: ModelId = "m".parse().unwrap();
    let mut rollout = rollout();
    let ranks: Vec<u64> = (0..10).map(|_| rollout.count_start(&model, 0)).collect();
    for rank in &ranks[..5] {
        rollout.count_outcome(&model, 0, (0, *rank), Outcome::RolledBack);
    }
    assert!(matches!(rollout.judge(1000, 1), Verdict::Kill(_)));

    rollout.resume(5, 5);
    rollout.count_outcome(&model, 0, (0, ranks[9]), Outcome::RolledBack);

    assert!(matches!(rollout.judge(1000, 6), Verdict::Hold(_)));
    assert_eq!((rollout.total().started, rollout.total().bad), (10, 6));
}
