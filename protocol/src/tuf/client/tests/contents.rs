//! Files that the right keys signed and that say what no file may say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::repository::*;
use crate::bundle::File;
use crate::limits::{
    ARTIFACTS_MAX, COMPONENT_MAX, CONDITIONS_MAX, DELEGATIONS_MAX, ENTRIES_MAX, HALTED_MAX, LIST_MAX,
    RELEASES_MAX, REQUIRES_MAX, TELEMETRY_KEYS_MAX,
};
use crate::tuf::client::Trusted;
use crate::tuf::content::{
    ArtifactContent, Entry, HaltContent, RolloutContent, TargetsContent, listed, point_hex,
};
use crate::tuf::key::{KeyId, PublicKey, SignError, Signer};
use crate::tuf::sign::sign;
use crate::tuf::{Role, TufError, build};

/// Tells whether a device takes `role`'s file after `change`; every other file is as it should be.
fn accepted(role: Role, change: impl Fn(&mut Value)) -> bool {
    let repository = Repository::default();
    let mut value = repository.value(role);
    change(&mut value);
    let bytes = signed(value, &repository.seeds(role));
    if role == Role::Root {
        return Trusted::new(&bytes).is_ok();
    }
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    let mut files = repository.files();
    *files.iter_mut().find(|file| file.role == role).unwrap() = File { role, bytes };
    let done = arrive(&mut device, files);
    let bad = refused(&done, role, |e| matches!(e, TufError::Malformed { .. }));
    assert_eq!(bad, device.file(role).is_none(), "{done:?}");
    !bad
}

#[test]
fn what_every_role_must_have_is_checked_in_every_role() {
    for role in Role::ALL {
        assert!(accepted(role, |_| ()), "{role}");
        assert!(accepted(role, |value| value["x-unknown"] = json!({"a": [1]})), "{role}");
        // Signing refuses a type that it does not know, so another one's stands in.
        let other = if role == Role::Root { "targets" } else { "root" };
        assert!(!accepted(role, |value| value["_type"] = json!(other)), "{role}");
        assert!(!accepted(role, |value| value["spec_version"] = json!("2.0.0")), "{role}");
        assert!(!accepted(role, |value| value["expires"] = json!("2999-01-01")), "{role}");
    }
}

#[test]
fn a_root_names_keys_that_can_reach_their_thresholds() {
    assert!(!accepted(Role::Root, |root| root["version"] = json!(0)));
    assert!(!accepted(Role::Root, |root| root["roles"]["targets"]["threshold"] = json!(0)));
    assert!(!accepted(Role::Root, |root| {
        root["roles"].as_object_mut().unwrap().remove("snapshot");
    }));
    assert!(!accepted(Role::Root, |root| {
        let ids = root["roles"]["timestamp"]["keyids"].as_array_mut().unwrap();
        ids.push(ids[0].clone());
    }));
}

#[test]
fn a_root_above_its_ceiling_is_refused_before_it_is_read() {
    let mut bytes = Repository::default().file(Role::Root).bytes;
    bytes.resize(Role::Root.ceiling(), b' ');
    assert!(Trusted::new(&bytes).is_ok());
    bytes.push(b' ');
    assert!(matches!(Trusted::new(&bytes), Err(TufError::TooLarge { .. })));
}

#[test]
fn a_snapshot_names_every_role_at_a_version() {
    for name in ["targets.json", "release.json", "rollout.json", "halt.json"] {
        assert!(!accepted(Role::Snapshot, |snapshot| {
            snapshot["meta"].as_object_mut().unwrap().remove(name);
        }));
    }
    assert!(!accepted(Role::Snapshot, |snapshot| snapshot["meta"]["extra.json"] = json!({"version": 0})));
    assert!(!accepted(Role::Timestamp, |timestamp| timestamp["meta"] = json!({})));
}

#[test]
fn targets_delegates_to_each_role_once_and_names_real_keys() {
    let roles = |targets: &mut Value, more: usize| {
        let list = targets["delegations"]["roles"].as_array_mut().unwrap();
        for n in 0..more {
            let mut role = list[0].clone();
            role["name"] = json!(format!("other-{n}"));
            list.push(role);
        }
    };
    assert!(accepted(Role::Targets, |targets| roles(targets, DELEGATIONS_MAX - 3)));
    assert!(!accepted(Role::Targets, |targets| roles(targets, DELEGATIONS_MAX - 2)));
    assert!(!accepted(Role::Targets, |targets| {
        targets["delegations"]["roles"][1]["name"] = json!("halt");
    }));
    assert!(!accepted(Role::Targets, |targets| targets["x-tern"]["telemetry"]["4"] = json!("04ff")));
    assert!(!accepted(Role::Targets, |targets| targets["x-tern"]["time"] = json!("zz")));
    let time = p256::SecretKey::from_slice(&[22; 32]).unwrap().public_key();
    assert!(accepted(Role::Targets, |targets| targets["x-tern"]["time"] = json!(point_hex(&time))));
    let telemetry = |count: u32| {
        let keys: BTreeMap<u32, String> = (1..=count).map(|number| (number, point_hex(&time))).collect();
        accepted(Role::Targets, |targets| targets["x-tern"]["telemetry"] = json!(keys))
    };
    let most = u32::try_from(TELEMETRY_KEYS_MAX).unwrap();
    assert!(telemetry(most) && !telemetry(most + 1));
    let content = TargetsContent { telemetry: [(1, point_hex(&time))].into(), time: Some(point_hex(&time)) };
    assert_eq!((content.time_key(), content.telemetry_keys()), (Ok(Some(time)), Ok([(1, time)].into())));
    assert_eq!(TargetsContent::default().time_key(), Ok(None));
}

#[test]
fn a_role_that_targets_does_not_delegate_to_is_refused() {
    let repository = Repository::default();
    let mut value = repository.value(Role::Targets);
    value["delegations"]["roles"].as_array_mut().unwrap().pop();
    let mut files = repository.files();
    files[2].bytes = signed(value, &repository.seeds(Role::Targets));
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();

    let done = arrive(&mut device, files);

    assert!(refused(&done, Role::Halt, |e| *e == TufError::NotDelegated(Role::Halt.into())));
    assert!(device.current().is_none());
}

/// Worked out with sha256sum; docs/protocol.md says how.
#[test]
fn a_device_is_listed_by_the_first_eight_bytes_of_its_hash() {
    assert_eq!(listed(&"router-1".parse().unwrap()), "7818c8644a2bbf45");
}

fn entry() -> Entry {
    let text = r#"{"rollout":"r7","rc":7,"kind":"update","attempt":1,
        "salt":"00000000000000000000000000000000","cuts":{}}"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn counts_beyond_their_ceilings_are_refused() {
    let entries = |count: usize, list: usize| {
        let mut entry = entry();
        entry.list = vec!["0123456789abcdef".into(); list];
        accepted(Role::Rollout, |rollout| {
            let mut entries = vec![self::entry(); count - 1];
            entries.push(entry.clone());
            rollout["x-tern"] = json!(RolloutContent { entries });
        })
    };
    assert!(entries(ENTRIES_MAX, LIST_MAX));
    assert!(!entries(ENTRIES_MAX + 1, 0));
    assert!(!entries(1, LIST_MAX + 1));

    let halted = |count: usize| {
        let halted: Vec<u64> = (0..count as u64).collect();
        accepted(Role::Halt, |halt| halt["x-tern"] = json!(HaltContent { halted: halted.clone() }))
    };
    assert!(halted(HALTED_MAX) && !halted(HALTED_MAX + 1));

    let approved = |releases: usize, artifacts: usize| {
        let mut list = Vec::new();
        for (rc, n) in (1..=releases as u64).flat_map(|rc| (0..artifacts).map(move |n| (rc, n))) {
            let (mut named, content) = artifact();
            named.path = format!("cam/{rc}/c{n}");
            list.push((named, ArtifactContent { rc, floor: 0, ..content }));
        }
        let value = build::release(1, LATER, &list);
        accepted(Role::Release, |release| *release = value.clone())
    };
    assert!(approved(RELEASES_MAX, 2) && !approved(RELEASES_MAX + 1, 1));
    assert!(approved(1, ARTIFACTS_MAX) && !approved(1, ARTIFACTS_MAX + 1));
}

#[test]
fn an_artifact_says_what_it_is_and_no_floor_above_itself() {
    let path = "cam/7/rootfs";
    assert!(accepted(Role::Release, |r| r["targets"][path]["custom"]["floor"] = json!(7)));
    assert!(!accepted(Role::Release, |r| r["targets"][path]["custom"]["floor"] = json!(8)));
    assert!(!accepted(Role::Release, |r| r["targets"][path]["custom"] = Value::Null));
    assert!(!accepted(Role::Rollout, |r| r["x-tern"]["entries"] = json!([{"rollout": "r7"}])));
}

#[test]
fn what_an_artifact_requires_and_whom_it_is_for_has_its_ceilings() {
    let with = |field: &str, value: &Value| {
        accepted(Role::Release, |r| r["targets"]["cam/7/rootfs"]["custom"][field] = value.clone())
    };
    let names = |count: usize| -> Value { (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().into() };
    for field in ["carriers", "regions"] {
        assert!(with(field, &names(CONDITIONS_MAX)) && !with(field, &names(CONDITIONS_MAX + 1)), "{field}");
        assert!(!with(field, &json!(["a/b"])), "{field}");
    }
    let requires = |count: usize| -> Value { (0..count).map(|n| (format!("c{n}"), json!(">=1"))).collect() };
    assert!(with("requires", &requires(REQUIRES_MAX)) && !with("requires", &requires(REQUIRES_MAX + 1)));
    assert!(with("requires", &json!({"c".repeat(COMPONENT_MAX): "*"})));
    assert!(!with("requires", &json!({"c".repeat(COMPONENT_MAX + 1): "*"})));
    assert!(!with("requires", &json!({"": "*"})) && !with("requires", &json!({"modem": "3.1"})));
    assert!(with("order", &json!(255)) && !with("order", &json!(256)) && !with("order", &json!(-1)));
}

/// A token that was swapped for another one.
struct Swapped(PublicKey);

impl Signer for Swapped {
    fn public(&self) -> PublicKey {
        self.0.clone()
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        key(1).sign(message)
    }
}

#[test]
fn a_swapped_token_and_a_file_that_no_device_would_take_are_refused_at_signing() {
    let repository = Repository::default();
    let wrong = sign(repository.value(Role::Halt), &[&Swapped(key(2).public())]);
    let id: KeyId = key(2).public().id();
    assert!(matches!(wrong, Err(SignError::OtherKey(of)) if of == id));
    assert!(sign(repository.value(Role::Halt), &[&Swapped(key(1).public())]).is_ok());

    let mut large = repository.value(Role::Timestamp);
    large["x-note"] = json!("x".repeat(Role::Timestamp.ceiling()));
    let refused = sign(large, &[&key(1)]);
    assert!(matches!(refused, Err(SignError::Metadata(TufError::TooLarge { .. }))));
    assert!(matches!(sign(json!({"_type": "release"}), &[&key(1)]), Err(SignError::Metadata(_))));
}
