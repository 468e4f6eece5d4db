//! Bundles that come before their dictionary.

use p256::ecdsa::SigningKey;
use tern_protocol::bundle::{Bundle, Dictionary, DictionaryId, File};
use tern_protocol::message::Versions;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, RootKeys};
use tern_protocol::tuf::content::{HaltContent, RolloutContent, TargetsContent};
use tern_protocol::tuf::key::{P256Signer, Signer as _};
use tern_protocol::tuf::{Pool, Role, Trusted, sign};

use super::super::reader::Reader;

const EXPIRES: u64 = 1_900_000_000;

/// A whole set of files under `targets`, root first.
fn files(targets: u32) -> Vec<File> {
    let signer = P256Signer::new(SigningKey::from_slice(&[7; 32]).unwrap());
    let key = || Keys::one(signer.public());
    let v =
        Versions { root: 1, timestamp: targets, snapshot: targets, targets, release: 1, rollout: 1, halt: 1 };
    let root = RootKeys { root: key(), timestamp: key(), snapshot: key(), targets: key() };
    let delegated = DelegatedKeys { release: key(), rollout: key(), halt: key() };
    let product = "cam".parse().unwrap();
    let values = [
        (Role::Root, build::root(1, EXPIRES, &root)),
        (Role::Timestamp, build::timestamp(v.timestamp, EXPIRES, v.snapshot, None, 1)),
        (Role::Snapshot, build::snapshot(v.snapshot, EXPIRES, &v)),
        (Role::Targets, build::targets(targets, EXPIRES, &product, &delegated, &TargetsContent::default())),
        (Role::Release, build::release(1, EXPIRES, &[])),
        (Role::Rollout, build::rollout(1, EXPIRES, &[], &RolloutContent::default())),
        (Role::Halt, build::halt(1, EXPIRES, &HaltContent::default())),
    ];
    values.map(|(role, value)| File { role, bytes: sign::sign(value, &[&signer]).unwrap() }).into()
}

fn dictionary(targets: u32) -> Dictionary {
    let files = files(targets);
    Dictionary::unverified(&files[0].bytes, &files[3].bytes).unwrap()
}

fn holds(targets: u32) -> Trusted {
    Trusted::restore(&files(targets)).unwrap()
}

fn heartbeat(dictionary: &Dictionary) -> (Topic, Vec<u8>, Vec<File>) {
    let files = files(dictionary.id().targets)[1..3].to_vec();
    let packed = Bundle { root: 1, files: files.clone() }.pack_with(dictionary);
    (Topic::Timestamp("cam".parse().unwrap()), packed, files)
}

#[test]
fn a_heartbeat_that_comes_before_its_targets_is_read_after_them() {
    let mut reader = Reader::default();
    let mut trust = Trusted::new(&files(1)[0].bytes).unwrap();
    let (topic, packed, beat) = heartbeat(&dictionary(1));

    assert_eq!(reader.read(&trust, &topic, &packed), []);
    assert_eq!(reader.awaited(), Some(DictionaryId { root: 1, targets: 1 }));
    let mut pool = Pool::default();
    files(1).into_iter().for_each(|file| pool.add(file));
    trust.refresh(&mut pool, 1);

    assert_eq!(reader.read_again(&trust), beat);
    assert_eq!((reader.awaited(), reader.read_again(&trust)), (None, vec![]));
}

#[test]
fn what_leans_on_newer_targets_waits_and_what_leans_on_older_ones_is_old() {
    let mut reader = Reader::default();
    let (topic, newer, _) = heartbeat(&dictionary(3));
    let (_, older, _) = heartbeat(&dictionary(1));

    assert_eq!(reader.read(&holds(2), &topic, &older), []);
    assert_eq!(reader.awaited(), None);
    assert_eq!(reader.read(&holds(2), &topic, &newer), []);
    assert_eq!(reader.awaited(), Some(DictionaryId { root: 1, targets: 3 }));
    assert_eq!(reader.held(&holds(2)), Some(DictionaryId { root: 1, targets: 2 }));
}

#[test]
fn the_newest_of_a_topic_replaces_what_waited_there() {
    let mut reader = Reader::default();
    let (topic, first, _) = heartbeat(&dictionary(2));
    let (_, second, beat) = heartbeat(&dictionary(3));
    reader.read(&holds(1), &topic, &first);
    reader.read(&holds(1), &topic, &second);

    assert_eq!(reader.read_again(&holds(3)), beat);
    reader.read(&holds(1), &topic, &first);
    reader.read(&holds(1), &topic, &Bundle { root: 1, files: beat.clone() }.pack());
    assert_eq!(reader.awaited(), None, "a heartbeat that could be read is newer");
}

#[test]
fn a_flood_of_bundles_that_nobody_can_read_stays_small() {
    let mut reader = Reader::default();
    let (topic, packed, _) = heartbeat(&dictionary(9));
    for cohort in 0..900 {
        let cohort = tern_protocol::position::Cohort::new(cohort).unwrap();
        let topic = Topic::Cohort("cam".parse().unwrap(), "eu".parse().unwrap(), cohort);
        reader.read(&holds(1), &topic, &packed);
    }
    reader.read(&holds(1), &Topic::DeviceIn("d".parse().unwrap()), &packed);
    reader.read(&holds(1), &topic, &[packed, vec![0; 4096]].concat());

    assert_eq!(reader.read_again(&holds(9)).len(), 4 * 2);
    assert_eq!(reader.awaited(), None);
}
