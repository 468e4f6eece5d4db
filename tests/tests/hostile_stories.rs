//! What somebody between real agents and the service tries on purpose, and controls: the same checks must report
//! somebody who holds the keys.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tern_protocol::message::{Attempt, ReportKind, Reports};
use tern_protocol::state::Outcome;
use tern_tests::lab::{
    Broker, Lab, LabDevice, Making, Manner, MqttClient, Records, Siege, booted, image, made, seal_of,
};

/// Requests for the files that the answer named, before a device is believed that it waits for them and does not arm.
const REQUESTS: usize = 2;

/// Every device waits in its hook until the kill was given, hears no signed file from then on, and is let go.
///
/// The folder holds what lets the hook go; it has to live for as long as the devices do.
fn kill_that_nobody_hears(kill: bool) -> (Siege, tempfile::TempDir) {
    let hook = "while [ ! -e \"$0\" ]; do sleep 0.2; done";
    let gate = tempfile::tempdir().unwrap();
    let go = gate.path().join("go");
    let hook = ["/bin/sh", "-c", hook, &go.display().to_string()].map(str::to_owned).to_vec();
    let siege = Siege::lay(1, &Making { hook: Some(hook), ..Making::default() });
    siege.lab.roll_out(2, "r2", "all", 86_400);
    siege.until("everybody to be in the hook", |siege| {
        siege.devices.iter().all(|device| siege.sent(device, "report", r#""to":"pre-updating""#) > 0)
    });

    siege.middleman.set(Manner::HidesFiles);
    if kill {
        siege.lab.json(&["rollout", "kill", "r2"]);
    }
    let answers = |d: &LabDevice| siege.middleman.answers(&d.name);
    let before: Vec<u64> = siege.devices.iter().map(answers).collect();
    std::fs::write(go, "").unwrap();
    siege.until("answers that are later than the kill", |siege| {
        let mut each = siege.devices.iter().zip(&before);
        each.all(|(device, before)| answers(device) > *before || booted(device).contains(&2))
    });
    let gets = |device: &LabDevice| siege.sent(device, "get", r#""role":"rollout""#);
    let before: Vec<usize> = siege.devices.iter().map(gets).collect();
    siege.until("requests for what the answers named", |siege| {
        let mut each = siege.devices.iter().zip(&before);
        each.all(|(device, before)| gets(device) >= before + REQUESTS || booted(device).contains(&2))
    });
    (siege, gate)
}

#[test]
fn a_device_that_was_answered_later_than_a_kill_does_not_arm_though_it_hears_of_none() {
    let (siege, _gate) = kill_that_nobody_hears(true);

    for device in &siege.devices {
        assert_eq!(Records::of(device).boot().trial, None, "{}", device.name);
    }
    assert_eq!(siege.inventions("r2"), Vec::<String>::new());
    siege.middleman.behave();
    siege.rest();
    assert_eq!(siege.unsafe_devices(&[1, 2], &[1]), Vec::<String>::new());
    assert_eq!(siege.lies("r2"), Vec::<String>::new());
}

#[test]
fn should_find_devices_that_armed_where_no_kill_was_given() {
    let (siege, _gate) = kill_that_nobody_hears(false);

    siege.until("the trials", |siege| siege.devices.iter().all(|device| booted(device).contains(&2)));

    assert!(!siege.unsafe_devices(&[1, 2], &[1]).is_empty());
}

#[test]
fn whoever_hides_outcomes_widens_nothing_and_what_was_hidden_counts_once_it_arrives() {
    let siege = Siege::lay(1, &Making::default());
    siege.middleman.set(Manner::HidesOutcomes);
    siege.lab.roll_out(2, "r2", "1@99%,all", 1);
    let again = |siege: &Siege| siege.middleman.acts().get("outcome hidden").copied().unwrap_or_default();
    siege.until("an outcome to be hidden, and sent again", |siege| again(siege) >= 5);

    let view = siege.lab.rollout("r2");
    assert_eq!((&view["phase"], &view["total"]["good"]), (&json!(1), &json!(0)), "{view}");
    assert_eq!(siege.inventions("r2"), Vec::<String>::new());
    assert_eq!(siege.devices.iter().filter(|device| booted(device).contains(&2)).count(), 1);

    siege.middleman.behave();
    let view = siege.lab.wait_for_status("r2", "completed", Duration::from_secs(60));
    assert_eq!(view["total"]["good"], 3, "{view}");
    siege.rest();
    assert_eq!(siege.lies("r2"), Vec::<String>::new());
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[test]
fn should_find_somebody_who_holds_every_key_and_rolls_out_what_nobody_approved() {
    let mut siege = Siege::lay(1, &Making::default());
    assert_eq!(siege.unsafe_devices(&[1, 2], &[1]), Vec::<String>::new());
    siege.lab.stop_service();
    let mut thief = Lab::bare(Broker::Embedded);
    copy(&siege.lab.data(), &thief.data());
    copy(&siege.lab.path("offline"), &thief.path("offline"));
    thief.start_service();
    // It sees that it is a copy; whoever owns it says that this is well.
    let ended = thief.run(&["keys", "recover", "--end", "--yes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    made(&image(&thief, 3), 200_000, 666);
    thief.publish(3, &image(&thief, 3));
    thief.roll_out(3, "r3", "all", 0);

    siege.middleman.lead_to(thief.mqtt);
    siege.until("devices to take it", |siege| {
        siege.devices.iter().all(|device| Records::of(device).confirmed() == Some(3))
    });

    // Its number is a genuine one; its bytes are not.
    let found = siege.unsafe_devices(&[1, 2, 3], &[1, 2, 3]);
    assert_eq!(found.iter().filter(|what| what.contains("never published so")).count(), 3, "{found:?}");
    let found = siege.unsafe_devices(&[1, 2, 3], &[1, 2]);
    assert_eq!(found.iter().filter(|what| what.contains("nobody assigned")).count(), 3, "{found:?}");
}

#[test]
fn should_find_a_report_that_a_thief_of_keys_has_made() {
    let mut siege = Siege::lay(1, &Making::default());
    siege.lab.roll_out(2, "r2", "all", 0);
    siege.lab.wait_for_status("r2", "completed", Duration::from_secs(60));
    siege.rest();
    assert_eq!(siege.lies("r2"), Vec::<String>::new());

    siege.devices[0].kill();
    let device = &siege.devices[0];
    let sent = siege.middleman.sent();
    let theirs = sent.iter().rfind(|m| m.topic.ends_with("/dev-1/report")).unwrap();
    let reports: Reports = serde_json::from_slice(&theirs.payload).unwrap();
    let mut report = reports.into_iter().last().unwrap();
    report.n += 1;
    let attempt = Attempt { rc: 2, rollout: "r2".parse().unwrap(), attempt: 1 };
    report.kind = ReportKind::Outcome { attempt, outcome: Outcome::RolledBack, reason: None };
    let sealed = seal_of(&siege.lab, device, report.k, report.e).seal(&report);
    let mut client = MqttClient::connect(siege.front, &device.name, None);
    client.publish(&theirs.topic, &sealed, false);
    client.messages();

    siege.until("the ledger to hold it", |siege| !siege.inventions("r2").is_empty());
    let found = siege.lies("r2");
    assert!(found.iter().any(|what| what.contains("never made")), "{found:?}");
}
