//! Who answers for a path, and who is asked.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::server::*;
use super::world::*;
use crate::limits::{DELEGATIONS_MAX, TufLimits};
use crate::tuf::client::tests::repository::{key, signed};
use crate::tuf::client::{Client, ClientError};
use crate::tuf::key::Signer;
use crate::tuf::{RoleName, TufError};

fn over(path: &'static str, role: &'static str) -> Delegation {
    Delegation { paths: vec![path], ..to(role) }
}

fn ends(role: &'static str) -> Delegation {
    Delegation { terminating: true, ..to(role) }
}

#[test]
fn roles_are_visited_in_the_order_in_which_they_are_delegated_the_deeper_before_the_next() {
    let server = Server::default()
        .with("targets", &[], &[to("a"), over("other/*", "z"), to("b")])
        .with("a", &[], &[to("c"), to("d")])
        .with("b", &[], &[to("e")])
        .with("c", &[], &[])
        .with("d", &[], &[])
        .with("e", &[("file", "content")], &[])
        .with("z", &[("file", "content")], &[]);
    let mut world = World::new(&server);

    let target = world.find("file").unwrap().unwrap();

    assert!(target.matches(b"content") && !target.matches(b"contents") && !target.matches(b"CONTENT"));
    assert_eq!(world.visited(), ["a", "c", "d", "b", "e"]);
    assert_eq!(world.find("none").unwrap(), None);
}

#[test]
fn the_first_role_that_names_a_path_answers_and_targets_itself_comes_first() {
    let mut server = Server::default()
        .with("targets", &[], &[to("a"), to("b")])
        .with("a", &[("file", "from a")], &[])
        .with("b", &[("file", "from b")], &[]);
    assert!(World::new(&server).find("file").unwrap().unwrap().matches(b"from a"));

    server.role("targets").targets = vec![("file", "from targets")];
    let mut world = World::new(&server);

    assert!(world.find("file").unwrap().unwrap().matches(b"from targets"));
    assert!(world.visited().is_empty());
}

#[test]
fn a_role_answers_only_for_paths_that_every_delegator_on_the_way_gave_it() {
    let server = Server::default()
        .with("targets", &[], &[over("team/*", "a")])
        .with("a", &[], &[to("b"), over("*/*", "c")])
        .with("b", &[("team/file", "content")], &[])
        .with("c", &[("file", "content"), ("team/file", "from c")], &[]);
    let mut world = World::new(&server);

    assert_eq!(world.find("file").unwrap(), None);
    assert!(world.visited().is_empty());
    assert!(world.find("team/file").unwrap().unwrap().matches(b"from c"));
    assert_eq!(world.visited(), ["a", "c"]);
}

#[test]
fn a_terminating_delegation_ends_the_search_after_its_own_delegations() {
    let server = Server::default()
        .with("targets", &[], &[to("a"), to("b")])
        .with("a", &[], &[ends("c"), to("d")])
        .with("b", &[("file", "content")], &[])
        .with("c", &[], &[to("e")])
        .with("d", &[("file", "content")], &[])
        .with("e", &[], &[]);
    let mut world = World::new(&server);

    assert_eq!(world.find("file").unwrap(), None);
    assert_eq!(world.visited(), ["a", "c", "e"]);
}

#[test]
fn a_terminating_delegation_counts_even_to_a_role_that_was_visited_before() {
    let server = Server::default()
        .with("targets", &[], &[to("a"), to("m"), to("b")])
        .with("a", &[], &[])
        .with("m", &[], &[ends("a")])
        .with("b", &[("file", "content")], &[]);
    let mut world = World::new(&server);

    assert_eq!(world.find("file").unwrap(), None);
    assert_eq!(world.visited(), ["a", "m"]);
}

#[test]
fn a_terminating_delegation_of_other_paths_ends_nothing() {
    let server = Server::default()
        .with("targets", &[], &[Delegation { terminating: true, ..over("other/*", "a") }, to("b")])
        .with("a", &[], &[])
        .with("b", &[("file", "content")], &[]);

    assert!(World::new(&server).find("file").unwrap().is_some());
}

#[test]
fn a_cycle_of_delegations_comes_to_an_end() {
    let server = Server::default()
        .with("targets", &[], &[to("a")])
        .with("a", &[], &[to("a"), to("b")])
        .with("b", &[], &[to("a"), to("c")])
        .with("c", &[("file", "content")], &[to("b")]);
    let mut world = World::new(&server);

    assert_eq!(world.find("none").unwrap(), None);
    assert_eq!(world.visited(), ["a", "b", "c"]);
    assert!(world.find("file").unwrap().is_some());
}

/// A chain of `length` delegated roles, of which the last names `file`.
fn chain(length: usize) -> Server {
    let name = |n: usize| -> &'static str { Box::leak(format!("r{n}").into_boxed_str()) };
    let mut server = Server::default().with("targets", &[], &[to(name(1))]);
    for n in 1..length {
        server = server.with(name(n), &[], &[to(name(n + 1))]);
    }
    server.with(name(length), &[("file", "content")], &[])
}

#[test]
fn a_look_up_visits_as_many_roles_as_its_ceiling_and_says_so_at_one_more() {
    assert!(World::new(&chain(DELEGATIONS_MAX)).find("file").unwrap().is_some());

    let mut world = World::new(&chain(DELEGATIONS_MAX + 1));
    let stopped = world.find("file");

    assert!(matches!(stopped, Err(ClientError::TooManyRoles { ceiling: DELEGATIONS_MAX, .. })));
    assert_eq!(world.visited().len(), DELEGATIONS_MAX);
    world.limits = TufLimits { visited: DELEGATIONS_MAX + 1, ..TufLimits::DEVICE };
    assert!(world.find("file").unwrap().is_some());
}

#[test]
fn hash_prefixes_delegate_by_the_hash_of_the_path() {
    let hash = hex::encode(Sha256::digest(b"file"));
    let other = if hash.starts_with('0') { "1" } else { "0" };
    for (prefixes, found) in [
        (vec![hash[..2].to_owned()], true),
        (vec![other.to_owned(), hash[..1].to_owned()], true),
        (vec![hash.clone()], true),
        (vec![other.to_owned()], false),
        (vec![hash[1..3].to_owned()], false),
    ] {
        let bins = Delegation { prefixes, ..to("bin") };
        let server = Server::default().with("targets", &[], &[bins]).with("bin", &[("file", "content")], &[]);
        let mut world = World::new(&server);

        assert_eq!(world.find("file").unwrap().is_some(), found);
        assert_eq!(world.visited().len(), usize::from(found));
    }
}

#[test]
fn a_delegated_role_that_snapshot_does_not_name_stops_the_look_up() {
    let server = Server::default()
        .with("targets", &[], &[to("a"), to("b")])
        .with("a", &[("file", "from a")], &[])
        .with("b", &[("file", "from b")], &[]);
    let server = Server { hidden: vec!["a"], ..server };
    let mut world = World::new(&server);

    let stopped = world.find("file");

    assert!(matches!(stopped, Err(ClientError::NotNamed(role)) if role.as_str() == "a"));
    assert!(world.visited().is_empty() && world.stored("a").is_none());
}

#[test]
fn a_role_speaks_with_the_keys_of_the_delegator_that_leads_to_it() {
    // Both teams delegate to `shared`; only the first names the key that signs it.
    let server = Server::default()
        .with("targets", &[], &[over("x/*", "a"), over("y/*", "b")])
        .with("a", &[], &[over("x/*", "shared")])
        .with("b", &[], &[Delegation { key: 99, ..over("y/*", "shared") }])
        .with("shared", &[("x/file", "content"), ("y/file", "evil")], &[]);
    let mut world = World::new(&server);
    let client = Client::new(&mut world.web, &mut world.store, world.limits, world.now).unwrap();
    let mut repository = client.refresh().unwrap();

    assert!(repository.find("x/file").unwrap().is_some());
    let refused = refusal(repository.find("y/file"));

    assert!(matches!(refused, TufError::Threshold { valid: 0, .. }), "{refused}");
}

#[test]
fn a_delegated_role_that_is_stored_and_current_is_not_asked_for_again() {
    let server = Server::default().with("targets", &[], &[to("a")]).with("a", &[("file", "content")], &[]);
    let mut world = World::new(&server);
    world.find("file").unwrap();
    assert_eq!(world.stored("a").unwrap(), server.file("a"));

    world.find("file").unwrap().unwrap();

    assert!(world.visited().is_empty());
    let next = server.advanced();
    world.publish(&next);
    world.find("file").unwrap().unwrap();
    assert_eq!((world.visited(), world.version("a")), (vec!["a"], 2));
}

/// Has targets of a repository with one delegated role say something else, and looks `file` up.
fn changed(change: impl Fn(&mut Value), signers: &[u8]) -> Result<bool, ClientError> {
    let server = Server::default().with("targets", &[], &[to("a")]).with("a", &[("file", "content")], &[]);
    let mut value = server.value("targets");
    change(&mut value);
    let mut world = World::new(&server);
    world.web.files.insert("1.targets.json".into(), server.sign("targets", value));
    let mut file: Value = serde_json::from_slice(&signed(server.value("a"), signers)).unwrap();
    for (signature, name) in file["signatures"].as_array_mut().unwrap().iter_mut().zip(["one", "other"]) {
        if signers.len() > 1 {
            signature["keyid"] = json!(name);
        }
    }
    world.web.files.insert("1.a.json".into(), file.to_string().into_bytes());
    world.find("file").map(|found| found.is_some())
}

#[test]
fn a_threshold_of_a_delegation_counts_keys_and_key_ids_are_opaque() {
    let two = |seeds: [u8; 2]| {
        move |value: &mut Value| {
            let delegations = &mut value["delegations"];
            delegations["keys"] = json!({"one": key(seeds[0]).public(), "other": key(seeds[1]).public()});
            delegations["roles"][0]["keyids"] = json!(["one", "other"]);
            delegations["roles"][0]["threshold"] = json!(2);
        }
    };
    assert!(changed(two([71, 72]), &[71, 72]).unwrap());

    // One key under two names, each with a signature. `sign` keeps one signature a key, so they are copied.
    let server = Server::default().with("targets", &[], &[to("a")]).with("a", &[("file", "content")], &[]);
    let mut value = server.value("targets");
    two([71, 71])(&mut value);
    let mut world = World::new(&server);
    world.web.files.insert("1.targets.json".into(), server.sign("targets", value));
    let mut file: Value = serde_json::from_slice(&signed(server.value("a"), &[71])).unwrap();
    let sig = file["signatures"][0]["sig"].clone();
    file["signatures"] = json!([{"keyid": "one", "sig": sig}, {"keyid": "other", "sig": sig}]);
    world.web.files.insert("1.a.json".into(), file.to_string().into_bytes());

    let refused = refusal(world.find("file"));

    assert_eq!(refused, TufError::Threshold { role: RoleName::delegated("a"), valid: 1, threshold: 2 });
}

#[test]
fn delegations_that_contradict_themselves_are_refused() {
    let own = [seed("a")];
    assert!(changed(|_| {}, &own).unwrap());
    let wrong: [fn(&mut Value); 6] = [
        |role| role["path_hash_prefixes"] = json!(["00"]),
        |role| role["name"] = json!("targets"),
        |role| role["name"] = json!("root"),
        |role| role["threshold"] = json!(0),
        |role| role["keyids"] = json!(["x", "x"]),
        |role| role["paths"] = json!("*"),
    ];
    for (n, wrong) in wrong.into_iter().enumerate() {
        let result = changed(|value| wrong(&mut value["delegations"]["roles"][0]), &own);
        assert!(matches!(refusal(result), TufError::Malformed { .. }), "{n}");
    }
    let twice = changed(
        |value| {
            let roles = value["delegations"]["roles"].as_array_mut().unwrap();
            roles.push(roles[0].clone());
        },
        &own,
    );
    assert!(matches!(refusal(twice), TufError::Malformed { .. }));
}

#[test]
fn a_delegation_of_nothing_leads_nowhere() {
    let found = changed(
        |value| {
            value["delegations"]["roles"][0].as_object_mut().unwrap().remove("paths");
        },
        &[seed("a")],
    );

    assert!(!found.unwrap());
}

#[test]
fn a_target_has_the_length_and_every_hash_that_its_role_names_and_there_is_one() {
    let server = Server::default().with("targets", &[("file", "content")], &[]);
    let with = |hashes: Value| {
        let mut value = server.value("targets");
        value["targets"]["file"]["hashes"] = hashes;
        let mut world = World::new(&server);
        world.web.files.insert("1.targets.json".into(), server.sign("targets", value));
        world.find("file").unwrap().unwrap()
    };
    let sha256 = hex::encode(Sha256::digest(b"content"));
    let sha512 = hex::encode(sha2::Sha512::digest(b"content"));

    assert!(with(json!({"sha256": sha256, "sha512": sha512})).matches(b"content"));
    assert!(!with(json!({"sha256": sha256, "sha512": sha256})).matches(b"content"));
    assert!(!with(json!({"sha256": sha256, "crc": "0"})).matches(b"content"));
    assert!(!with(json!({})).matches(b"content"));
    let mut longer = with(json!({"sha256": sha256}));
    assert!(longer.matches(b"content"));
    longer.length += 1;
    assert!(!longer.matches(b"content"));
}
