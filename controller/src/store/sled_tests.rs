use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};

use tempfile::TempDir;

use super::*;

fn device(n: usize) -> Key {
    Key::Device(format!("d{n:04}").parse().unwrap())
}

fn open(dir: &TempDir) -> SledStore {
    SledStore::open_or_set_aside(dir.path(), 0).unwrap()
}

fn engine(dir: &TempDir) -> PathBuf {
    dir.path().join("partition-000")
}

/// A store of some devices, checkpointed and closed.
fn filled(dir: &TempDir) {
    let mut store = open(dir);
    for round in 0..4 {
        let puts = (0..500).map(|n| (device(n), vec![round; 300])).collect();
        let sequence = u64::from(round);
        store
            .apply(3, &Batch { first_seq: sequence, last_seq: sequence, puts, deletes: Vec::new() })
            .unwrap();
    }
    store.checkpoint().unwrap();
}

fn usable(store: &mut SledStore) {
    let puts = vec![(device(1), b"again".to_vec())];
    store.apply(3, &Batch { first_seq: 0, last_seq: 0, puts, deletes: Vec::new() }).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.get(&device(1)).unwrap(), Some(b"again".to_vec()));
}

#[test]
fn a_store_is_found_again_as_it_was_left() {
    let dir = TempDir::new().unwrap();
    filled(&dir);

    let store = open(&dir);

    assert_eq!(store.recovered(), Recovered { applied_seq: Some(3), term: 3, set_aside: None });
    assert_eq!(store.get(&device(499)).unwrap(), Some(vec![3; 300]));
    assert_eq!(store.verify().unwrap(), 500);
}

#[test]
fn a_deleted_folder_is_an_empty_store() {
    let dir = TempDir::new().unwrap();
    filled(&dir);
    std::fs::remove_dir_all(engine(&dir)).unwrap();

    let mut store = open(&dir);

    assert_eq!(store.recovered(), Recovered::default());
    usable(&mut store);
}

#[test]
fn a_folder_of_garbage_is_set_aside_and_a_new_store_is_usable() {
    let garbage: Vec<u8> = (0..200_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for contents in [&garbage[..], &garbage[..17], &[0; 100_000]] {
        let dir = TempDir::new().unwrap();
        filled(&dir);
        for file in std::fs::read_dir(engine(&dir)).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_file() {
                std::fs::write(file, contents).unwrap();
            }
        }

        let mut store = open(&dir);

        let recovered = store.recovered();
        assert_eq!(recovered.applied_seq, None);
        assert_eq!(recovered.set_aside, Some(dir.path().join("partition-000.damaged-1")));
        assert!(recovered.set_aside.unwrap().is_dir());
        usable(&mut store);
    }
}

#[test]
fn a_folder_of_emptied_files_is_an_empty_store() {
    let dir = TempDir::new().unwrap();
    filled(&dir);
    for file in std::fs::read_dir(engine(&dir)).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            std::fs::write(file, b"").unwrap();
        }
    }

    let mut store = open(&dir);

    assert_eq!(store.recovered().applied_seq, None);
    usable(&mut store);
}

/// Whatever byte is turned over, nobody is ever told what was not written: either the store opens with every
/// entry it claims, or an entry is named as damaged, or the folder is set aside.
#[test]
fn a_damaged_file_never_yields_what_nobody_wrote() {
    let mut outcomes = [0; 3];
    for file in ["db", "conf"] {
        for place in 0..24u64 {
            let dir = TempDir::new().unwrap();
            filled(&dir);
            let path = engine(&dir).join(file);
            let mut handle = OpenOptions::new().write(true).open(&path).unwrap();
            let used = handle.metadata().unwrap().len();
            handle.seek(SeekFrom::Start(used * place / 24)).unwrap();
            handle.write_all(&[0xa5; 64]).unwrap();
            drop(handle);

            let mut store = open(&dir);

            let now = store.recovered();
            match (now.set_aside, store.verify()) {
                (Some(_), _) => {
                    outcomes[0] += 1;
                    usable(&mut store);
                }
                (None, Err(error)) => {
                    outcomes[1] += 1;
                    assert!(error.wants_rebuild(), "{error}");
                    store.wipe().unwrap();
                    usable(&mut store);
                }
                (None, Ok(entries)) => {
                    outcomes[2] += 1;
                    let sequence = now.applied_seq.map(|n| u8::try_from(n).unwrap());
                    assert_eq!(entries, if sequence.is_some() { 500 } else { 0 });
                    for n in 0..500 {
                        let value = store.get(&device(n)).unwrap();
                        assert_eq!(value, sequence.map(|round| vec![round; 300]));
                    }
                }
            }
        }
    }
    assert!(outcomes[0] + outcomes[1] > 0, "the damage was never noticed: {outcomes:?}");
}

#[test]
fn a_value_under_a_false_checksum_is_damage_and_a_wipe_mends_it() {
    let dir = TempDir::new().unwrap();
    filled(&dir);
    let mut store = open(&dir);
    let other = store.db.as_ref().unwrap().get(device(2).to_bytes()).unwrap().unwrap();
    store.db.as_ref().unwrap().insert(device(1).to_bytes(), other).unwrap();

    let error = store.get(&device(1)).unwrap_err();

    assert!(error.wants_rebuild(), "{error}");
    assert!(store.scan(&Prefix::Devices, None, 10).is_err());
    assert!(store.verify().is_err());
    assert!(store.get(&device(2)).is_ok(), "the others can still be read");
    store.wipe().unwrap();
    assert_eq!(store.recovered().set_aside, Some(dir.path().join("partition-000.damaged-1")));
    usable(&mut store);
}

#[test]
fn entries_without_a_record_of_what_was_applied_are_set_aside() {
    let dir = TempDir::new().unwrap();
    filled(&dir);
    let store = open(&dir);
    store.db.as_ref().unwrap().remove(OWN).unwrap();
    drop(store);

    assert!(open(&dir).recovered().set_aside.is_some());
}

#[test]
fn a_store_that_is_in_use_is_not_taken_for_damaged() {
    let dir = TempDir::new().unwrap();
    let first = open(&dir);

    let error = SledStore::open_or_set_aside(dir.path(), 0).unwrap_err();

    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(SledStore::open_or_set_aside(dir.path(), 1).is_ok(), "another partition is another store");
    drop(first);
    open(&dir);
}

#[test]
fn only_the_newest_damaged_folders_are_kept() {
    let dir = TempDir::new().unwrap();
    for _ in 0..5 {
        open(&dir).wipe().unwrap();
    }

    let kept = |n: u32| dir.path().join(format!("partition-000.damaged-{n}")).is_dir();

    assert_eq!((1..=5).map(kept).collect::<Vec<_>>(), [false, false, true, true, true]);
}
