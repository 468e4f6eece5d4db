//! What every back end of the boot record owes, whatever boots the device: files, U-Boot, systemd-boot, a program.
//!
//! The loaders are the tests' own: U-Boot's script and the back end of files by the reference `choose`, systemd-boot and
//! GRUB from their specifications.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "a campaign tells what it has done")]

mod bench;
mod grub;

use std::collections::BTreeSet;

use bench::{Bench, Loader};
use tern_agent::boot::{BootRecord, Trial, choose};
use tern_agent::core::SlotName;
use tern_tests::powercut::disk::{Lie, Operation};
use tern_tests::powercut::outcome::Outcome;

const ON_A_FAKE_DISK: [Loader; 3] = [Loader::Files, Loader::Uboot, Loader::SystemdBoot];

fn confirmed(active: SlotName) -> BootRecord {
    BootRecord { active, trial: None }
}

fn trial(active: SlotName, tries_left: u8) -> BootRecord {
    BootRecord { active, trial: Some(Trial { slot: active.other(), rc: 7, tries_left }) }
}

/// Everything that the agent ever writes, and what a loader makes of it.
fn every_record() -> Vec<BootRecord> {
    let of = |active| [confirmed(active), trial(active, 2), trial(active, 1), trial(active, 0)];
    SlotName::BOTH.into_iter().flat_map(of).collect()
}

#[test]
fn every_record_can_be_written_over_every_other_and_reads_back_anew() {
    for loader in Loader::ALL {
        let mut bench = Bench::new(loader);
        bench.power_on().unwrap();
        for from in every_record() {
            for to in every_record() {
                let mut boot = bench.agent();
                boot.write(&from).unwrap();
                assert_eq!(boot.record().unwrap(), from, "{loader:?}");

                boot.write(&to).unwrap();

                assert_eq!(boot.record().unwrap(), to, "{loader:?} from {from:?}");
                drop(boot);
                assert_eq!(bench.record().unwrap(), Some(to.clone()), "{loader:?} from {from:?}");
                // Once more changes nothing.
                bench.agent().write(&to).unwrap();
                bench.agent().settle().unwrap();
                assert_eq!(bench.record().unwrap(), Some(to.clone()), "{loader:?} from {from:?}, settled");
            }
        }
    }
}

#[test]
fn the_loader_does_with_every_record_what_the_reference_does_until_nothing_changes_any_more() {
    for loader in Loader::ALL {
        for record in every_record() {
            let mut bench = Bench::new(loader);
            bench.power_on().unwrap();
            bench.agent().write(&record).unwrap();
            let mut expected = record.clone();
            for boot in 1..=4 {
                let (slot, next) = choose(&expected, [true, true]).unwrap();

                let found = bench.power_on().unwrap();

                assert_eq!(found, slot, "{loader:?} {record:?}, boot {boot}");
                assert_eq!(bench.record().unwrap(), Some(next.clone()), "{loader:?} {record:?}, boot {boot}");
                // The agent comes up, knows its slot, and changes nothing by that.
                let booted = bench.agent().booted().unwrap();
                assert_eq!(booted.slot, slot, "{loader:?} {record:?}, boot {boot}");
                assert_eq!(bench.record().unwrap(), Some(next.clone()), "{loader:?} {record:?}, boot {boot}");
                expected = next;
            }
        }
    }
}

#[test]
fn a_boot_has_an_id_that_the_next_one_does_not_have_and_an_agents_restart_does() {
    for loader in Loader::ALL {
        let mut bench = Bench::new(loader);
        bench.power_on().unwrap();
        let first = bench.agent().booted().unwrap();
        let again = bench.agent().booted().unwrap();
        bench.power_on().unwrap();

        let second = bench.agent().booted().unwrap();

        assert_eq!(first, again, "{loader:?}");
        assert_ne!(first.boot_id, second.boot_id, "{loader:?}");
    }
}

/// What the agent writes, from which record; the last is settled too.
fn changes() -> Vec<(&'static str, BootRecord, BootRecord, bool)> {
    let (a, b) = (SlotName::A, SlotName::B);
    vec![
        ("arm", confirmed(a), trial(a, 2), false),
        ("arm the other", confirmed(b), trial(b, 2), false),
        ("disarm", trial(a, 2), confirmed(a), false),
        ("confirm", trial(a, 2), confirmed(b), false),
        ("confirm and settle", trial(a, 2), confirmed(b), true),
    ]
}

/// Cuts the power before every operation of every change. The record is then the old one or the new one, the loader boots
/// what it says, and the change can be made anew; once it was said to be done, it is.
fn every_cut(loader: Loader, lie: Option<&Lie>) -> Result<usize, String> {
    let mut runs = 0;
    for (what, from, to, is_settled) in changes() {
        let mut bench = Bench::new(loader);
        bench.power_on()?;
        bench.agent().write(&from).map_err(|error| error.to_string())?;
        bench.power_on()?;
        let before = bench.record()?.ok_or("no record")?;
        for number in 1.. {
            let cut = bench.copy();
            cut.disk().lie(lie.cloned());
            let mut boot = cut.agent();
            cut.disk().cut_before(number);
            let mut done = boot.write(&to);
            if is_settled && done.is_ok() {
                done = boot.settle();
            }
            let is_cut = cut.disk().is_dead();
            if let (Err(error), false) = (&done, is_cut) {
                return Err(format!("{what}: {error}"));
            }
            drop(boot);
            for (outcome, medium) in cut.disk().futures(&Outcome::on_fat()) {
                runs += 1;
                let place = || format!("{what}, before operation {number}, {outcome:?}");
                let mut reborn = bench.with(medium);
                let found = reborn.record().map_err(|error| format!("{}: {error}", place()))?;
                let found = found.ok_or_else(|| format!("{}: no record", place()))?;
                if found != to && (found != before || !is_cut) {
                    return Err(format!("{}: {found:?}, which is neither", place()));
                }
                let (slot, next) = choose(&found, [true, true]).unwrap();
                let booted = reborn.power_on().map_err(|error| format!("{}: {error}", place()))?;
                if booted != slot || reborn.record()?.as_ref() != Some(&next) {
                    return Err(format!("{}: boots {booted} of {found:?}", place()));
                }
                let mut boot = reborn.agent();
                boot.write(&to)
                    .and_then(|()| boot.settle())
                    .map_err(|error| format!("{}: {error}", place()))?;
                if reborn.record()?.as_ref() != Some(&to) {
                    return Err(format!("{}: cannot be made anew", place()));
                }
            }
            if !is_cut {
                break;
            }
        }
    }
    Ok(runs)
}

#[test]
fn a_power_cut_before_every_operation_of_every_change_leaves_the_old_record_or_the_new_one() {
    for loader in ON_A_FAKE_DISK {
        let runs = every_cut(loader, None).unwrap_or_else(|what| panic!("{loader:?}: {what}"));
        println!("{loader:?}: {runs} power cuts");
        assert!(runs > 25, "{loader:?}: {runs}");
    }
}

/// The control of the test above: without one of these syncs it must fail.
#[test]
fn a_sync_that_is_left_out_of_a_change_is_seen() {
    for (loader, syncs) in [
        (Loader::Files, &[(Operation::Sync, "boot")][..]),
        (Loader::Uboot, &[(Operation::Sync, "environment")]),
        (
            Loader::SystemdBoot,
            &[
                (Operation::Sync, "tern+2.conf"),
                (Operation::Sync, "tern.conf"),
                (Operation::SyncFolder, "entries"),
            ],
        ),
    ] {
        for (operation, class) in syncs {
            let seen = every_cut(loader, Some(&Lie::Never(*operation, (*class).to_owned())));

            println!("{loader:?} without {operation:?} of {class}: {seen:?}");
            assert!(seen.is_err(), "{loader:?} without {operation:?} of {class}");
        }
    }
}

/// What every damage to a single place of the record brings, after a confirmation that was settled, or was not.
fn damaged(loader: Loader, is_settled: bool) -> Vec<Result<Option<BootRecord>, String>> {
    let mut bench = Bench::new(loader);
    bench.power_on().unwrap();
    bench.agent().write(&trial(SlotName::A, 2)).unwrap();
    bench.power_on().unwrap();
    bench.agent().write(&confirmed(SlotName::B)).unwrap();
    if is_settled {
        bench.agent().settle().unwrap();
    }
    let damages = bench.places().into_iter().map(|(path, at)| {
        let mut damaged = bench.copy();
        (at..at + 512).for_each(|byte| damaged.disk().rot(&path, byte));
        let found = damaged.record();
        if is_settled && let Ok(slot) = damaged.power_on() {
            assert_eq!(slot, SlotName::B, "{loader:?} boots what was left for good, {path:?} being damaged");
        }
        found
    });
    damages.collect()
}

#[test]
fn once_it_is_settled_no_loss_of_a_single_place_brings_an_older_decision_back() {
    for loader in ON_A_FAKE_DISK {
        let settled = damaged(loader, true);
        let is_older = |found: &Result<Option<BootRecord>, String>| matches!(found, Ok(Some(record)) if *record != confirmed(SlotName::B));
        assert!(!settled.is_empty() && !settled.iter().any(is_older), "{loader:?}: {settled:?}");

        let unsettled = damaged(loader, false);
        assert!(unsettled.iter().any(is_older), "{loader:?}: {unsettled:?}, so the test sees nothing");
    }
}

/// FAT renames in two steps: the entry on trial may be there twice, or not at all.
#[test]
fn a_power_cut_in_the_counting_of_systemd_boot_leaves_a_trial_that_ends() {
    let mut begin = Bench::new(Loader::SystemdBoot);
    begin.power_on().unwrap();
    begin.agent().write(&trial(SlotName::A, 2)).unwrap();
    let mut kinds = BTreeSet::new();
    for earlier in 0..2 {
        let mut bench = begin.copy();
        for _ in 0..earlier {
            assert_eq!(bench.power_on(), Ok(SlotName::B));
        }
        for number in 1.. {
            let mut cut = bench.copy();
            cut.disk().cut_before(number);
            if cut.power_on().is_ok() {
                break;
            }
            for (_, medium) in cut.disk().futures(&Outcome::on_fat()) {
                let mut reborn = bench.with(medium);
                kinds.insert(reborn.entries().join(" "));
                let mut booted = Vec::new();
                for _ in 0..4 {
                    booted.push(reborn.power_on().unwrap());
                    // The agent comes up each time, and is not well.
                    drop(reborn.agent());
                    assert!(reborn.entries().len() <= 2, "{:?}", reborn.entries());
                }
                // A cut costs at most one boot more than there are tries.
                assert_eq!(booted[3], SlotName::A, "{booted:?}");
                assert_eq!(reborn.record().unwrap().unwrap().active, SlotName::A);
            }
        }
    }
    println!("{kinds:#?}");
    let is_there = |names: &str| assert!(kinds.contains(names), "{kinds:?}");
    is_there("tern-a.conf tern-b+1-1.conf tern-b+2.conf");
    is_there("tern-a.conf tern-b+0-2.conf tern-b+1-1.conf");
    is_there("tern-a.conf");
}
