//! A device that knows docs/protocol.md and none of this code: `tests/second-device`, in Python.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tern_tests::lab::{
    Heard, Lab, PRODUCT, SecondDevice, Sum, check_vectors, foreign_python, made, wait, wait_telling,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// What an image begins with that this device takes for well.
const WELL: &str = "WELL";

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn image(lab: &Lab, rc: u64, length: usize, begins: &str) -> PathBuf {
    let path = lab.path(&format!("{rc}.img"));
    made(&path, length, rc);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..begins.len()].copy_from_slice(begins.as_bytes());
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Has a factory vouch for the device with a signed list.
fn vouch(lab: &Lab, device: &SecondDevice) {
    let (list, signature, key) = (lab.path("list.jsonl"), lab.path("list.sig"), lab.path("line-1.pem"));
    std::fs::write(&list, format!("{}\n", device.identity())).unwrap();
    lab.json(&["keys", "factory", "--out", &show(&key), "--no-passphrase"]);
    lab.json(&["factory", "add", "line-1", "--key", &show(&lab.path("line-1.pub.pem"))]);
    let (list, signature) = (show(&list), show(&signature));
    lab.json(&["factory", "sign", &list, "--fleet", "lab", "--key", &show(&key), "--out", &signature]);
    assert_eq!(lab.json(&["device", "add", "--file", &list, "--signature", &signature])["added"], 1);
}

/// Replaces the key of timestamp, which takes a new root, and of rollout, which takes new targets.
fn rotate(lab: &Lab) {
    for (role, file) in [("timestamp", "root"), ("rollout", "targets")] {
        let out = lab.path(&format!("new-{role}"));
        let (data, new) = (show(&lab.data()), show(&out.join(format!("{file}.json"))));
        lab.json(&["keys", "rotate", role, "--product", PRODUCT, "--data", &data, "--out", &show(&out)]);
        let key = show(&lab.path("offline").join(format!("{file}.pem")));
        lab.json(&["keys", "sign", &new, "--key", &key, "--out", &new, "--yes"]);
        lab.json(&["keys", "publish", "--product", PRODUCT, &new]);
    }
}

fn attempt(lab: &Lab, device: &str, rollout: &str) -> Value {
    lab.device(device)["attempts"][rollout].clone()
}

fn wait_for(lab: &Lab, device: &str, rollout: &str, field: &str, value: &str) {
    let tell = || format!("{field} of {device} in {rollout} to be {value}: {}", lab.device(device));
    wait_telling(tell, PATIENCE, || (attempt(lab, device, rollout)[field] == value).then_some(()));
}

#[test]
fn the_vectors_of_the_page_hold_in_another_language() {
    let Some(python) = foreign_python() else { return };

    let ran = check_vectors(&python);

    assert!(ran.code == Some(0) && ran.out.ends_with("hold\n"), "{ran:?}");
}

#[test]
fn a_device_that_was_written_from_the_page_updates_is_recalled_and_comes_back_after_losing_its_journal() {
    let Some(python) = foreign_python() else { return };
    let lab = Lab::start();
    let factory = image(&lab, 1, 100_000, WELL);
    // More than 256 chunks: its tree has two levels of pieces.
    let two = image(&lab, 2, 17 * 1024 * 1024 + 3, WELL);
    let three = image(&lab, 3, 300_000, WELL);
    let four = image(&lab, 4, 300_000, "SICK");
    let five = image(&lab, 5, 65_536, WELL);
    let create =
        ["claim", "create", "--product", PRODUCT, "--expires", "1h", "--name", "batch", "--count", "1"];
    let token = lab.json(&create)["token"].as_str().unwrap().to_owned();
    let mut listed = SecondDevice::build(&lab, &python, "listed", &factory, WELL, None);
    let mut claimed = SecondDevice::build(&lab, &python, "claimed", &factory, WELL, Some(&token));
    let both = ["listed", "claimed"];
    vouch(&lab, &listed);

    // In by both ways.
    listed.start();
    claimed.start();
    wait("the claimed device to wait", PATIENCE, || {
        let pending = lab.json(&["device", "pending"]);
        (pending[0]["device"] == "claimed").then_some(pending)
    });
    lab.json(&["device", "approve", "claimed"]);
    for name in both {
        let tell = || format!("{name} to be heard: {}", lab.device(name));
        wait_telling(tell, PATIENCE, || (lab.device(name)["running"] == 1).then_some(()));
    }

    // A good release.
    lab.publish(2, &two);
    lab.roll_out(2, "r2", "all", 0);
    let view = lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!(view["total"]["good"], 2, "{view}");
    assert!(listed.confirmed() == std::fs::read(&two).unwrap(), "the slot holds the release byte for byte");

    // One that is killed while it is on trial.
    listed.set("soak", &json!(600));
    claimed.set("soak", &json!(600));
    lab.publish(3, &three);
    lab.roll_out(3, "r3", "all", 0);
    both.iter().for_each(|name| wait_for(&lab, name, "r3", "state", "verify-post"));
    lab.json(&["rollout", "kill", "r3", "--reason", "a test"]);
    both.iter().for_each(|name| wait_for(&lab, name, "r3", "outcome", "recalled"));
    both.iter().for_each(|name| assert_eq!(attempt(&lab, name, "r3")["halted_in"], "verify-post"));
    assert!(listed.confirmed() == std::fs::read(&two).unwrap(), "it is back on what it confirmed");

    // One that is not well.
    listed.set("soak", &json!(1));
    claimed.set("soak", &json!(1));
    lab.publish(4, &four);
    lab.roll_out(4, "r4", "all", 0);
    both.iter().for_each(|name| wait_for(&lab, name, "r4", "outcome", "rolled-back"));

    // It loses its journal, begins with epoch 1 and number 1, and is let in again above all that was seen.
    wait("its reports to be acknowledged", PATIENCE, || {
        (listed.journal()["outbox"] == json!([])).then_some(())
    });
    listed.cut_power();
    let (before, used) = (lab.device("listed")["epoch"].clone(), listed.journal()["n"].as_u64());
    listed.lose_journal();
    listed.start();
    wait("the device to be granted an epoch", PATIENCE, || {
        (lab.device("listed")["epoch"].as_u64() > before.as_u64()).then_some(())
    });
    wait("its hello to be acknowledged", PATIENCE, || {
        let journal = listed.journal();
        (journal["epoch"].as_u64() > before.as_u64() && journal["outbox"] == json!([])).then_some(())
    });
    let journal = listed.journal();
    assert!(journal["n"].as_u64() > used && used.is_some(), "{journal}");
    assert_eq!(journal["halted"], json!([3]), "the halted list is learned again: {journal}");

    // Other keys, a newer root and newer targets, and a release under them. It remembers nothing of release 4,
    // so that one has to be taken back first, or it would try it again.
    lab.json(&["rollout", "kill", "r4", "--reason", "a test"]);
    rotate(&lab);
    lab.publish(5, &five);
    lab.roll_out(5, "r5", "all", 0);
    both.iter().for_each(|name| wait_for(&lab, name, "r5", "outcome", "success"));
    assert!(claimed.confirmed() == std::fs::read(&five).unwrap());

    // The story as the service and its ledger tell it.
    wait("every report to be acknowledged", PATIENCE, || {
        let done = |device: &SecondDevice| device.journal()["outbox"] == json!([]);
        (done(&listed) && done(&claimed)).then_some(())
    });
    for name in both {
        let device = lab.device(name);
        assert_eq!((&device["running"], &device["anomalies"]), (&json!(5), &json!([])), "{device}");
    }
    let counters = &lab.status()["counters"];
    assert_eq!((&counters["forged"], &counters["malformed"]), (&json!(0), &json!(0)), "{counters}");
    let mut heard = Heard::default();
    heard.read(&lab);
    assert_eq!(heard.doubled, []);
    assert_eq!(heard.sum("r2"), Sum { started: 2, good: 2, ..Sum::default() });
    assert_eq!(heard.sum("r3"), Sum { started: 2, recalled: 2, ..Sum::default() });
    assert_eq!(heard.sum("r5"), Sum { started: 2, good: 2, ..Sum::default() });
    // Who has lost the journal has forgotten that it rested in `failed`; nothing else is missing from any walk.
    let broken = heard.broken_walks();
    assert!(broken.iter().all(|walk| walk.starts_with("listed") && walk.contains("from idle")), "{broken:?}");
    assert!(broken.len() <= 1, "{broken:?}");
    assert!(lab.verified_frames() > 0);
}
