//! The real boot chain: QEMU's board, U-Boot with the scripts that we ship, Debian's kernel, our static agent, and MQTT
//! to the real service. What is true at the end is asked of all three: the service, the guest's agent, and U-Boot's
//! variables on the disk.
//!
//! `.ci/boot-chain` fetches and builds what it needs.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod device;
mod disk;
mod image;
mod kit;
mod machine;

use device::{Device, UPDATE};
use image::{BROKEN, Fault};
use machine::Machine;
use serde_json::Value;

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
    assert_eq!(attempt["outcome"], "rolled-back", "{attempt}");

    device.give_up(2);
    device.roll_out(3, Fault::Userland);
    assert_eq!(machine.hear("up"), "slot=b release=3");
    assert_eq!(machine.hear("up"), "slot=a release=1");

    let attempt = device.outcome(3);
    assert_eq!(attempt["outcome"], "rolled-back", "{attempt}");
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
    assert_eq!(attempt["outcome"], "rolled-back", "{attempt}");
    confirmed(&device, machine, "a", 1);

    ["slot-a", "slot-b"].iter().for_each(|slot| device.disk.partition(slot).ruin());
    let mut machine = device.power_on();
    machine.find("tern: nothing is left to boot, recovery", UPDATE);
    assert_eq!(machine.hear("up"), "slot=none release=1");
    confirmed(&device, machine, "a", 1);
}
