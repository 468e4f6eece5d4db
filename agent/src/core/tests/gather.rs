//! What is reported together, and how long it waits for that.

use super::super::agent::Input;
use super::super::conditions::Conditions;
use super::super::hook::HookStep;
use super::super::timing::Timing;
use super::thief::{Published, World};

const GATHER: u64 = 1000;

fn world() -> World {
    let mut world = World::with(Conditions::default(), &[HookStep::PreUpdate], true);
    world.messages.clear();
    world
}

/// Wakes the device when it asks for that, for `time`; returns how often.
fn wakes(world: &mut World, time: u64) -> usize {
    let end = world.uptime + time;
    let mut wakes = 0;
    while world.agent.wake_at() <= end {
        world.uptime = world.uptime.max(world.agent.wake_at());
        world.handle(Input::Time);
        wakes += 1;
        assert!(wakes < 1000, "it spins");
    }
    world.uptime = end;
    wakes
}

#[test]
fn what_follows_within_a_moment_is_one_message() {
    let mut world = world();
    world.publish(&Published::offers(6));
    wakes(&mut world, 3_600_000);

    assert_eq!(world.armed(), Some(6));
    let numbers: Vec<u64> = world.messages.iter().flat_map(|(_, numbers)| numbers.clone()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // Checked, verified and a question; what led to the start, and the start.
    let sizes: Vec<_> = world.messages.iter().map(|(_, numbers)| numbers.len()).collect();
    assert_eq!(sizes, [3, 3]);
}

#[test]
fn a_change_of_state_that_nothing_follows_is_told_after_a_moment() {
    assert_eq!(Timing::default().gather, GATHER);
    // It has to fetch the release, and nobody gives it anything.
    let mut world = World::with(Conditions::default(), &[], false);
    world.messages.clear();
    let began = world.uptime;
    world.publish_quietly(&Published::offers(6));
    assert!(world.messages.is_empty(), "{:?}", world.messages);

    wakes(&mut world, GATHER - 1);
    assert!(world.messages.is_empty(), "{:?}", world.messages);
    wakes(&mut world, 1);

    assert_eq!(world.messages.len(), 1, "{:?}", world.messages);
    assert_eq!((world.messages[0].0, world.messages[0].1.len()), (began + GATHER, 2));
}

#[test]
fn what_nobody_acknowledges_is_said_again_one_by_one() {
    let mut world = world();
    world.deaf = true;
    world.publish(&Published::offers(6));
    wakes(&mut world, 60_000);
    let first = world.messages.first().unwrap().1.clone();
    // Perhaps one of them is what keeps the others back. The question, the third, is asked anew in its time.
    let again: Vec<_> = world.messages.iter().skip(1).take(2).map(|(_, numbers)| numbers.clone()).collect();
    assert_eq!(again, [vec![first[0]], vec![first[1]]], "{:?}", world.messages);

    world.deaf = false;
    world.publish(&Published::offers(6));
    wakes(&mut world, 3_600_000);
    assert_eq!(world.armed(), Some(6));
    assert_eq!(world.messages.last().unwrap().1.len(), 3, "together again: {:?}", world.messages);
}

#[test]
fn a_link_that_goes_while_something_waits_for_company_leaves_no_timer_that_spins() {
    let mut world = World::with(Conditions::default(), &[], false);
    world.publish_quietly(&Published::offers(6));
    world.handle(Input::LinkDown);
    wakes(&mut world, 10 * GATHER);
    world.messages.clear();

    world.handle(Input::LinkUp);
    wakes(&mut world, 10 * GATHER);

    let said: Vec<_> = world.messages.iter().map(|(_, numbers)| numbers.len()).collect();
    assert!(said.contains(&2), "{:?}", world.messages);
}
