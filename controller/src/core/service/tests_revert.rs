//! Where devices may go back to, and when they are taken back by themselves.

use tern_protocol::message::{Attempt, Nonce, ReportKind};
use tern_protocol::state::Outcome;

use super::steer::reached;
use super::*;
use crate::core::fact::Fact;
use crate::core::rollout::record::Status;

/// One device, release 2 on all of it, and release 3 killed under a plan that asks for a way back.
fn scene() -> Scene {
    let mut scene = Scene::new();
    for rc in 2..=4 {
        scene.publish(&scene.signed(rc, u8::try_from(rc).unwrap(), None)).unwrap();
    }
    reached(&mut scene, "r2", 2, &[]);
    scene.start("r3", 3).unwrap();
    scene.service.fleet.rollouts.get_mut(&id("r3")).unwrap().plan.revert = true;
    scene
}

fn runs(scene: &mut Scene, rc: u64) {
    scene.service.fleet.devices.get_mut(&"cam-1".parse().unwrap()).unwrap().running = rc;
}

fn back(scene: &mut Scene, from: &str, name: &str, to: Option<u64>) -> Result<Reply, Refusal> {
    scene.command(Command::Revert { rollout: id(from), name: Some(id(name)), to, plan: None })
}

fn reverts(scene: &Scene) -> Vec<&str> {
    scene.service.fleet().rollouts.values().filter(|r| !r.from.is_empty()).map(|r| r.id.as_str()).collect()
}

/// The same data folder, another process.
fn restart(scene: &mut Scene) -> Step {
    let online = keys::load_online(&scene.home.path().join("data"), &scene.product).unwrap();
    let keys = BTreeMap::from([(scene.product.clone(), online)]);
    scene.service = Service::new(scene.service.fleet().clone(), keys, Lives::default(), [8; 32]);
    scene.step(Input::Time)
}

#[test]
fn nobody_goes_back_to_what_has_not_reached_everybody_there() {
    let mut scene = scene();
    scene.service.fleet.rollouts.get_mut(&id("r3")).unwrap().status = Status::Completed;
    scene.publish(&scene.signed(5, 5, None)).unwrap();
    scene.start("r4", 4).unwrap();
    scene.kill("r4").unwrap();
    runs(&mut scene, 4);
    // As if nobody had ever rolled release 3 out.
    scene.service.fleet.rollouts.remove(&id("r3"));

    let untried = back(&mut scene, "r4", "back", Some(3)).unwrap_err();
    let newer = back(&mut scene, "r4", "back", Some(5)).unwrap_err();

    assert_eq!((untried.kind, newer.kind), (RefusalKind::Conflict, RefusalKind::Conflict));
    assert!(untried.what.contains("no rollout of release 3 has reached everybody there"), "{untried}");
    assert!(untried.hint.contains("go back to release 2 by leaving out --to"), "{untried}");
    assert!(newer.what.contains("release 5 is not older than release 4"), "{newer}");
    assert_eq!(reverts(&scene), [""; 0]);
    back(&mut scene, "r4", "back", Some(2)).unwrap();
}

#[test]
fn a_kill_that_nobody_has_to_go_back_from_is_looked_at_once_and_when_somebody_runs_the_release_after_all() {
    let mut scene = scene();
    scene.kill("r3").unwrap();
    assert!(!scene.service.look_back, "the kill was looked at");
    scene.step(Input::Time);
    let (device, attempt) = ("cam-1".parse().unwrap(), Attempt { rc: 3, rollout: id("r3"), attempt: 1 });
    let say = |scene: &mut Scene, n, report| {
        scene.service.record(Fact::Reported {
            device: tern_protocol::id::DeviceId::clone(&device),
            e: 1,
            n,
            low: n,
            report,
        });
    };
    say(&mut scene, 1, ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempt.clone() });
    assert!(!scene.service.look_back, "it may still fail");
    scene.step(Input::Time);
    assert_eq!(reverts(&scene), [""; 0]);

    say(&mut scene, 2, ReportKind::Outcome { attempt, outcome: Outcome::Success, reason: None });
    scene.step(Input::Time);

    assert_eq!(reverts(&scene), ["r3-revert"]);
}

#[test]
fn a_way_back_that_was_refused_is_said_once_and_not_tried_again_by_another_process() {
    let mut scene = scene();
    let good = scene.service.fleet.rollouts.remove(&id("r2")).unwrap();
    runs(&mut scene, 3);
    scene.kill("r3").unwrap();
    assert!(scene.service.fleet().rollouts[&id("r3")].revert_refused, "there is nothing to go back to");

    scene.service.fleet.rollouts.insert(id("r2"), good);
    let step = restart(&mut scene);

    assert_eq!((reverts(&scene), step.alarms), (vec![], vec![]));
    back(&mut scene, "r3", "by-hand", None).unwrap();
}

#[test]
fn what_somebody_took_back_under_another_name_is_not_taken_back_again() {
    let mut scene = scene();
    scene.service.fleet.rollouts.get_mut(&id("r3")).unwrap().plan.revert = false;
    runs(&mut scene, 3);
    scene.kill("r3").unwrap();
    back(&mut scene, "r3", "by-hand", None).unwrap();
    scene.service.fleet.rollouts.get_mut(&id("by-hand")).unwrap().status = Status::Completed;
    scene.service.fleet.rollouts.get_mut(&id("r3")).unwrap().plan.revert = true;

    restart(&mut scene);

    assert_eq!(reverts(&scene), ["by-hand"]);
}
