//! How many devices may be on trial at once, and how many may begin in an hour.

use tern_protocol::id::DeviceId;
use tern_protocol::message::{Attempt, Nonce, ReportKind};
use tern_protocol::position::Shuffle;
use tern_protocol::state::Outcome;

use super::*;
use crate::core::fact::Fact;
use crate::core::rollout::policy::PhaseRule;
use crate::core::rollout::record::{Rollout, Status};

const MINUTE: u64 = 60_000;

fn rollout(scene: &Scene) -> &Rollout {
    &scene.service.fleet().rollouts[&id("r2")]
}

/// A fleet of ten under a plan that offers the release to all of them, but for its cap.
fn scene(cap: impl Fn(&mut Plan)) -> Scene {
    let mut scene = Scene::new();
    (2..=10).for_each(|number| scene.add(&format!("cam-{number}")));
    start(scene, cap)
}

fn start(mut scene: Scene, cap: impl Fn(&mut Plan)) -> Scene {
    scene.step(Input::BrokerUp);
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    let rule = PhaseRule { gate: None, soak: std::time::Duration::ZERO };
    let phases = vec![Phase::new(Reach::All, rule)];
    let mut plan = Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() };
    cap(&mut plan);
    let (rollout, product) = (id("r2"), scene.product.clone());
    scene.command(Command::Start { rollout, product, rc: 2, attempt: 1, plan }).unwrap();
    scene
}

/// The same with so many devices.
fn crowd(devices: usize, cap: impl Fn(&mut Plan)) -> Scene {
    let mut scene = Scene::new();
    let first = scene.service.fleet().devices.values().next().unwrap().clone();
    let entry = |number: usize| DeviceEntry {
        device: format!("cam-{number}").parse().unwrap(),
        identity: first.identity.clone(),
        registry: first.registry.clone(),
    };
    scene.command(Command::AddUnsignedDevices { devices: (2..=devices).map(entry).collect() }).unwrap();
    start(scene, cap)
}

/// Devices that are offered the release.
fn included(scene: &Scene) -> Vec<DeviceId> {
    let (fleet, rollout) = (scene.service.fleet(), rollout(scene));
    let shuffle = Shuffle::new(rollout.salt);
    let offered = |(id, device): &(&DeviceId, &crate::core::fleet::device::Device)| {
        rollout.phase_of(id, &device.registry, shuffle.position(id)).is_some()
    };
    fleet.devices.iter().filter(offered).map(|(id, _)| id.clone()).collect()
}

fn attempt() -> Attempt {
    Attempt { rc: 2, rollout: id("r2"), attempt: 1 }
}

fn say(scene: &mut Scene, device: &DeviceId, n: u64, report: ReportKind) {
    scene.service.record(Fact::Reported { device: device.clone(), e: 1, n, low: n, report });
    later(scene, MINUTE);
}

fn begins(scene: &mut Scene, device: &DeviceId) {
    say(scene, device, 1, ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempt() });
}

fn ends(scene: &mut Scene, device: &DeviceId, outcome: Outcome) {
    say(scene, device, 2, ReportKind::Outcome { attempt: attempt(), outcome, reason: None });
}

/// Time passes in which the service receives.
fn later(scene: &mut Scene, time: u64) {
    for _ in 0..time.div_ceil(5 * MINUTE) {
        scene.now += time.min(5 * MINUTE);
        scene.step(Input::Time);
    }
}

#[test]
fn one_more_is_let_in_for_each_that_has_come_to_an_end_and_for_no_other() {
    let mut scene = scene(|plan| plan.concurrency = Some(3));
    let first = included(&scene);
    assert_eq!(first.len(), 3);
    begins(&mut scene, &first[0]);
    begins(&mut scene, &first[1]);
    assert_eq!(included(&scene).len(), 3, "they are on trial, and the third may begin at any moment");

    ends(&mut scene, &first[0], Outcome::Success);
    assert_eq!(included(&scene).len(), 4);
    ends(&mut scene, &first[1], Outcome::Success);
    assert_eq!(included(&scene).len(), 5);
    let said = scene.service.lacks_room(rollout(&scene)).unwrap();
    assert!(said.contains("3 of its devices are on trial or about to begin, concurrency 3"), "{said}");
    assert!(rollout(&scene).entry().cuts.values().all(|cut| *cut != tern_protocol::position::Cut::ALL));
}

#[test]
fn one_that_cannot_start_or_runs_the_release_already_takes_no_place() {
    let mut scene = scene(|plan| plan.concurrency = Some(2));
    let first = included(&scene);
    scene.service.fleet.devices.get_mut(&first[0]).unwrap().running = 2;
    later(&mut scene, MINUTE);
    assert_eq!(included(&scene).len(), 3);

    let (outcome, reason) = (Outcome::Failed, Some("not for this device".to_owned()));
    say(&mut scene, &first[1], 1, ReportKind::Outcome { attempt: attempt(), outcome, reason });
    assert_eq!(included(&scene).len(), 4);
}

#[test]
fn devices_that_are_away_hold_the_others_up_for_as_long_as_a_wave_would_and_not_for_ever() {
    let mut scene = scene(|plan| plan.concurrency = Some(4));
    later(&mut scene, 23 * 60 * MINUTE);
    assert_eq!(included(&scene).len(), 4);
    later(&mut scene, 2 * 60 * MINUTE);
    assert_eq!(included(&scene).len(), 8);
    // Two days later everybody has been offered it, and the phase is open as if there were no cap.
    later(&mut scene, 48 * 60 * MINUTE);
    assert_eq!(included(&scene).len(), 10);
    assert!(rollout(&scene).reaches_all());
}

#[test]
fn a_pace_offers_so_many_an_hour() {
    let mut scene = scene(|plan| plan.rate = Some(4));
    let mut hours = Vec::new();
    for _ in 0..3 {
        hours.push(included(&scene).len());
        later(&mut scene, 65 * MINUTE);
    }
    assert_eq!(hours, [4, 8, 10]);
}

#[test]
fn devices_by_name_and_those_held_back_keep_to_the_cap_too() {
    let mut scene = scene(|plan| {
        let rule = plan.phases[0].rule.clone();
        let list: Vec<DeviceId> = (1..=3).map(|number| format!("cam-{number}").parse().unwrap()).collect();
        plan.phases.insert(0, Phase { list, ..Phase::new(Reach::Devices(0), rule) });
        plan.hold_back = HoldBack { devices: Some(3), ..HoldBack::default() };
        plan.concurrency = Some(2);
    });
    let (mut ended, mut most) = (Vec::new(), 0);
    while rollout(&scene).status == Status::Running {
        let open: Vec<DeviceId> = included(&scene).into_iter().filter(|id| !ended.contains(id)).collect();
        most = most.max(open.len());
        if ended.len() < 2 {
            assert!(open.iter().all(|id| ["cam-1", "cam-2", "cam-3"].contains(&id.as_str())), "{open:?}");
        }
        let next = open.first().expect("somebody is always next").clone();
        begins(&mut scene, &next);
        ends(&mut scene, &next, Outcome::Success);
        later(&mut scene, MINUTE);
        ended.push(next);
    }
    assert_eq!((rollout(&scene).status, most), (Status::Completed, 2), "{}", rollout(&scene).because);
    assert_eq!((ended.len(), rollout(&scene).held_from), (10, None));
}

#[test]
fn a_promotion_opens_the_next_phase_as_far_as_there_is_room() {
    let mut scene = scene(|plan| {
        plan.phases.insert(0, Phase::new(Reach::Devices(3), PhaseRule::default()));
        plan.concurrency = Some(3);
    });
    let promote = Command::Promote { rollout: id("r2"), from_phase: 1, key: None };
    scene.command(promote).unwrap();
    assert_eq!((rollout(&scene).phases.len(), included(&scene).len()), (2, 3));
    assert_eq!((rollout(&scene).phases[1].devices, rollout(&scene).phases[1].owed), (7, 7));

    let first = included(&scene)[0].clone();
    begins(&mut scene, &first);
    ends(&mut scene, &first, Outcome::Success);
    assert_eq!(included(&scene).len(), 4);
    // The same again from the ledger.
    let text = serde_json::to_string(scene.service.fleet()).unwrap();
    assert_eq!(serde_json::from_str::<Fleet>(&text).unwrap(), *scene.service.fleet());
}

/// A report, and a second in which the service looks at it.
fn tell(scene: &mut Scene, device: &DeviceId, n: u64, report: ReportKind) {
    scene.service.record(Fact::Reported { device: device.clone(), e: 1, n, low: n, report });
    scene.now += 1000;
    scene.step(Input::Time);
}

fn started() -> ReportKind {
    ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempt() }
}

fn ended(outcome: Outcome) -> ReportKind {
    ReportKind::Outcome { attempt: attempt(), outcome, reason: None }
}

#[test]
fn a_rollout_keeps_its_pace_though_more_devices_are_away_than_its_cap_allows() {
    let mut scene = crowd(1000, |plan| plan.concurrency = Some(20));
    let number = |id: &DeviceId| id.as_str()["cam-".len()..].parse::<u64>().unwrap();
    let away = |id: &DeviceId| number(id).is_multiple_of(20);
    let (mut begun, mut days) = (BTreeMap::<DeviceId, u64>::new(), Vec::new());
    for step in 0..3 * 24 * 6 {
        for id in included(&scene) {
            let since = begun.get(&id).copied();
            let (n, report) = match since {
                _ if away(&id) => continue,
                None => (1, started()),
                Some(since) if since + 3 == step => (2, ended(Outcome::Success)),
                Some(_) => continue,
            };
            begun.entry(id.clone()).or_insert(step);
            scene.service.record(Fact::Reported { device: id, e: 1, n, low: n, report });
        }
        scene.now += 10 * MINUTE;
        scene.step(Input::Time);
        if (step + 1) % (24 * 6) == 0 {
            days.push(included(&scene).len());
        }
    }
    let gone = included(&scene).iter().filter(|id| away(id)).count();
    assert!(gone > 20, "{gone}");
    // A place stands for 24 h and more in one of twenty cases, else for 35 min: twelve an hour and not fewer.
    assert!(days[1] - days[0] > 200 && days[2] - days[1] > 200, "{days:?}");
}

#[test]
fn one_that_took_its_start_back_keeps_its_place_and_devices_are_looked_at_every_ten_seconds() {
    let mut scene = scene(|plan| plan.concurrency = Some(4));
    let first = included(&scene);
    later(&mut scene, MINUTE);
    let looked = scene.service.looked[&id("r2")].at();
    for device in &first {
        tell(&mut scene, device, 1, started());
    }
    tell(&mut scene, &first[0], 2, ended(Outcome::Deferred));
    assert_eq!(included(&scene).len(), 4);
    tell(&mut scene, &first[1], 2, ended(Outcome::Success));
    assert_eq!(included(&scene).len(), 5);
    assert_eq!(scene.service.looked[&id("r2")].at(), looked, "six reports, one look");
}

#[test]
fn one_that_has_spoken_is_awaited_however_long_ago_it_was_included() {
    let mut scene = scene(|plan| plan.concurrency = Some(1));
    let first = included(&scene).remove(0);
    later(&mut scene, 20 * 60 * MINUTE);
    tell(&mut scene, &first, 1, started());
    tell(&mut scene, &first, 2, ended(Outcome::Deferred));
    later(&mut scene, 20 * 60 * MINUTE);
    assert_eq!(included(&scene).len(), 1);
    later(&mut scene, 5 * 60 * MINUTE);
    assert_eq!(included(&scene).len(), 2);
}

#[test]
fn places_that_are_given_back_are_taken_together() {
    let mut scene = crowd(300, |plan| plan.concurrency = Some(100));
    let first = included(&scene);
    later(&mut scene, MINUTE);
    for device in &first {
        scene.service.record(Fact::Reported {
            device: device.clone(),
            e: 1,
            n: 1,
            low: 1,
            report: started(),
        });
    }
    tell(&mut scene, &first[0], 2, ended(Outcome::Success));
    assert_eq!(included(&scene).len(), 101, "the one before is a minute old");
    for device in &first[1..10] {
        tell(&mut scene, device, 2, ended(Outcome::Success));
        assert_eq!(included(&scene).len(), 101);
    }
    tell(&mut scene, &first[10], 2, ended(Outcome::Success));
    assert_eq!(included(&scene).len(), 111, "a tenth of the cap");
    tell(&mut scene, &first[11], 2, ended(Outcome::Success));
    assert_eq!(included(&scene).len(), 111);
    scene.now += 30_000;
    scene.step(Input::Time);
    assert_eq!(included(&scene).len(), 112, "half a minute");
}

#[test]
fn a_rollout_that_is_held_up_by_one_device_looks_at_that_one_and_completes_when_it_has_ended() {
    let mut scene = scene(|plan| plan.concurrency = None);
    let devices = included(&scene);
    for device in &devices[..9] {
        begins(&mut scene, device);
        ends(&mut scene, device, Outcome::Success);
    }
    assert_eq!(scene.service.held_up.get(&id("r2")), Some(&devices[9]));
    scene.add("cam-0");
    begins(&mut scene, &devices[9]);
    ends(&mut scene, &devices[9], Outcome::Success);
    assert_eq!(scene.service.held_up.get(&id("r2")).map(|id| id.as_str()), Some("cam-0"));
    begins(&mut scene, &"cam-0".parse().unwrap());
    ends(&mut scene, &"cam-0".parse().unwrap(), Outcome::Success);
    assert_eq!(rollout(&scene).status, Status::Completed);
}
