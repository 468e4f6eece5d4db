//! Agents that vanish, with real processes and deadlines of seconds: a brick is found out from its silence alone, and
//! a service that was away does not take its own absence for one.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_agent::core::state::State;
use tern_protocol::state::StateName;
use tern_tests::lab::{Lab, LabDevice, Making, PRODUCT, Records, Stopwatch, made, wait};

const DEVICES: usize = 8;

/// A plan whose phases need proof, and whose deadlines are short.
fn roll_out(lab: &Lab, name: &str, early: u64, last: u64) {
    let plan = lab.path("plan.toml");
    let rule = |after, rate| format!("{{ after = {after}, max_rate = {rate} }}");
    let text = format!(
        "[[phases]]\nreach = {{ devices = {DEVICES} }}\ngate = 0.05\nsoak = 3600\n\n[policy]\n\
         silence_early = {}\nsilence_deadline = {}\n\n[policy.device]\nprobe_deadline = 0\nsoak = 0\n\
         connect_deadline = {last}\n",
        rule(early, 0.2),
        rule(last, 0.05)
    );
    std::fs::write(&plan, text).unwrap();
    let (product, plan) = (PRODUCT, plan.display().to_string());
    lab.json(&[
        "rollout",
        "start",
        "--product",
        product,
        "--rc",
        "2",
        "--name",
        name,
        "--plan",
        &plan,
        "--at-once",
        "--hold-back",
        "none",
        "--yes",
    ]);
}

fn scene(making: &Making) -> (Lab, Vec<LabDevice>) {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("new.img"));
    made(&factory, 100_000, 1);
    // The boot loader reads it before it boots it, which leaves time to vanish.
    made(&image, 40_000_000, 2);
    let make = |number| LabDevice::make(&lab, &format!("cam-{number}"), &factory, making);
    let mut devices: Vec<_> = (0..DEVICES).map(make).collect();
    lab.publish(2, &image);
    devices.iter_mut().for_each(LabDevice::start);
    lab.wait_for_hellos();
    (lab, devices)
}

/// Ends a device in the moment in which it has armed the trial: it never comes up again.
fn vanish_when_armed(device: &mut LabDevice) {
    let records = Records::of(device);
    let since = Stopwatch::start();
    while since.read() < Duration::from_secs(120) {
        if records.boot().trial.is_some() {
            device.cut_power();
            let journal = records.journal().unwrap();
            assert!(matches!(journal.state, State::Updating { .. }), "{} was faster", device.name);
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{} never armed", device.name);
}

/// The ledger is whole, and every verdict in it follows from the frames before it.
fn replays(lab: &Lab) -> Vec<String> {
    let data = lab.data().display().to_string();
    let verified = lab.json(&["ledger", "verify", "--data", &data]);
    assert!(verified["frames"].as_u64() > Some(0), "{verified}");
    let ran = lab.run(&["--json", "ledger", "replay", "--data", &data]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.out.lines().map(str::to_owned).collect()
}

#[test]
fn agents_that_vanish_after_arming_take_their_release_back() {
    let (lab, mut devices) = scene(&Making::default());
    roll_out(&lab, "r2", 10, 60);

    std::thread::scope(|threads| {
        devices.iter_mut().for_each(|device| drop(threads.spawn(|| vanish_when_armed(device))));
    });
    let view = lab.wait_for_status("r2", "killed", Duration::from_secs(60));

    let because = view["because"].as_str().unwrap();
    assert!(
        because.starts_with("KILL: ") && because.contains("devices silent 10 s after start (100 %)"),
        "{because}"
    );
    // Which of the eight were due by then is chance.
    let (bad, silent) = (&view["total"]["bad"], &view["total"]["silent_early"]);
    assert!(*bad == 0 && silent.as_u64() >= Some(5), "{view}");
    let replayed = replays(&lab);
    // Those that started first may have been enough for a pause.
    assert!(replayed[replayed.len() - 2].contains("KILL: "), "{replayed:?}");
    if let Some(lines) = lab.recompute(&lab.data(), &[]) {
        assert!(lines.iter().any(|line| line == because), "{lines:?}");
    }
}

/// Trials run when the service goes away for three early deadlines; every one of them goes back because it reached
/// nobody. They are offered the release again, and it completes without a pause.
#[test]
fn a_service_that_was_away_stops_no_healthy_release() {
    // A trial waits for its answer for as long as its connect deadline, and tries again after a deferral.
    let timing = "connect_deadline = 12.0\ndeferral = 4.0".to_owned();
    let (mut lab, devices) = scene(&Making { soak: 6.0, timing, ..Making::default() });
    roll_out(&lab, "r2", 20, 90);
    let on_trial = || {
        let states = devices.iter().filter_map(|device| Records::of(device).journal());
        states.filter(|journal| journal.state.name() == StateName::VerifyPost).count()
    };
    wait("trials to run", Duration::from_secs(60), || (on_trial() >= DEVICES / 2).then_some(()));

    lab.kill_service();
    std::thread::sleep(Duration::from_secs(60));
    lab.start_service();

    wait("everybody to be counted as good", Duration::from_secs(120), || {
        (lab.rollout("r2")["total"]["good"] == DEVICES).then_some(())
    });
    let view = lab.rollout("r2");
    let total = &view["total"];
    assert_eq!(view["status"], "running", "{view}");
    assert_eq!(
        (&total["silent_early"], &total["unreachable"], &total["bad"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(total["deferred"].as_u64() >= Some(DEVICES as u64 / 2), "trials fell into the gap: {total}");
    let data = lab.data().display().to_string();
    let story = lab.run(&["--json", "ledger", "show", "--data", &data, "--limit", "100000"]);
    assert!(!story.out.contains("\"fact\":\"paused\"") && story.out.contains("\"fact\":\"reception-began\""));
    assert_eq!(replays(&lab).len(), 1, "no verdict was needed");
}
