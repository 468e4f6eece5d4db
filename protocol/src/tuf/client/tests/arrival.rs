//! Files arrive in any order, twice, late, or not at all.

use proptest::prelude::*;
use serde_json::json;

use super::repository::*;
use crate::bundle::File;
use crate::message::Versions;
use crate::tuf::Role;
use crate::tuf::client::{Pool, Refresh, Trusted};

#[test]
fn a_new_device_says_what_it_lacks_step_by_step() {
    let repository = Repository::default();
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();

    assert_eq!(arrive(&mut device, vec![]).missing, [(Role::Timestamp, None)]);
    let done = arrive(&mut device, vec![repository.file(Role::Timestamp)]);
    assert_eq!((done.changed, done.missing), (vec![Role::Timestamp], vec![(Role::Snapshot, Some(1))]));
    let done = arrive(&mut device, vec![repository.file(Role::Snapshot)]);
    assert_eq!(
        done.missing,
        [Role::Targets, Role::Release, Role::Rollout, Role::Halt].map(|role| (role, Some(1)))
    );
    assert!(device.current().is_none());
}

#[test]
fn old_files_are_ignored_without_an_alarm() {
    let repository = Repository::default();
    let newer = repository.advanced(3);
    let mut device = newer.device();
    let held = device.files();

    let mut old = repository.files();
    old.push(repository.file(Role::Root));
    let done = arrive(&mut device, old);

    assert_eq!(done, Refresh::default());
    assert_eq!(device.files(), held);
}

#[test]
fn files_of_different_times_never_form_a_set() {
    let repository = Repository::default();
    let newer = repository.advanced(1);
    for role in [Role::Release, Role::Rollout, Role::Halt] {
        let mut device = repository.device();
        let mut files = newer.files();
        *files.iter_mut().find(|file| file.role == role).unwrap() = repository.file(role);

        let done = arrive(&mut device, files);

        assert!(device.current().is_none(), "{role}");
        assert_eq!((done.missing, done.refused), (vec![(role, Some(2))], vec![]), "{role}");
    }
}

#[test]
fn what_is_early_waits_and_what_is_old_is_forgotten() {
    let first = Repository::default();
    let held = first.advanced(2);
    let mut device = held.device();
    let mut pool = Pool::default();
    let past =
        [vec![first.file(Role::Root)], first.files(), first.advanced(1).files(), held.files()].concat();
    past.into_iter().for_each(|file| pool.add(file));
    assert_eq!(device.refresh(&mut pool, NOW), Refresh::default());
    assert!(pool.is_empty(), "{pool:?}");

    let next = held.advanced(1);
    let early = [Role::Snapshot, Role::Release, Role::Rollout, Role::Halt];
    early.into_iter().for_each(|role| pool.add(next.file(role)));
    pool.add(File { role: Role::Root, bytes: Repository { root: 3, ..next.clone() }.file(Role::Root).bytes });
    let done = device.refresh(&mut pool, NOW);
    assert_eq!((done.changed, done.missing, pool.len()), (vec![], vec![(Role::Root, Some(2))], 5));
    // The one that vouches for them is all that is needed.
    pool.add(next.file(Role::Timestamp));
    let done = device.refresh(&mut pool, NOW);

    assert_eq!(done.missing, [(Role::Root, Some(2))]);
    assert_eq!((device.versions().halt, device.current().is_some(), pool.len()), (4, true, 1));
}

#[test]
fn delegated_files_that_come_before_their_targets_wait_for_them() {
    let repository = Repository::default();
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    let mut pool = Pool::default();
    let without = repository.files().into_iter().filter(|file| file.role != Role::Targets);
    without.for_each(|file| pool.add(file));

    let done = device.refresh(&mut pool, NOW);
    assert_eq!((done.missing, done.refused, pool.len()), (vec![(Role::Targets, Some(1))], vec![], 3));
    // Files of other versions are not those that are missed.
    pool.add(repository.advanced(8).file(Role::Halt));
    let mut later = repository.clone();
    later.versions.targets = 9;
    pool.add(later.file(Role::Targets));
    assert_eq!(device.refresh(&mut pool, NOW).missing, [(Role::Targets, Some(1))]);
    pool.add(repository.file(Role::Targets));
    device.refresh(&mut pool, NOW);

    assert!(device.current().is_some());
}

#[test]
fn a_snapshot_of_another_version_is_not_the_one_that_is_missing() {
    let repository = Repository::default();
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();

    let files = [repository.file(Role::Timestamp), repository.advanced(8).file(Role::Snapshot)];
    let done = arrive(&mut device, files.into());

    assert_eq!(done.missing, [(Role::Snapshot, Some(1))]);
}

#[test]
fn a_snapshot_that_waits_for_a_newer_root_is_not_missing_itself() {
    let repository = Repository::default();
    let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
    let rotated = Repository { snapshot_key: 32, ..repository.clone() };

    let done = arrive(&mut device, vec![repository.file(Role::Timestamp), rotated.file(Role::Snapshot)]);

    assert_eq!(done.missing, [(Role::Root, Some(2))]);
}

#[test]
fn a_halt_counts_even_while_the_release_file_is_missing() {
    let repository = Repository::default();
    let newer = repository.advanced(1);
    let mut device = repository.device();

    let arrived = [Role::Timestamp, Role::Snapshot, Role::Halt];
    let done = arrive(&mut device, arrived.map(|role| newer.file(role)).to_vec());

    assert_eq!(done.changed, arrived);
    assert_eq!(device.halted(), [1].into());
    assert!(device.current().is_none());
    restart(&device);
}

#[test]
fn of_two_files_with_one_version_the_genuine_one_is_found_in_either_order() {
    let repository = Repository::default();
    for role in &Role::ALL[1..] {
        for genuine_first in [true, false] {
            let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
            let forged = File { role: *role, bytes: signed(repository.value(*role), &[99]) };
            let mut files = repository.files();
            files.insert(if genuine_first { files.len() } else { 0 }, forged);

            arrive(&mut device, files);

            assert!(device.current().is_some(), "{role} {genuine_first}");
        }
    }
}

#[test]
fn junk_with_huge_versions_displaces_nothing_for_good() {
    let repository = Repository::default();
    let newer = repository.advanced(1);
    let mut device = repository.device();
    let mut pool = Pool::default();
    for n in 0..200u32 {
        for role in Role::ALL {
            let bytes = json!({"signatures": [], "signed": {"version": u32::MAX - n, "_type": role.kind()}});
            pool.add(File { role, bytes: bytes.to_string().into_bytes() });
        }
    }
    assert!(pool.len() <= 64);
    device.refresh(&mut pool, NOW);
    assert!(device.current().is_some());

    newer.files().into_iter().for_each(|file| pool.add(file));
    device.refresh(&mut pool, NOW);

    assert_eq!(device.versions().rollout, 2);
    assert!(device.current().is_some());
}

fn history() -> &'static (Vec<u8>, Vec<File>, Versions) {
    static HISTORY: std::sync::OnceLock<(Vec<u8>, Vec<File>, Versions)> = std::sync::OnceLock::new();
    HISTORY.get_or_init(|| {
        let first = Repository::default();
        let second = first.advanced(1);
        let mut third = Repository { root: 2, timestamp_key: 31, release_key: 34, ..second.advanced(1) };
        third.versions.targets = 2;
        let root = File { role: Role::Root, bytes: third.root_signed_by(&[1, 2]) };
        let files = [first.files(), second.files(), third.files(), vec![root]].concat();
        (first.file(Role::Root).bytes, files, Versions { root: 2, ..third.versions })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Three generations with a rotation of a top-level and of a delegated key arrive in any order, some twice,
    /// with refreshes and restarts in between: the end is always the newest.
    #[test]
    fn every_order_of_arrival_ends_at_the_newest_set(
        order in Just((0..history().1.len()).collect::<Vec<_>>()).prop_shuffle(),
        extra in prop::collection::vec(0..history().1.len(), 0..6),
        refresh in prop::collection::vec(any::<bool>(), 32),
        restart in prop::collection::vec(prop::bool::weighted(0.1), 32),
    ) {
        let (root, files, newest) = history();
        let mut device = Trusted::new(root).unwrap();
        let mut pool = Pool::default();
        for (step, at) in order.iter().chain(&extra).enumerate() {
            pool.add(files[*at].clone());
            if refresh[step] {
                let before = device.versions();
                device.refresh(&mut pool, NOW);
                prop_assert!(device.versions().root >= before.root);
                if let Some(current) = device.current() {
                    let v = current.versions;
                    // Only sets that were published together.
                    prop_assert!(v.release == v.snapshot && v.rollout == v.snapshot && v.halt == v.snapshot);
                    prop_assert_eq!(v.timestamp, v.snapshot);
                }
            }
            if restart[step] {
                device = Trusted::restore(&device.files()).unwrap();
            }
        }
        let done = device.refresh(&mut pool, NOW);
        prop_assert_eq!(device.versions(), *newest);
        prop_assert!(device.current().is_some());
        prop_assert_eq!(done.missing, vec![]);
        prop_assert_eq!(pool.len(), 0);
    }

    /// Whatever arrives, nothing panics and nothing unsigned is accepted.
    #[test]
    fn damaged_files_change_nothing(which in 0..7usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (root, files, _) = history();
        let mut device = Trusted::new(root).unwrap();
        arrive(&mut device, files[..6].to_vec());
        let held = device.files();
        let role = Role::ALL[which];
        let mut file = files[6..].iter().find(|file| file.role == role).unwrap().clone();
        let at = at.index(file.bytes.len());
        prop_assume!(file.bytes[at] != byte);
        file.bytes[at] = byte;
        let genuine = file.bytes.clone();
        device.refresh(&mut { let mut pool = Pool::default(); pool.add(file); pool }, NOW);
        // White space and the signature list are not signed, so a change there may leave the file genuine.
        let untouched = device.files() == held;
        let same_meaning = device.file(role) == Some(genuine.as_slice());
        prop_assert!(untouched || same_meaning);
    }
}
