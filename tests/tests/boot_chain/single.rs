//! A board with a single slot, and a recovery system of its own in which the init of deploy/recovery runs.

use std::fs;
use std::time::Duration;

use tern_agent::boot::uboot::medium::{Location, Medium};
use tern_agent::boot::uboot::variables;
use tern_agent::core::SlotName;
use tern_agent::storage::system::System;

use crate::confirmed;
use crate::device::{Device, UPDATE};
use crate::disk::{COPY, SECOND};
use crate::image::Fault;
use crate::machine::Machine;
use crate::rolled_back;

/// Bytes of a block of the data partition, which is a small file system.
const BLOCK: usize = 1024;
/// How long recovery may take.
const RECOVERY: Duration = Duration::from_secs(180);

/// Waits until recovery has put a package into the system slot.
fn written(machine: &mut Machine, slot: &str) {
    let said = machine.find("{\"slot\":", RECOVERY);
    assert_eq!(said, format!("\"{slot}\",\"written\":true}}"));
}

/// Tells whether the system slot of a board that is off holds this release, byte for byte.
fn holds(device: &Device, rc: u64) -> bool {
    let disk = fs::read(&device.disk.path).unwrap();
    disk[device.disk.partition("system").range()].starts_with(&image(device, rc))
}

fn image(device: &Device, rc: u64) -> Vec<u8> {
    fs::read(device.lab.path(&format!("{rc}.img"))).unwrap()
}

/// An update, with the power cut while recovery writes; then one whose kernel U-Boot cannot start.
#[test]
fn a_single_slot_gets_a_release_in_spite_of_a_power_cut_and_gets_it_back_after_one_that_does_not_start() {
    let Some(device) = Device::single() else { return };
    let mut machine = device.power_on();
    assert_eq!(machine.hear("up"), "slot=a release=1");

    device.roll_out(2, Fault::None);
    machine.find("tern: b is wanted, installed is a: recovery", UPDATE);
    machine.find("recovering percent=4", RECOVERY);
    machine.cut_power();
    assert_eq!(device.variables().get("tern_installed").filter(|slot| !slot.is_empty()), None);
    assert!(!holds(&device, 2), "the cut came too late");

    let mut machine = device.power_on();
    machine.find("tern: b is wanted, installed is : recovery", UPDATE);
    let goes_on = machine.find("recovering percent=", RECOVERY);
    let percent: u64 = goes_on.split(' ').next().unwrap().parse().unwrap();
    assert!(percent > 20, "begun anew, at {goes_on}");
    written(&mut machine, "b");
    machine.find("tern: trial of slot b, tries left after it: 1", RECOVERY);
    assert_eq!(machine.hear("up"), "slot=b release=2");
    let attempt = device.outcome(2);
    assert_eq!(attempt["outcome"], "success", "{attempt}");
    let status = machine.status();
    assert_eq!((&status["active"], &status["slots"]["b"]["holds"]), (&"b".into(), &2.into()), "{status}");

    device.roll_out(3, Fault::Kernel);
    machine.find("tern: a is wanted, installed is b: recovery", UPDATE);
    written(&mut machine, "a");
    machine.find("tern: slot a does not boot", RECOVERY);
    written(&mut machine, "b");
    assert_eq!(machine.hear("up"), "slot=b release=2");
    rolled_back(&device.outcome(3));
    confirmed(&device, machine, "b", 2);
    assert_eq!(device.variables().get("tern_installed").map(String::as_str), Some("b"));
    assert!(holds(&device, 2));
}

#[test]
#[ignore = "two boots more; .ci/long crash-points runs it"]
fn where_no_package_is_whole_recovery_fetches_one_again() {
    let Some(device) = Device::single() else { return };
    device.lab.publish(1, &device.lab.path("1.img"));
    // The slot, what says that it is filled, and the package that would fill it again.
    device.disk.partition("system").ruin();
    let at = device.disk.partition("environment").offset;
    let copies = [0, SECOND].map(|offset| Location { path: device.disk.path.clone(), offset: at + offset });
    let medium = Medium { copies, size: COPY, lock: device.lab.path("lock") };
    medium.change(&System, |environment| variables::put_installed(environment, None)).unwrap();
    assert!(damage(&device, 1) > 0, "the package is not found");

    let mut machine = device.power_on();
    machine.find("tern: a is wanted, installed is : recovery", UPDATE);
    machine.find("no package is whole; fetching it again", RECOVERY);
    written(&mut machine, "a");
    assert_eq!(machine.hear("up"), "slot=a release=1");
    machine.power_off();
    assert!(holds(&device, 1));
    assert_eq!(variables::installed(&medium.read(&System).unwrap()).unwrap(), Some(SlotName::A));
}

/// Damages one block of a release wherever it stands on the data partition; returns at how many places.
fn damage(device: &Device, rc: u64) -> usize {
    let wanted = image(device, rc);
    let block =
        wanted.chunks(BLOCK).find(|block| block.iter().filter(|byte| **byte == 0).count() < 16).unwrap();
    let mut disk = fs::read(&device.disk.path).unwrap();
    let data = &mut disk[device.disk.partition("data").range()];
    let mut places = 0;
    for there in data.chunks_mut(BLOCK).filter(|there| *there == block) {
        there[7] ^= 1;
        places += 1;
    }
    fs::write(&device.disk.path, disk).unwrap();
    places
}
