//! The service's telemetry and time keys by command line, with real programs: made at the start, replaced while devices
//! follow, and no use to a thief once they are taken away.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::time::Duration;

use p256::SecretKey;
use p256::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::{Direction, PairSecret};
use tern_protocol::topic::{Topic, UpKind};
use tern_tests::lab::{Lab, LabDevice, Making, MqttClient, PRODUCT, Ran, made, wait};

const PATIENCE: Duration = Duration::from_secs(90);

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Prepares, signs and publishes new targets.
fn rotate(lab: &Lab, out: &str, words: &[&str]) {
    let folder = show(&lab.path(out));
    lab.json(&[&["keys", "rotate"], words, &["--product", PRODUCT, "--out", &folder]].concat());
    let targets = show(&lab.path(out).join("targets.json"));
    let key = show(&lab.path("offline").join("targets.pem"));
    lab.json(&["keys", "sign", &targets, "--key", &key, "--out", &targets]);
    lab.json(&["keys", "publish", "--product", PRODUCT, &targets]);
    std::fs::copy(&targets, lab.path("offline").join("targets.json")).unwrap();
}

fn refused(lab: &Lab, words: &[&str]) -> Ran {
    let out = show(&lab.path("never"));
    let ran = lab.run(&[&["keys", "rotate"], words, &["--product", PRODUCT, "--out", &out]].concat());
    assert_ne!(ran.code, Some(0), "{ran:?}");
    ran
}

fn image(lab: &Lab, rc: u64) -> std::path::PathBuf {
    let path = lab.path(&format!("{rc}.img"));
    made(&path, 100_000, rc);
    path
}

/// Seals a report of a device by the service's key alone, as its thief does.
fn forged(device: &LabDevice, kid: u32, pem: &Path, n: u64) -> (String, Vec<u8>) {
    let own = SecretKey::from_pkcs8_pem(&std::fs::read_to_string(pem).unwrap()).unwrap();
    let theirs = std::fs::read_to_string(device.dir.join("data/telemetry.pem")).unwrap();
    let theirs = SecretKey::from_pkcs8_pem(&theirs).unwrap().public_key();
    let (id, fleet): (DeviceId, FleetId) = (device.name.parse().unwrap(), "lab".parse().unwrap());
    let epoch = device.status()["epoch"].as_u64().unwrap();
    let key = PairSecret::agree(&own, &theirs).key(Direction::Up, &fleet, &id, kid, epoch);
    let body =
        json!({"e": epoch, "k": kid, "n": n, "low": 1, "t": "health", "rc": 1, "metrics": {"crashes": 1}});

    (Topic::Up(id, UpKind::Report).render(&fleet), key.seal(&body))
}

fn counter(lab: &Lab, name: &str) -> u64 {
    fn find(value: &Value, name: &str) -> Option<u64> {
        match value {
            Value::Object(map) => {
                map.get(name).and_then(Value::as_u64).or_else(|| map.values().find_map(|v| find(v, name)))
            }
            _ => None,
        }
    }
    find(&lab.status(), name).unwrap_or_else(|| panic!("{name} is missing in {}", lab.status()))
}

#[test]
fn the_telemetry_key_is_replaced_while_devices_follow_and_a_thief_of_the_old_one_is_shut_out() {
    let mut lab = Lab::start();
    let factory = image(&lab, 1);
    let device = |name: &str| LabDevice::make(&lab, name, &factory, &Making::default());
    let (mut near, mut away) = (device("near"), device("away"));
    near.start();
    away.start();
    for name in ["near", "away"] {
        wait("the device to be known", PATIENCE, || (lab.device(name)["running"] == 1).then_some(()));
    }
    away.kill();
    let data = show(&lab.data());
    assert!(refused(&lab, &["telemetry", "--remove", "1"]).err.contains("rotate first"));
    assert!(refused(&lab, &["telemetry"]).err.contains("--data"));
    // The old key, as a thief has it: the file of the first telemetry key.
    let old = lab.data().join("keys").join(PRODUCT).join("telemetry.pem");

    rotate(&lab, "second", &["telemetry", "--data", &data]);
    lab.publish(2, &image(&lab, 2));
    lab.roll_out(2, "r2", "all", 0);
    wait("near to run release 2", PATIENCE, || (lab.device("near")["running"] == 2).then_some(()));
    // Both keys are in force over a restart.
    lab.stop_service();
    lab.start_service();
    let accepted = counter(&lab, "accepted");
    near.kill();
    let mut thief = MqttClient::connect(lab.mqtt, "near", None);
    let (topic, payload) = forged(&near, 1, &old, 5000);
    thief.publish(&topic, &payload, false);
    wait("the thief to be believed", PATIENCE, || (counter(&lab, "accepted") > accepted).then_some(()));

    rotate(&lab, "third", &["telemetry", "--remove", "1"]);

    let (accepted, refused) = (counter(&lab, "accepted"), counter(&lab, "forged"));
    let (topic, payload) = forged(&near, 1, &old, 5001);
    thief.publish(&topic, &payload, false);
    wait("the thief to be refused", PATIENCE, || (counter(&lab, "forged") > refused).then_some(()));
    assert_eq!(counter(&lab, "accepted"), accepted);
    drop(thief);
    std::fs::remove_file(&old).unwrap();
    // The one that missed both steps follows, and so does the rollout.
    near.start();
    away.start();
    lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!(lab.device("away")["running"], 2);
    lab.verified_frames();
}

#[test]
fn a_device_that_waits_for_approval_is_told_the_time_and_its_key_can_be_replaced() {
    let mut lab = Lab::start();
    let factory = image(&lab, 1);
    let mut device = LabDevice::build(&lab, "new", &factory, &Making::default());
    device.register(&lab);
    let told = counter(&lab, "timed");

    device.start();

    wait("the time to be told", PATIENCE, || (counter(&lab, "timed") > told).then_some(()));
    wait("the device to be known", PATIENCE, || (lab.device("new")["running"] == 1).then_some(()));
    let data = show(&lab.data());
    rotate(&lab, "time", &["time", "--data", &data]);
    std::fs::remove_file(lab.data().join("keys").join(PRODUCT).join("time.pem")).unwrap();
    lab.stop_service();
    lab.start_service();
    let told = counter(&lab, "timed");
    let mut second = LabDevice::make(&lab, "second", &factory, &Making::default());
    second.start();
    wait("the time to be told", PATIENCE, || (counter(&lab, "timed") > told).then_some(()));
    wait("the device to be known", PATIENCE, || (lab.device("second")["running"] == 1).then_some(()));
}
