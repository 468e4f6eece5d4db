//! Damaged and full disks get a clear error and lose nothing that was acknowledged.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tern_tests::lab::{Broker, Lab, LabDevice, Making, PRODUCT, Ran, SmallDisk, ends, made, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// A service with two devices that took release 2; the devices are off afterwards.
fn story(lab: &Lab) -> Vec<LabDevice> {
    let (factory, image) = (lab.path("factory.img"), lab.path("2.img"));
    made(&factory, 100_000, 1);
    made(&image, 300_000, 2);
    let mut devices: Vec<LabDevice> =
        (1..=2).map(|i| LabDevice::make(lab, &format!("dev-{i}"), &factory, &Making::default())).collect();
    devices.iter_mut().for_each(LabDevice::start);
    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    let view = lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!(view["total"]["good"], 2, "{view}");
    devices.iter_mut().for_each(LabDevice::kill);
    devices
}

/// Shows that everything works: the devices take another release.
fn goes_on(lab: &Lab, devices: &mut [LabDevice], rc: u64) {
    let image = lab.path(&format!("{rc}.img"));
    made(&image, 200_000, rc);
    devices.iter_mut().for_each(LabDevice::start);
    lab.publish(rc, &image);
    lab.roll_out(rc, &format!("r{rc}"), "all", 0);
    let view = lab.wait_for_status(&format!("r{rc}"), "completed", PATIENCE);
    assert_eq!(view["total"]["good"], devices.len(), "{view}");
    devices.iter_mut().for_each(LabDevice::kill);
    assert!(lab.verified_frames() > 0);
}

/// Starts the service and returns what it logged about this start.
fn started(lab: &mut Lab) -> String {
    let before = lab.log().len();
    lab.start_service();
    lab.log()[before..].to_owned()
}

#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is missing in {}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn a_corrupted_checkpoint_is_set_aside_and_rebuilt_from_the_ledger() {
    let mut lab = Lab::start();
    let mut devices = story(&lab);
    let memory = lab.memory();
    lab.stop_service();

    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("garbage", |bytes| bytes.iter_mut().for_each(|b| *b = b.wrapping_mul(7) ^ 0x5a)),
        ("zeros", |bytes| bytes.fill(0)),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (name, damage) in damages {
        let files = walk(&lab.data().join("store/partition-000"));
        assert!(!files.is_empty());
        for path in files {
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }

        let log = started(&mut lab);

        assert!(log.contains("rebuilt from the ledger"), "{name}: {log}");
        assert_eq!(lab.memory(), memory, "{name}");
        lab.stop_service();
    }
    // The first one was moved where a person can look at it.
    let log = lab.log();
    assert!(log.contains("set aside as") && log.contains("partition-000.damaged-1"), "{log}");
    assert!(lab.data().join("store/partition-000.damaged-1").is_dir());
    lab.start_service();
    goes_on(&lab, &mut devices, 3);
}

/// What a start read from the ledger must be in the checkpoint that follows, or the start after that forgets it.
#[test]
fn a_checkpoint_after_a_power_cut_holds_what_was_replayed() {
    let mut lab = Lab::start();
    let mut devices = story(&lab);
    let memory = lab.memory();
    lab.kill_service();

    lab.start_service();
    lab.stop_service();
    lab.start_service();

    assert_eq!(lab.memory(), memory);
    goes_on(&lab, &mut devices, 3);
}

#[test]
fn a_corrupted_end_of_the_ledger_is_cut_and_said() {
    let mut lab = Lab::start();
    let mut devices = story(&lab);
    let memory = lab.memory();
    // The checkpoint has all of it now.
    lab.stop_service();
    let segment = walk(&lab.data().join("ledger")).into_iter().find(|p| p.extension().is_some()).unwrap();
    let whole = std::fs::metadata(&segment).unwrap().len();

    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("garbage behind it", |bytes| bytes.extend_from_slice(&[0xa5; 777])),
        ("zeros behind it", |bytes| bytes.resize(bytes.len() + 4096, 0)),
        ("the last frame cut short", |bytes| bytes.truncate(bytes.len() - 5)),
        ("a flipped bit in the last frame", |bytes| {
            let at = bytes.len() - 10;
            bytes[at] ^= 1;
        }),
    ];
    for (name, damage) in damages {
        // What this run writes is its own start and nothing that anybody was told.
        lab.start_service();
        lab.kill_service();
        let before = std::fs::metadata(&segment).unwrap().len();
        assert!(before > whole);
        let mut bytes = std::fs::read(&segment).unwrap();
        damage(&mut bytes);
        std::fs::write(&segment, &bytes).unwrap();
        // Looking changes nothing, and says the same.
        let seen = lab.json(&["ledger", "verify", "--data", &lab.data().display().to_string()]);
        assert!(seen["torn"]["bytes"].as_u64() > Some(0), "{name}: {seen}");
        assert_eq!(std::fs::read(&segment).unwrap(), bytes, "{name}");

        let log = started(&mut lab);

        let at = seen["torn"]["at"].as_u64().unwrap();
        assert!(log.contains("the ledger was cut at its last whole frame"), "{name}: {log}");
        assert!(log.contains(&format!("after byte {at} of {}", segment.display())), "{name}: {log}");
        assert_eq!(lab.memory(), memory, "{name}");
        assert!(lab.verified_frames() > 0);
        lab.stop_service();
    }
    let log = started(&mut lab);
    assert!(!log.contains("was cut"), "the cut is said once: {log}");
    goes_on(&lab, &mut devices, 3);
}

#[test]
fn a_ledger_that_lost_what_was_acknowledged_stops_the_start_until_somebody_decides() {
    let mut lab = Lab::start();
    let mut devices = story(&lab);
    lab.stop_service();
    let segment = walk(&lab.data().join("ledger")).into_iter().find(|p| p.extension().is_some()).unwrap();
    let whole = std::fs::read(&segment).unwrap();

    // Damage before good frames is never cut.
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, &bytes).unwrap();
    let words = ["is damaged at byte", &segment.display().to_string(), "restore the folder from a copy"];
    refused(&ends(&mut lab.serve_command()), &words);
    refused(&lab.run(&["ledger", "verify", "--data", &lab.data().display().to_string()]), &["is damaged at"]);
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "it was left as it is");

    // The last frame is gone, and the checkpoint knows it.
    std::fs::write(&segment, &whole[..whole.len() - 5]).unwrap();
    let store = lab.data().join("store");
    let lost = ends(&mut lab.serve_command());
    let words =
        ["the ledger ends at frame", "was acknowledged", "restore the ledger", &store.display().to_string()];
    refused(&lost, &words);
    // Asking again does not make it better.
    refused(&ends(&mut lab.serve_command()), &words);

    // The first advice: the ledger from a copy.
    std::fs::write(&segment, &whole).unwrap();
    lab.start_service();
    let memory = lab.memory();
    lab.stop_service();
    // The second advice: go on with what is left.
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 5]).unwrap();
    refused(&ends(&mut lab.serve_command()), &words);
    std::fs::remove_dir_all(&store).unwrap();
    // It was signed as well, so a ledger without its end is not the one that was vouched for.
    let checkpoints = lab.data().join("ledger/checkpoints");
    let words = ["is not the one that was signed", "the end is missing", &checkpoints.display().to_string()];
    refused(&ends(&mut lab.serve_command()), &words);
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&checkpoints, lab.path("checkpoints-before")).unwrap();
    lab.start_service();
    assert_eq!(lab.memory(), memory);
    goes_on(&lab, &mut devices, 3);
}

#[test]
fn a_full_disk_stops_the_service_with_a_reason_and_it_goes_on_once_there_is_room() {
    let mut lab = Lab::bare(Broker::Embedded);
    let Some(disk) = SmallDisk::mount(&lab.data(), 8 * 1024) else { return };
    lab.make_keys();
    lab.start_service();
    let mut devices = story(&lab);
    let memory = lab.memory();
    let large = lab.path("large.img");
    made(&large, 12 * 1024 * 1024, 9);

    // An upload that does not fit is refused; everything else goes on.
    let (code, body) = lab.http("PUT", "/v1/images", Some(&std::fs::read(&large).unwrap()));
    assert_eq!(code, 507, "{body}");
    assert!(body["error"].as_str().unwrap().contains("could not store the image: "), "{body}");
    assert!(body["hint"].as_str().unwrap().contains("free"), "{body}");
    assert_eq!(lab.memory(), memory);
    assert!(walk(&lab.data().join("staging")).is_empty(), "the half upload is gone");

    // Reports that cannot be recorded are not acknowledged: the service stops and says why.
    disk.fill();
    devices.iter_mut().for_each(LabDevice::start);
    // The ledger's last block may have room for their hellos, but not for all of these.
    for n in 0..100 {
        let made = ["claim", "create", "--product", PRODUCT, "--expires", "1h", "--count", "1", "--name"];
        if lab.run(&[&made[..], &[&format!("filler-{n}")]].concat()).code != Some(0) {
            break;
        }
    }
    let code = lab.wait_for_end(PATIENCE);
    assert_eq!(code, Some(1), "{}", lab.log());
    let ledger = lab.data().join("ledger");
    for words in ["cannot keep its promises", &ledger.display().to_string(), "No space left on device"] {
        assert!(lab.log().contains(words), "{words:?} is missing in {}", lab.log());
    }
    // As long as the disk is full a start says the same.
    let ran = ends(&mut lab.serve_command());
    refused(&ran, &["No space left on device", &lab.data().display().to_string(), "hint: free room"]);

    disk.free();
    lab.start_service();
    devices.iter_mut().for_each(LabDevice::kill);
    assert_eq!(lab.memory(), memory);
    assert!(lab.verified_frames() > 0);
    goes_on(&lab, &mut devices, 3);
}

#[test]
fn a_full_disk_on_a_device_is_reported_and_a_later_attempt_succeeds() {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("2.img"));
    made(&factory, 100_000, 1);
    made(&image, 2_000_000, 2);
    let home = lab.path("devices").join("dev-1");
    let Some(disk) = SmallDisk::mount(&home, 4 * 1024) else { return };
    let making = Making { timing: "retry_attempts = 2".to_owned(), ..Making::default() };
    let mut device = LabDevice::make(&lab, "dev-1", &factory, &making);
    device.start();
    wait("the device to be known", PATIENCE, || (lab.device("dev-1")["running"] == 1).then_some(()));
    disk.fill();

    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    let reason = wait("the failure to be reported", PATIENCE, || {
        let attempt = lab.device("dev-1")["attempts"]["r2"].clone();
        (attempt["state"] == "failed").then(|| attempt["reason"].as_str().unwrap_or_default().to_owned())
    });

    assert!(reason.contains("slot b") && reason.contains("No space left on device"), "{reason}");
    let status = device.status();
    assert_eq!((&status["active"], &status["slots"]["a"]["holds"]), (&json!("a"), &json!(1)), "{status}");
    assert_eq!(status["slots"]["b"]["holds"], Value::Null, "{status}");
    assert!(device.alive(), "{}", device.log());
    // The agent starts on the full disk, too.
    device.kill();
    device.start();
    wait("the agent to be back", PATIENCE, || (device.status()["state"] == "failed").then_some(()));

    disk.free();
    lab.publish(3, &image);
    lab.run(&["rollout", "kill", "r2", "--reason", "no room"]);
    lab.roll_out(3, "r3", "all", 0);
    let view = lab.wait_for_status("r3", "completed", PATIENCE);
    assert_eq!(view["total"]["good"], 1, "{view}");
    assert_eq!(device.status()["active"], "b");
    assert!(lab.verified_frames() > 0);
}
