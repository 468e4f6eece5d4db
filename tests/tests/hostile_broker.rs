//! A hostile broker over real sockets: real agents and a real service, and between them somebody who loses, repeats,
//! bends, swaps and makes up every second message. The simulation has more seeds; here nothing is virtual.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_protocol::digest::Digest;
use tern_protocol::state::StateName;
use tern_tests::lab::{Heard, Lab, LabDevice, Making, Middleman, Records, made, wait};

/// How long it is hostile.
const WAR: Duration = Duration::from_secs(12);

/// Safety, from the bytes in the slots.
fn check_slots(lab: &Lab, devices: &[LabDevice]) {
    let published = |rc: u64| {
        let name = if rc == 1 { "factory.img".to_owned() } else { format!("r{rc}.img") };
        std::fs::read(lab.path(&name)).ok().map(|bytes| Digest::of(&bytes))
    };
    for device in devices {
        assert_eq!(Records::of(device).false_claims(published), Vec::<String>::new(), "{}", device.name);
    }
}

/// Truth, from the ledger's files: every report once, whole stories, and the service counts the same.
fn check_counts(lab: &Lab, rollout: &str) {
    let mut heard = Heard::default();
    heard.read(lab);
    let (view, sum) = (lab.rollout(rollout), heard.sum(rollout));
    let total = |key: &str| view["total"][key].as_u64().unwrap();
    assert_eq!(heard.doubled, Vec::new());
    assert_eq!(heard.broken_walks(), Vec::<String>::new());
    assert_eq!((total("good"), total("bad"), total("recalled")), (sum.good, sum.bad, sum.recalled), "{view}");
}

fn quiet(device: &LabDevice) -> bool {
    Records::of(device).journal().is_some_and(|journal| {
        matches!(journal.state.name(), StateName::Idle | StateName::Failed)
            && journal.outbox.pending().next().is_none()
    })
}

#[test]
fn whoever_stands_between_real_agents_and_the_service_can_delay_and_nothing_else() {
    let mut lab = Lab::start();
    for (name, length, seed) in [("factory.img", 100_000, 1), ("r2.img", 300_000, 2), ("r3.img", 300_000, 3)]
    {
        made(&lab.path(name), length, seed);
    }
    let middleman = Middleman::start(lab.mqtt, 1);
    // Agents are configured with what the lab says.
    lab.mqtt = middleman.address;
    let factory = lab.path("factory.img");
    let mut devices: Vec<LabDevice> =
        (1..=3).map(|i| LabDevice::make(&lab, &format!("dev-{i}"), &factory, &Making::default())).collect();
    devices.iter_mut().for_each(LabDevice::start);
    lab.publish(2, &lab.path("r2.img"));
    lab.roll_out(2, "r2", "all", 86_400);

    std::thread::sleep(WAR);
    lab.json(&["rollout", "kill", "r2"]);
    check_slots(&lab, &devices);
    middleman.behave();
    assert!(middleman.acts() > 20, "it did nothing to speak of: {}", middleman.acts());

    wait("everybody to come to rest", Duration::from_secs(60), || devices.iter().all(quiet).then_some(()));
    check_slots(&lab, &devices);
    check_counts(&lab, "r2");
    lab.publish(3, &lab.path("r3.img"));
    lab.roll_out(3, "r3", "all", 0);
    let view = lab.wait_for_status("r3", "completed", Duration::from_secs(60));
    assert_eq!(view["total"]["good"], 3, "{view}");
    check_slots(&lab, &devices);
    check_counts(&lab, "r3");
}
