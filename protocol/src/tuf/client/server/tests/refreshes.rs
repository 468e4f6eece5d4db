//! What a refresh asks for, takes over, and keeps.

use super::server::*;
use super::world::*;
use crate::limits::TufLimits;
use crate::tuf::TufError;
use crate::tuf::client::tests::repository::{LATER, NOW, signed};
use crate::tuf::client::{Client, ClientError};

#[test]
fn a_repository_is_taken_over_byte_for_byte_and_asked_no_more_than_needed() {
    for (consistent, hashes) in [(true, true), (true, false), (false, true), (false, false)] {
        let server = Server { consistent, hashes, ..Server::default() };
        let mut world = World::new(&server);

        world.refresh().unwrap();

        for role in TOP {
            assert_eq!(world.stored(role).unwrap(), server.file(role), "{role}");
        }
        let (snapshot, targets) = if consistent {
            ("1.snapshot.json", "1.targets.json")
        } else {
            ("snapshot.json", "targets.json")
        };
        assert_eq!(world.web.asked, ["2.root.json", "timestamp.json", snapshot, targets]);
        world.refresh().unwrap();
        assert_eq!(world.web.asked, ["2.root.json", "timestamp.json"]);
        let client = Client::new(&mut world.web, &mut world.store, world.limits, world.now).unwrap();
        assert_eq!(client.refresh().unwrap().consistent_snapshot(), consistent);
    }
}

#[test]
fn fields_that_nobody_knows_are_kept_and_do_no_harm() {
    let server = Server::default();
    let mut world = World::new(&server);
    for role in &TOP[1..] {
        let mut value = server.value(role);
        value["x-other"] = serde_json::json!({"deep": [1, null, "ü"]});
        world.web.files.insert(server.published(role), server.sign(role, value));
    }

    world.refresh().unwrap();

    for role in &TOP[1..] {
        assert_eq!(world.stored(role), world.web.files.get(&server.published(role)).map(Vec::as_slice));
    }
}

#[test]
fn a_long_chain_of_roots_is_walked_a_ceiling_at_a_time() {
    let mut server = Server::default();
    let mut world = World::new(&server);
    for version in 2..=8 {
        server.root.version = version;
        world.publish(&server);
    }
    world.limits = TufLimits { roots: 3, ..TufLimits::DEVICE };

    world.refresh().unwrap();
    assert_eq!(world.version("root"), 4);
    assert!(!world.web.asked.contains(&"5.root.json".to_owned()));
    world.refresh().unwrap();
    world.refresh().unwrap();

    assert_eq!(world.version("root"), 8);
}

#[test]
fn root_keys_rotate_along_the_chain() {
    let first = Server::default();
    let mut world = World::new(&first);
    let mut second = Server { former_root_key: Some(1), ..first.clone() };
    (second.root.version, second.root.key) = (2, 2);
    let mut third = Server { former_root_key: Some(2), ..second.clone() };
    (third.root.version, third.root.key) = (3, 3);
    world.publish(&second);
    world.publish(&third);

    world.refresh().unwrap();

    assert_eq!(world.stored("root").unwrap(), third.file("root"));
}

#[test]
fn an_expired_root_between_two_others_is_no_obstacle() {
    let mut server = Server::default();
    let mut world = World::new(&server);
    (server.root.version, server.root.expires) = (2, NOW - 1);
    world.publish(&server);
    (server.root.version, server.root.expires) = (3, LATER);
    world.publish(&server);

    world.refresh().unwrap();

    assert_eq!(world.version("root"), 3);
}

#[test]
fn an_expired_root_is_stored_and_stops_the_refresh() {
    let mut server = Server::default();
    let mut world = World::new(&server);
    (server.root.version, server.root.expires) = (2, NOW);
    world.publish(&server);

    let refused = refusal(world.refresh());

    assert!(matches!(refused, TufError::Expired { version: 2, .. }), "{refused}");
    assert_eq!((world.version("root"), world.version("timestamp")), (2, 0));
    assert_eq!(world.web.asked, ["2.root.json", "3.root.json"]);
}

#[test]
fn rotating_an_online_key_undoes_a_fast_forward_and_forgets_before_it_stores() {
    for rotated in ["timestamp", "snapshot"] {
        let mut server = Server::default();
        (server.timestamp.version, server.snapshot.version, server.role("targets").version) = (90, 90, 90);
        let mut world = World::new(&server);
        world.refresh().unwrap();
        let mut recovered = Server::default();
        recovered.root.version = 2;
        recovered.role(rotated).key = 40;
        world.publish(&recovered);
        world.store.done.clear();

        world.refresh().unwrap();

        assert_eq!(TOP.map(|role| world.version(role)), [2, 1, 1, 1]);
        assert_eq!(world.store.done[..3], ["forget timestamp", "forget snapshot", "keep root"]);
    }
}

#[test]
fn without_a_rotation_nothing_is_forgotten() {
    let mut server = Server::default().advanced();
    let mut world = World::new(&server);
    world.refresh().unwrap();
    world.store.done.clear();
    server.root.version = 2;
    world.publish(&server);

    world.refresh().unwrap();

    assert_eq!(world.store.done, ["keep root"]);
}

#[test]
fn a_timestamp_of_the_same_version_changes_nothing() {
    let mut server = Server::default();
    let mut world = World::new(&server);
    world.refresh().unwrap();
    let held = world.stored("timestamp").unwrap().to_vec();
    server.snapshot.version = 7;
    world.web.files.insert("timestamp.json".into(), server.file("timestamp"));

    world.refresh().unwrap();

    assert_eq!(world.stored("timestamp").unwrap(), held);
    assert_eq!(world.web.asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn a_server_that_only_repeats_itself_cannot_freeze_the_client() {
    for role in ["timestamp", "snapshot", "targets", "branch"] {
        let mut server = Server::default().with("targets", &[], &[to("branch")]).with("branch", &[], &[]);
        for other in TOP.into_iter().chain(["branch"]).filter(|other| *other != role) {
            server.role(other).expires = LATER + 100;
        }
        let mut world = World::new(&server);
        assert!(world.find("x").unwrap().is_none());
        let held = world.store.files.clone();
        world.now = LATER;

        let refused = refusal(world.find("x"));

        assert!(matches!(refused, TufError::Expired { version: 1, .. }), "{role}: {refused}");
        assert_eq!(world.store.files, held);
    }
}

#[test]
fn after_a_long_night_stored_files_that_expired_give_way_to_fresh_ones() {
    let mut world = World::new(&Server::default());
    world.refresh().unwrap();
    let mut fresh = Server::default().advanced();
    for role in TOP {
        fresh.role(role).expires = LATER + 100;
    }
    fresh.root.version = 2;
    world.publish(&fresh);
    world.now = LATER + 1;

    world.refresh().unwrap();

    assert_eq!(TOP.map(|role| world.version(role)), [2, 2, 2, 2]);
}

#[test]
fn a_stored_file_that_nobody_vouches_for_any_more_is_asked_for_again() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.refresh().unwrap();
    let mut next = server.clone();
    (next.root.version, next.role("targets").key) = (2, 41);
    world.publish(&next);

    world.refresh().unwrap();

    assert_eq!(world.stored("targets").unwrap(), next.file("targets"));
    assert!(world.web.asked.contains(&"1.targets.json".to_owned()));
}

#[test]
fn a_damaged_store_costs_a_request_and_no_trust() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.refresh().unwrap();
    for role in &TOP[1..] {
        world.store_anything(role, b"{");
    }

    world.refresh().unwrap();

    assert_eq!(world.stored("targets").unwrap(), server.file("targets"));
    world.store_anything("root", b"{");
    assert!(matches!(refusal(world.refresh()), TufError::Malformed { .. }));
    assert!(world.web.asked.is_empty());
}

#[test]
fn a_store_that_is_full_stops_the_refresh() {
    let mut world = World::new(&Server::default());
    world.store.full = true;

    let stopped = world.refresh();

    assert!(matches!(stopped, Err(ClientError::Store { .. })));
    assert_eq!(world.web.asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn without_a_root_that_signed_itself_there_is_nothing_to_start_from() {
    let server = Server::default();
    let forged = signed(server.value("root"), &[9]);
    let mut store = Memory::default();

    let refused = Client::init(&mut store, &forged, &TufLimits::DEVICE);

    assert!(matches!(refusal(refused), TufError::Threshold { .. }));
    let mut web = Web::default();
    let started = Client::new(&mut web, &mut store, TufLimits::DEVICE, NOW);
    assert!(matches!(started.map(|_| ()), Err(ClientError::NoRoot)));
}
