//! What a rollout decides about real agents: a fifth that fails, one bad model, an outage of a region. Every number in
//! the lines is worked out again by the reference, and by a replay.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tern_tests::lab::{Lab, LabDevice, MODEL, Making, Uplink, made, wait};

fn device(lab: &Lab, name: &str, making: &Making) -> LabDevice {
    LabDevice::make(lab, name, &lab.path("factory.img"), making)
}

/// One fleet after the other: half a hundred agents leave a small machine no time for others.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lab() -> Lab {
    let lab = Lab::start();
    made(&lab.path("factory.img"), 100_000, 1);
    made(&lab.path("new.img"), 200_000, 2);
    lab
}

fn sick(making: &Making) -> Making {
    // Not before the others have started: a few that fail among those who have would only pause the rollout.
    let probe = ["/bin/sh", "-c", "sleep 4; false"].map(str::to_owned).to_vec();
    Making { probe: Some(probe), ..making.clone() }
}

/// One phase of these devices by name.
fn of(devices: &[LabDevice], policy: &Value) -> Value {
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let phase = json!({"reach": {"devices": 0}, "list": names, "gate": 0.05, "soak": 3600});
    json!({"phases": [phase], "waves": {"on": false}, "hold_back": {"on": false}, "policy": policy})
}

/// The ledger is whole, every verdict in it follows from the frames before it, and its numbers are the reference's.
fn holds(lab: &Lab, line: &str) {
    let data = lab.data().display().to_string();
    lab.verified_frames();
    let ran = lab.run(&["--json", "ledger", "replay", "--data", &data]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains(line.trim_end_matches('.')), "{line}\n{}", ran.out);
    if let Some(lines) = lab.recompute(&lab.data(), &[]) {
        assert!(lines.iter().any(|known| known == line), "{line}\n{lines:?}");
    }
}

#[test]
fn a_release_that_fails_on_a_fifth_of_the_devices_is_killed() {
    let _alone = alone();
    let lab = lab();
    lab.register_absent(180, MODEL);
    let healthy = Making::default();
    let making = |number: usize| if number.is_multiple_of(5) { sick(&healthy) } else { healthy.clone() };
    let mut devices: Vec<_> = (0..40).map(|n| device(&lab, &format!("cam-{n}"), &making(n))).collect();
    lab.publish(2, &lab.path("new.img"));
    lab.roll_out_by(2, "r2", &of(&devices, &json!({"max_failure_rate": 0.02, "hard_stop": null})));
    devices.iter_mut().for_each(LabDevice::start);

    let view = lab.wait_for_status("r2", "killed", Duration::from_secs(120));

    let because = view["because"].as_str().unwrap();
    assert!(because.starts_with("KILL: ") && because.contains("allowed 2 %"), "{because}");
    assert!(view["total"]["bad"].as_u64() <= Some(8), "{view}");
    holds(&lab, because);
}

#[test]
fn one_bad_model_of_three_is_named_by_the_kill() {
    let _alone = alone();
    let lab = lab();
    let models = ["tr-100", "tr-200", "tr-300"];
    models.iter().for_each(|model| lab.register_absent(70, model));
    let mut devices = Vec::new();
    for (m, model) in models.into_iter().enumerate() {
        let making = Making { model, ..Making::default() };
        let making = if m == 2 { sick(&making) } else { making };
        devices.extend((0..8).map(|n| device(&lab, &format!("{model}-{n}"), &making)));
    }
    lab.publish_for(2, &lab.path("new.img"), &models);
    lab.roll_out_by(2, "r2", &of(&devices, &json!({})));
    devices.iter_mut().for_each(LabDevice::start);

    let view = lab.wait_for_status("r2", "killed", Duration::from_secs(120));

    let because = view["because"].as_str().unwrap();
    // Reports that arrive together are judged together, so a fourth may be among them.
    let counted = |bad| format!("KILL model=tr-300: hard stop, {bad} bad of the first 10 started");
    assert!((3..=8).any(|bad| because.starts_with(&counted(bad))), "{because}");
    assert!(view["total"]["bad"].as_u64() <= Some(8), "{view}");
    holds(&lab, because);
}

/// Twenty are offered a healthy release; three devices of five lose their way to the broker while trials run. Once those of the
/// others are over, the machine has time for the next fleet.
fn outage(alone: MutexGuard<'static, ()>, hold_back: &Value) -> (Lab, Value) {
    const DEVICES: usize = 48;
    let lab = lab();
    let uplink = Uplink::to(lab.mqtt);
    let timing = "connect_deadline = 30.0\ndeferral = 4.0".to_owned();
    let straight = Making { soak: 8.0, timing, ..Making::default() };
    let making = |number: usize| {
        let broker = (number % 5 < 3).then_some(uplink.address);
        Making { broker, ..straight.clone() }
    };
    let mut devices: Vec<_> = (0..DEVICES).map(|n| device(&lab, &format!("cam-{n}"), &making(n))).collect();
    lab.publish(2, &lab.path("new.img"));
    devices.iter_mut().for_each(LabDevice::start);
    lab.wait_for_hellos();
    let rule = |after: u64, max_rate: f64| json!({"after": after, "max_rate": max_rate});
    let policy = json!({"silence_early": rule(20, 0.2), "silence_deadline": rule(60, 0.02), "hard_stop": null,
            "device": {"probe_deadline": 10, "soak": 8, "connect_deadline": 36}});
    let phase = json!({"reach": {"devices": 20}, "gate": 0.05, "soak": 3600});
    let plan = json!({"phases": [phase], "waves": {"on": false}, "hold_back": hold_back, "policy": policy});
    lab.roll_out_by(2, "r2", &plan);
    wait("trials to run", Duration::from_secs(60), || {
        (lab.rollout("r2")["total"]["started"].as_u64() >= Some(15)).then_some(())
    });

    uplink.cut(true);
    std::thread::sleep(Duration::from_secs(20));
    drop(alone);
    std::thread::sleep(Duration::from_secs(55));
    uplink.cut(false);
    std::thread::sleep(Duration::from_secs(10));
    let view = lab.rollout("r2");
    (lab, view)
}

#[test]
fn an_outage_of_a_region_stops_nothing_beside_a_control() {
    let (lab, view) = outage(alone(), &json!({"on": true, "devices": 22}));

    assert_eq!(view["status"], "running", "{view}");
    assert!(view["held_back"].as_u64() >= Some(20), "{view}");
    let total = &view["total"];
    let away = total["silent"].as_u64().unwrap() + total["unreachable"].as_u64().unwrap();
    assert!(away >= 4, "the outage hit some: {view}");
    let explanation = view["explanation"].as_str().unwrap();
    assert!(explanation.starts_with("HOLD "), "{explanation}");
    lab.recompute(&lab.data(), &[("r2", explanation)]);
}

#[test]
fn the_same_outage_pauses_a_rollout_without_a_control_and_kills_nothing() {
    let (lab, view) = outage(alone(), &json!({"on": false}));

    assert_eq!(view["status"], "paused", "{view}");
    let because = view["because"].as_str().unwrap();
    assert!(because.starts_with("PAUSE: "), "{because}");
    holds(&lab, because);
}
