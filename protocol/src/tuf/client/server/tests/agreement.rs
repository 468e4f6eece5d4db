//! The two workflows, side by side: whatever the agent refuses, the general client refuses, and the other way round.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::*;
use crate::bundle::File;
use crate::limits::TufLimits;
use crate::tuf::client::Client;
use crate::tuf::client::tests::repository::{NOW, Repository, arrive, signed};
use crate::tuf::{Role, time};

/// The roles that a look-up of the release's artifact leads through, in order.
const ROLES: [Role; 5] = [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets, Role::Release];

/// What becomes of one role's file: its metadata before it is signed, who signs, and the file after that.
type Spoiler = fn(Value, &[u8]) -> Vec<u8>;

const SPOILERS: [(&str, bool, Spoiler); 9] = [
    ("nothing", true, |value, keys| signed(value, keys)),
    ("an unknown field", true, |value, keys| signed(with(value, "x-other", json!([1])), keys)),
    ("another key", false, |value, _| signed(value, &[99, 98])),
    ("expired", false, |value, keys| signed(with(value, "expires", json!(time::write(NOW))), keys)),
    ("a version too high", false, |value, keys| signed(with(value, "version", json!(1000)), keys)),
    ("a version too low", false, |value, keys| signed(with(value, "version", json!(1)), keys)),
    ("another type", false, |value, keys| {
        let kind = if value["_type"] == "root" { "targets" } else { "root" };
        signed(with(value.clone(), "_type", json!(kind)), keys)
    }),
    ("another major version", false, |value, keys| signed(with(value, "spec_version", json!("2.0")), keys)),
    ("changed after it was signed", false, |value, keys| {
        let text = String::from_utf8(signed(value, keys)).unwrap();
        text.replacen("\"signed\":{", "\"signed\":{\"x-other\":1,", 1).into_bytes()
    }),
];

fn with(mut value: Value, field: &str, content: Value) -> Value {
    value[field] = content;
    value
}

fn published(files: &[File]) -> impl Iterator<Item = (String, Vec<u8>)> {
    files.iter().map(|File { role, bytes }| {
        let name = if *role == Role::Root { "2.root.json".into() } else { format!("{role}.json") };
        (name, bytes.clone())
    })
}

#[test]
fn the_agent_and_the_general_client_accept_the_same_files() {
    let before = Repository::default();
    let mut next = Repository { root: 2, ..before.advanced(1) };
    next.versions.targets = 2;
    // Signed once each: what is spoiled is signed again.
    let genuine: Vec<File> = Role::ALL.into_iter().map(|role| next.file(role)).collect();
    let root = before.file(Role::Root).bytes;
    let device = before.device();
    let mut follower = {
        let mut store = Memory::default();
        Client::init(&mut store, &root, &TufLimits::DEVICE).unwrap();
        let web = Web { files: published(&before.files()).collect::<BTreeMap<_, _>>(), asked: vec![] };
        World { web, store, limits: TufLimits::DEVICE, now: NOW }
    };
    follower.find("cam/7/rootfs").unwrap().unwrap();
    for role in ROLES {
        for (what, accepted, spoil) in SPOILERS {
            // Nobody names a timestamp's version in advance.
            if role == Role::Timestamp && what.starts_with("a version") {
                continue;
            }
            let mut files = genuine.clone();
            let spoiled = files.iter_mut().find(|file| file.role == role).unwrap();
            spoiled.bytes = spoil(next.value(role), &next.seeds(role));

            let mut agent = device.clone();
            arrive(&mut agent, files.clone());
            let mut world = follower.clone();
            world.web.files.extend(published(&files));
            let found = world.find("cam/7/rootfs");

            assert_eq!(found.is_ok_and(|target| target.is_some()), accepted, "{role}: {what}");
            // Up to the role in question: after it, the agent may go on where the other stops.
            for until in ROLES.into_iter().take_while(|until| *until <= role) {
                let story = format!("{until} when {role} has {what}");
                assert_eq!(agent.file(until), world.stored(until.name()), "{story}");
                let expected = if until < role || accepted { 2 } else { 1 };
                // A root that expired is accepted, and nothing under it.
                if (role, what) != (Role::Root, "expired") {
                    assert_eq!(world.version(until.name()), expected, "{story}");
                }
            }
        }
    }
}
