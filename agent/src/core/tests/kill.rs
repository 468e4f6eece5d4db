//! "A kill learned here", row by row: the table at the top of `machine.rs`.

use tern_protocol::state::{Outcome, StateName};

use super::super::SlotName;
use super::super::machine::reports;
use super::super::state::{Effect, Event, RollbackStep, State, Then, UpdatingStep};
use super::super::timing::Timing;
use super::{NOW, after, booted, rollback, show, states, trial, updating, work};

/// Kills in `state`, then lets everything that is owed succeed; returns the states passed and the outcomes said.
fn killed_in(state: State, running: SlotName) -> (Vec<State>, Vec<Outcome>) {
    let (mut passed, mut outcomes, mut running) = (vec![state], Vec::new(), running);
    let mut event = Event::Halted;
    for _ in 0..10 {
        let before = passed.last().unwrap().clone();
        let next = after(before.clone(), &event);
        for report in reports(&before, &next, &event) {
            if let tern_protocol::message::ReportKind::Outcome { outcome, .. } = report {
                outcomes.push(outcome);
            }
        }
        passed.push(next.clone());
        event = match next.owes(NOW, &Timing::default()) {
            Some(Effect::UndoHooks) => Event::Undone,
            Some(Effect::Disarm) => Event::Disarmed { running },
            Some(Effect::Reboot) => {
                running = SlotName::A;
                booted(running, false, true)
            }
            None => break,
            Some(owed) => panic!("{} owes {owed:?} after a kill", show(&next)),
        };
    }
    (passed, outcomes)
}

fn ends_idle_without_an_outcome(state: State) {
    let (passed, outcomes) = killed_in(state.clone(), SlotName::A);
    assert_eq!(passed.last().unwrap(), &State::Idle { not_before: None }, "{}", show(&state));
    assert_eq!(outcomes, [], "{}", show(&state));
}

fn is_recalled(state: State) -> Vec<State> {
    let (passed, outcomes) = killed_in(state.clone(), SlotName::A);
    assert_eq!(passed.last().unwrap(), &State::Idle { not_before: None }, "{}", show(&state));
    assert_eq!(outcomes, [Outcome::Recalled], "{}", show(&state));
    passed
}

fn all(name: StateName) -> impl Iterator<Item = State> {
    states().into_iter().filter(move |state| state.name() == name)
}

#[test]
fn idle_and_failed_forget() {
    for state in all(StateName::Idle).chain(all(StateName::Failed)) {
        assert_eq!(after(state.clone(), &Event::Halted), state);
    }
}

#[test]
fn checking_and_retry_forget() {
    all(StateName::Checking).chain(all(StateName::Retry)).for_each(ends_idle_without_an_outcome);
}

#[test]
fn downloading_and_verifying_drop_what_they_have() {
    all(StateName::Downloading).chain(all(StateName::Verifying)).for_each(ends_idle_without_an_outcome);
}

#[test]
fn pre_updating_undoes_its_hooks_and_is_recalled() {
    for state in all(StateName::PreUpdating) {
        let passed = is_recalled(state);
        assert!(passed.iter().any(|s| s.owes(NOW, &Timing::default()) == Some(Effect::UndoHooks)));
    }
}

#[test]
fn updating_unarmed_undoes_its_hooks_and_is_recalled_without_touching_the_boot_record() {
    let passed = is_recalled(updating(UpdatingStep::Announce { since: NOW }));
    assert!(!passed.iter().any(|s| s.owes(NOW, &Timing::default()) == Some(Effect::Disarm)));
}

#[test]
fn updating_armed_disarms_before_it_undoes_its_hooks_and_is_recalled() {
    for step in [UpdatingStep::Arm, UpdatingStep::Reboot, UpdatingStep::Disarm(Then::Fail("x".into()))] {
        let passed = is_recalled(updating(step));
        let owed: Vec<_> = passed[1..].iter().filter_map(|s| s.owes(NOW, &Timing::default())).collect();
        assert_eq!(owed, [Effect::Disarm, Effect::UndoHooks]);
    }
}

#[test]
fn updating_power_cycled_while_armed_boots_the_trial_and_goes_back_as_recalled() {
    let armed = updating(UpdatingStep::Reboot);
    let booted = after(armed, &booted(SlotName::B, true, true));
    assert_eq!(booted.name(), StateName::VerifyPost);

    let (passed, outcomes) = killed_in(booted, SlotName::B);

    assert_eq!(outcomes, [Outcome::Recalled]);
    assert_eq!(passed.last().unwrap().name(), StateName::Failed);
}

#[test]
fn verify_post_rolls_back_as_recalled() {
    for state in [trial(false, false), trial(true, false), trial(true, true)] {
        let (passed, outcomes) = killed_in(state, SlotName::B);
        assert_eq!(passed.last().unwrap().name(), StateName::Failed);
        assert_eq!(outcomes, [Outcome::Recalled]);
    }
}

#[test]
fn success_goes_on_for_a_revert_is_a_rollout_of_its_own() {
    let state = State::Success { work: work() };
    assert_eq!(after(state.clone(), &Event::Halted), state);
}

#[test]
fn a_rollback_goes_on() {
    for step in [RollbackStep::Record, RollbackStep::Reboot, RollbackStep::Undo] {
        assert_eq!(after(rollback(step), &Event::Halted), rollback(step));
    }
}

#[test]
fn nothing_but_a_trial_that_succeeded_survives_a_kill() {
    for state in states() {
        let settled = |s: &State| matches!(s, State::Success { .. } | State::Failed { .. });
        let killed = after(state.clone(), &Event::Halted);
        let owed = killed.owes(NOW, &Timing::default());
        let forward = matches!(
            owed,
            Some(
                Effect::Check
                    | Effect::Fetch
                    | Effect::Ask
                    | Effect::RunHooks
                    | Effect::Announce
                    | Effect::Arm
            )
        );
        assert!(settled(&killed) || !forward, "{} goes on with {owed:?}", show(&state));
    }
}
