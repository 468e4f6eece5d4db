//! What is published to everybody: with keys where somebody may lack them, without where all have them.

use tern_protocol::bundle::{Bundle, Dictionary};
use tern_protocol::topic::Topic;
use tern_protocol::tuf::Role;

use super::*;

/// A hundred devices that were heard and hold what is published.
fn scene() -> Scene {
    let mut scene = Scene::new();
    (2..=100).for_each(|number| scene.add(&format!("cam-{number}")));
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    let newest = scene.service.fleet().products[&scene.product].versions();
    for device in scene.service.fleet.devices.values_mut() {
        (device.epoch, device.versions, device.seen_at) = (1, newest, Some(NOW));
    }
    scene.now += 1000;
    scene
}

fn lacks_targets(scene: &mut Scene, names: &[&str]) {
    for name in names {
        let device = scene.service.fleet.devices.get_mut(&name.parse().unwrap()).unwrap();
        device.versions.targets = 0;
    }
}

/// What is published on `topic` in a step.
fn published(scene: &Scene, step: &Step, topic: &Topic) -> Vec<u8> {
    let mut found = step.outputs.iter().rev().filter_map(|output| match output {
        Output::Publish { topic: of, payload } if of == topic => Some(payload.clone()),
        _ => None,
    });
    let name = topic.render(&scene.service.fleet().id);
    found.next().unwrap_or_else(|| panic!("{name} is not published"))
}

fn roles(payload: &[u8], dictionary: Option<&Dictionary>) -> Option<Vec<Role>> {
    let bundle = Bundle::unpack(payload, dictionary).ok()?;
    Some(bundle.files.into_iter().map(|file| file.role).collect())
}

fn dictionary(scene: &Scene) -> Dictionary {
    let files = &scene.service.fleet().products[&scene.product].files;
    Dictionary::unverified(files[&Role::Root].as_bytes(), files[&Role::Targets].as_bytes()).unwrap()
}

fn connected(scene: &mut Scene) -> (Vec<u8>, Vec<u8>) {
    let step = scene.step(Input::BrokerUp);
    let [head, root] = [Topic::Head(scene.product.clone()), Topic::Root(scene.product.clone(), 1)];
    (published(scene, &step, &head), published(scene, &step, &root))
}

#[test]
fn what_all_devices_hold_is_not_sent_to_them_with_every_connection() {
    use Role::{Halt, Release, Rollout, Snapshot, Targets, Timestamp};
    let mut scene = scene();
    lacks_targets(&mut scene, &["cam-7"]);

    let (head, root) = connected(&mut scene);

    assert_eq!(roles(&head, None), None, "it leans on what they hold");
    let held = dictionary(&scene);
    assert_eq!(roles(&head, Some(&held)).unwrap(), [Timestamp, Snapshot, Release, Rollout, Halt]);
    // One of them lacks targets, and asks a chunk server, which has it from here.
    assert_eq!(roles(&root, None).unwrap(), [Role::Root, Targets]);

    lacks_targets(&mut scene, &["cam-8"]);
    scene.now += 1000;
    let (head, _) = connected(&mut scene);
    assert_eq!(roles(&head, None).unwrap(), [Timestamp, Snapshot, Targets, Release, Rollout, Halt]);
}

#[test]
fn a_kill_waits_for_nothing_that_a_device_may_lack_nor_while_devices_may_not_know_of_it() {
    let mut scene = scene();
    scene.start("r2", 2).unwrap();
    lacks_targets(&mut scene, &["cam-7"]);

    let command = Command::Kill { rollout: id("r2"), reason: "test".into() };
    let step = scene.step(Input::Command { id: 0, by: None, command: Box::new(command) });

    let head = published(&scene, &step, &Topic::Head(scene.product.clone()));
    assert!(roles(&head, None).unwrap().contains(&Role::Targets));
    // The service comes back later: whoever was away still reads it there, until all have said that they hold it.
    scene.now += DAY;
    let (head, _) = connected(&mut scene);
    assert!(roles(&head, None).unwrap().contains(&Role::Targets));
    let newest = scene.service.fleet().products[&scene.product].versions();
    scene.service.fleet.devices.values_mut().for_each(|device| device.versions = newest);
    scene.now += 1000;
    let (head, _) = connected(&mut scene);
    assert_eq!(roles(&head, None), None);
}

#[test]
fn devices_that_never_come_back_are_not_waited_for() {
    let mut scene = scene();
    lacks_targets(&mut scene, &["cam-7", "cam-8"]);
    let (head, _) = connected(&mut scene);
    assert!(roles(&head, None).is_some());

    for name in ["cam-7", "cam-8"] {
        scene.service.fleet.devices.get_mut(&name.parse().unwrap()).unwrap().seen_at = Some(NOW - 30 * DAY);
    }
    scene.now += 1000;

    let (head, _) = connected(&mut scene);
    assert!(roles(&head, None).is_none());
}

#[test]
fn keys_are_sent_to_a_fleet_of_which_nobody_was_heard() {
    let mut scene = scene();
    scene.service.fleet.devices.values_mut().for_each(|device| device.epoch = 0);

    let (head, _) = connected(&mut scene);

    assert!(roles(&head, None).unwrap().contains(&Role::Targets));
}
