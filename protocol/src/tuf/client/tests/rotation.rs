//! Roots and keys change.

use std::collections::BTreeSet;

use serde_json::json;

use super::repository::*;
use crate::bundle::File;
use crate::digest::Digest;
use crate::tuf::client::{Pool, Teachers, Trusted};
use crate::tuf::content::point_hex;
use crate::tuf::key::Signer;
use crate::tuf::metadata::RootMeta;
use crate::tuf::verify::{open_next_root, open_root};
use crate::tuf::{Role, TufError};

#[test]
fn nothing_new_is_accepted_under_an_expired_root_but_a_newer_root() {
    let repository = Repository { expires: NOW, ..Repository::default() };
    let lively = Repository { root: 2, expires: LATER, ..repository.clone() };
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();

    let done = arrive(&mut device, lively.files());
    assert!(refused(&done, Role::Root, |e| matches!(e, TufError::Expired { .. })));
    assert!(done.missing.contains(&(Role::Root, Some(2))) && device.file(Role::Timestamp).is_none());

    let mut files = lively.files();
    files.push(lively.file(Role::Root));
    let done = arrive(&mut device, files);
    assert_eq!((done.refused, done.missing), (vec![], vec![]));
    assert!(device.current().is_some());
}

#[test]
fn roots_may_be_taken_alone_and_leave_the_rest_for_later() {
    let repository = Repository::default();
    let next = Repository { root: 2, ..repository.advanced(1) };
    let mut device = repository.device();
    let mut pool = Pool::default();
    next.files().into_iter().for_each(|file| pool.add(file));
    pool.add(File { role: Role::Root, bytes: next.root_signed_by(&[1, 2]) });
    pool.add(File { role: Role::Halt, bytes: b"{}".to_vec() });

    let done = device.refresh_root(&mut pool);
    assert_eq!(done.changed, [Role::Root]);
    assert!(refused(&done, Role::Halt, |e| matches!(e, TufError::Malformed { .. })));
    assert_eq!((device.versions().root, device.versions().timestamp), (2, 1));
    device.refresh(&mut pool, NOW);

    assert_eq!(device.versions().halt, 2);
}

#[test]
fn a_new_root_needs_the_old_keys_and_its_own() {
    let repository = Repository::default();
    let next = Repository { root: 2, root_keys: vec![3, 4], ..repository.clone() };
    for (seeds, accepted) in
        [(vec![1, 2], false), (vec![3, 4], false), (vec![1, 3, 4], false), (vec![1, 2, 3, 4], true)]
    {
        let mut device = repository.device();
        let file = File { role: Role::Root, bytes: next.root_signed_by(&seeds) };

        let done = arrive(&mut device, vec![file]);

        assert_eq!(done.changed.contains(&Role::Root), accepted, "{seeds:?}");
        assert_eq!(refused(&done, Role::Root, |e| matches!(e, TufError::Threshold { .. })), !accepted);
        assert!(device.current().is_some());
    }
}

#[test]
fn a_chain_of_roots_is_walked_in_any_order_and_a_gap_is_named() {
    let repository = Repository::default();
    let root = |n: u32| {
        let seeds: Vec<u8> = (0..2).map(|i| u8::try_from(n).unwrap() * 10 + 100 + i).collect();
        Repository { root: n, root_keys: seeds, ..repository.clone() }
    };
    let chained = |n: u32| {
        let before = if n == 2 { vec![1, 2] } else { root(n - 1).root_keys };
        File { role: Role::Root, bytes: root(n).root_signed_by(&[before, root(n).root_keys].concat()) }
    };
    let mut device = repository.device();
    let mut pool = Pool::default();

    pool.add(chained(4));
    pool.add(chained(3));
    assert_eq!(device.refresh(&mut pool, NOW).missing, [(Role::Root, Some(2))]);
    pool.add(chained(2));
    let done = device.refresh(&mut pool, NOW);

    assert_eq!((done.changed, done.missing), (vec![Role::Root], vec![]));
    assert_eq!(device.versions().root, 4);
    assert!(device.current().is_some() && pool.is_empty());
    restart(&device);
}

#[test]
fn a_root_that_skips_a_version_is_refused_though_the_right_keys_signed_it() {
    let repository = Repository::default();
    let skipping = Repository { root: 3, ..repository.clone() };
    let next = open_next(&skipping, &repository);
    assert!(matches!(next, Err(TufError::Version { found: 3, wanted: 2, .. })));
}

fn open_next(next: &Repository, current: &Repository) -> Result<RootMeta, TufError> {
    let current = open_root(&current.file(Role::Root).bytes).unwrap();
    open_next_root(&next.file(Role::Root).bytes, &current)
}

#[test]
fn rotating_an_online_key_undoes_a_fast_forward() {
    for rotate in [Role::Timestamp, Role::Snapshot] {
        let repository = Repository::default();
        let mut stolen = repository.clone();
        stolen.versions.timestamp = u32::MAX;
        stolen.versions.snapshot = u32::MAX;
        let mut device = repository.device();
        arrive(&mut device, stolen.files());
        assert_eq!(device.versions().timestamp, u32::MAX);

        let mut recovered = Repository { root: 2, ..repository.advanced(1) };
        match rotate {
            Role::Timestamp => recovered.timestamp_key = 31,
            _ => recovered.snapshot_key = 32,
        }
        let root = File { role: Role::Root, bytes: recovered.root_signed_by(&[1, 2]) };
        let done = arrive(&mut device, vec![root]);
        assert_eq!(done.changed, [Role::Root, Role::Timestamp, Role::Snapshot]);
        assert_eq!((device.versions().timestamp, device.versions().snapshot), (0, 0));
        restart(&device);

        let done = arrive(&mut device, recovered.files());
        assert_eq!((done.missing, done.refused), (vec![], vec![]));
        assert_eq!(device.versions().timestamp, 2);
        restart(&device);
    }
}

#[test]
fn a_key_that_is_only_added_makes_nobody_forget_versions() {
    let repository = Repository::default().advanced(2);
    let mut device = repository.device();
    let mut value = Repository { root: 2, ..repository.clone() }.root_value();
    let extra = key(41).public();
    value["keys"][extra.id().as_str()] = serde_json::to_value(&extra).unwrap();
    value["roles"]["timestamp"]["keyids"].as_array_mut().unwrap().push(json!(extra.id()));

    let done = arrive(&mut device, vec![File { role: Role::Root, bytes: signed(value, &[1, 2]) }]);

    assert_eq!(done.changed, [Role::Root]);
    assert_eq!(device.versions().timestamp, 3);
}

#[test]
fn a_timestamp_by_keys_of_the_next_root_waits_for_it() {
    let repository = Repository::default();
    let next = Repository { root: 2, timestamp_key: 31, ..repository.advanced(1) };
    let mut device = repository.device();
    let mut pool = Pool::default();

    next.files().into_iter().for_each(|file| pool.add(file));
    let done = device.refresh(&mut pool, NOW);
    assert_eq!((done.missing, done.refused.len()), (vec![(Role::Root, Some(2))], 1));
    let again = device.refresh(&mut pool, NOW);
    assert_eq!((again.missing, again.refused), (vec![(Role::Root, Some(2))], vec![]));
    pool.add(File { role: Role::Root, bytes: next.root_signed_by(&[1, 2]) });
    let done = device.refresh(&mut pool, NOW);

    assert_eq!((done.missing, done.refused), (vec![], vec![]));
    assert_eq!(device.versions().rollout, 2);
    assert!(pool.is_empty());
}

#[test]
fn when_root_replaces_the_targets_key_nothing_is_offered_and_what_is_halted_stays_halted() {
    let repository = Repository { halted: vec![5], ..Repository::default() };
    let mut next = Repository { root: 2, targets_key: 33, ..repository.clone() };
    next.versions.targets = 2;
    next.versions.snapshot = 2;
    next.versions.timestamp = 2;
    let mut device = repository.device();

    let done = arrive(&mut device, vec![File { role: Role::Root, bytes: next.root_signed_by(&[1, 2]) }]);
    assert_eq!((done.changed, done.missing), (vec![Role::Root], vec![(Role::Targets, Some(1))]));
    assert!(device.current().is_none() && device.telemetry_keys().is_empty());
    assert_eq!(device.halted(), [5].into());
    restart(&device);

    let done = arrive(&mut device, next.files());
    assert_eq!((done.missing, done.refused), (vec![], vec![]));
    assert!(device.current().is_some() && device.telemetry_keys().len() == 1);
}

#[test]
fn a_device_knows_which_keys_taught_it_and_forgets_those_of_targets_with_their_root() {
    let repository = Repository::default();
    let digest = |seed: u8| Digest::of(key(seed).public().verifier().unwrap().identity().as_slice());
    let point = point_hex(&p256::SecretKey::from_slice(&[22; 32]).unwrap().public_key());
    let mut targets = repository.value(Role::Targets);
    targets["x-tern"]["time"] = json!(point);
    let mut files = repository.files();
    files[2].bytes = signed(targets, &repository.seeds(Role::Targets));
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    assert_eq!((device.time_key(), device.release().is_none()), (None, true));

    arrive(&mut device, files);

    let taught = Teachers {
        root: 1,
        targets: 1,
        timestamp: [digest(repository.timestamp_key)].into(),
        time: [Digest::of(point.as_bytes())].into(),
        halt: [digest(repository.halt_key)].into(),
    };
    assert_eq!(device.teachers(), taught);
    assert_eq!(device.time_key().map(|key| point_hex(&key)), Some(point));
    assert_eq!(device.release().unwrap().meta.version, 1);
    let next = Repository { root: 2, targets_key: 33, timestamp_key: 31, ..repository };
    arrive(&mut device, vec![File { role: Role::Root, bytes: next.root_signed_by(&[1, 2]) }]);
    let after = Teachers { root: 2, timestamp: [digest(31)].into(), ..Teachers::default() };
    assert_eq!((device.teachers(), device.time_key()), (after, None));
}

#[test]
fn replacing_the_halt_key_in_targets_undoes_what_a_stolen_one_halted() {
    let mut repository = Repository { halted: vec![5, 6], ..Repository::default() };
    let mut device = repository.device();
    repository.halt_key = 36;
    let v = &mut repository.versions;
    (v.targets, v.snapshot, v.timestamp, v.halt) = (2, 2, 2, 2);
    repository.halted = vec![5];

    let mut files = repository.files();
    let halt = files.pop().unwrap();
    let done = arrive(&mut device, files);
    assert_eq!(done.changed, [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Halt]);
    assert_eq!((device.halted(), done.missing), (BTreeSet::new(), vec![(Role::Halt, Some(2))]));
    restart(&device);

    arrive(&mut device, vec![halt]);
    assert_eq!(device.halted(), [5].into());
}

#[test]
fn a_restart_after_a_torn_write_keeps_what_still_fits() {
    let repository = Repository::default();
    let next = Repository { root: 2, timestamp_key: 31, ..repository.clone() };
    let mut files = repository.device().files();
    // The new root was written, the old timestamp not yet removed, and the old root not either.
    files.push(File { role: Role::Root, bytes: next.root_signed_by(&[1, 2]) });

    let device = Trusted::restore(&files).unwrap();

    assert_eq!((device.versions().root, device.versions().timestamp, device.versions().halt), (2, 0, 1));
    assert!(matches!(Trusted::restore(&files[1..6]), Err(TufError::NoRoot)));
}

#[test]
fn an_old_timestamp_by_a_rotated_key_is_no_alarm_beside_the_new_one() {
    let repository = Repository::default();
    let next = Repository { root: 2, timestamp_key: 31, ..repository.advanced(1) };
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    let mut files = repository.files();
    files.extend(next.files());
    files.push(File { role: Role::Root, bytes: next.root_signed_by(&[1, 2]) });

    let done = arrive(&mut device, files);

    assert_eq!((done.missing, done.refused), (vec![], vec![]));
    assert_eq!(device.versions().timestamp, 2);
}
