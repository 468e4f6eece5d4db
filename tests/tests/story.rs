//! One story, told twice: by `tern demo`, and by hand with nothing but the command line and forty agents.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tern_tests::lab::{Lab, LabDevice, Making, PRODUCT, Ran, Records, made, program, wait_telling};

const DEVICES: u64 = 40;
const SEED: u64 = 3;
/// Bytes of an image.
const LENGTH: usize = 500_000;
/// What the demo's plan comes to for forty devices, as the command line writes it.
const PHASES: &str = "32@10%,all";
/// Seconds of soak, one of the demo's days.
const SOAK: &str = "2";
const PATIENCE: Duration = Duration::from_secs(60);

/// What both stories end with.
#[derive(Debug, PartialEq, Eq)]
struct End {
    devices: u64,
    succeeded: u64,
    failed: u64,
    verdict: String,
    stranded: u64,
}

/// The release that every device's confirmed slot holds, read from its disk.
type Releases = BTreeMap<String, Option<u64>>;

struct Images {
    old: PathBuf,
    new: PathBuf,
    bad: PathBuf,
}

impl Images {
    /// Makes the images; the bad one is the new one with the demo's mark behind it.
    fn make(folder: &Path) -> Self {
        let [old, new, bad] = ["old.img", "new.img", "bad.img"].map(|name| folder.join(name));
        made(&old, LENGTH, 1);
        made(&new, LENGTH, 2);
        let mark = format!("\ntern-demo release=3 fails=0.5 seed={SEED}\n");
        std::fs::write(&bad, [std::fs::read(&new).unwrap(), mark.into_bytes()].concat()).unwrap();
        Self { old, new, bad }
    }

    /// Asks the demo's probe on which devices the bad image fails.
    fn fails_on(&self) -> BTreeMap<String, bool> {
        let judge = |name: &String| {
            let mut probe = Command::new(program("tern"));
            probe.args(["demo-probe", "--device", name]).arg(&self.bad);
            !probe.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
        };
        (1..=DEVICES).map(name).map(|name| (name.clone(), judge(&name))).collect()
    }
}

fn name(index: u64) -> String {
    format!("dev-{index:03}")
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn last_line(ran: &Ran) -> Value {
    serde_json::from_str(ran.out.trim().lines().last().unwrap_or_default()).unwrap()
}

/// Runs the demo and reads its last line and its devices' disks.
fn told_by_the_demo(images: &Images, keep: &Path) -> (End, Releases, Value) {
    let (devices, seed) = (DEVICES.to_string(), SEED.to_string());
    let mut demo = Command::new(program("tern"));
    demo.args(["--json", "demo", "--devices", &devices, "--seed", &seed, "--keep"]).arg(keep);
    demo.arg("--image").arg(&images.old).arg(&images.new);
    let output = demo.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let story: Value = serde_json::from_str(said.trim().lines().last().unwrap()).unwrap();
    let end = End {
        devices: count(&story["devices"]),
        succeeded: count(&story["good"]["succeeded"]),
        failed: count(&story["good"]["failed"]),
        verdict: story["bad"]["verdict"].as_str().unwrap().to_owned(),
        stranded: count(&story["stranded"]),
    };
    let confirmed = |name: &String| {
        let folder = keep.join("devices").join(name);
        Records::in_folders(&folder.join("data"), &folder.join("slots")).confirmed()
    };
    let releases = (1..=DEVICES).map(name).map(|name| (name.clone(), confirmed(&name))).collect();
    (end, releases, story)
}

/// Follows a rollout with `rollout watch`; where it pauses, the operator has seen enough.
fn watch_to_its_end(lab: &Lab, rollout: &str) -> Ran {
    let watch = || lab.run(&["--json", "rollout", "watch", rollout, "--every", "200"]);
    let mut ran = watch();
    if ran.code == Some(3) {
        assert_eq!(last_line(&ran)["status"], "paused", "{ran:?}");
        lab.json(&["rollout", "kill", rollout, "--reason", "the first device to try it failed"]);
        ran = watch();
    }
    ran
}

/// `rollout plan` says what `rollout start` then does.
fn roll_out(lab: &Lab, rc: u64, rollout: &str) {
    let rc = rc.to_string();
    let plan = [
        "--product",
        PRODUCT,
        "--rc",
        &rc,
        "--name",
        rollout,
        "--phases",
        PHASES,
        "--soak",
        SOAK,
        "--at-once",
    ];
    let preview = lab.json(&[&["rollout", "plan"][..], &plan].concat());
    let devices: Vec<u64> =
        preview["phases"].as_array().unwrap().iter().map(|phase| count(&phase["devices"])).collect();
    assert_eq!((count(&preview["devices"]), devices), (DEVICES, vec![32, 8]), "{preview}");
    lab.json(&[&["rollout", "start"][..], &plan, &["--yes"]].concat());
}

/// One line for a person holds the numbers that the JSON has.
fn explained(lab: &Lab, rollout: &str, numbers: &[u64]) {
    let ran = lab.run(&["rollout", "explain", rollout]);
    let line = ran.out.trim();
    assert_eq!((ran.code, line.lines().count()), (Some(0), 1), "{ran:?}");
    let words: Vec<&str> = line.split(|c: char| !c.is_ascii_digit()).collect();
    for number in numbers {
        assert!(words.contains(&number.to_string().as_str()), "{number} is not in: {line}");
    }
}

/// Tells the story by hand.
fn told_by_the_command_line(images: &Images) -> (End, Releases) {
    let lab = Lab::start();
    let tern = program("tern").display().to_string();
    let probe = [tern.as_str(), "demo-probe", "--device", "{device}", "{slot_path}"];
    let making =
        Making { capacity: 1024 * 1024, probe: Some(probe.map(str::to_owned).to_vec()), ..Making::default() };
    let mut devices: Vec<LabDevice> =
        (1..=DEVICES).map(|i| LabDevice::make(&lab, &name(i), &images.old, &making)).collect();
    devices.iter_mut().for_each(LabDevice::start);
    wait_telling(
        || format!("the agents to enrol: {}", lab.status()),
        PATIENCE,
        || (count(&lab.status()["enrolled"]) == DEVICES).then_some(()),
    );

    lab.publish(2, &images.new);
    roll_out(&lab, 2, "good");
    let watched = watch_to_its_end(&lab, "good");
    assert_eq!(watched.code, Some(0), "{watched:?}");
    let good = lab.rollout("good");
    explained(&lab, "good", &[count(&good["total"]["started"]), count(&good["total"]["good"])]);

    lab.publish(3, &images.bad);
    roll_out(&lab, 3, "bad");
    let watched = watch_to_its_end(&lab, "bad");
    assert_eq!(watched.code, Some(4), "{watched:?}");
    let bad = settled(&lab);
    let confirmed_bad = count(&bad["total"]["bad"]);
    assert!(confirmed_bad >= 1, "{bad}");
    assert!(bad["phases"][1]["open"] == false && count(&bad["total"]["started"]) <= 32, "{bad}");

    let listed = lab.json(&["rollout", "list"]);
    let statuses: Vec<&str> =
        listed.as_array().unwrap().iter().map(|l| l["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["killed", "completed"], "{listed}");
    let status = lab.status();
    let verified = lab.json(&["ledger", "verify", "--data", &lab.data().display().to_string()]);
    assert!(count(&verified["frames"]) >= count(&status["ledger"]["frames"]), "{verified} {status}");

    let releases: Releases = devices.iter().map(|d| (d.name.clone(), Records::of(d).confirmed())).collect();
    let stranded = devices.iter_mut().filter_map(|device| {
        let outcome = lab.device(&device.name)["attempts"]["bad"]["outcome"].clone();
        let expected = if outcome == "success" { 3 } else { 2 };
        (releases[&device.name] != Some(expected) || !device.alive()).then_some(())
    });
    let end = End {
        devices: count(&good["covered"]),
        succeeded: count(&good["total"]["good"]),
        failed: count(&good["total"]["bad"]) + count(&good["total"]["silent"]),
        verdict: if bad["status"] == "killed" { "kill".to_owned() } else { bad["status"].to_string() },
        stranded: stranded.count() as u64,
    };
    (end, releases)
}

/// Waits until every device that had the bad release in hand has come to an end.
fn settled(lab: &Lab) -> Value {
    wait_telling(
        || format!("the devices to come back: {}", lab.rollout("bad")),
        PATIENCE,
        || {
            let view = lab.rollout("bad");
            let total = |key: &str| count(&view["total"][key]);
            let pending =
                total("started") - total("good") - total("bad") - total("recalled") - total("deferred");
            let states = view["states"].as_object().unwrap();
            let open = states.keys().any(|state| !["idle", "failed", "success"].contains(&state.as_str()));
            (pending == 0 && !open).then_some(view)
        },
    )
}

#[test]
fn the_demo_and_the_command_line_tell_the_same_story() {
    let folder = tempfile::tempdir().unwrap();
    let images = Images::make(folder.path());
    let keep = folder.path().join("demo");

    let (demo, demo_releases, story) = told_by_the_demo(&images, &keep);
    let (by_hand, releases) = told_by_the_command_line(&images);

    assert_eq!(demo, by_hand, "{story}");
    assert_eq!((demo.succeeded, demo.failed, demo.stranded), (DEVICES, 0, 0), "{story}");
    let fails_on = images.fails_on();
    let failing = fails_on.values().filter(|fails| **fails).count();
    assert!((10..=30).contains(&failing), "the mark fails on {failing} devices: nothing is compared");
    for (teller, releases) in [("the demo", &demo_releases), ("the command line", &releases)] {
        for (device, fails) in &fails_on {
            let held = releases[device];
            let allowed = if *fails { held == Some(2) } else { matches!(held, Some(2 | 3)) };
            assert!(allowed, "{teller}: {device} holds {held:?}, and the bad release fails on it: {fails}");
        }
    }
    // What the demo says of its ledger, the command line finds in the folder that it kept.
    let mut verify = Command::new(program("tern"));
    verify.args(["--json", "ledger", "verify", "--data"]).arg(keep.join("service"));
    let verified: Value = serde_json::from_slice(&verify.output().unwrap().stdout).unwrap();
    assert_eq!(verified["frames"], story["ledger"]["frames"], "{verified} {story}");
    assert!(count(&story["bad"]["never_offered"]) >= 8, "{story}");
}
