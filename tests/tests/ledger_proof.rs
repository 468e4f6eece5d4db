//! What the ledger's key has signed, with real processes: forged and cut copies are found, one frame is proved to
//! somebody who has the key alone, and old frames are dropped without losing anything else.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tern_controller::ledger::write::Options;
use tern_controller::ledger::{Ledger, examine, verify};
use tern_tests::lab::{Lab, LabDevice, Making, Ran, ends, made, wait};

const PATIENCE: Duration = Duration::from_secs(90);
const DAY: u64 = 24 * 3600 * 1000;

/// A service whose three devices took release 2, and of whose rollout of release 3 nothing has come yet.
fn story(lab: &Lab) -> Vec<LabDevice> {
    let (factory, image) = (lab.path("factory.img"), lab.path("2.img"));
    made(&factory, 100_000, 1);
    made(&image, 150_000, 2);
    let mut devices: Vec<LabDevice> =
        (1..=2).map(|i| LabDevice::make(lab, &format!("dev-{i}"), &factory, &Making::default())).collect();
    devices.iter_mut().for_each(LabDevice::start);
    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    lab.wait_for_status("r2", "completed", PATIENCE);
    devices
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is missing in {}", ran.err);
    }
}

fn payloads(ledger: &Path) -> Vec<Vec<u8>> {
    let beside = tempfile::tempdir().unwrap();
    copy(ledger, beside.path());
    let (ledger, _) = Ledger::open(&beside.path().join("ledger")).unwrap();
    ledger.frames(0).unwrap().map(|frame| frame.unwrap().payload).collect()
}

/// Writes a whole ledger anew, as whoever owns the folder could: every frame chained, some `frames` in a segment.
fn write_anew(folder: &Path, payloads: &[Vec<u8>], segment_bytes: u64) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ledger") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (mut ledger, _) = Ledger::open_with(folder, Options { segment_bytes }).unwrap();
    ledger.begin_term(1).unwrap();
    for payload in payloads {
        ledger.append(&[payload]).unwrap();
        ledger.sync().unwrap();
    }
}

#[test]
fn a_copy_is_checked_and_one_frame_is_proved_with_nothing_but_the_key() {
    let mut lab = Lab::start();
    let _devices = story(&lab);
    let running = lab.run(&["ledger", "export"]);
    assert_eq!(running.code, Some(0), "{running:?}");
    lab.stop_service();
    let copied = lab.path("copy");
    std::fs::create_dir(&copied).unwrap();
    copy(&lab.data().join("ledger"), &copied);
    let key = lab.json(&["ledger", "key", "--data", &text(&lab.data())])["key"].as_str().unwrap().to_owned();

    let seen = lab.json(&["ledger", "verify", "--data", &text(&copied), "--key", &key]);

    assert_eq!(seen["vouched"], seen["frames"], "the last thing that a service does is to sign: {seen}");
    assert!(seen["earlier"].as_u64() >= Some(2), "the verdicts' are kept: {seen}");
    assert_eq!(seen["key"]["pinned"], true);
    let alone = lab.run(&["ledger", "verify", "--data", &text(&copied)]);
    assert!(alone.out.contains("the key is this copy's own word"), "{alone:?}");
    // What the service printed is what the copy has, line by line.
    let exported = lab.run(&["ledger", "export", "--data", &text(&copied)]);
    assert!(exported.out.starts_with(&running.out) && running.out.lines().count() > 20);
    assert_eq!(exported.out.lines().count() as u64, seen["frames"].as_u64().unwrap());
    let shown = lab.run(&["--json", "ledger", "show", "--data", &text(&copied), "--limit", "1000000"]);
    assert_eq!(exported.out, shown.out);

    // Every line of one device's story is proved to somebody who has no copy.
    let lines: Vec<Value> = exported.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_device: Vec<&Value> = lines
        .iter()
        .filter(|line| line["entry"]["fact"] == "reported" && line["entry"]["device"] == "dev-1")
        .collect();
    assert!(of_device.len() >= 3);
    let (proof, key_file) = (lab.path("proof"), lab.path("noted.pub"));
    std::fs::write(&key_file, &key).unwrap();
    for line in &of_device {
        let seq = line["seq"].to_string();
        let printed = lab.run(&["ledger", "prove", "--frame", &seq, "--data", &text(&copied)]);
        std::fs::write(&proof, &printed.out).unwrap();
        let checked = lab.json(&["ledger", "check-proof", &text(&proof), "--key", &text(&key_file)]);
        assert_eq!(&checked["frame"], *line);
    }
    let printed = lab.run(&["--json", "ledger", "prove", "--frame", "0", "--data", &text(&copied)]);
    std::fs::write(&proof, &printed.out).unwrap();
    assert_eq!(lab.json(&["ledger", "check-proof", &text(&proof), "--key", &key])["frame"], lines[0]);
    // Another key, another frame.
    let other = tern_tests::lab::Lab::bare(tern_tests::lab::Broker::Embedded);
    other.make_keys();
    let stranger = std::fs::read_to_string(other.data().join("keys/ledger.pem"));
    assert!(stranger.is_ok(), "`keys init` makes it");
    let wrong = "04".to_owned() + &key[2..66] + &key[66..].chars().rev().collect::<String>();
    assert_eq!(lab.run(&["ledger", "check-proof", &text(&proof), "--key", &wrong]).code, Some(2));
    let beyond = lab.run(&["ledger", "prove", "--frame", "99999", "--data", &text(&copied)]);
    assert!(beyond.err.contains("there is no frame 99999: the ledger has "), "{beyond:?}");
    std::fs::write(lab.path("nothing"), "").unwrap();
    let empty = lab.run(&["ledger", "check-proof", &text(&lab.path("nothing")), "--key", &key]);
    assert!(empty.err.contains("is empty"), "{empty:?}");
    let changed = std::fs::read_to_string(&proof).unwrap().replacen("index 0", "index 1", 1);
    std::fs::write(&proof, changed).unwrap();
    refused(
        &lab.run(&["ledger", "check-proof", &text(&proof), "--key", &key]),
        &["does not show that frame"],
    );
}

#[test]
fn a_history_that_was_written_anew_is_found_and_no_service_goes_on_with_it() {
    let mut lab = Lab::start();
    let _devices = story(&lab);
    lab.stop_service();
    let copied = lab.path("copy");
    std::fs::create_dir(&copied).unwrap();
    copy(&lab.data().join("ledger"), &copied);
    let verify_copy = || lab.run(&["ledger", "verify", "--data", &text(&copied)]);
    let folder = copied.join("ledger");
    let honest = payloads(&folder);

    // The same frames written anew have the same hashes only if nothing in them differs.
    let mut forged = honest.clone();
    let changed = forged.iter().position(|p| p.windows(9).any(|w| w == b"\"reported")).unwrap();
    forged[changed] = String::from_utf8_lossy(&forged[changed]).replacen("dev-", "dex-", 1).into_bytes();
    assert_eq!(verify_copy().code, Some(0));
    write_anew(&folder, &forged, u64::MAX);
    assert_eq!(verify(&folder).unwrap().frames, honest.len() as u64, "the chain alone is right");

    refused(&verify_copy(), &["the history was changed", "evidence"]);

    // In the service's own folder, too.
    write_anew(&lab.data().join("ledger"), &forged, u64::MAX);
    let words = ["is not the one that was signed", "history was changed", "checkpoints"];
    refused(&ends(&mut lab.serve_command()), &words);
}

/// Makes the ledger of a stopped service older by `days`, and spreads it over small segments. Nothing was ever signed
/// in it then, as in a folder from before there was a key.
fn age(lab: &Lab, days: u64) {
    let ledger = lab.data().join("ledger");
    let mut old = Vec::new();
    for payload in payloads(&ledger) {
        let mut entry: Value = serde_json::from_slice(&payload).unwrap();
        entry["at"] = (entry["at"].as_u64().unwrap() - days * DAY).into();
        // As it was written: `at` first, and what the fact says behind it.
        let text = String::from_utf8(payload).unwrap();
        let (_, rest) = text.split_once(',').unwrap();
        old.push(format!("{{\"at\":{},{rest}", entry["at"]).into_bytes());
    }
    write_anew(&ledger, &old, 8_000);
    for gone in [ledger.join("checkpoints"), lab.data().join("store")] {
        std::fs::remove_dir_all(gone).unwrap();
    }
    std::fs::remove_file(lab.data().join("keys/ledger.pem")).unwrap();
    std::fs::remove_file(ledger.join("ledger.pub")).unwrap();
}

fn segments(lab: &Lab) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(lab.data().join("ledger"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ledger"))
        .collect();
    found.sort();
    found
}

#[test]
fn an_old_folder_gets_a_key_and_its_old_frames_go_by_hand_and_by_the_service() {
    let mut lab = Lab::start_configured("heartbeat = 6\n");
    let mut devices = story(&lab);
    devices.iter_mut().for_each(LabDevice::kill);
    lab.stop_service();
    age(&lab, 100);
    let before = segments(&lab).len();
    assert!(before >= 3, "{before} segments");
    lab.start_service();
    assert!(lab.log().contains("the ledger has a key from now on"), "{}", lab.log());
    // It was written anew, so it counts as a copy.
    assert_eq!(lab.run(&["keys", "recover", "--end", "--yes"]).code, Some(0));
    let memory = lab.memory();
    let in_use = lab.run(&["ledger", "retain", "--data", &text(&lab.data()), "--days", "50"]);
    refused(&in_use, &["in use by another process"]);
    lab.stop_service();

    let kept = lab.json(&["ledger", "retain", "--data", &text(&lab.data()), "--days", "200"]);
    assert_eq!(kept["frames"], 0, "they are younger than that: {kept}");
    let dropped = lab.json(&["ledger", "retain", "--data", &text(&lab.data()), "--days", "50"]);

    let first = dropped["dropped"]["below"].as_u64().unwrap();
    assert!(first > 0 && segments(&lab).len() < before, "{dropped}");
    let check = |lab: &Lab| {
        let seen = lab.run(&["ledger", "verify", "--data", &text(&lab.data())]);
        assert_eq!(seen.code, Some(0), "{seen:?}");
        assert!(seen.out.contains(&format!("frames below {first} were dropped")), "{seen:?}");
        let replay = lab.run(&["ledger", "replay", "--data", &text(&lab.data())]);
        assert_eq!(replay.code, Some(0), "{replay:?}");
        assert!(replay.out.contains("0 did not"), "{replay:?}");
    };
    check(&lab);
    // It starts, is no copy, and knows what it knew; so it does when the store has to be built again.
    for store_is_lost in [false, true] {
        if store_is_lost {
            std::fs::remove_dir_all(lab.data().join("store")).unwrap();
        }
        lab.start_service();
        assert_eq!(lab.json(&["keys", "recover", "--status"])["comparing"], false);
        assert_eq!(lab.memory(), memory, "store lost: {store_is_lost}");
        let shown = lab.run(&["ledger", "show", "--limit", "1"]);
        assert!(shown.err.contains(&format!("frames below {first} were dropped")), "{shown:?}");
        lab.stop_service();
    }
    check(&lab);
    // The devices go on where they were.
    lab.start_service();
    devices.iter_mut().for_each(LabDevice::start);
    let image = lab.path("3.img");
    made(&image, 150_000, 3);
    lab.publish(3, &image);
    // The second phase opens by a verdict of the service's own.
    lab.roll_out(3, "r3", "1@99%,all", 0);
    lab.wait_for_status("r3", "completed", PATIENCE);
    devices.iter_mut().for_each(LabDevice::kill);
    lab.stop_service();
    check(&lab);
    let replay = lab.run(&["ledger", "replay", "--data", &text(&lab.data())]);
    assert!(!replay.out.contains("0 verdicts came out the same"), "{replay:?}");

    // A service that is told to does it by itself.
    lab.configure("heartbeat = 6\nledger_days = 0\n");
    refused(&ends(&mut lab.serve_command()), &["ledger_days must be 1 to"]);
    let mut lab = aged_service("heartbeat = 6\nledger_days = 50\n");
    lab.stop_service();
    let found = examine(&lab.data().join("ledger"), None).unwrap();
    let boundary = found.boundary.expect("frames were dropped");
    assert_eq!((boundary.days, Some(boundary.first())), (50, found.report.first));
    lab.start_service();
    assert_eq!(lab.json(&["keys", "recover", "--status"])["comparing"], false);
}

/// A service that runs with this configuration on a ledger of which most is a hundred days old.
fn aged_service(config: &str) -> Lab {
    let mut lab = Lab::start_configured("heartbeat = 6\n");
    let mut devices = story(&lab);
    devices.iter_mut().for_each(LabDevice::kill);
    lab.stop_service();
    age(&lab, 100);
    lab.start_service();
    assert_eq!(lab.run(&["keys", "recover", "--end", "--yes"]).code, Some(0));
    lab.stop_service();
    lab.configure(config);
    lab.start_service();
    wait("old frames to be dropped", PATIENCE, || {
        lab.log().contains("old frames of the ledger were dropped").then_some(())
    });
    lab
}
