//! The real boot chain: QEMU's board, U-Boot with the scripts that we ship, Debian's kernel, our static agent, and MQTT
//! to the real service. What is true at the end is asked of all three: the service, the guest's agent, and U-Boot's
//! variables on the disk.
//!
//! `.ci/boot-chain` fetches and builds what it needs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and says what it found")]

mod crash;
mod device;
mod disk;
mod entries;
mod image;
mod kit;
mod machine;
mod pc;
mod single;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crash::Logged;
use crash::cuts::cuts;
use crash::medium::{Copies, Finding};
use crash::write_log::epochs;
use device::{Device, UPDATE};
use image::{BROKEN, Fault};
use machine::Machine;
use pc::Pc;
use serde_json::Value;
use tern_tests::sim::clock::Rng;

/// Service, guest and disk agree: `slot` is confirmed and holds release `rc`, and nothing is on trial.
fn confirmed(device: &Device, mut machine: Machine, slot: &str, rc: u64) {
    let status = machine.status();
    assert_eq!((status["active"].as_str(), &status["trial"]), (Some(slot), &Value::Null), "{status}");
    assert_eq!(status["slots"][slot]["holds"], rc, "{status}");
    let shown = device.shown();
    assert_eq!(shown["running"], rc, "{shown}");
    machine.power_off();
    let variables = device.variables();
    let variable = |name: &str| variables.get(name).map(String::as_str);
    assert_eq!((variable("tern_active"), variable("tern_trial")), (Some(slot), None), "{variables:?}");
    assert_eq!(variable("serial"), Some("7"), "what is not ours stays");
}

/// The service knows that a trial has ended in the former release, and why.
fn rolled_back(attempt: &Value) {
    assert_eq!(attempt["outcome"], "rolled-back", "{attempt}");
    assert!(attempt["reason"].as_str().is_some_and(|why| !why.is_empty()), "{attempt}");
}

#[test]
fn two_releases_after_each_other_are_installed_booted_and_confirmed() {
    let Some(device) = Device::make() else { return };
    let mut machine = device.power_on();
    assert_eq!(machine.hear("up"), "slot=a release=1");

    for (rc, slot) in [(2, "b"), (3, "a")] {
        device.roll_out(rc, Fault::None);
        assert_eq!(machine.hear("up"), format!("slot={slot} release={rc}"));

        let attempt = device.outcome(rc);
        assert_eq!(attempt["outcome"], "success", "{attempt}");
    }

    confirmed(&device, machine, "a", 3);
}

#[test]
fn a_release_whose_kernel_does_not_start_comes_back_by_u_boot_and_one_whose_probe_fails_by_the_agent() {
    let Some(device) = Device::make() else { return };
    let mut machine = device.power_on();
    assert_eq!(machine.hear("up"), "slot=a release=1");

    device.roll_out(2, Fault::Kernel);
    machine.find("tern: slot b does not boot", UPDATE);
    assert_eq!(machine.hear("up"), "slot=a release=1");

    let attempt = device.outcome(2);
    rolled_back(&attempt);

    device.give_up(2);
    device.roll_out(3, Fault::Userland);
    assert_eq!(machine.hear("up"), "slot=b release=3");
    assert_eq!(machine.hear("up"), "slot=a release=1");

    let attempt = device.outcome(3);
    rolled_back(&attempt);
    assert!(attempt["reason"].as_str().is_some_and(|why| why.contains(BROKEN)), "{attempt}");
    confirmed(&device, machine, "a", 1);
}

/// A hang is ended by the watchdog that U-Boot has started, a power cut by nobody: each costs one of the two tries.
/// Then nothing boots at all.
#[test]
fn a_trial_that_hangs_uses_up_its_tries_and_where_no_slot_is_left_the_recovery_system_boots() {
    let Some(device) = Device::make() else { return };
    let mut machine = device.power_on();
    assert_eq!(machine.hear("up"), "slot=a release=1");

    device.roll_out(2, Fault::Hangs);
    machine.find("tern: trial of slot b, tries left after it: 1", UPDATE);
    assert_eq!(machine.hear("hangs"), "slot=b release=2");
    machine.find("tern: trial of slot b, tries left after it: 0", UPDATE);
    assert_eq!(machine.hear("hangs"), "slot=b release=2");
    machine.cut_power();
    let mut machine = device.power_on();
    assert_eq!(machine.hear("up"), "slot=a release=1");

    let attempt = device.outcome(2);
    rolled_back(&attempt);
    confirmed(&device, machine, "a", 1);

    ["slot-a", "slot-b"].iter().for_each(|slot| device.disk.partition(slot).ruin());
    let mut machine = device.power_on();
    machine.find("tern: nothing is left to boot, recovery", UPDATE);
    assert_eq!(machine.hear("up"), "slot=none release=1");
    confirmed(&device, machine, "a", 1);
}

/// Power cuts in an update, by the log of what the guest wrote: every epoch between two flushes, cut in a few ways. With
/// TERN_CRASH_BOOTS the real chain boots one disk of each kind that came out; `.ci/long crash-points` does that, and cuts
/// more.
#[test]
fn a_power_cut_anywhere_in_an_update_leaves_a_disk_that_boots_what_was_signed() {
    let Some(device) = Device::make() else { return };
    let update = cut_everywhere(&device, 2, Fault::None);

    // The controls: a board with one copy of the environment, and an agent that does not sync the slot before it arms.
    let single = crash::with_one_copy(&update, &device.disk);
    let unsynced = crash::without_sync(&update, &device.disk);
    for (name, update, copies) in [("one copy", &single, Copies::One), ("no sync", &unsynced, Copies::Two)] {
        let (cuts, broken) = crash::control(&device, update, copies, number("TERN_CRASH_CUTS", 16).max(16));
        println!("control, {name}: {broken} of {cuts} cuts break the boot");
        assert!(broken > 0, "the cuts do not see what is wrong with {name}");
    }
}

#[test]
#[ignore = "as the one above, for releases that do not stay; .ci/long crash-points"]
fn a_power_cut_anywhere_in_a_rollback_leaves_a_disk_that_boots_what_was_signed() {
    for fault in [Fault::Userland, Fault::Kernel] {
        let Some(device) = Device::make() else { return };
        cut_everywhere(&device, 2, fault);
    }
}

/// Both slots have been written to by then, and the journal has a past.
#[test]
#[ignore = "as the ones above, from slot b; .ci/long crash-points"]
fn a_power_cut_anywhere_in_a_second_update_leaves_a_disk_that_boots_what_was_signed() {
    for fault in [Fault::None, Fault::Userland, Fault::Kernel] {
        let Some(device) = Device::make() else { return };
        let mut machine = device.power_on();
        assert_eq!(machine.hear("up"), "slot=a release=1");
        device.roll_out(2, Fault::None);
        assert_eq!(machine.hear("up"), "slot=b release=2");
        assert_eq!(device.outcome(2)["outcome"], "success");
        machine.power_off();

        cut_everywhere(&device, 3, fault);
    }
}

/// Logs an update to release `rc`, and cuts it; nothing may break.
fn cut_everywhere(device: &Device, rc: u64, fault: Fault) -> Logged {
    let (most, seed) = (number("TERN_CRASH_CUTS", 3), number("TERN_CRASH_SEED", 1));
    let update = crash::update(device, rc, fault);
    let tally = crash::campaign(device, &update, most, seed as u64);
    let writes: usize = update.epochs.iter().map(Vec::len).sum();
    let (epochs, cuts, broken) = (update.epochs.len(), tally.cuts, tally.broken.len());
    println!(
        "release {rc} with fault {fault:?}: {writes} writes in {epochs} epochs, {cuts} cuts, {broken} break something"
    );
    for (kind, (times, ..)) in &tally.kinds {
        println!("{times:5} x {kind}");
    }
    assert!(tally.broken.is_empty(), "{:#?}", tally.broken);
    assert!(cuts >= 200 && tally.kinds.len() >= 8, "too few: {cuts} of {:?}", tally.kinds.keys());
    if std::env::var_os("TERN_CRASH_BOOTS").is_some() {
        for (kind, (_, finding, disk)) in &tally.kinds {
            let starts = fault != Fault::Kernel || finding.release != rc;
            boots_as_found(device, kind, finding, disk, starts);
        }
    }
    update
}

/// The real chain boots the slot that the reference says, the confirmed one if that does not start, and leaves the record
/// as it says.
fn boots_as_found(device: &Device, kind: &str, finding: &Finding, disk: &Path, starts: bool) {
    let (up, status) = crash::boots(device, disk);
    let (slot, release) = if starts { (finding.boots, finding.release) } else { finding.confirmed };
    assert_eq!(up, format!("slot={slot} release={release}"), "{kind}");
    assert_eq!(status["active"], finding.record.active.to_string(), "{kind}: {status}");
    // A release that does not start has used up all its boots before the confirmed one comes up.
    let left = finding.after.trial.as_ref().map(|trial| if starts { u64::from(trial.tries_left) } else { 0 });
    // The agent may have ended a trial since, but never begun one.
    let now = status["trial"]["tries_left"].as_u64();
    assert!(now.is_none() || now == left, "{kind}: {status}");
}

/// What our back end for systemd-boot relies on.
#[test]
fn systemd_boot_counts_a_trial_down_then_boots_the_other_entry_and_counts_a_renamed_one_no_more() {
    let Some(pc) = Pc::make(0) else { return };
    let mut machine = pc.power_on(&pc.disk(), None);

    assert_eq!(machine.hear("up"), r"slot=b selected=b+2.conf counted=\loader\entries\b+1-1.conf");
    machine.tell("reboot");
    assert_eq!(machine.hear("up"), r"slot=b selected=b+1-1.conf counted=\loader\entries\b+0-2.conf");
    machine.tell("reboot");
    assert_eq!(machine.hear("up"), "slot=a selected=a.conf counted=");
    machine.tell("rename b+0-2.conf b.conf");
    assert_eq!(machine.hear("entries"), "a.conf b.conf");
    machine.tell("reboot");
    assert_eq!(machine.hear("up"), "slot=b selected=b.conf counted=");

    machine.power_off();
    assert_eq!(pc.entries(), ["a.conf", "b.conf"]);
}

/// FAT knows no atomic rename: of an entry whose new name stands in another sector than the old one, a power cut may leave
/// none, or both. The other entry stays, and something boots.
#[test]
#[ignore = "takes minutes; .ci/long crash-points runs it"]
fn a_power_cut_in_renames_of_one_entry_leaves_the_other_one_and_a_disk_that_boots() {
    // So many that the renamed entry comes to stand at the end of a sector. Where it is also the end of a cluster, so that
    // the folder grows, there are cuts after which systemd-boot finds no entry at all.
    let Some(pc) = Pc::make(4) else { return };
    let kinds = renames(&pc);

    for (kind, (times, disk)) in &kinds {
        let mut machine = pc.power_on(disk, None);
        println!("{times:5} x {kind}: boots {}", machine.hear("up"));
        assert!(kind.contains("a whole: true"), "{kind}");
    }
    assert!(
        kinds.keys().any(|kind| kind.starts_with("entries a.conf;")),
        "no cut has lost the entry: {kinds:#?}"
    );
}

/// Renames entry b twice by systemd-boot and once by Linux, cuts what was written everywhere, and returns how often which
/// disk came out, with one of each.
fn renames(pc: &Pc) -> BTreeMap<String, (usize, PathBuf)> {
    let mut disk = std::fs::read(pc.disk()).unwrap();
    let log = pc.path("write.log");
    std::fs::write(&log, "").unwrap();
    let mut machine = pc.power_on(&pc.disk(), Some(&log));
    machine.hear("up");
    machine.tell("reboot");
    machine.hear("up");
    machine.tell("rename b+0-2.conf b.conf");
    machine.hear("entries");
    machine.power_off();

    let mut kinds = BTreeMap::new();
    for (number, epoch) in epochs(&log).iter().enumerate() {
        for cut in cuts(epoch, &disk, 40, &mut Rng::of(1, &format!("epoch {number}"))) {
            let mut left = disk.clone();
            for (index, part) in cut {
                let at = epoch[index].at;
                left[at + part.start..at + part.end].copy_from_slice(&epoch[index].bytes[part]);
            }
            let path = pc.path(&format!("kind-{}.disk", kinds.len()));
            let (times, _) = kinds.entry(pc.look(&left)).or_insert_with(|| {
                std::fs::write(&path, &left).unwrap();
                (0, path)
            });
            *times += 1;
        }
        for write in epoch {
            disk[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }
    kinds
}

/// A number from the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
