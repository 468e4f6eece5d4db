//! Stories of new offline files on their way in: the service judges for itself, whoever hands them over.

use std::collections::BTreeMap;

use p256::ecdsa::SigningKey;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::{Role, Signer, sign};

use super::client::ClientError;
use super::testing::World;
use super::types::{DoneBody, KeysView, RenewOffline};
use crate::ceremony::{Change, Document, Present, rotate};
use crate::clock;
use crate::keys;

struct Files<'a> {
    world: &'a World,
    present: Present,
}

impl<'a> Files<'a> {
    fn of(world: &'a World) -> Self {
        let view = view(world);
        let document = |role| Document::read("present", view.files[&role].as_bytes()).unwrap();
        let present = Present {
            root: document(Role::Root),
            targets: document(Role::Targets),
            release: document(Role::Release),
        };
        Self { world, present }
    }

    fn change(&self, role: Role) -> Change {
        let expires = clock::now() / 1000 + 86_400;
        let (add, remove, threshold) = (Vec::new(), Vec::new(), None);
        Change { role, add, remove, threshold, expires, release_expires: expires }
    }

    fn rotated(&self, change: &Change) -> BTreeMap<Role, Vec<u8>> {
        rotate(&self.present, change).unwrap().into_iter().map(|file| (file.role, file.bytes)).collect()
    }

    fn signed(&self, file: &[u8], name: &str) -> Vec<u8> {
        let path = self.world.options.holders[0].folder.join(format!("{name}.pem"));
        sign::add_signature(file, &keys::load_signer(&path).unwrap()).unwrap()
    }

    fn hand_over(&self, files: &[&Vec<u8>]) -> Result<DoneBody, ClientError> {
        let files = files.iter().map(|file| String::from_utf8(file.to_vec()).unwrap()).collect();
        self.world.client.post("/v1/products/cam/keys", &RenewOffline { files })
    }

    fn refused(&self, files: &[&Vec<u8>], words: &str) {
        let before = view(self.world);
        let said = self.hand_over(files).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        assert_eq!(view(self.world), before, "{words}");
    }
}

fn view(world: &World) -> KeysView {
    world.client.get("/v1/products/cam/keys").unwrap()
}

fn stranger() -> P256Signer {
    P256Signer::new(SigningKey::from_slice(&[5; 32]).unwrap())
}

#[test]
fn a_new_root_needs_the_old_key_and_the_new_one_and_follows_the_one_before() {
    let world = World::new();
    let files = Files::of(&world);
    let holder = files.present.root.keys_of(Role::Root)[0].0.name.clone();
    let change = Change {
        add: vec![("dora".into(), stranger().public())],
        remove: vec![holder],
        ..files.change(Role::Root)
    };
    let root = files.rotated(&change)[&Role::Root].clone();
    let (old, new) = (files.signed(&root, "root"), sign::add_signature(&root, &stranger()).unwrap());
    let both = files.signed(&new, "root");

    files.refused(&[&root], "0 of its keys");
    files.refused(&[&old], "signed by 0 of its keys");
    files.refused(&[&new], "signed by 0 of its keys");
    let mut skipped: serde_json::Value = serde_json::from_slice(&root).unwrap();
    skipped["signed"]["version"] = 3.into();
    let skipped = files.signed(&serde_json::to_vec(&skipped).unwrap(), "root");
    let skipped = sign::add_signature(&skipped, &stranger()).unwrap();
    files.refused(&[&skipped], "root");
    world.published.lock().unwrap().clear();

    let done = files.hand_over(&[&both]).unwrap();

    assert_eq!(done.done, "product cam has new files: root 2");
    assert_eq!(view(&world).files[&Role::Root].as_bytes(), both);
    // What devices are provisioned with from now on.
    let kept = world.options.data.join("products/cam/root.json");
    assert_eq!(std::fs::read(kept).unwrap(), both);
    let product = world.product().clone();
    let (root, head) = (Topic::Root(product.clone(), 2), Topic::Head(product));
    // Topics leave the engine before its reply does; the drain runs beside us.
    let seen = || {
        let published = world.published.lock().unwrap();
        published.contains(&root) && published.contains(&head)
    };
    assert!((0..500).any(|_| seen() || {
        std::thread::yield_now();
        world.client.get::<KeysView>("/v1/products/cam/keys").is_err()
    }));
    // The same once more changes nothing.
    assert!(files.hand_over(&[&both]).unwrap().done.contains("already"));
}

#[test]
fn a_file_that_can_never_come_into_force_is_refused_and_takes_the_others_with_it() {
    let world = World::new();
    let files = Files::of(&world);
    let old = files.present.targets.bytes.clone();
    let prepared = |name: &str, key: &P256Signer| {
        let change = Change { add: vec![(name.into(), key.public())], ..files.change(Role::Release) };
        files.signed(&files.rotated(&change)[&Role::Targets], "targets")
    };
    let (one, other) = (prepared("dora", &stranger()), prepared("eve", &stranger()));
    assert_ne!(one, other);
    let root = files.signed(&files.rotated(&files.change(Role::Root))[&Role::Root], "root");

    files.hand_over(&[&one]).unwrap();

    files.refused(&[&other], "targets 2 is in force already, and is another file");
    files.refused(&[&old], "this is targets 1, and targets 2 is in force");
    files.refused(&[&root, &other], "targets 2 is in force already");
    // The controls: what is in force may come along, and the root by itself is good.
    let done = files.hand_over(&[&one, &root]).unwrap().done;
    assert_eq!(done, "product cam has new files: root 2");
}

#[test]
fn targets_that_leave_devices_without_a_release_are_refused() {
    let world = World::new();
    world.client.put_image(&world.image(7), |_| {}).unwrap();
    world.publish(7).unwrap();
    let files = Files::of(&world);
    let holder = files.present.targets.keys_of(Role::Release)[0].0.name.clone();
    let change = Change {
        add: vec![("dora".into(), stranger().public())],
        remove: vec![holder],
        ..files.change(Role::Release)
    };
    let rotated = files.rotated(&change);
    let targets = files.signed(&rotated[&Role::Targets], "targets");
    let by_old = files.signed(&rotated[&Role::Release], "release");
    let by_new = sign::add_signature(&rotated[&Role::Release], &stranger()).unwrap();

    files.refused(&[&files.signed(&rotated[&Role::Targets], "root")], "signed by 0 of its keys");
    files.refused(&[&targets], "a device");
    files.refused(&[&targets, &by_old], "a device");
    files.refused(&[&by_new], "a device");
    files.hand_over(&[&by_new, &targets]).unwrap();

    let now = Files::of(&world).present;
    assert_eq!((now.targets.version, now.release.version), (2, 3));
    // The old release key approves nothing any more.
    world.client.put_image(&world.image(8), |_| {}).unwrap();
    let said = world.publish(8).unwrap_err().to_string();
    assert!(said.contains("signed by 0 of its keys"), "{said}");
}

#[test]
fn an_online_key_is_in_force_once_signed_files_name_it_and_not_before() {
    let world = World::new();
    let files = Files::of(&world);
    for role in [Role::Rollout, Role::Halt, Role::Snapshot, Role::Timestamp] {
        let files = Files { world: files.world, ..Files::of(&world) };
        let parent = if matches!(role, Role::Rollout | Role::Halt) { Role::Targets } else { Role::Root };
        let held = if parent == Role::Root { &files.present.root } else { &files.present.targets };
        let remove = held.keys_of(role).into_iter().map(|(line, _)| line.key).collect();
        let nobodys =
            Change { add: vec![(String::new(), stranger().public())], remove, ..files.change(role) };
        // A key that the service does not hold would leave the role without anybody to sign.
        let file = files.signed(&files.rotated(&nobodys)[&parent], parent.name());
        files.refused(&[&file], "no key in");

        let (_, key) = keys::make_online(&world.options.data, world.product(), role).unwrap();
        let before = view(&world).files[&role].clone();
        let change = Change { add: vec![(String::new(), key)], ..nobodys };
        files.hand_over(&[&files.signed(&files.rotated(&change)[&parent], parent.name())]).unwrap();

        assert_ne!(view(&world).files[&role], before, "{role} is signed anew");
    }
    // The service goes on with all four.
    world.add_devices(50);
    world.client.put_image(&world.image(7), |_| {}).unwrap();
    world.publish(7).unwrap();
    let started: DoneBody = world.client.post("/v1/rollouts", &world.request(7)).unwrap();
    assert!(started.done.contains("started"), "{}", started.done);
    let killed = world.command("cam-7-1", "kill", serde_json::json!({"reason": "a test"})).unwrap();
    assert!(killed.done.contains("killed"), "{}", killed.done);
}
