//! The real U-Boot, in QEMU, runs the boot script that we ship, over an environment that the agent wrote.
//!
//! A slot is a sector: it boots if a word stands in it. What the script decides is read from the console, and from the
//! environment that it leaves behind, and compared with `boot::choose`, the reference.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod board;

use board::{Board, SECTOR, SIZE};
use tern_agent::boot::uboot::environment::Environment;
use tern_agent::boot::uboot::variables;
use tern_agent::boot::{BootRecord, Trial, choose};
use tern_agent::core::SlotName;
use tern_agent::storage::system::System;

fn record(active: SlotName, trial: Option<(SlotName, u8)>) -> BootRecord {
    BootRecord { active, trial: trial.map(|(slot, tries_left)| Trial { slot, rc: 9, tries_left }) }
}

const A: SlotName = SlotName::A;
const B: SlotName = SlotName::B;

#[test]
fn a_trial_counts_down_and_the_confirmed_slot_comes_back_and_is_never_counted() {
    let Some(board) = Board::new() else { return };
    board.arm(&record(A, Some((B, 2))));

    for tries_left in [1, 0] {
        assert_eq!(board.booted(), "b");
        assert_eq!(board.record(), record(A, Some((B, tries_left))));
    }
    let before = board.copies();
    for _ in 0..3 {
        assert_eq!(board.booted(), "a");
        assert!(board.copies() == before, "a confirmed slot costs nothing");
    }

    board.arm(&record(B, None));
    let before = board.copies();
    assert_eq!(board.booted(), "b");
    assert!(board.copies() == before);
    assert_eq!(board.medium.read(&System).unwrap().value("serial"), Some(&b"7"[..]));
}

#[test]
fn where_both_copies_are_damaged_slot_a_boots_and_nothing_is_written() {
    let Some(board) = Board::new() else { return };
    board.arm(&record(B, Some((A, 2))));
    let mut copies = board.copies();
    copies.iter_mut().for_each(|copy| copy[SIZE - 1] ^= 1);
    board.put([&copies[0], &copies[1]]);

    let (booted, console) = board.boot("");

    assert_eq!(booted, "a");
    assert!(console.contains("no boot record, taking slot a"), "{console}");
    assert!(board.copies() == copies);
    board.fill([false, true]);
    assert_eq!(board.booted(), "recovery", "slot b may hold what nobody has approved");
}

#[test]
fn a_try_that_cannot_be_taken_durably_is_not_made() {
    let Some(board) = Board::new() else { return };
    board.arm(&record(A, Some((B, 2))));

    let (booted, console) = board.boot(",readonly=on");

    assert_eq!(booted, "a", "{console}");
    assert!(console.contains("the environment cannot be saved, no trial"), "{console}");
    assert_eq!(board.record(), record(A, Some((B, 2))));
}

/// The whole small world: every record, every way in which slots can be broken.
#[test]
fn the_script_does_what_the_reference_does() {
    let Some(board) = Board::new() else { return };
    let trials = [None, Some(0), Some(1), Some(2)];
    let mut boots = 0;
    for active in SlotName::BOTH {
        for (slot, tries) in SlotName::BOTH.into_iter().flat_map(|slot| trials.map(|tries| (slot, tries))) {
            if tries.is_none() && slot == A {
                continue;
            }
            for usable in [[false, false], [false, true], [true, false], [true, true]] {
                let before = record(active, tries.map(|tries| (slot, tries)));
                board.arm(&before);
                board.fill(usable);

                let booted = board.booted();

                match choose(&before, usable) {
                    Ok((slot, after)) => assert_eq!((booted, board.record()), (slot.to_string(), after)),
                    Err(_) => assert_eq!(booted, "recovery", "{before:?} {usable:?}"),
                }
                boots += 1;
            }
        }
    }
    assert_eq!(boots, 56);
}

/// A single slot: what is wanted boots if it is there, and recovery otherwise, which costs no try.
#[test]
fn a_single_slot_boots_what_is_wanted_or_recovery() {
    let Some(board) = Board::single() else { return };
    for active in SlotName::BOTH {
        for tries in [None, Some(0), Some(1), Some(2)] {
            for installed in [None, Some(A), Some(B)] {
                let before = record(active, tries.map(|tries| (active.other(), tries)));
                board.arm(&before);
                let put = |environment: &mut Environment| variables::put_installed(environment, installed);
                board.medium.change(&System, put).unwrap();
                board.fill([true, false]);
                let (wanted, after) = choose(&before, [true, true]).unwrap();

                let booted = board.booted();

                match installed == Some(wanted) {
                    true => assert_eq!((booted, board.record()), (wanted.to_string(), after)),
                    false => {
                        assert_eq!((booted.as_str(), board.record()), ("recovery", before), "{installed:?}");
                    }
                }
            }
        }
    }
    // A trial that cannot start is over, and recovery brings the confirmed package back.
    board.arm(&record(A, Some((B, 2))));
    board.medium.change(&System, |environment| variables::put_installed(environment, Some(B))).unwrap();
    board.fill([false, false]);
    assert_eq!((board.booted().as_str(), board.record()), ("recovery", record(A, Some((B, 0)))));
}

/// Recovery could not do anything there, and the two would take turns.
#[test]
fn a_single_slot_whose_record_cannot_be_saved_boots_what_is_confirmed_and_makes_no_trial() {
    let Some(board) = Board::single() else { return };
    let before = record(A, Some((B, 2)));
    board.arm(&before);
    board.medium.change(&System, |it| variables::put_installed(it, Some(A))).unwrap();

    for _ in 0..2 {
        let (booted, console) = board.boot(",readonly=on");

        assert_eq!(booted, "a", "{console}");
        assert!(console.contains("the environment cannot be saved, no trial"), "{console}");
        assert_eq!(board.record(), before);
    }
    // The control: where it can be saved it is recovery's turn, at no cost.
    assert_eq!((board.booted().as_str(), board.record()), ("recovery", before.clone()));
    // What is not confirmed is never booted instead.
    board.medium.change(&System, |it| variables::put_installed(it, None)).unwrap();
    assert_eq!(board.boot(",readonly=on").0, "recovery");
}

/// Under another name the agent would take a trial for the confirmed release.
#[test]
fn a_single_slot_boots_under_no_name_but_that_of_what_is_in_it() {
    let put = |board: &Board, record: &BootRecord, installed| {
        board.arm(record);
        board.medium.change(&System, |it| variables::put_installed(it, Some(installed))).unwrap();
    };
    let Some(board) = Board::single() else { return };
    let on_trial = record(A, Some((B, 2)));
    put(&board, &on_trial, B);
    let (booted, console) = board.boot(",readonly=on");
    assert_eq!(booted, "b", "{console}");
    assert!(console.contains("the environment cannot be saved, no trial"), "{console}");

    // A trial that does not start, and then recovery that does not, either.
    let Some(board) = Board::single_without_recovery(true) else { return };
    put(&board, &on_trial, B);
    board.fill([false, false]);
    let (booted, console) = board.boot("");
    assert_eq!(booted, "nothing", "{console}");
    assert_eq!(board.record(), record(A, Some((B, 0))));
    // Now only what is installed is left.
    assert_eq!(board.booted(), "b");

    // What is installed does not start, either: no try is taken of the trial that is wanted and not there.
    let Some(board) = Board::single_without_recovery(false) else { return };
    let wanted = record(B, Some((A, 2)));
    put(&board, &wanted, B);
    board.fill([false, false]);
    let (booted, console) = board.boot("");
    assert_eq!((booted.as_str(), board.record()), ("nothing", wanted), "{console}");
}

/// The agent's write, cut at a sector: U-Boot and the agent go by the same record, the old one or the new one.
#[test]
fn after_a_power_cut_u_boot_and_the_agent_go_by_the_same_record() {
    let Some(board) = Board::new() else { return };
    let filler = "f".repeat(9000);
    board.medium.change(&System, |environment| environment.set("after", Some(&filler))).unwrap();
    board.arm(&record(A, None));
    let before = board.copies();
    board.arm(&record(A, Some((B, 2))));
    let after = board.copies();
    let written = usize::from(before[1] != after[1]);
    let mut seen = Vec::new();

    for sectors in [0, 1, 2, 10, 18, 19, 20, 32] {
        let mut copies = before.clone();
        let cut = sectors * usize::try_from(SECTOR).unwrap();
        copies[written][..cut].copy_from_slice(&after[written][..cut]);
        board.put([&copies[0], &copies[1]]);
        let believed = board.record();

        let booted = board.booted();

        assert_eq!(booted, if believed.trial.is_some() { "b" } else { "a" }, "{sectors} sectors");
        seen.push(booted);
    }
    assert!(seen.first().unwrap() == "a" && seen.last().unwrap() == "b", "{seen:?}");
}

#[test]
fn of_two_whole_copies_u_boot_and_the_agent_believe_the_same_one_and_the_flag_wraps() {
    let Some(board) = Board::new() else { return };
    let copy = |flag: u8, active: SlotName| {
        let mut environment = Environment::default();
        variables::put(&mut environment, &record(active, None));
        environment.encode(flag, SIZE).unwrap()
    };
    for (first, second) in
        [(1, 1), (1, 2), (2, 1), (127, 128), (128, 127), (255, 0), (0, 255), (255, 254), (0, 9)]
    {
        board.put([&copy(first, A), &copy(second, B)]);
        assert_eq!(board.booted(), board.record().active.to_string(), "{first} {second}");
    }

    // The script's own write goes over 255 as well.
    let mut copies = [copy(254, A), copy(255, A)];
    let mut environment = Environment::default();
    variables::put(&mut environment, &record(A, Some((B, 3))));
    copies[1] = environment.encode(255, SIZE).unwrap();
    board.put([&copies[0], &copies[1]]);
    for (tries_left, newest) in [(2, 0), (1, 1), (0, 0)] {
        assert_eq!(board.booted(), "b");
        assert_eq!(board.record(), record(A, Some((B, tries_left))));
        assert!(board.copies()[newest] != copies[newest], "the older one was written");
        copies = board.copies();
    }
}
