//! The same story against a broker that nobody here wrote: Debian's mosquitto, with the generated policy.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_bridge::front::frame::Publish;
use tern_protocol::id::FleetId;
use tern_protocol::topic::{Topic, UpKind};
use tern_tests::lab::{Broker, Lab, LabDevice, Making, Mosquitto, made, wait};

const PATIENCE: Duration = Duration::from_secs(90);
/// The device that tries what the policy forbids.
const HOSTILE: &str = "dev-9";

fn up(device: &str, kind: UpKind) -> String {
    Topic::Up(device.parse().unwrap(), kind).render(&fleet())
}

fn fleet() -> FleetId {
    "lab".parse().unwrap()
}

/// Writes a probe that fails on half of the fleet when the slot holds a bad image.
fn probe(lab: &Lab) -> Vec<String> {
    let script = lab.path("probe.sh");
    std::fs::write(&script, "case \"$1\" in dev-[456]) ! grep -aq BAD-IMAGE \"$2\" ;; esac\n").unwrap();
    ["/bin/sh", &script.display().to_string(), "{device}", "{slot_path}"].map(str::to_owned).to_vec()
}

#[test]
fn a_fleet_on_mosquitto_takes_a_good_release_and_gives_back_a_bad_one_whatever_a_hostile_device_tries() {
    let names: Vec<String> = (1..=6).map(|i| format!("dev-{i}")).collect();
    let users: Vec<&str> = names.iter().map(String::as_str).chain(["service", HOSTILE]).collect();
    let Some(mosquitto) = Mosquitto::start(&users) else { return };
    let broker = Broker::External {
        port: mosquitto.address().port(),
        password_file: mosquitto.password_file("service"),
    };
    let mut lab = Lab::start_with(broker);
    let (factory, good, bad) = (lab.path("1.img"), lab.path("2.img"), lab.path("3.img"));
    made(&factory, 100_000, 1);
    made(&good, 500_000, 2);
    made(&bad, 500_000, 3);
    let mut bytes = std::fs::read(&bad).unwrap();
    bytes.extend_from_slice(b"BAD-IMAGE");
    std::fs::write(&bad, bytes).unwrap();
    // Long enough for a kill to find every device in its trial.
    let making = |name: &str| Making {
        soak: 6.0,
        probe: Some(probe(&lab)),
        login: Some((name.to_owned(), mosquitto.password_file(name))),
        ..Making::default()
    };
    let mut devices: Vec<LabDevice> =
        names.iter().map(|name| LabDevice::make(&lab, name, &factory, &making(name))).collect();
    // The hostile device is a device of the fleet, with its own password; its model takes no part in the rollouts.
    let other = LabDevice::build(&lab, HOSTILE, &factory, &making(HOSTILE));
    let mut line = other.identity();
    line["model"] = serde_json::json!("tr-999");
    std::fs::write(lab.path("hostile.json"), line.to_string()).unwrap();
    lab.json(&["device", "add", "--unsigned", "--file", &lab.path("hostile.json").display().to_string()]);

    // Somebody who may hear everything, and the hostile device, which may not.
    let mut witness = mosquitto.connect("witness", "service");
    let mut hostile = mosquitto.connect(HOSTILE, HOSTILE);
    let (mut seen, mut heard) = (Vec::new(), Vec::new());
    witness.subscribe(&["ota/v1/lab/#"], &mut seen);
    let wanted = [
        "#",
        "ota/v1/lab/#",
        "ota/v1/lab/d/#",
        "ota/v1/lab/d/+/in",
        "ota/v1/lab/d/dev-1/in",
        "ota/v1/lab/d/dev-1/pack",
        "ota/v1/lab/up/#",
        "ota/v1/lab/up/+/+/report",
        "ota/v1/lab/site/#",
        "ota/v1/lab/p/router/head",
    ];
    for filter in wanted {
        hostile.subscribe(&[filter], &mut heard);
    }
    let others: [(String, bool); 7] = [
        (up("dev-1", UpKind::Report), false),
        (up("dev-1", UpKind::Get), false),
        (up("dev-1", UpKind::Enrol), true),
        ("ota/v1/lab/p/router/head".into(), true),
        ("ota/v1/lab/p/router/ts".into(), true),
        ("ota/v1/lab/d/dev-1/in".into(), false),
        ("ota/v1/lab/site/hut/status".into(), false),
    ];
    for (topic, retain) in &others {
        hostile.publish(topic, b"forged", *retain);
    }
    hostile.publish(&up(HOSTILE, UpKind::Report), b"its own", false);
    hostile.publish(&up(HOSTILE, UpKind::Enrol), b"its own, kept", true);
    heard.extend(hostile.messages());

    devices.iter_mut().for_each(LabDevice::start);
    wait("every device to be known", PATIENCE, || {
        names.iter().all(|name| lab.device(name)["running"] == 1).then_some(())
    });
    lab.publish(2, &good);
    lab.roll_out(2, "r2", "all", 0);
    let view = lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!(view["total"]["good"], 6, "{view}");
    seen.extend(witness.messages());
    heard.extend(hostile.messages());
    lab.publish(3, &bad);
    lab.roll_out(3, "r3", "all", 0);
    let view = lab.wait_for_status("r3", "killed", PATIENCE);
    assert!(view["because"].as_str().is_some_and(|text| text.contains("KILL")), "{view}");
    wait("every device to be back on the good release", PATIENCE, || {
        let back = |device: &LabDevice| {
            let status = device.status();
            let rests = status["state"] == "idle" || status["state"] == "failed";
            rests && status["trial"].is_null() && status["halted"] == serde_json::json!([3])
        };
        let known = |name: &String| lab.device(name)["running"] == 2;
        (devices.iter().all(back) && names.iter().all(known)).then_some(())
    });
    for device in &devices {
        let status = device.status();
        assert_eq!((&status["active"], &status["slots"]["b"]["holds"]), (&"b".into(), &2.into()), "{status}");
    }
    let outcomes = &lab.rollout("r3")["outcomes"];
    assert!(outcomes["rolled-back"].as_u64() >= Some(1), "{outcomes}");
    assert!(outcomes["success"].is_null(), "{outcomes}");

    seen.extend(witness.messages());
    heard.extend(hostile.messages());
    // The control: the witness has heard much, and what the hostile device may say was among it.
    let own = |m: &&Publish| m.topic == up(HOSTILE, UpKind::Report) && m.payload == b"its own";
    assert_eq!(seen.iter().filter(own).count(), 1);
    assert!(seen.iter().filter(|m| m.topic.contains("/up/")).count() > 20);
    assert!(seen.iter().filter(|m| m.topic.starts_with("ota/v1/lab/d/")).count() > 20);
    assert!(!seen.iter().any(|m| m.payload == b"forged"), "nothing of it goes out");
    // It hears what everybody may hear, and nothing else.
    assert!(heard.iter().any(|m| m.topic == "ota/v1/lab/p/router/head"));
    let foreign: Vec<&str> =
        heard.iter().map(|m| m.topic.as_str()).filter(|topic| !topic.starts_with("ota/v1/lab/p/")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    // No ACL of mosquitto forbids retaining: the service clears it when it next meets it, which is when it subscribes.
    let kept = || {
        let (mut witness, mut found) = (mosquitto.connect("witness-2", "service"), Vec::new());
        witness.subscribe(&["ota/v1/lab/up/#"], &mut found);
        found.extend(witness.messages());
        found.into_iter().filter(|m| m.retain).map(|m| m.topic).collect::<Vec<_>>()
    };
    assert_eq!(kept(), [up(HOSTILE, UpKind::Enrol)]);
    devices.iter_mut().for_each(LabDevice::kill);
    let memory = lab.memory();
    lab.kill_service();
    lab.start_service();
    wait("the retained message to go", PATIENCE, || kept().is_empty().then_some(()));
    assert_eq!(lab.memory(), memory);
    assert!(lab.verified_frames() > 0);
}
