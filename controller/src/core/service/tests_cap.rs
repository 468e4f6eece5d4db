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
