//! Files that lean on keys which the device does not hold yet: it asks for them, soon where a kill may be among them.

use tern_protocol::bundle::{Bundle, Dictionary, File};
use tern_protocol::topic::Topic;
use tern_protocol::tuf::Role;

use super::super::agent::Input;
use super::super::conditions::Conditions;
use super::thief::{Published, World};

const RETAINED_WAIT: u64 = 10_000;
const HEARTBEAT: u64 = 6 * 3_600_000;

/// A device, and a kill of release 6 that was published under new targets while it was away.
fn away() -> (World, Vec<File>) {
    let mut world = World::with(Conditions::default(), &[], true);
    let v = &mut world.versions;
    for version in [&mut v.timestamp, &mut v.snapshot, &mut v.targets, &mut v.rollout, &mut v.halt] {
        *version += 1;
    }
    let files = world.files(&Published { halted: vec![5, 6], ..Published::default() });
    world.wants.clear();
    (world, files)
}

fn product() -> tern_protocol::id::ProductId {
    "cam".parse().unwrap()
}

/// The files of these roles, packed against what the device does not hold.
fn leaning(world: &World, files: &[File], roles: &[Role]) -> Vec<u8> {
    let targets = files.iter().find(|file| file.role == Role::Targets).unwrap();
    let root = world.agent.trust().files().into_iter().find(|file| file.role == Role::Root).unwrap();
    let dictionary = Dictionary::unverified(&root.bytes, &targets.bytes).unwrap();
    let files = files.iter().filter(|file| roles.contains(&file.role)).cloned().collect();
    Bundle { root: 1, files }.pack_with(&dictionary)
}

const HEAD: [Role; 5] = [Role::Timestamp, Role::Snapshot, Role::Release, Role::Rollout, Role::Halt];

fn pass(world: &mut World, time: u64) {
    let end = world.uptime + time;
    while world.agent.wake_at() <= end {
        world.uptime = world.uptime.max(world.agent.wake_at());
        world.handle(Input::Time);
    }
    world.uptime = end;
}

/// When targets was asked for first.
fn asked(world: &World) -> Option<u64> {
    world.wants.iter().find(|(_, roles)| roles.contains(&Role::Targets)).map(|(at, _)| *at)
}

fn answered(world: &mut World, files: &[File], roles: &[Role]) {
    let files = files.iter().filter(|file| roles.contains(&file.role)).cloned().collect();
    let payload = Bundle { root: 1, files }.pack();
    world.handle(Input::Message { topic: Topic::DeviceIn("dev-1".parse().unwrap()), payload });
}

#[test]
fn a_head_that_cannot_be_read_is_asked_for_soon_and_a_heartbeat_in_its_time() {
    let (mut world, files) = away();
    let began = world.uptime;
    let payload = leaning(&world, &files, &HEAD);
    world.handle(Input::Message { topic: Topic::Head(product()), payload });
    pass(&mut world, HEARTBEAT);
    assert_eq!(asked(&world), Some(began + RETAINED_WAIT));
    answered(&mut world, &files, &[&HEAD[..], &[Role::Targets]].concat());
    assert!(world.agent.durable().halted.contains(&6), "the kill is known");

    // Retained messages come in any order.
    let (mut world, files) = away();
    let began = world.uptime;
    let [beat, head] = [&HEAD[..2], &HEAD[..]].map(|roles| leaning(&world, &files, roles));
    world.handle(Input::Message { topic: Topic::Timestamp(product()), payload: beat });
    world.handle(Input::Message { topic: Topic::Head(product()), payload: head });
    pass(&mut world, HEARTBEAT);
    assert_eq!(asked(&world), Some(began + RETAINED_WAIT));

    let (mut world, files) = away();
    let began = world.uptime;
    let payload = leaning(&world, &files, &HEAD[..2]);
    world.handle(Input::Message { topic: Topic::Timestamp(product()), payload });
    pass(&mut world, HEARTBEAT);
    assert!(asked(&world).is_some_and(|at| at > began + RETAINED_WAIT), "{:?}", world.wants);
}

/// It lacks a rollout file that a heartbeat named, and then comes what leans on new targets.
#[test]
fn what_was_missing_before_does_not_keep_the_device_from_asking_for_keys() {
    let (mut world, _) = away();
    let mut named = world.versions;
    (named.targets, named.halt) = (named.targets - 1, named.halt - 1);
    std::mem::swap(&mut world.versions, &mut named);
    let before = world.files(&Published::offers(6));
    std::mem::swap(&mut world.versions, &mut named);
    let v = &mut world.versions;
    [&mut v.timestamp, &mut v.snapshot, &mut v.rollout].into_iter().for_each(|version| *version += 1);
    let files = world.files(&Published { halted: vec![5, 6], ..Published::default() });
    let beat = before.iter().filter(|file| HEAD[..2].contains(&file.role)).cloned().collect();
    let payload = Bundle { root: 1, files: beat }.pack();
    world.handle(Input::Message { topic: Topic::Timestamp(product()), payload });
    let unread = leaning(&world, &files, &HEAD);
    world.handle(Input::Message { topic: Topic::Head(product()), payload: unread });

    pass(&mut world, 60_000);

    assert!(asked(&world).is_some(), "{:?}", world.wants);
    // A chunk server that has no targets answers with the rest: the device goes on asking.
    answered(&mut world, &files, &[Role::Rollout]);
    let first = asked(&world);
    world.wants.clear();
    pass(&mut world, 3_600_000);
    assert!(asked(&world) > first, "{:?}", world.wants);
    answered(&mut world, &files, &[&HEAD[..], &[Role::Targets]].concat());
    assert!(world.agent.durable().halted.contains(&6), "{:?}", world.agent.trust().versions());
}
