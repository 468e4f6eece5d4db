//! What stops a refresh, role by role. Each story breaks one thing and leaves the rest in order.

use serde_json::{Value, json};

use super::server::*;
use super::world::*;
use crate::tuf::client::ClientError;
use crate::tuf::client::tests::repository::{NOW, signed};
use crate::tuf::{RoleName, TufError};

/// Root, the other top-level roles, and one delegated role.
const ALL: [&str; 5] = ["root", "timestamp", "snapshot", "targets", "branch"];

fn server() -> Server {
    Server::default().with("targets", &[], &[to("branch")]).with("branch", &[("file", "content")], &[])
}

/// A client that followed `server` before its second version came, in which `change` replaces the file of `role`.
fn attacked(server: &Server, role: &str, change: impl Fn(&Server) -> Vec<u8>) -> World {
    let mut world = World::new(server);
    world.find("file").unwrap().unwrap();
    let mut next = server.clone().advanced();
    next.root.version += 1;
    world.publish(&next);
    world.web.files.insert(next.published(role), change(&next));
    world
}

/// Asserts that the roles before `role` were taken over, and that `role` stays as it was.
fn stopped_at(world: &World, role: &str) {
    let place = ALL.iter().position(|name| *name == role).unwrap();
    for (at, name) in ALL.into_iter().enumerate() {
        assert_eq!(world.version(name), if at < place { 2 } else { 1 }, "{name}, stopped at {role}");
    }
}

#[test]
fn the_control_of_these_stories_takes_every_role_over() {
    let mut world = attacked(&server(), "branch", |next| next.file("branch"));

    world.find("file").unwrap().unwrap();

    assert_eq!(ALL.map(|role| world.version(role)), [2; 5]);
}

#[test]
fn each_role_needs_its_own_key() {
    for role in ALL {
        let mut world = attacked(&server(), role, |next| signed(next.value(role), &[99]));

        let refused = refusal(world.find("file"));

        let expected = TufError::Threshold { role: RoleName::delegated(role), valid: 0, threshold: 1 };
        assert_eq!(refused, expected);
        stopped_at(&world, role);
    }
}

#[test]
fn a_new_root_needs_its_own_keys_and_those_before() {
    for signers in [[1, 1], [2, 2]] {
        let mut next = server();
        (next.root.version, next.root.key) = (2, 2);
        let mut world = World::new(&server());
        world.web.files.insert("2.root.json".into(), signed(next.value("root"), &signers[..1]));

        assert!(matches!(refusal(world.refresh()), TufError::Threshold { .. }));
        assert_eq!(world.version("root"), 1);
    }
}

#[test]
fn each_role_but_timestamp_has_the_version_that_was_asked_for() {
    for role in ["root", "snapshot", "targets", "branch"] {
        let mut world = attacked(&server(), role, |next| {
            let mut value = next.value(role);
            value["version"] = json!(3);
            next.sign(role, value)
        });

        let refused = refusal(world.find("file"));

        let expected = TufError::Version { role: RoleName::delegated(role), found: 3, wanted: 2 };
        assert_eq!(refused, expected);
        stopped_at(&world, role);
    }
}

#[test]
fn each_role_is_fresh_when_it_is_accepted() {
    for role in ALL {
        let mut world = attacked(&server(), role, |next| {
            let mut old = next.clone();
            old.role(role).expires = NOW;
            old.file(role)
        });

        let refused = refusal(world.find("file"));

        let expected = TufError::Expired { role: RoleName::delegated(role), version: 2, expires: NOW };
        assert_eq!(refused, expected);
        if role != "root" {
            stopped_at(&world, role);
        }
    }
}

#[test]
fn each_file_has_the_hashes_that_its_parent_names() {
    let server = Server { hashes: true, ..server() };
    for role in ["snapshot", "targets", "branch"] {
        // Everything but the hash is in order: the length, the signatures, the version.
        let mut world = attacked(&server, role, |next| {
            let file: Value = serde_json::from_slice(&next.file(role)).unwrap();
            format!(r#"{{"signed":{},"signatures":{}}}"#, file["signed"], file["signatures"]).into_bytes()
        });

        let refused = refusal(world.find("file"));

        assert!(matches!(refused, TufError::Mismatch { version: 2, .. }), "{role}: {refused}");
        stopped_at(&world, role);
    }
}

#[test]
fn a_file_that_is_longer_than_its_parent_says_is_not_read_to_its_end() {
    let server = Server { hashes: true, ..server() };
    for role in ["snapshot", "targets", "branch"] {
        let mut world = attacked(&server, role, |next| [next.file(role), b" ".to_vec()].concat());

        assert!(matches!(world.find("file"), Err(ClientError::Fetch { .. })), "{role}");
        stopped_at(&world, role);
    }
}

#[test]
fn a_file_above_its_ceiling_is_not_read_to_its_end_even_if_its_parent_says_so() {
    for hashes in [true, false] {
        let server = Server { hashes, ..server() };
        for role in ALL {
            let mut world = attacked(&server, role, |next| next.file(role));
            // One byte below what the file has; its parent may name that.
            let most = server.clone().advanced().file(role).len() - 1;
            match role {
                "root" => world.limits.root = most,
                "timestamp" => world.limits.timestamp = most,
                "snapshot" => world.limits.snapshot = most,
                _ => world.limits.targets = most,
            }

            let stopped = world.find("file");

            // The stored root is above the ceiling too, and is read first.
            let expected = if role == "root" {
                matches!(stopped, Err(ClientError::Refused(TufError::TooLarge { .. })))
            } else {
                matches!(stopped, Err(ClientError::Fetch { .. }))
            };
            assert!(expected, "{role}: {stopped:?}");
        }
    }
}

#[test]
fn an_older_timestamp_is_refused() {
    let mut server = server().advanced();
    let mut world = World::new(&server);
    world.refresh().unwrap();
    server.timestamp.version = 1;
    world.publish(&server);

    let refused = refusal(world.refresh());

    assert!(matches!(refused, TufError::Rollback { held: 2, offered: 1, .. }), "{refused}");
    assert_eq!(world.version("timestamp"), 2);
}

#[test]
fn a_newer_timestamp_may_not_name_an_older_snapshot() {
    let mut server = server().advanced();
    let mut world = World::new(&server);
    world.refresh().unwrap();
    server.timestamp.version = 3;
    server.snapshot.version = 1;
    world.publish(&server);

    let refused = refusal(world.refresh());

    assert!(matches!(refused, TufError::Rollback { held: 2, offered: 1, .. }), "{refused}");
    assert_eq!(world.version("timestamp"), 2);
}

#[test]
fn a_newer_snapshot_may_not_take_a_role_back_or_out() {
    for offered in [1, 0] {
        let mut server = server().advanced();
        let mut world = World::new(&server);
        world.refresh().unwrap();
        server.timestamp.version = 3;
        server.snapshot.version = 3;
        server.role("branch").version = 1;
        if offered == 0 {
            server.hidden.push("branch");
        }
        world.publish(&server);

        let refused = refusal(world.refresh());

        let expected = TufError::Rollback {
            role: RoleName::delegated("snapshot"),
            what: "branch.json".into(),
            held: 2,
            offered,
        };
        assert_eq!(refused, expected);
        assert_eq!(world.version("snapshot"), 2);
    }
}

#[test]
fn a_file_that_is_named_and_not_there_stops_the_refresh() {
    for role in ["timestamp", "snapshot", "targets", "branch"] {
        let mut world = attacked(&server(), role, |_| vec![]);
        world.web.files.remove(&server().advanced().published(role));

        let stopped = world.find("file");

        assert!(
            matches!(&stopped, Err(ClientError::Missing { role: missing, .. }) if missing.as_str() == role)
        );
        stopped_at(&world, role);
    }
}

#[test]
fn a_file_of_one_role_never_passes_for_another() {
    // One key for both roles: only the type stands between them.
    let mut server = server();
    server.snapshot.key = server.timestamp.key;
    let mut world = World::new(&server);
    let mut disguised = server.value("snapshot");
    disguised["meta"]["snapshot.json"] = json!({"version": 1});
    world.web.files.insert("timestamp.json".into(), server.sign("snapshot", disguised));

    assert!(matches!(refusal(world.refresh()), TufError::Malformed { .. }));
}

#[test]
fn a_snapshot_that_does_not_name_targets_is_no_snapshot() {
    let server = Server { hidden: vec!["targets"], ..server() };

    assert!(matches!(refusal(World::new(&server).refresh()), TufError::Malformed { .. }));
}
