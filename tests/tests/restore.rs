//! Yesterday's data folder is put back under a real service, with real agents: the kill given since stays in force, and
//! the next release reaches everybody.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tern_tests::lab::{Lab, LabDevice, Making, PRODUCT, made, wait};

const PATIENCE: Duration = Duration::from_secs(90);
/// A heartbeat of some seconds, so that a comparison of two takes a test's time.
const CONFIG: &str = "heartbeat = 6\n";

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Puts the copy where the service looks, as docs/operating.md says: everything away first, no checkpoint.
fn put_back(lab: &Lab, saved: &Path) {
    std::fs::remove_dir_all(lab.data()).unwrap();
    copy(saved, &lab.data());
    let _none = std::fs::remove_dir_all(lab.data().join("store"));
}

/// Versions of rollout and halt that the service has signed.
fn versions(lab: &Lab) -> (u64, u64) {
    let (_, keys) = lab.http("GET", &format!("/v1/products/{PRODUCT}/keys"), None);
    let version = |role: &str| {
        let file: serde_json::Value = serde_json::from_str(keys["files"][role].as_str().unwrap()).unwrap();
        file["signed"]["version"].as_u64().unwrap()
    };
    (version("rollout"), version("halt"))
}

fn runs(lab: &Lab, devices: &[LabDevice], rc: u64) -> Option<()> {
    devices.iter().all(|device| lab.device(&device.name)["running"] == rc).then_some(())
}

#[test]
fn a_restored_service_compares_keeps_the_kill_and_goes_on() {
    let mut lab = Lab::start_configured(CONFIG);
    let (factory, bad, good) = (lab.path("factory.img"), lab.path("bad.img"), lab.path("good.img"));
    made(&factory, 100_000, 1);
    made(&bad, 150_000, 2);
    made(&good, 150_000, 3);
    let making = Making::default();
    let mut devices: Vec<_> =
        ["one", "two", "three"].map(|name| LabDevice::make(&lab, name, &factory, &making)).into();
    devices[..2].iter_mut().for_each(LabDevice::start);
    lab.publish(2, &bad);
    lab.roll_out(2, "r2", "all", 86_400);
    wait("two devices to run release 2", PATIENCE, || runs(&lab, &devices[..2], 2));
    let saved = lab.path("saved");
    lab.stop_service();
    copy(&lab.data(), &saved);
    lab.start_service();
    // Since the copy: the release is killed, and the next one goes out. The third device was off all the time.
    lab.json(&["rollout", "kill", "r2"]);
    lab.publish(3, &good);
    lab.roll_out(3, "r3", "all", 86_400);
    wait("two devices to run release 3", PATIENCE, || runs(&lab, &devices[..2], 3));
    let before = versions(&lab);
    lab.kill_service();

    put_back(&lab, &saved);
    lab.start_service();

    // It saw the copy before it did anything.
    let view = lab.json(&["keys", "recover"]);
    assert_eq!(view["comparing"], true, "{view}");
    assert!(view["because"].as_str().unwrap().contains("was restored"), "{view}");
    let status = lab.run(&["keys", "recover", "--status"]);
    assert_eq!(status.code, Some(3), "{status:?}");
    assert_eq!(lab.run(&["keys", "status"]).code, Some(1));
    let refused = lab.run(&["rollout", "resume", "r2", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("compares itself with its devices"), "{refused:?}");
    // Nobody has told this one of the kill, and the restored service does not know either, at first.
    devices[2].start();
    lab.wait_for_status("r2", "killed", PATIENCE);
    wait("the comparison to end by itself", PATIENCE, || {
        (lab.http("GET", "/v1/recover", None).1["comparing"] == false).then_some(())
    });
    wait("the third device to say what it runs", PATIENCE, || runs(&lab, &devices[2..], 1));

    // The plan of r3 is lost, its release file is not; the image goes up again with it.
    lab.json(&[
        "release",
        "publish",
        &lab.path("3.json").display().to_string(),
        "--image",
        &good.display().to_string(),
    ]);
    lab.roll_out(3, "r3-again", "all", 86_400);
    wait("everybody to run release 3", PATIENCE, || runs(&lab, &devices, 3));
    let after = versions(&lab);
    assert!(after.0 > before.0 && after.1 > before.1, "{after:?} is not above {before:?}");
    assert!(!devices[2].log().contains("agent is up slot=b rc=2"), "it tried what was killed");
    lab.verified_frames();
    // The folder counts as the original again.
    lab.stop_service();
    lab.start_service();
    assert_eq!(lab.json(&["keys", "recover", "--status"])["comparing"], false);
}

#[test]
fn a_folder_that_was_moved_is_believed_once_the_operator_says_so() {
    let mut lab = Lab::start_configured(CONFIG);
    let saved = lab.path("saved");
    lab.stop_service();
    copy(&lab.data(), &saved);
    put_back(&lab, &saved);
    lab.start_service();
    assert_eq!(lab.run(&["keys", "recover", "--status"]).code, Some(3));

    let ended = lab.run(&["keys", "recover", "--end", "--yes"]);

    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(lab.run(&["keys", "recover", "--status"]).code, Some(0));
    // By hand it begins again, and says why.
    let begun = lab.json(&["keys", "recover", "--reason", "the machine was set back"]);
    assert_eq!((&begun["comparing"], &begun["because"]), (&true.into(), &"the machine was set back".into()));
}
