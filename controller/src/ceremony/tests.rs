//! Stories of people who sign files.

use p256::ecdsa::SigningKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tern_protocol::tuf::Signer;
use tern_protocol::tuf::key::{P256Signer, PublicKey};

use super::*;
use crate::keys::{self, Hand, Holder, InitOptions, Protection, Quota};

const NOW: u64 = 1_800_000_000;

/// Three holders, two of whom must sign, each with a stick.
struct Sticks {
    home: TempDir,
    options: InitOptions,
}

impl Sticks {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let holder = |name: &str| Holder {
            name: name.into(),
            folder: home.path().join(name),
            protection: Protection::Unencrypted,
        };
        let quota = Quota { keys: 3, threshold: 2 };
        let alone = InitOptions::unencrypted(
            "acme".parse().unwrap(),
            "cam".parse().unwrap(),
            home.path().join("data"),
            home.path().join("ann"),
            NOW,
        );
        let options = InitOptions {
            holders: ["ann", "bob", "cid"].map(holder).to_vec(),
            root: quota,
            release: quota,
            ..alone
        };
        keys::init(&options).unwrap();
        Self { home, options }
    }

    fn hand(&self, holder: &str, role: Role) -> Hand {
        let path = self.home.path().join(holder).join(format!("{role}.pem"));
        Hand::Key(keys::load_signer(&path).unwrap())
    }

    fn present(&self) -> Present {
        let open = |role: Role| {
            Document::open(&self.options.holders[0].folder.join(format!("{role}.json"))).unwrap()
        };
        Present { root: open(Role::Root), targets: open(Role::Targets), release: open(Role::Release) }
    }
}

fn stranger(seed: u8) -> P256Signer {
    P256Signer::new(SigningKey::from_slice(&[seed; 32]).unwrap())
}

fn public(seed: u8) -> PublicKey {
    stranger(seed).public()
}

fn change(role: Role) -> Change {
    Change {
        role,
        add: Vec::new(),
        remove: Vec::new(),
        threshold: None,
        expires: NOW + 1000,
        release_expires: NOW + 500,
    }
}

fn met(file: &Document, parents: &[&Document]) -> Vec<bool> {
    quorums(file, parents).iter().map(Quorum::is_met).collect()
}

#[test]
fn a_new_root_needs_the_old_holders_and_the_new_ones() {
    let sticks = Sticks::new();
    let present = sticks.present();
    let wanted = Change {
        add: vec![("dora".into(), public(4)), ("eve".into(), public(5))],
        remove: vec!["ann".into(), "bob".into()],
        ..change(Role::Root)
    };
    let files = rotate(&present, &wanted).unwrap();
    let [root] = files.as_slice() else { panic!("{} files", files.len()) };
    let parents = [&present.root, root];
    assert_eq!((root.version, met(root, &parents)), (2, vec![false, false]));

    // Cid is in both: one signature in each. Ann is of the old ones, dora of the new ones.
    let mut signed = root.clone();
    let mut steps = Vec::new();
    for hand in [sticks.hand("cid", Role::Root), sticks.hand("ann", Role::Root), Hand::Key(stranger(4))] {
        signed = add_signature(&signed, &parents, &hand, None).unwrap().0;
        steps.push(met(&signed, &[&present.root, &signed]));
    }

    assert_eq!(steps, vec![vec![false, false], vec![true, false], vec![true, true]]);
    // And so says the client.
    let old = tern_protocol::tuf::verify::open_root(&present.root.bytes).unwrap();
    assert!(tern_protocol::tuf::verify::open_next_root(&signed.bytes, &old).is_ok());
    assert!(tern_protocol::tuf::verify::open_next_root(&root.bytes, &old).is_err());
}

#[test]
fn a_signature_of_the_wrong_key_is_not_added() {
    let sticks = Sticks::new();
    let present = sticks.present();
    let files = rotate(&present, &change(Role::Targets)).unwrap();
    let (targets, parents) = (&files[0], [&present.root]);

    let right = sticks.hand("bob", Role::Targets);
    let (signed, by) = add_signature(targets, &parents, &right, None).unwrap();
    assert_eq!((by.name.as_str(), quorums(&signed, &parents)[0].signed.len()), ("bob", 1));
    for wrong in [sticks.hand("bob", Role::Root), sticks.hand("bob", Role::Release), Hand::Key(stranger(9))] {
        let refused = add_signature(targets, &parents, &wrong, None);
        assert!(matches!(refused, Err(CeremonyError::NotAKeyOf { role: Role::Targets, .. })), "{wrong:?}");
    }
    // Bob's key, where ann was asked for.
    assert!(add_signature(targets, &parents, &right, Some("bob")).is_ok());
    let refused = add_signature(targets, &parents, &right, Some("ann"));
    assert!(matches!(refused, Err(CeremonyError::NotAKeyOf { .. })));
    assert!(matches!(
        add_signature(targets, &parents, &right, Some("dora")),
        Err(CeremonyError::NoSuchKey(_))
    ));
    // Signing twice is signing once.
    let (twice, _) = add_signature(&signed, &parents, &right, None).unwrap();
    assert_eq!(quorums(&twice, &parents)[0].signed.len(), 1);
    assert!(matches!(parents_of(targets, &[]), Err(CeremonyError::NoParent(Role::Targets))));
}

#[test]
fn the_difference_names_every_key_that_comes_or_goes_and_all_else_that_changes() {
    let sticks = Sticks::new();
    let present = sticks.present();
    let wanted = Change {
        add: vec![("dora".into(), public(4))],
        remove: vec!["cid".into()],
        threshold: Some(1),
        ..change(Role::Release)
    };
    let targets = rotate(&present, &wanted).unwrap().remove(0);

    let shown = difference(Some(&present.targets), &targets).to_string();

    assert!(shown.contains("targets: version 1 -> 2"), "{shown}");
    assert!(shown.contains("1 of 3 must sign, WHERE IT WAS 2"), "{shown}");
    assert!(shown.contains("ADDED   dora (") && shown.contains("REMOVED cid ("), "{shown}");
    assert!(!shown.contains("ALSO CHANGES"), "{shown}");
    let tampered = |pointer: &str, value: Value| {
        let mut signed = targets.signed.clone();
        *signed.pointer_mut(pointer).unwrap() = value;
        difference(Some(&present.targets), &Document::unsigned(&signed).unwrap()).others
    };
    let paths = tampered("/delegations/roles/0/paths", json!(["*/*/*"]));
    assert!(paths[0].contains("/delegations/roles"), "{paths:?}");
    let telemetry = present.targets.signed["x-tern"]["telemetry"]["1"].as_str().unwrap();
    let other = keys::load_online(&sticks.options.data, &sticks.options.product).unwrap().rollout.public();
    let point = other.point().unwrap().to_encoded_point(false);
    assert_ne!(hex::encode(point.as_bytes()), telemetry);
    let stolen = tampered("/x-tern/telemetry/1", json!(hex::encode(point.as_bytes())));
    assert!(stolen[0].contains("telemetry"), "{stolen:?}");
}

#[test]
fn a_key_under_another_holders_name_is_still_a_new_key() {
    let sticks = Sticks::new();
    let present = sticks.present();
    let wanted =
        Change { add: vec![("ann".into(), public(4))], remove: vec!["ann".into()], ..change(Role::Root) };
    let root = rotate(&present, &wanted).unwrap().remove(0);

    let found = difference(Some(&present.root), &root);

    let of_root = found.keys.iter().find(|keys| keys.role == Role::Root).unwrap();
    assert_eq!((of_root.added.len(), of_root.removed.len(), of_root.kept.len()), (1, 1, 2));
    assert_eq!(of_root.added[0].key, public(4).id().to_string());
}

#[test]
fn a_renewal_changes_version_and_expiry_and_nothing_else() {
    let sticks = Sticks::new();
    let present = sticks.present();
    for role in [Role::Root, Role::Targets, Role::Release] {
        let files = rotate(&present, &change(role)).unwrap();
        let [file] = files.as_slice() else { panic!("{} files", files.len()) };
        let before = match role {
            Role::Root => &present.root,
            Role::Targets => &present.targets,
            _ => &present.release,
        };
        let mut signed = file.signed.clone();
        signed["version"] = before.signed["version"].clone();
        signed["expires"] = before.signed["expires"].clone();
        assert_eq!((signed, file.version), (before.signed.clone(), 2), "{role}");
        assert_eq!(file.expires, if role == Role::Release { NOW + 500 } else { NOW + 1000 });
    }
}

#[test]
fn what_the_new_keys_have_not_signed_comes_out_for_them() {
    let sticks = Sticks::new();
    let present = sticks.present();
    let roles = |wanted: &Change| -> Vec<Role> {
        rotate(&present, wanted).unwrap().iter().map(|file| file.role).collect()
    };
    let added = |role| Change { add: vec![("dora".into(), public(4))], ..change(role) };
    // Ann and bob signed what is in force.
    let without = |role, holder: &str| Change { remove: vec![holder.into()], ..added(role) };

    assert_eq!(roles(&added(Role::Targets)), [Role::Root]);
    assert_eq!(roles(&without(Role::Targets, "cid")), [Role::Root]);
    assert_eq!(roles(&without(Role::Targets, "ann")), [Role::Root, Role::Targets]);
    assert_eq!(roles(&without(Role::Release, "ann")), [Role::Targets, Role::Release]);
    assert_eq!(
        roles(&Change { threshold: Some(3), ..change(Role::Release) }),
        [Role::Targets, Role::Release]
    );
    assert_eq!(roles(&Change { threshold: Some(1), ..change(Role::Release) }), [Role::Targets]);
}

#[test]
fn a_change_that_nobody_could_sign_is_refused() {
    let sticks = Sticks::new();
    let present = sticks.present();
    let ann = present.root.keys_of(Role::Root)[0].1.clone();
    let refused = |wanted: &Change| matches!(rotate(&present, wanted), Err(CeremonyError::Change(_)));
    let remove = |names: &[&str]| Change {
        remove: names.iter().map(|name| (*name).to_owned()).collect(),
        ..change(Role::Root)
    };

    assert!(!refused(&remove(&["ann"])));
    assert!(refused(&remove(&["ann", "bob"])), "2 of 1 cannot sign");
    assert!(refused(&remove(&["nobody"])));
    assert!(refused(&remove(&[""])), "which of the three?");
    assert!(refused(&Change { threshold: Some(4), ..change(Role::Root) }));
    assert!(refused(&Change { add: vec![("again".into(), ann)], ..change(Role::Root) }));
    assert!(refused(&change(Role::Timestamp)), "the service renews it");
}

#[test]
fn a_file_whose_place_for_names_is_something_else_is_refused_and_no_panic() {
    let sticks = Sticks::new();
    for odd in
        [json!("words"), json!(7), json!([]), json!({"names": "words"}), json!({"names": [1]}), json!(true)]
    {
        let mut present = sticks.present();
        present.root.signed["x-tern"] = odd.clone();
        let add = vec![("dora".to_owned(), public(7))];

        let refused = rotate(&present, &Change { add, ..change(Role::Root) });

        let why = refused.unwrap_err().to_string();
        assert!(why.contains("is no object") && why.contains("names of keys have no place"), "{odd}: {why}");
    }
    // The control: where there is nothing, a place is made.
    for fine in [Value::Null, json!({}), json!({"names": null})] {
        let mut present = sticks.present();
        present.root.signed["x-tern"] = fine;
        let add = vec![("dora".to_owned(), public(7))];
        let files = rotate(&present, &Change { add, ..change(Role::Root) }).unwrap();
        assert_eq!(files[0].signed["x-tern"]["names"][public(7).id().as_str()], "dora");
    }
}

#[test]
fn what_expires_soon_is_due() {
    let text = |days: i64| {
        let at = NOW.checked_add_signed(days * 86_400).unwrap();
        json!({"signed": {"version": 3, "expires": tern_protocol::tuf::time::write(at)}}).to_string()
    };
    let due = |role, days| expiry(role, &text(days), NOW).unwrap().due;

    assert!(!due(Role::Root, 30) && due(Role::Root, 29) && due(Role::Release, -1));
    // The service renews its own.
    assert!(!due(Role::Timestamp, 2) && due(Role::Timestamp, -1));
    assert_eq!(expiry(Role::Root, &text(-1), NOW).unwrap().days, -1);
    assert_eq!(expiry(Role::Root, "{}", NOW), None);
}
