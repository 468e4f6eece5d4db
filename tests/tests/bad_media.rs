//! Media that fail while a device lives: it says what is wrong, and goes on booting what it confirmed.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use tern_agent::core::SlotName;
use tern_agent::core::state::State;
use tern_protocol::message::ReportKind;
use tern_protocol::state::Outcome;
use tern_tests::powercut::board::Kind;
use tern_tests::powercut::campaign::trace;
use tern_tests::powercut::device::{Ended, Terminal};
use tern_tests::powercut::disk::{Operation, class};
use tern_tests::powercut::story::Story;

/// What the service heard at the end.
fn ending(terminal: &Terminal) -> Option<(Outcome, String)> {
    terminal.service.heard.values().rev().find_map(|kind| match kind {
        ReportKind::Outcome { outcome, reason, .. } => Some((*outcome, reason.clone().unwrap_or_default())),
        _ => None,
    })
}

/// Has something happen to the medium once a part of the release is written; returns how it ended.
fn befalls(kind: Kind, harm: impl Fn(&Terminal)) -> (Outcome, String) {
    let mut terminal = Story::Update.begins(kind);
    let slot = class(&terminal.board.slot(SlotName::B));
    let operations = trace(Story::Update, kind).unwrap();
    let is_chunk =
        |(operation, place): &(Operation, String)| *operation == Operation::Write && *place == slot;
    let second = operations.iter().enumerate().filter(|(_, operation)| is_chunk(operation)).nth(1).unwrap().0;
    terminal.disk.cut_before(second as u64 + 1);
    assert_eq!(Story::Update.goes_on(&mut terminal), Ended::Cut);
    // The download goes on in the next boot, on a medium that is not what it was.
    let medium = terminal.disk.shut_down();
    terminal = terminal.with_disk(medium);
    harm(&terminal);

    let ended = terminal.run(&|terminal, agent| {
        let at_rest = matches!(agent.durable().state, State::Failed { .. } | State::Idle { .. });
        at_rest && ending(terminal).is_some() && agent.durable().outbox.pending().next().is_none()
    });

    assert_eq!(ended, Ended::Done);
    let told = ending(&terminal).unwrap();
    let medium = terminal.disk.shut_down();
    let mut terminal = terminal.with_disk(medium);
    assert_eq!(terminal.run(&|_, _| true), Ended::Done, "it boots");
    assert_eq!(terminal.runs, Some(1), "what it confirmed");
    told
}

#[test]
fn a_slot_that_vanishes_under_way_is_reported_and_the_confirmed_one_boots() {
    let (outcome, reason) =
        befalls(Kind::Uboot, |terminal| terminal.disk.unplug(&terminal.board.slot(SlotName::B)));

    assert_eq!(outcome, Outcome::Failed);
    assert!(reason.contains("there is no such device or file"), "{reason}");
}

#[test]
fn a_slot_that_becomes_read_only_is_reported_and_the_confirmed_one_boots() {
    for kind in [Kind::Uboot, Kind::Files] {
        let (outcome, reason) =
            befalls(kind, |terminal| terminal.disk.set_read_only(&terminal.board.slot(SlotName::B), true));

        assert_eq!(outcome, Outcome::Failed);
        assert!(reason.contains("cannot be written") || reason.contains("read-only"), "{kind:?} {reason}");
    }
}

#[test]
fn a_full_disk_is_reported_and_the_journal_still_has_its_room() {
    for kind in [Kind::Files, Kind::Single] {
        let (outcome, reason) = befalls(kind, |terminal| terminal.disk.set_room(Some(1000)));

        assert_eq!(outcome, Outcome::Failed, "{kind:?}");
        assert!(reason.contains("could not write to slot b"), "{kind:?} {reason}");
    }
}

#[test]
fn an_environment_that_cannot_be_written_keeps_a_release_from_starting_and_nothing_else() {
    let (outcome, reason) =
        befalls(Kind::Uboot, |terminal| terminal.disk.set_read_only(Path::new("/dev/environment"), true));

    assert_eq!(outcome, Outcome::Failed);
    assert!(reason.contains("/dev/environment"), "{reason}");
}

/// The control: with nothing wrong the same story ends well.
#[test]
fn a_medium_to_which_nothing_happens_takes_the_release() {
    let mut terminal = Story::Update.begins(Kind::Uboot);

    assert_eq!(Story::Update.goes_on(&mut terminal), Ended::Done);

    assert_eq!(Story::Update.judge(&mut terminal, 0), None);
}
