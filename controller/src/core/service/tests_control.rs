//! A control ends when somebody says so, and a device keeps the place that its first start gave it.

use tern_protocol::id::DeviceId;
use tern_protocol::message::{Attempt, Nonce, ReportKind};
use tern_protocol::position::Shuffle;
use tern_protocol::state::Outcome;

use super::*;
use crate::core::fact::Fact;
use crate::core::fleet::device::AttemptRecord;
use crate::core::rollout::policy::{HardStop, PhaseRule};
use crate::core::rollout::record::{Rollout, Status};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn rollout(scene: &Scene) -> &Rollout {
    &scene.service.fleet().rollouts[&id("r2")]
}

fn name(number: usize) -> DeviceId {
    format!("cam-{number}").parse().unwrap()
}

/// A fleet of so many under a plan.
fn scene(devices: usize, plan: Plan) -> Scene {
    let mut scene = Scene::new();
    let first = scene.service.fleet().devices.get(&name(1)).unwrap().clone();
    let entry = |number| DeviceEntry {
        device: name(number),
        identity: first.identity.clone(),
        registry: first.registry.clone(),
    };
    let devices = (2..=devices).map(entry).collect();
    scene.command(Command::AddUnsignedDevices { devices }).unwrap();
    scene.step(Input::BrokerUp);
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    let (rollout, product) = (id("r2"), scene.product.clone());
    scene.command(Command::Start { rollout, product, rc: 2, attempt: 1, plan }).unwrap();
    scene
}

fn phase(reach: Reach) -> Phase {
    Phase::new(reach, PhaseRule { gate: None, soak: std::time::Duration::ZERO })
}

/// Time passes in which the service receives; returns the facts of it.
fn later(scene: &mut Scene, time: u64) -> Vec<Fact> {
    let mut facts = Vec::new();
    for _ in 0..time.div_ceil(5 * MINUTE) {
        scene.now += time.min(5 * MINUTE);
        facts.extend(scene.step(Input::Time).facts);
    }
    facts
}

fn attempt() -> Attempt {
    Attempt { rc: 2, rollout: id("r2"), attempt: 1 }
}

fn say(scene: &mut Scene, device: &DeviceId, report: ReportKind) -> Vec<Fact> {
    let n = scene.service.fleet().devices.get(device).unwrap().received.highest() + 1;
    scene.service.record(Fact::Reported { device: device.clone(), e: 1, n, low: n, report });
    later(scene, MINUTE)
}

fn begins(scene: &mut Scene, device: &DeviceId) -> Vec<Fact> {
    say(scene, device, ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempt() })
}

fn ends(scene: &mut Scene, device: &DeviceId, outcome: Outcome) -> Vec<Fact> {
    say(scene, device, ReportKind::Outcome { attempt: attempt(), outcome, reason: None })
}

fn record(scene: &Scene, device: &DeviceId) -> AttemptRecord {
    scene.service.fleet().devices.get(device).unwrap().attempts.get(&id("r2")).unwrap().clone()
}

/// Devices that are offered the release and have not begun, in the order in which it comes to them.
fn open(scene: &Scene) -> Vec<DeviceId> {
    let (fleet, rollout) = (scene.service.fleet(), rollout(scene));
    let shuffle = Shuffle::new(rollout.salt);
    let mut open: Vec<_> = (fleet.devices.iter())
        .filter(|(id, device)| {
            let offered = rollout.phase_of(id, &device.registry, shuffle.position(id)).is_some();
            offered && !device.attempts.contains_key(&rollout.id)
        })
        .map(|(id, _)| (shuffle.position(id), id.clone()))
        .collect();
    open.sort();
    open.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn a_control_ends_only_when_it_is_let_go_though_devices_by_name_or_gone_make_the_fleet_tiny() {
    for gone in [0, 30] {
        let listed = Phase { list: [name(1)].into(), ..phase(Reach::Devices(0)) };
        let phases = vec![listed, phase(Reach::Devices(20)), phase(Reach::All)];
        let mut scene = scene(200, Plan { phases, ..Plan::default() });
        assert!(rollout(&scene).held_from.is_some());
        let mut facts = Vec::new();
        for number in 200 - gone..200 {
            scene.service.fleet.devices.get_mut(&name(number)).unwrap().standing =
                crate::core::fleet::device::Standing::Revoked;
            scene.service.covered.clear();
        }
        for _ in 0..200 {
            for device in open(&scene) {
                facts.extend(begins(&mut scene, &device));
                facts.extend(ends(&mut scene, &device, Outcome::Success));
            }
            facts.extend(later(&mut scene, HOUR));
            if rollout(&scene).held_from.is_none() {
                break;
            }
        }
        let kinds: Vec<&Fact> = facts
            .iter()
            .filter(|fact| {
                matches!(
                    fact,
                    Fact::PhaseOpened { .. } | Fact::WaveOpened { .. } | Fact::HoldBackEnded { .. }
                )
            })
            .collect();
        let (last, before) = kinds.split_last().unwrap();
        assert!(matches!(last, Fact::HoldBackEnded { held_from: None, .. }), "{last:?}");
        assert!(before.len() > 3);
        for fact in before {
            let (Fact::PhaseOpened { held_from, .. } | Fact::WaveOpened { held_from, .. }) = fact else {
                panic!("{fact:?}");
            };
            assert!(held_from.is_some(), "{gone} gone: {fact:?}");
        }
        assert!(rollout(&scene).let_go);
    }
}

fn all_at_once(first: u64) -> Plan {
    let mut plan = Plan {
        phases: vec![phase(Reach::Devices(100))],
        waves: Waves::OFF,
        hold_back: HoldBack::OFF,
        ..Plan::default()
    };
    plan.policy.hard_stop = Some(HardStop { bad: first.min(3), first });
    plan
}

#[test]
fn a_device_that_begins_again_and_again_does_not_use_up_the_first_ones() {
    let mut scene = scene(300, all_at_once(10));
    let devices = open(&scene);
    for _ in 0..20 {
        begins(&mut scene, &devices[0]);
        ends(&mut scene, &devices[0], Outcome::Deferred);
    }
    // Nor by words that have its record forget that it began.
    for _ in 0..40 {
        ends(&mut scene, &devices[0], Outcome::Deferred);
    }
    begins(&mut scene, &devices[0]);
    assert_eq!(record(&scene, &devices[0]).rank, 1);
    for device in &devices[1..4] {
        begins(&mut scene, device);
        ends(&mut scene, device, Outcome::Failed);
    }
    let killed = rollout(&scene);
    assert_eq!(killed.status, Status::Killed);
    assert!(killed.because.contains("hard stop, 3 bad of the first 10"), "{}", killed.because);
}

#[test]
fn a_device_beyond_the_first_ones_stays_there_until_a_new_series_begins() {
    let mut scene = scene(300, all_at_once(2));
    let devices = open(&scene);
    for device in &devices[..3] {
        begins(&mut scene, device);
        ends(&mut scene, device, Outcome::Deferred);
    }
    let ranks = |scene: &Scene| devices[..3].iter().map(|id| record(scene, id).rank).collect::<Vec<_>>();
    assert_eq!(ranks(&scene), [1, 2, 0]);
    devices[..3].iter().rev().for_each(|device| drop(begins(&mut scene, device)));
    assert_eq!((ranks(&scene), rollout(&scene).total().pending()), (vec![1, 2, 0], 3));
    devices[..3].iter().for_each(|device| drop(ends(&mut scene, device, Outcome::Deferred)));

    scene.command(Command::Pause(id("r2"))).unwrap();
    scene.command(Command::Resume(id("r2"))).unwrap();
    devices[..3].iter().rev().for_each(|device| drop(begins(&mut scene, device)));
    assert_eq!(ranks(&scene), [0, 2, 1]);
}

#[test]
fn devices_by_name_that_run_the_release_hold_nobody_up_and_those_that_are_away_are_said_to_be() {
    let list = || [name(1), name(2)].into();
    let phases = vec![Phase { list: list(), ..phase(Reach::Devices(0)) }, phase(Reach::Devices(10))];
    let plan = Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() };
    let mut scene = scene(20, plan);
    later(&mut scene, MINUTE);
    let line = |scene: &Scene| scene.service.judge(rollout(scene)).to_string();
    let said = line(&scene);
    assert!(said.contains("none of its 2 devices was heard since it opened"), "{said}");
    scene.service.fleet.devices.get_mut(&name(1)).unwrap().seen_at = Some(scene.now);
    scene.service.fleet.devices.get_mut(&name(1)).unwrap().running = 2;
    later(&mut scene, MINUTE);
    assert_eq!((rollout(&scene).phases.len(), line(&scene).ends_with("no device has started.")), (1, true));
    scene.service.fleet.devices.get_mut(&name(2)).unwrap().running = 2;
    later(&mut scene, MINUTE);
    assert_eq!(rollout(&scene).phases.len(), 2, "{}", line(&scene));
}
