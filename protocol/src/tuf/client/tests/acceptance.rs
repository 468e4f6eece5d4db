//! What is accepted, and what is refused.

use serde_json::{Value, json};

use super::repository::*;
use crate::bundle::File;
use crate::tuf::client::{Pool, Trusted};
use crate::tuf::content::ReleaseContent;
use crate::tuf::key::Signer;
use crate::tuf::sign::add_signature;
use crate::tuf::verify::{Authority, Unverified, open_root};
use crate::tuf::{Role, TufError};

#[test]
fn a_device_takes_over_a_whole_repository_byte_for_byte() {
    let repository = Repository { hashes: true, ..Repository::default() };

    let device = repository.device();

    let mut published = vec![repository.file(Role::Root)];
    published.extend(repository.files());
    assert_eq!(device.files(), published);
    assert_eq!(device.versions(), repository.versions);
    let current = device.current().unwrap();
    assert_eq!(current.release.content, ReleaseContent::from([("cam/7/rootfs".into(), artifact().1)]));
    assert_eq!(device.telemetry_keys().into_keys().collect::<Vec<_>>(), [3]);
    assert_eq!((device.timestamp_expires(), device.timestamp_issued()), (Some(LATER), Some(NOW)));
    assert_eq!(Role::ALL.map(|role| device.expires(role)), [Some(LATER); 7]);
    restart(&device);
}

#[test]
fn each_role_needs_its_own_key() {
    let repository = Repository::default();
    for role in &Role::ALL[1..] {
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
        let mut files = repository.files();
        let forged = files.iter_mut().find(|file| file.role == *role).unwrap();
        forged.bytes = signed(repository.value(*role), &[99]);

        let done = arrive(&mut device, files);

        assert!(refused(&done, *role, |e| matches!(e, TufError::Threshold { .. })), "{role}: {done:?}");
        assert!(device.file(*role).is_none() && device.current().is_none(), "{role}");
    }
}

#[test]
fn a_file_that_is_forged_or_expired_is_no_sign_of_a_newer_root() {
    // Targets answers for its delegations, so no root will ever vouch for this one; and none makes an old file fresh.
    let repository = Repository::default();
    let old = Repository { expires: NOW, ..repository.clone() };
    let forged = File { role: Role::Release, bytes: signed(repository.value(Role::Release), &[99]) };
    for bad in [forged, old.file(Role::Release), old.file(Role::Snapshot)] {
        let role = bad.role;
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
        let mut pool = Pool::default();
        let genuine = repository.files().into_iter().filter(|file| file.role != role);
        genuine.chain([bad]).for_each(|file| pool.add(file));

        let done = device.refresh(&mut pool, NOW);

        assert!(!done.missing.iter().any(|(role, _)| *role == Role::Root), "{role}: {done:?}");
        assert!(!pool.has(role, |_| true), "{role}: it is forgotten");
        assert_eq!(device.refresh(&mut pool, NOW).refused, vec![], "{role}: and named once");
    }
}

#[test]
fn people_see_whose_signatures_are_valid() {
    let repository = Repository::default();
    let root = open_root(&repository.file(Role::Root).bytes).unwrap();
    let authority = Authority::top(&root, Role::Root).unwrap();
    let ids = [1, 2].map(|seed| key(seed).public().id());
    let by = |seeds: &[u8]| {
        let file = Unverified::read(Role::Root, &repository.root_signed_by(seeds)).unwrap();
        file.signed_by(authority)
    };

    assert_eq!(by(&[1]), [ids[0].clone()].into());
    assert_eq!(by(&[1, 2, 99]), ids.clone().into());
    assert_eq!(by(&[99]), [].into());
    assert_eq!(authority.keys().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(authority.threshold(), 2);
}

#[test]
fn a_changed_byte_breaks_the_signature_of_each_role() {
    let repository = Repository::default();
    for role in &Role::ALL[1..] {
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
        let mut files = repository.files();
        let changed = files.iter_mut().find(|file| file.role == *role).unwrap();
        let expires = crate::tuf::time::write(LATER);
        let text = String::from_utf8(changed.bytes.clone()).unwrap();
        changed.bytes = text.replace(&expires, "2999-01-01T00:00:00Z").into_bytes();

        let done = arrive(&mut device, files);

        assert!(refused(&done, *role, |e| matches!(e, TufError::Threshold { .. })), "{role}: {done:?}");
    }
}

#[test]
fn expired_files_are_refused_when_new_and_kept_when_stored() {
    let repository = Repository::default();
    for role in &Role::ALL[1..] {
        let old = Repository { expires: NOW, ..repository.clone() };
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
        let mut files = repository.files();
        *files.iter_mut().find(|file| file.role == *role).unwrap() = old.file(*role);

        let done = arrive(&mut device, files);

        assert!(refused(&done, *role, |e| matches!(e, TufError::Expired { .. })), "{role}: {done:?}");
        assert!(device.file(*role).is_none());
    }

    let device = repository.device();
    let mut later = Trusted::restore(&device.files()).unwrap();
    let done = arrive_at(&mut later, vec![], LATER + 1);
    assert_eq!((done.changed, done.refused), (vec![], vec![]));
    assert!(later.current().is_some());
}

#[test]
fn a_heartbeat_names_the_snapshot_that_is_held_and_changes_nothing_else() {
    let repository = Repository::default();
    let mut device = repository.device();
    let mut beat = repository.clone();
    beat.versions.timestamp += 1;

    let done = arrive(&mut device, vec![beat.file(Role::Timestamp)]);

    assert_eq!((done.changed, done.missing, done.refused), (vec![Role::Timestamp], vec![], vec![]));
    assert!(device.current().is_some());
}

#[test]
fn a_newer_timestamp_may_not_name_an_older_snapshot() {
    let newer = Repository::default().advanced(3);
    let mut device = newer.device();
    let mut back = newer.clone();
    back.versions.timestamp += 1;
    back.versions.snapshot -= 1;

    let done = arrive(&mut device, vec![back.file(Role::Timestamp)]);

    assert!(refused(&done, Role::Timestamp, |e| matches!(e, TufError::Rollback { held: 4, offered: 3, .. })));
    assert!(device.current().is_some());
}

#[test]
fn a_newer_snapshot_may_not_take_a_role_back() {
    let newer = Repository::default().advanced(3);
    let mut device = newer.device();
    let mut back = newer.advanced(1);
    back.versions.halt = 2;

    let done = arrive(&mut device, back.files());

    assert!(refused(&done, Role::Snapshot, |e| matches!(e, TufError::Rollback { held: 4, offered: 2, .. })));
    assert_eq!(device.halted(), [1, 2, 3].into());
    assert!(device.current().is_none());
    assert_eq!(done.missing, [(Role::Snapshot, Some(5))]);
}

#[test]
fn a_newer_snapshot_may_not_remove_a_role() {
    for remove in ["halt.json", "extra.json"] {
        let repository = Repository::default();
        let mut with_extra = repository.value(Role::Snapshot);
        with_extra["meta"]["extra.json"] = json!({"version": 1});
        let mut files = repository.files();
        files[1].bytes = signed(with_extra.clone(), &[12]);
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
        arrive(&mut device, files);
        assert!(device.current().is_some());

        let next = repository.advanced(1);
        let mut without = next.value(Role::Snapshot);
        without["meta"]["extra.json"] = json!({"version": 1});
        without["meta"].as_object_mut().unwrap().remove(remove);
        let mut files = next.files();
        files[1].bytes = signed(without, &[12]);
        let done = arrive(&mut device, files);

        assert!(
            refused(&done, Role::Snapshot, |e| matches!(
                e,
                TufError::Rollback { offered: 0, .. } | TufError::Malformed { .. }
            )),
            "{remove}: {done:?}"
        );
        assert_eq!(device.versions().snapshot, 1);
    }
}

#[test]
fn a_snapshot_other_than_the_hash_that_is_named_is_refused_and_the_right_one_taken() {
    let repository = Repository { hashes: true, ..Repository::default() };
    let mut other = repository.value(Role::Snapshot);
    other["x-other"] = json!(1);
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    let mut files = vec![File { role: Role::Snapshot, bytes: signed(other, &[12]) }];
    files.extend(repository.files());

    let done = arrive(&mut device, files);

    assert!(refused(&done, Role::Snapshot, |e| matches!(e, TufError::Mismatch { version: 1, .. })));
    assert!(device.current().is_some());
}

#[test]
fn a_threshold_counts_keys_not_key_ids() {
    let repository = Repository::default();
    let mut value = repository.root_value();
    let first = key(1).public().id();
    let same = value["keys"][first.as_str()].clone();
    value["keys"]["another-name"] = same;
    value["roles"]["root"]["keyids"] = json!([first, "another-name"]);
    let mut file: Value = serde_json::from_slice(&signed(value.clone(), &[1])).unwrap();
    let sig = file["signatures"][0]["sig"].clone();
    file["signatures"].as_array_mut().unwrap().push(json!({"keyid": "another-name", "sig": sig}));

    let refused = Trusted::new(file.to_string().as_bytes()).unwrap_err();

    assert_eq!(refused, TufError::Threshold { role: Role::Root.into(), valid: 1, threshold: 2 });
    // The control: an opaque key id alone is no fault.
    value["keys"]["another-name"] = serde_json::to_value(key(2).public()).unwrap();
    let mut file: Value = serde_json::from_slice(&signed(value, &[1, 2])).unwrap();
    file["signatures"][1]["keyid"] = json!("another-name");
    assert!(Trusted::new(file.to_string().as_bytes()).is_ok());
}

#[test]
fn foreign_and_broken_signatures_do_no_harm_but_a_key_id_signs_once() {
    let repository = Repository::default();
    let mut file: Value = serde_json::from_slice(&repository.root_signed_by(&[99, 1, 2])).unwrap();
    let list = file["signatures"].as_array_mut().unwrap();
    list.push(json!({"keyid": "unknown", "sig": "zz"}));
    list.push(json!({"keyid": "unsigned", "sig": ""}));
    assert!(Trusted::new(file.to_string().as_bytes()).is_ok());

    let list = file["signatures"].as_array_mut().unwrap();
    list.push(json!({"keyid": "unknown", "sig": "00"}));
    assert!(matches!(Trusted::new(file.to_string().as_bytes()), Err(TufError::Malformed { .. })));
}

#[test]
fn seventeen_signatures_are_refused() {
    let mut file: Value = serde_json::from_slice(&Repository::default().file(Role::Root).bytes).unwrap();
    let list = file["signatures"].as_array_mut().unwrap();
    list.extend((0..14).map(|i| json!({"keyid": format!("k{i}"), "sig": ""})));
    assert!(Trusted::new(file.to_string().as_bytes()).is_ok());
    file["signatures"].as_array_mut().unwrap().push(json!({"keyid": "k14", "sig": ""}));
    assert!(matches!(Trusted::new(file.to_string().as_bytes()), Err(TufError::Malformed { .. })));
}

#[test]
fn a_clock_cannot_be_pushed_beyond_the_life_of_root() {
    let repository = Repository::default();
    let mut device = repository.device();
    let pushed = Repository { issued: LATER + 1, ..repository.advanced(1) };
    let last = Repository { issued: LATER, ..repository.advanced(1) };

    let done = arrive(&mut device, vec![pushed.file(Role::Timestamp)]);

    assert!(refused(&done, Role::Timestamp, |e| matches!(e, TufError::FromTheFuture { .. })));
    assert_eq!(device.timestamp_issued(), Some(NOW));
    arrive(&mut device, vec![last.file(Role::Timestamp)]);
    assert_eq!(device.timestamp_issued(), Some(LATER));
}

#[test]
fn whoever_knows_the_time_believes_no_timestamp_from_later() {
    let repository = Repository::default();
    let later = Repository { issued: NOW + 61, ..repository.advanced(1) };
    let now = Repository { issued: NOW + 60, ..repository.advanced(1) };
    let mut device = repository.device();
    let mut arrive = |file: File| {
        let mut pool = Pool::default();
        pool.add(file);
        let done = device.refresh_issued_by(&mut pool, NOW, NOW + 60);
        (done, device.timestamp_issued())
    };

    let (done, issued) = arrive(later.file(Role::Timestamp));
    assert!(refused(&done, Role::Timestamp, |e| matches!(e, TufError::FromTheFuture { .. })));
    assert_eq!(issued, Some(NOW));
    let (done, issued) = arrive(now.file(Role::Timestamp));

    assert_eq!((done.refused, issued), (vec![], Some(NOW + 60)));
}

#[test]
fn floats_duplicate_keys_deep_nesting_and_large_files_are_refused() {
    let repository = Repository::default();
    let good = String::from_utf8(repository.file(Role::Timestamp).bytes).unwrap();
    let with = |field: &str| good.replacen("\"signed\":{", &format!("\"signed\":{{{field},"), 1);
    let nested = format!("\"x\":{}{}", "[".repeat(20), "]".repeat(20));
    let padded = format!("{good}{}", " ".repeat(Role::Timestamp.ceiling()));
    for bad in [with("\"x\":1.5"), with("\"x\":1,\"x\":1"), with(&nested), padded, "{".into(), "{}".into()] {
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();

        let done = arrive(&mut device, vec![File { role: Role::Timestamp, bytes: bad.into_bytes() }]);

        let expected = |e: &TufError| matches!(e, TufError::Malformed { .. } | TufError::TooLarge { .. });
        assert!(refused(&done, Role::Timestamp, expected), "{done:?}");
    }
}

#[test]
fn a_file_of_one_role_never_passes_for_another() {
    // One key for both roles: only the type stands between them.
    let repository = Repository { snapshot_key: 11, ..Repository::default() };
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    let disguised = File { role: Role::Timestamp, bytes: repository.file(Role::Snapshot).bytes };

    let done = arrive(&mut device, vec![disguised]);

    assert!(refused(&done, Role::Timestamp, |e| matches!(e, TufError::Malformed { .. })));
}

#[test]
fn signatures_of_several_people_add_up() {
    let value = Repository::default().root_value();
    let one = signed(value, &[1]);
    assert!(Trusted::new(&one).is_err());

    let two = add_signature(&one, &key(2)).unwrap();

    assert!(Trusted::new(&two).is_ok());
    assert_eq!(add_signature(&two, &key(2)).unwrap(), two);
}
