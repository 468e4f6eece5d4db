//! Stories that cross several states, and what the controller hears of them.

use tern_protocol::message::ReportKind;
use tern_protocol::state::{Outcome, StateName};

use super::super::SlotName;
use super::super::machine::{INSTALL_TRIES, REBOOT_TRIES, reports};
use super::super::state::{Event, RetryTo, State, Then, UpdatingStep};
use super::super::timing::{Stamp, Timing};
use super::super::way::Way;
use super::{LONG, NOW, after, booted, events, later, offer, show, states, trial, updating, work};

/// Runs events through the machine; returns the last state and every outcome that was reported.
fn story(mut state: State, events: &[Event]) -> (State, Vec<Outcome>) {
    let mut outcomes = Vec::new();
    for event in events {
        let next = after(state.clone(), event);
        for report in reports(&state, &next, event) {
            if let ReportKind::Outcome { outcome, .. } = report {
                outcomes.push(outcome);
            }
        }
        state = next;
    }
    (state, outcomes)
}

fn booted_b() -> Event {
    booted(SlotName::B, true, true)
}

fn booted_a() -> Event {
    booted(SlotName::A, true, true)
}

#[test]
fn a_good_update_is_reported_once_as_a_success() {
    let (state, outcomes) = story(
        State::Idle { not_before: None },
        &[
            Event::Offered { offer: offer(2, 1), slot: SlotName::B },
            Event::Eligible { present: false },
            Event::SlotMarked,
            Event::Chosen(Way::Raw),
            Event::Written(vec![0, 1, 2]),
            Event::Hashed { matches: true },
            Event::Answered,
            Event::HooksDone,
            Event::Answered,
            Event::Armed,
            booted_b(),
            Event::ProbesPassed,
        ],
    );
    assert_eq!((state.name(), outcomes), (StateName::VerifyPost, vec![]));
    let state =
        state.after(&Event::Answered, Stamp { epoch: NOW.epoch + 1, uptime: LONG }, &Timing::default());
    assert_eq!(state.name(), StateName::Success);
    let (state, outcomes) = story(state, &[Event::Confirmed]);
    assert_eq!((state, outcomes), (State::Idle { not_before: None }, vec![Outcome::Success]));
}

#[test]
fn nothing_is_written_before_the_slot_is_marked_bad() {
    let fresh = after(State::Checking { work: work() }, &Event::Eligible { present: false });
    assert_eq!(after(fresh.clone(), &Event::Written(vec![0, 1, 2])), fresh);
}

#[test]
fn nothing_arms_before_its_own_start_was_answered() {
    let announced = after(State::PreUpdating { work: work(), undo: None }, &Event::HooksDone);
    assert_eq!(announced, updating(UpdatingStep::Announce { since: NOW }));
    for (name, event) in events().into_iter().filter(|(name, _)| *name != "answered") {
        let next = after(announced.clone(), &event);
        let armed = matches!(next, State::Updating { step: UpdatingStep::Arm | UpdatingStep::Reboot, .. });
        assert!(!armed, "{name} arms");
    }
    assert_eq!(after(announced, &Event::Answered), updating(UpdatingStep::Arm));
}

#[test]
fn an_answer_that_was_heard_before_a_boot_does_not_arm_after_it() {
    let lost = booted(SlotName::A, false, true);
    let state = after(updating(UpdatingStep::Arm), &lost);
    assert!(matches!(state, State::Updating { step: UpdatingStep::Announce { .. }, .. }), "{}", show(&state));
}

#[test]
fn an_agent_that_restarts_between_arming_and_booting_only_boots() {
    let restarted = booted(SlotName::A, true, false);
    let mut state = after(updating(UpdatingStep::Arm), &restarted);
    assert_eq!(state, updating(UpdatingStep::Reboot));
    // A boot that does not come is asked for again; then what is armed is disarmed.
    for _ in 1..REBOOT_TRIES {
        state = after(state, &restarted);
        assert!(matches!(state, State::Updating { step: UpdatingStep::Reboot, .. }), "{}", show(&state));
    }
    let State::Updating { step: UpdatingStep::Disarm(Then::Fail(why)), .. } = after(state, &restarted) else {
        panic!("still armed")
    };
    assert!(why.contains("look at boot.reboot"), "{why}");
}

#[test]
fn an_agent_that_ends_in_an_install_does_not_begin_it_for_ever() {
    let restarted = booted(SlotName::A, false, false);
    let mut state = updating(UpdatingStep::Install);
    for _ in 1..INSTALL_TRIES {
        let next = after(state, &restarted);
        assert!(
            matches!(next, State::Updating { step: UpdatingStep::Announce { .. }, .. }),
            "{}",
            show(&next)
        );
        let State::Updating { work, .. } = next else { unreachable!() };
        state = State::Updating { work, step: UpdatingStep::Install };
    }
    let over = after(state, &restarted);
    let State::Updating { step: UpdatingStep::Undo(Then::Fail(why)), .. } = &over else {
        panic!("{}", show(&over))
    };
    assert!(why.contains("the agent ended while components were installed"), "{why}");
}

#[test]
fn a_boot_loader_that_refused_the_trial_is_a_rollback() {
    let (state, outcomes) = story(
        updating(UpdatingStep::Reboot),
        &[booted_a(), Event::Disarmed { running: SlotName::A }, Event::Undone],
    );
    assert_eq!((state.name(), outcomes), (StateName::Failed, vec![Outcome::RolledBack]));
}

#[test]
fn a_start_that_nobody_answers_is_taken_back_and_asked_for_again() {
    let waiting = later(updating(UpdatingStep::Announce { since: NOW }), &Event::Time);
    assert_eq!(waiting, updating(UpdatingStep::Undo(Then::Defer)));
    let (state, outcomes) = story(waiting, &[Event::Undone]);
    assert_eq!(
        (state, outcomes),
        (State::Verifying { work: work(), at: 0, hashed: false }, vec![Outcome::Deferred])
    );
}

#[test]
fn one_power_cycle_in_the_soak_starts_the_soak_again_and_an_agent_restart_does_not() {
    let restarted = booted(SlotName::B, true, false);
    assert_eq!(after(trial(true, true), &restarted), trial(true, true));
    let State::VerifyPost { since, probed, heard, .. } = after(trial(true, true), &booted_b()) else {
        panic!("the trial ended")
    };
    assert_eq!((since.epoch, probed, heard), (NOW.epoch + 1, false, false));
}

#[test]
fn a_trial_that_is_answered_before_its_soak_is_over_is_not_confirmed() {
    assert_eq!(after(trial(true, false), &Event::Answered), trial(true, true));
    let unprobed = later(trial(false, false), &Event::Answered);
    assert_eq!(unprobed.name(), StateName::VerifyPost);
    assert_eq!(later(trial(true, true), &Event::Answered).name(), StateName::Success);
}

#[test]
fn bad_bytes_are_mended_once_and_then_fetched_again_a_bounded_number_of_times() {
    let timing = Timing::default();
    let mut state = State::Verifying { work: work(), at: 0, hashed: false };
    let mut tries = 0;
    loop {
        state = after(state, &Event::Hashed { matches: false });
        tries += 1;
        if matches!(state, State::Failed { .. }) {
            break;
        }
        if tries == 1 {
            let mends = matches!(state, State::Downloading { marked: false, way: Way::Mend, .. });
            assert!(mends, "{}", show(&state));
            state = after(state, &Event::SlotMarked);
        } else {
            assert!(matches!(state, State::Retry { to: RetryTo::Downloading, .. }), "{}", show(&state));
            state = later(state, &Event::Time);
            let downloads = matches!(state, State::Downloading { marked: false, way: Way::Open, .. });
            assert!(downloads, "{}", show(&state));
            state = after(after(state, &Event::SlotMarked), &Event::Chosen(Way::Raw));
        }
        state = after(state, &Event::Written(vec![0, 1, 2]));
    }
    assert_eq!(tries, timing.retry_tries);
}

#[test]
fn a_failed_attempt_gives_way_only_to_a_higher_attempt_or_release() {
    let failed = State::Failed { work: work(), reason: "no space".into(), again: None };
    let offered = |rc, attempt| Event::Offered { offer: offer(rc, attempt), slot: SlotName::B };
    assert_eq!(after(failed.clone(), &offered(2, 1)), failed);
    assert_eq!(after(failed.clone(), &offered(2, 2)).name(), StateName::Checking);
    assert_eq!(after(failed, &offered(3, 1)).name(), StateName::Checking);
}

#[test]
fn a_trial_that_reached_nobody_is_made_three_times_and_no_more() {
    let mut state = trial(true, false);
    for tries in 1..=3 {
        state = later(state, &Event::Time);
        assert_eq!(state.name(), StateName::Rollback, "{}", show(&state));
        for event in [Event::Disarmed { running: SlotName::A }, Event::Undone] {
            state = after(state, &event);
        }
        let offered = Event::Offered { offer: offer(2, 1), slot: SlotName::B };
        assert_eq!(after(state.clone(), &offered), state, "not at once");
        let again = later(state.clone(), &offered);
        if tries == 3 {
            assert_eq!(again, state);
            break;
        }
        let State::Checking { work } = again else { panic!("{}", show(&again)) };
        assert_eq!(work.tries.unreachable, tries);
        state = State::VerifyPost { work, since: NOW, probed: true, heard: false };
    }
}

#[test]
fn a_step_is_reported_when_it_happens_and_never_when_nothing_does() {
    for state in states() {
        for (name, event) in events() {
            let next = after(state.clone(), &event);
            let said = reports(&state, &next, &event);
            let transitions = said.iter().filter(|r| matches!(r, ReportKind::Transition { .. })).count();
            let outcomes = said.iter().filter(|r| matches!(r, ReportKind::Outcome { .. })).count();
            let moved = state.name() != next.name();
            assert_eq!(transitions, usize::from(moved), "{}: {name}", show(&state));
            assert!(outcomes <= 1 && (moved || outcomes == 0), "{}: {name}", show(&state));
            if next == state {
                assert_eq!(said, [], "{}: {name}", show(&state));
            }
        }
    }
}

#[test]
fn every_way_out_of_a_started_attempt_says_how_it_ended_exactly_once() {
    for state in
        states().into_iter().filter(|s| matches!(s.name(), StateName::Updating | StateName::Rollback))
    {
        for (name, event) in events() {
            let next = after(state.clone(), &event);
            let left = !matches!(
                next.name(),
                StateName::Updating | StateName::VerifyPost | StateName::Success | StateName::Rollback
            );
            let said = reports(&state, &next, &event);
            let outcomes = said.iter().filter(|r| matches!(r, ReportKind::Outcome { .. })).count();
            assert_eq!(outcomes, usize::from(left), "{}: {name} -> {}", show(&state), show(&next));
        }
    }
}
