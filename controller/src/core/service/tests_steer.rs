//! What operators may do to rollouts, alone and in pairs, and at which hours.

use super::super::tokens::MintToken;
use super::*;
use crate::core::access::Made;
use crate::core::fact::Fact;
use crate::core::rollout::plan::Approval;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::times::{AtEnd, Times};

fn rollout<'a>(scene: &'a Scene, name: &str) -> &'a Rollout {
    &scene.service.fleet().rollouts[&id(name)]
}

/// A fleet of ten, and a plan of two and then all.
fn scene() -> (Scene, Plan) {
    let mut scene = Scene::new();
    (2..=10).for_each(|number| scene.add(&format!("cam-{number}")));
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    for name in ["ann", "ben"] {
        let (token, id, made) = (name.parse().unwrap(), format!("{name}-id"), Made::File);
        let hash = tern_protocol::digest::Digest::of(name.as_bytes());
        let mint =
            MintToken { token, role: crate::core::access::Role::Operator, expires: None, id, hash, made };
        scene.command(Command::CreateToken(mint)).unwrap();
    }
    let phases =
        vec![Phase::new(Reach::Devices(2), Default::default()), Phase::new(Reach::All, Default::default())];
    (scene, Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() })
}

fn start(scene: &mut Scene, by: &str, plan: &Plan) -> Result<Reply, Refusal> {
    let product = scene.product.clone();
    command_by(
        scene,
        by,
        Command::Start { rollout: id("r2"), product, rc: 2, attempt: 1, plan: plan.clone() },
    )
}

fn command_by(scene: &mut Scene, by: &str, command: Command) -> Result<Reply, Refusal> {
    let step =
        scene.step(Input::Command { id: 0, by: Some(by.parse().unwrap()), command: Box::new(command) });
    let replies = step.outputs.into_iter().find_map(|output| match output {
        Output::Reply { result, .. } => Some(result),
        Output::Publish { .. } => None,
    });
    replies.unwrap()
}

fn approve(scene: &mut Scene, by: &str, phase: usize) -> Result<Reply, Refusal> {
    command_by(scene, by, Command::ApprovePhase { rollout: id("r2"), phase })
}

fn promote(scene: &mut Scene, from_phase: usize, key: &str) -> Result<Reply, Refusal> {
    let key = Some(key.to_owned());
    command_by(scene, "ann", Command::Promote { rollout: id("r2"), from_phase, key })
}

#[test]
fn four_eyes_open_what_two_would_not_and_one_person_is_not_two() {
    let (mut scene, mut plan) = scene();
    plan.approval = Approval::Phases;
    start(&mut scene, "ann", &plan).unwrap();
    assert_eq!(rollout(&scene, "r2").phases.len(), 0, "nobody is offered it yet");

    assert_eq!(approve(&mut scene, "ann", 1).unwrap_err().kind, RefusalKind::Denied);
    assert_eq!(approve(&mut scene, "ben", 3).unwrap_err().kind, RefusalKind::Invalid);
    approve(&mut scene, "ben", 1).unwrap();
    assert_eq!(rollout(&scene, "r2").phases.len(), 1);

    let refused = promote(&mut scene, 1, "k1").unwrap_err();
    assert!(refused.hint.contains("tern rollout approve r2 --phase 2"), "{refused}");
    approve(&mut scene, "ben", 2).unwrap();
    assert_eq!(rollout(&scene, "r2").phases.len(), 1, "it may, and its gate has not spoken");
    promote(&mut scene, 1, "k1").unwrap();
    assert_eq!(rollout(&scene, "r2").phases.len(), 2);
    // Stopping never asks.
    command_by(&mut scene, "ann", Command::Pause(id("r2"))).unwrap();
}

#[test]
fn a_promotion_that_is_sent_twice_opens_one_phase() {
    let (mut scene, mut plan) = scene();
    plan.phases.insert(1, Phase::new(Reach::Devices(2), Default::default()));
    start(&mut scene, "ann", &plan).unwrap();

    promote(&mut scene, 1, "k1").unwrap();
    let again = promote(&mut scene, 1, "k1").unwrap();
    assert!(matches!(again, Reply::Done { what } if what.contains("by this request already")));
    assert_eq!(rollout(&scene, "r2").phases.len(), 2);
    assert_eq!(
        promote(&mut scene, 1, "k2").unwrap_err().kind,
        RefusalKind::Conflict,
        "another request saw phase 1"
    );
}

fn said(reply: Result<Reply, Refusal>) -> String {
    match reply.unwrap() {
        Reply::Done { what } => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_the_last_phase_a_promotion_opens_one_wave_a_key_whether_or_not_there_is_a_control() {
    for devices in [Some(3), None] {
        let (mut scene, mut plan) = scene();
        plan.phases.remove(0);
        plan.waves = Waves { first: 1, ..Waves::default() };
        plan.hold_back = HoldBack { on: devices.is_some(), devices, ..HoldBack::default() };
        // Nobody is asked about a phase that does not exist.
        plan.approval = Approval::Phases;
        start(&mut scene, "ann", &plan).unwrap();
        approve(&mut scene, "ben", 1).unwrap();

        for _ in 0..3 {
            let said = said(promote(&mut scene, 1, "k1"));
            assert!(said.contains("wave 2 of phase 1 opened") || said.contains("already"), "{said}");
        }
        assert_eq!(rollout(&scene, "r2").phases[0].waves, 2, "control {devices:?}");
        let mut last = String::new();
        for key in 2.. {
            match promote(&mut scene, 1, &format!("k{key}")) {
                Ok(reply) => last = said(Ok(reply)),
                Err(refusal) => {
                    assert!(refusal.what.contains("all of it is open"), "{refusal}");
                    break;
                }
            }
            assert_eq!(
                said(promote(&mut scene, 1, &format!("k{key}"))),
                "rollout r2 was promoted by this request already"
            );
        }
        assert_eq!(last.contains("those it had held back"), devices.is_some(), "{last}");
        assert!(rollout(&scene, "r2").reaches_all());
    }
}

#[test]
fn a_rollout_keeps_its_hours_and_pauses_at_its_end() {
    let (mut scene, mut plan) = scene();
    let seconds = scene.now / 1000;
    plan.times = Times {
        not_before: Some(seconds + 3600),
        end: Some(seconds + 7200),
        at_end: AtEnd::Pause,
        windows: vec![],
    };
    let Reply::Done { what } = start(&mut scene, "ann", &plan).unwrap() else { panic!() };
    assert!(what.contains("waits for its start"), "{what}");
    scene.step(Input::Time);
    assert_eq!(rollout(&scene, "r2").phases.len(), 0);

    scene.now += 3600 * 1000;
    scene.step(Input::Time);
    assert_eq!(rollout(&scene, "r2").phases.len(), 1);

    scene.now += 3600 * 1000;
    let facts = scene.step(Input::Time).facts;
    assert!(
        facts
            .iter()
            .any(|fact| matches!(fact, Fact::Paused { because, .. } if because.contains("its time is over")))
    );
    assert_eq!(rollout(&scene, "r2").status, Status::Paused);
}

#[test]
fn whoever_cannot_wait_for_the_hour_starts_it_by_hand_and_goes_on_after_its_end() {
    let (mut scene, mut plan) = scene();
    let seconds = scene.now / 1000;
    plan.times = Times { not_before: Some(seconds + 3600), end: Some(seconds + 7200), ..Times::default() };
    start(&mut scene, "ann", &plan).unwrap();

    promote(&mut scene, 0, "k1").unwrap();
    assert_eq!(rollout(&scene, "r2").phases.len(), 1);

    scene.now += 2 * 3600 * 1000;
    scene.step(Input::Time);
    assert_eq!(rollout(&scene, "r2").status, Status::Paused);
    command_by(&mut scene, "ann", Command::Resume(id("r2"))).unwrap();
    scene.step(Input::Time);
    assert_eq!(rollout(&scene, "r2").status, Status::Running, "its end is behind it");
}

#[test]
fn a_rollout_that_stays_at_its_end_makes_room_and_is_recorded_as_what_it_was() {
    let (mut scene, mut plan) = scene();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    let end = Some(scene.now / 1000 + 3600);
    plan.times = Times { end, at_end: AtEnd::Stay, ..Times::default() };
    start(&mut scene, "ann", &plan).unwrap();
    let next = |scene: &Scene| {
        let plan = Plan { times: Times::default(), ..plan.clone() };
        Command::Start { rollout: id("r3"), product: scene.product.clone(), rc: 3, attempt: 1, plan }
    };
    let early = next(&scene);
    assert_eq!(command_by(&mut scene, "ann", early).unwrap_err().kind, RefusalKind::Conflict);

    scene.now += 2 * 3600 * 1000;
    scene.step(Input::Time);
    assert_eq!(rollout(&scene, "r2").status, Status::Running, "it stays");
    let late = next(&scene);
    command_by(&mut scene, "ann", late).unwrap();

    let stayed = rollout(&scene, "r2");
    assert_eq!(stayed.status, Status::Completed);
    assert_eq!(stayed.because, "COMPLETE: its time is over; 0 of 10 devices on release 2; superseded by r3");
    // It reached two of ten: no release that anybody goes back to, nor one that others are measured by.
    scene.kill("r3").unwrap();
    assert_eq!(scene.service.last_good(&rollout(&scene, "r3").clone()), None);
    let entries = scene.service.wanted_rollout(&scene.product).entries;
    assert_eq!(entries.iter().map(|entry| entry.rc).collect::<Vec<_>>(), [2], "and its devices keep it");
}

/// A completed rollout of a release in these regions.
pub(super) fn reached(scene: &mut Scene, name: &str, rc: u64, regions: &[&str]) {
    let regions = regions.iter().map(|region| region.parse().unwrap()).collect();
    let phases = vec![Phase::new(Reach::All, Default::default())];
    let hold_back = HoldBack::OFF;
    let plan = Plan { phases, regions, waves: Waves::OFF, hold_back, ..Plan::default() };
    let (rollout, product) = (id(name), scene.product.clone());
    scene.command(Command::Start { rollout, product, rc, attempt: 1, plan }).unwrap();
    scene.service.record(Fact::Completed { rollout: id(name), because: "COMPLETE: test".into() });
}

#[test]
fn devices_go_back_to_what_reached_everybody_in_their_regions_and_not_elsewhere() {
    let mut scene = Scene::new();
    scene.add_in("cam-2", "us");
    for rc in 2..=6 {
        scene.publish(&scene.signed(rc, u8::try_from(rc).unwrap(), None)).unwrap();
    }
    reached(&mut scene, "all", 2, &[]);
    reached(&mut scene, "us3", 3, &["us"]);
    reached(&mut scene, "eu4", 4, &["eu"]);
    reached(&mut scene, "us4", 4, &["us"]);
    reached(&mut scene, "us5", 5, &["us"]);
    let back = |scene: &mut Scene, regions: &[&str]| {
        let name = format!("r6{}", regions.join(""));
        reached(scene, &name, 6, regions);
        let source = scene.service.fleet().rollouts[&id(&name)].clone();
        scene.service.fleet.rollouts.remove(&id(&name));
        scene.service.last_good(&source)
    };
    assert_eq!(back(&mut scene, &["us"]), Some(5));
    assert_eq!(back(&mut scene, &["eu"]), Some(4), "release 5 never was in eu");
    assert_eq!(back(&mut scene, &[]), Some(4), "one rollout in each region");
    scene.service.fleet.products.get_mut(&scene.product).unwrap().halted.insert(4);
    assert_eq!(back(&mut scene, &["eu"]), Some(2), "nobody goes back to what is dead");
}

#[test]
fn a_restored_service_learns_from_a_signed_file_who_is_named_and_that_the_control_was_let_go() {
    let (mut scene, mut plan) = scene();
    let list = vec!["cam-3".parse().unwrap(), "cam-4".parse().unwrap()];
    plan.phases.insert(1, Phase { list, ..Phase::new(Reach::Devices(0), Default::default()) });
    plan.hold_back = HoldBack { devices: Some(3), ..HoldBack::default() };
    start(&mut scene, "ann", &plan).unwrap();
    let mut copies = Vec::new();
    for (phase, key) in [(1, "k1"), (2, "k2"), (3, "k3")] {
        copies.push(scene.service.fleet.clone());
        promote(&mut scene, phase, key).unwrap();
    }
    let newest = rollout(&scene, "r2").clone();
    assert_eq!((newest.listed.len(), newest.held_from), (2, None));

    for (copy, at) in copies.into_iter().zip(["the first phase", "those by name", "the last phase"]) {
        let products = scene.service.fleet.products.clone();
        scene.service.fleet = Fleet { products, ..copy };
        assert!(rollout(&scene, "r2").held_from.is_some(), "{at}");
        let product = scene.product.clone();
        scene.service.conclude(&product, &[tern_protocol::tuf::Role::Rollout]);

        let learned = rollout(&scene, "r2");
        assert_eq!((&learned.listed, learned.held_from), (&newest.listed, None), "{at}");
        assert_eq!(learned.cuts(), newest.cuts(), "{at}");
    }
}

#[test]
fn devices_go_back_from_a_rollout_whose_deadlines_no_plan_may_have_any_more() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    reached(&mut scene, "all", 2, &[]);
    scene.start("r3", 3).unwrap();
    let device = "cam-1".parse().unwrap();
    scene.service.fleet.devices.get_mut(&device).unwrap().running = 3;
    let plan = &mut scene.service.fleet.rollouts.get_mut(&id("r3")).unwrap().plan;
    plan.policy.silence_early.after = std::time::Duration::from_secs(20);
    plan.policy.silence_deadline.after = std::time::Duration::from_secs(60);
    assert!(plan.check().is_err());
    scene.kill("r3").unwrap();

    scene.command(Command::Revert { rollout: id("r3"), name: None, to: None, plan: None }).unwrap();

    assert_eq!(rollout(&scene, "r3-revert").plan.policy.silence_deadline.after.as_secs(), 3600);
}

#[test]
fn a_phase_of_nobody_before_one_that_needs_approval_waits_for_that_alone() {
    let (mut scene, mut plan) = scene();
    plan.approval = Approval::Phases;
    // Two of ten are 20 % already.
    plan.phases.insert(1, Phase::new(Reach::Percent(10.0), Default::default()));
    start(&mut scene, "ann", &plan).unwrap();
    approve(&mut scene, "ben", 1).unwrap();
    approve(&mut scene, "ben", 2).unwrap();
    promote(&mut scene, 1, "k1").unwrap();
    assert_eq!((rollout(&scene, "r2").phases.len(), rollout(&scene, "r2").phases[1].devices), (2, 0));

    approve(&mut scene, "ben", 3).unwrap();

    assert_eq!(rollout(&scene, "r2").phases.len(), 3);
    assert!(rollout(&scene, "r2").because.contains("includes nobody"), "{}", rollout(&scene, "r2").because);
}

#[test]
fn devices_by_name_and_by_tag_come_first_and_are_in_the_signed_entry() {
    let (mut scene, mut plan) = scene();
    let devices = vec!["cam-3".parse().unwrap(), "cam-4".parse().unwrap()];
    let unknown =
        Command::Tag { devices: vec!["cam-99".parse().unwrap()], tag: "bench".parse().unwrap(), on: true };
    assert_eq!(scene.command(unknown).unwrap_err().kind, RefusalKind::NotFound);
    scene.command(Command::Tag { devices, tag: "bench".parse().unwrap(), on: true }).unwrap();
    let named = Phase {
        list: vec!["cam-7".parse().unwrap()],
        tags: vec!["bench".parse().unwrap()],
        ..Phase::new(Reach::Devices(0), Default::default())
    };
    for wrong in [
        Phase { list: vec!["cam-77".parse().unwrap()], ..named.clone() },
        Phase { tags: vec!["bnech".parse().unwrap()], ..named.clone() },
    ] {
        let mut mistyped = plan.clone();
        mistyped.phases.insert(0, wrong);
        let refused = start(&mut scene, "ann", &mistyped).unwrap_err();
        assert!(refused.what.contains("no device cam-77") || refused.what.contains("tag bnech"), "{refused}");
        let product = scene.product.clone();
        assert_eq!(scene.service.preview(&product, 2, &mistyped).unwrap_err().kind, RefusalKind::NotFound);
    }
    plan.phases.insert(0, named);

    start(&mut scene, "ann", &plan).unwrap();

    let record = rollout(&scene, "r2");
    assert_eq!((record.phases[0].devices, record.entry().list.len()), (3, 3));
    let names: Vec<&str> = record.listed.iter().map(|device| device.as_str()).collect();
    assert_eq!(names, ["cam-3", "cam-4", "cam-7"]);
    promote(&mut scene, 1, "k1").unwrap();
    let record = rollout(&scene, "r2");
    assert_eq!(record.phases[1].devices, 2, "two others");
}
