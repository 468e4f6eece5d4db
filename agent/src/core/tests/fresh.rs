//! `arm: fresh` as the whole agent does it, with a controller that hears and says nothing.

use tern_protocol::state::StateName;
use tern_protocol::tuf::content::Arm;

use super::super::agent::{Input, Job};
use super::super::conditions::Conditions;
use super::super::hook::HookStep;
use super::super::timing::Timing;
use super::thief::{Published, World};

fn offers(arm: Arm) -> Published {
    let mut published = Published::offers(6);
    published.entries[0].arm = arm;
    published
}

fn world() -> World {
    let mut world = World::with(Conditions::default(), &[HookStep::PreUpdate], true);
    (world.deaf, world.clock_goes) = (true, true);
    world
}

fn pass(world: &mut World, time: u64) {
    let end = world.uptime + time;
    while world.uptime < end {
        world.uptime = world.agent.wake_at().min(world.uptime + 60_000).min(end);
        world.handle(Input::Time);
    }
}

#[test]
fn cut_off_a_device_arms_what_is_fresh_and_waits_for_what_needs_an_answer() {
    let mut world = world();
    world.publish(&offers(Arm::Acked));
    pass(&mut world, 3_600_000);
    assert_eq!((world.armed(), world.agent.durable().state.name()), (None, StateName::Verifying));

    let mut world = self::world();
    world.publish(&offers(Arm::Fresh));
    pass(&mut world, 3_600_000);
    assert_eq!(world.armed(), Some(6), "{:?}", world.agent.durable().state);
    let started = world.agent.durable().outbox.pending().any(|p| format!("{:?}", p.kind).contains("Started"));
    assert!(started, "the start waits to be reported");
}

#[test]
fn it_asks_first_and_waits_as_long_as_a_first_ask_does() {
    let mut world = World::with(Conditions::default(), &[], true);
    (world.keeps_nonces, world.clock_goes) = (true, true);
    let began = world.uptime;
    world.publish(&offers(Arm::Fresh));
    pass(&mut world, 3_600_000);

    assert_eq!(world.armed(), Some(6));
    let (asked, _) = *world.nonces.first().expect("it asked");
    assert!(asked >= began && world.nonces.len() >= 2, "{:?}", world.nonces);
}

#[test]
fn neither_without_a_broker_nor_with_files_that_are_over_nor_before_newer_files_that_were_named() {
    let mut apart = world();
    apart.handle(Input::LinkDown);
    apart.publish(&offers(Arm::Fresh));
    let mut over = world();
    over.handle(Input::LinkDown);
    over.expires = super::thief::WALL + 600;
    over.publish(&offers(Arm::Fresh));
    over.wall += 600;
    over.handle(Input::LinkUp);
    let mut behind = world();
    behind.deaf = false;
    behind.hides_a_kill = true;
    behind.publish(&offers(Arm::Fresh));

    for (name, world) in [("apart", &mut apart), ("over", &mut over), ("behind", &mut behind)] {
        let jobs = world.jobs.clone();
        pass(world, 2 * 3_600_000);
        assert_eq!(world.armed(), None, "{name}");
        assert!(jobs.iter().all(|job| !matches!(job, Job::RunHooks(_))), "{name}: {jobs:?}");
    }
}

#[test]
fn a_kill_that_reached_the_site_is_enforced_though_nobody_answers() {
    let mut world = world();
    world.handle(Input::LinkDown);
    world.publish(&offers(Arm::Fresh));
    assert_eq!(world.agent.durable().state.name(), StateName::Verifying);
    let mut killed = offers(Arm::Fresh);
    killed.halted = vec![5, 6];
    world.publish(&killed);
    world.handle(Input::LinkUp);

    pass(&mut world, 2 * Timing::default().answer_valid);

    assert_eq!((world.armed(), world.agent.durable().state.name()), (None, StateName::Idle));
}
