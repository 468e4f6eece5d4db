//! What every store must do, run for each of them.

use super::key::Meta;
use super::memory::MemoryStore;
use super::sled::SledStore;
use super::*;

macro_rules! conformance {
    ($($story:ident)+) => {
        mod memory {
            $(#[test] fn $story() { super::$story(&mut super::MemoryStore::new()); })+
        }
        mod sled {
            $(#[test] fn $story() {
                let dir = tempfile::TempDir::new().unwrap();
                super::$story(&mut super::SledStore::open_or_set_aside(dir.path(), 0).unwrap());
            })+
        }
    };
}

conformance! {
    a_new_store_holds_nothing
    a_batch_is_applied_whole
    a_batch_that_was_applied_changes_nothing
    a_batch_must_follow_the_one_before
    a_batch_of_a_term_that_is_over_is_refused
    what_is_above_a_ceiling_is_refused_whole
    a_scan_walks_one_kind_of_key_in_pages
    a_deletion_wins_over_a_put_of_the_same_batch
    a_wiped_store_keeps_its_term_only
    a_batch_without_changes_moves_the_sequence
    what_is_staged_is_there_and_moves_nothing
}

fn device(n: usize) -> Key {
    Key::Device(format!("d{n:04}").parse().unwrap())
}

fn batch(first_seq: u64, last_seq: u64, puts: Vec<(Key, Vec<u8>)>) -> Batch {
    Batch { first_seq, last_seq, puts, deletes: Vec::new() }
}

fn a_new_store_holds_nothing(store: &mut dyn Store) {
    assert_eq!(store.recovered(), Recovered::default());
    assert_eq!(store.get(&device(1)).unwrap(), None);
    assert_eq!(store.scan(&Prefix::Devices, None, 10).unwrap(), Page::default());
    assert_eq!(store.verify().unwrap(), 0);
}

fn a_batch_is_applied_whole(store: &mut dyn Store) {
    let puts = vec![(device(1), b"one".to_vec()), (Key::Meta(Meta::Roles), Vec::new())];
    store.apply(1, &batch(0, 4, puts)).unwrap();
    let next = Batch { deletes: vec![device(1)], ..batch(5, 5, vec![(device(2), b"two".to_vec())]) };
    store.apply(1, &next).unwrap();
    store.checkpoint().unwrap();

    assert_eq!(store.get(&device(1)).unwrap(), None);
    assert_eq!(store.get(&device(2)).unwrap(), Some(b"two".to_vec()));
    assert_eq!(store.get(&Key::Meta(Meta::Roles)).unwrap(), Some(Vec::new()));
    assert_eq!((store.recovered().applied_seq, store.recovered().term), (Some(5), 1));
    assert_eq!((store.verify().unwrap(), store.stats().unwrap().applied_seq), (2, Some(5)));
}

fn a_batch_that_was_applied_changes_nothing(store: &mut dyn Store) {
    let old = batch(0, 0, vec![(device(1), b"old".to_vec())]);
    store.apply(0, &old).unwrap();
    store.apply(0, &batch(1, 1, vec![(device(1), b"new".to_vec())])).unwrap();

    store.apply(0, &old).unwrap();

    assert_eq!(store.get(&device(1)).unwrap(), Some(b"new".to_vec()));
    assert_eq!(store.recovered().applied_seq, Some(1));
}

fn a_batch_must_follow_the_one_before(store: &mut dyn Store) {
    let gap = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Gap { .. }));
    assert!(gap(store.apply(0, &batch(1, 1, Vec::new()))), "the first frame has sequence 0");
    store.apply(0, &batch(0, 3, Vec::new())).unwrap();
    assert!(gap(store.apply(0, &batch(5, 5, Vec::new()))), "frame 4 is missing");
    assert!(gap(store.apply(0, &batch(3, 4, Vec::new()))), "frame 3 would count twice");
    assert!(matches!(store.apply(0, &batch(5, 4, Vec::new())), Err(StoreError::Backwards { .. })));
    assert_eq!(store.recovered().applied_seq, Some(3));
}

fn a_batch_of_a_term_that_is_over_is_refused(store: &mut dyn Store) {
    store.fence(7).unwrap();

    let refused = store.apply(6, &batch(0, 0, vec![(device(1), b"late".to_vec())]));

    assert!(matches!(refused, Err(StoreError::Fenced { term: 6, newest: 7 })));
    assert!(matches!(store.fence(6), Err(StoreError::Fenced { .. })));
    assert_eq!((store.get(&device(1)).unwrap(), store.recovered().applied_seq), (None, None));
    store.apply(8, &batch(0, 0, Vec::new())).unwrap();
    assert_eq!(store.recovered().term, 8);
    store.apply(9, &batch(0, 0, Vec::new())).unwrap();
    assert_eq!(store.recovered().term, 9, "a repeated batch announces its term too");
}

fn what_is_above_a_ceiling_is_refused_whole(store: &mut dyn Store) {
    let puts = |count: usize| (0..count).map(|n| (device(n), vec![1])).collect::<Vec<_>>();
    let too_many = Batch { deletes: vec![device(0)], ..batch(0, 0, puts(BATCH_KEYS_MAX)) };
    let too_large = batch(0, 0, vec![(device(0), vec![1]), (device(1), vec![0; VALUE_MAX + 1])]);

    assert!(matches!(store.apply(0, &too_many), Err(StoreError::BatchSize { found: 1001 })));
    assert!(matches!(store.apply(0, &too_large), Err(StoreError::ValueSize { .. })));
    assert_eq!(store.verify().unwrap(), 0);
    store.apply(0, &batch(0, 0, puts(BATCH_KEYS_MAX))).unwrap();
    store.apply(0, &batch(1, 1, vec![(device(1), vec![7; VALUE_MAX])])).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.get(&device(1)).unwrap(), Some(vec![7; VALUE_MAX]));
}

fn a_scan_walks_one_kind_of_key_in_pages(store: &mut dyn Store) {
    let product = |name: &str| name.parse().unwrap();
    let mut puts: Vec<_> = (0..7).rev().map(|n| (device(n), vec![1])).collect();
    puts.extend([3, 1, 300].map(|rc| (Key::Release(product("a"), rc), Vec::new())));
    puts.push((Key::Release(product("ab"), 2), Vec::new()));
    store.apply(0, &batch(0, 0, puts)).unwrap();

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.scan(&Prefix::Devices, after.as_ref(), 3).unwrap();
        assert!(page.entries.len() <= 3);
        seen.extend(page.entries.into_iter().map(|(key, _)| key));
        after = page.next;
        if after.is_none() {
            break;
        }
    }

    assert_eq!(seen, (0..7).map(device).collect::<Vec<_>>());
    let releases = store.scan(&Prefix::ReleasesOf(product("a")), None, 10).unwrap().entries;
    let counters: Vec<_> = releases.into_iter().map(|(key, _)| key).collect();
    assert_eq!(counters, [1, 3, 300].map(|rc| Key::Release(product("a"), rc)));
    assert_eq!(store.scan(&Prefix::Releases, None, 10).unwrap().entries.len(), 4);
    assert_eq!(store.scan(&Prefix::Devices, Some(&device(6)), 10).unwrap(), Page::default());
}

fn what_is_staged_is_there_and_moves_nothing(store: &mut dyn Store) {
    let page = |part| Key::Page { number: 0, place: true, part };
    store.apply(3, &batch(0, 4, vec![(device(1), vec![1])])).unwrap();
    let before = store.recovered();

    store.stage(3, vec![(page(0), vec![7; VALUE_MAX]), (page(1), vec![8])], vec![device(1)]).unwrap();
    let late = store.stage(2, vec![(page(0), Vec::new())], Vec::new());
    let many = store.stage(3, (0..1001).map(|part| (page(part), Vec::new())).collect(), Vec::new());
    store.checkpoint().unwrap();

    assert!(matches!(late, Err(StoreError::Fenced { term: 2, newest: 3 })));
    assert!(matches!(many, Err(StoreError::BatchSize { found: 1001 })));
    assert_eq!((store.recovered(), store.get(&device(1)).unwrap()), (before, None));
    assert_eq!(
        (store.get(&page(0)).unwrap(), store.get(&page(1)).unwrap()),
        (Some(vec![7; VALUE_MAX]), Some(vec![8]))
    );
    store.apply(3, &batch(5, 5, Vec::new())).unwrap();
}

fn a_deletion_wins_over_a_put_of_the_same_batch(store: &mut dyn Store) {
    let puts = vec![(device(1), vec![1]), (device(2), vec![1]), (device(2), vec![2])];
    store.apply(0, &Batch { deletes: vec![device(1)], ..batch(0, 0, puts) }).unwrap();
    assert_eq!(store.get(&device(1)).unwrap(), None);
    assert_eq!(store.get(&device(2)).unwrap(), Some(vec![2]));
}

fn a_wiped_store_keeps_its_term_only(store: &mut dyn Store) {
    store.apply(5, &batch(0, 9, vec![(device(1), vec![1])])).unwrap();

    store.wipe().unwrap();

    assert_eq!((store.recovered().applied_seq, store.recovered().term), (None, 5));
    assert_eq!(store.verify().unwrap(), 0);
    store.apply(5, &batch(0, 9, vec![(device(1), vec![1])])).unwrap();
    assert_eq!(store.verify().unwrap(), 1);
}

fn a_batch_without_changes_moves_the_sequence(store: &mut dyn Store) {
    store.apply(0, &batch(0, 41, Vec::new())).unwrap();
    assert_eq!(store.recovered().applied_seq, Some(41));
}
