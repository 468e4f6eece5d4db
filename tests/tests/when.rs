//! A real device whose owner is asked first, with hooks at every step, through a good release and a bad one.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_tests::lab::{Lab, LabDevice, Making, PRODUCT, made, wait};

const PATIENCE: Duration = Duration::from_secs(90);

fn sections() -> String {
    let mut sections = String::from(
        "[when]\nconsent_file = \"{dir}/consent\"\nbattery_min = 1\npower_supply = \"{dir}/power\"\n\
         [data]\nareas = [\"{dir}/user\"]\n",
    );
    for step in [
        "check",
        "download",
        "pre-update",
        "snapshot",
        "migrate",
        "arm",
        "post-boot",
        "confirmed",
        "rolled-back",
        "undo",
    ] {
        let says = "echo \"$TERN_STEP $TERN_RC from $TERN_FROM_VERSION\" >> {dir}/steps";
        sections.push_str(&format!(
            "[[hooks]]\nstep = \"{step}\"\nname = \"{step}\"\ncommand = [\"/bin/sh\", \"-c\", '{says}; echo $TERN_DATA']\n"
        ));
        if ["download", "migrate"].contains(&step) {
            let undo = format!("echo \"undo of {step}: $TERN_REASON\" >> {{dir}}/steps");
            sections.push_str(&format!("undo = [\"/bin/sh\", \"-c\", '{undo}']\n"));
        }
    }
    sections
}

#[test]
fn a_device_waits_for_its_owner_updates_and_takes_everything_back_after_a_bad_release() {
    let lab = Lab::start();
    let image = |rc: u64| {
        let path = lab.path(&format!("{rc}.img"));
        made(&path, 100_000, rc);
        path
    };
    // Release 3 is not well.
    let probe = ["/bin/sh", "-c", "test $TERN_RC != 3 || { echo the modem is gone; exit 1; }"];
    let making = Making {
        sections: sections(),
        probe: Some(probe.map(str::to_owned).into()),
        timing: "deferral = 1.0\n".into(),
        ..Making::default()
    };
    let mut device = LabDevice::build(&lab, "owned", &image(1), &making);
    std::fs::create_dir(device.dir.join("power")).unwrap();
    device.register(&lab);
    device.start();
    lab.wait_for_hellos();
    lab.publish(2, &image(2));
    lab.roll_out(2, "second", "all", 1);
    let steps = |device: &LabDevice| std::fs::read_to_string(device.dir.join("steps")).unwrap_or_default();

    let waits = |device: &LabDevice| (device.status()["waits_for"] == "consent").then_some(());
    wait("the device to wait", PATIENCE, || waits(&device));
    assert_eq!(
        (device.status()["state"].as_str(), device.status()["rc"].as_u64()),
        (Some("verifying"), Some(2))
    );
    assert_eq!(steps(&device), "check 2 from 1.0.0\ndownload 2 from 1.0.0\n");
    // A battery at zero, beside the consent: power is looked at as well.
    std::fs::create_dir(device.dir.join("power/BAT0")).unwrap();
    for (name, text) in [("type", "Battery"), ("capacity", "0")] {
        std::fs::write(device.dir.join("power/BAT0").join(name), text).unwrap();
    }
    std::fs::write(device.dir.join("consent"), "2\n").unwrap();
    let flat = |device: &LabDevice| (device.status()["waits_for"] == "battery 0 % of 1 %").then_some(());
    wait("the device to look at its battery", PATIENCE, || flat(&device));
    assert_eq!(lab.rollout("second")["total"]["started"], 0);

    std::fs::write(device.dir.join("power/BAT0/capacity"), "80").unwrap();
    lab.wait_for_status("second", "completed", PATIENCE);

    let good = "check 2 from 1.0.0\ndownload 2 from 1.0.0\npre-update 2 from 1.0.0\nsnapshot 2 from 1.0.0\n\
                migrate 2 from 1.0.0\narm 2 from 1.0.0\npost-boot 2 from 1.0.0\nconfirmed 2 from 1.0.0\n";
    wait("the last hook", PATIENCE, || (steps(&device) == good).then_some(()));
    let said = std::fs::read_to_string(device.dir.join("data/hooks/migrate-migrate.log")).unwrap();
    assert_eq!(said, format!("migrate: exit code 0\n{}\n", device.dir.join("user").display()));

    std::fs::remove_file(device.dir.join("steps")).unwrap();
    lab.publish(3, &image(3));
    let rc = ["rollout", "start", "--product", PRODUCT, "--rc", "3", "--name", "third", "--phases", "all"];
    lab.json(&[&rc[..], &["--soak", "1", "--hold-back", "none", "--forced", "--yes"]].concat());
    let rolled_back = |device: &LabDevice| steps(device).contains("rolled-back").then_some(());
    wait("the rollback", PATIENCE, || rolled_back(&device));

    let steps = steps(&device);
    let (before, after) = steps.split_once("post-boot 3 from 2.0.0\n").unwrap_or_else(|| panic!("{steps}"));
    assert!(before.ends_with("arm 3 from 2.0.0\n"), "{steps}");
    let why = "probe: exit code 1, saying \"the modem is gone\"";
    assert_eq!(
        after,
        format!(
            "undo of migrate: {why}\nundo of download: {why}\nundo 3 from 2.0.0\nrolled-back 3 from 2.0.0\n"
        )
    );
    device.kill();
}
