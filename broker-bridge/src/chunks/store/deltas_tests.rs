use tern_protocol::chunk::TreeShape;
use tern_protocol::delta::ImageId;
use tern_protocol::delta::signed::sign;

use super::*;

fn store() -> (tempfile::TempDir, ChunkStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ChunkStore::open(folder.path()).unwrap();
    (folder, store)
}

/// Packs of different lengths; what is in them is not the store's business.
fn packs(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| vec![u8::try_from(n % 256).unwrap(); (n * 7919) % PART_MAX + 1]).collect()
}

fn manifest(from: &[u8], to: &[u8], profile: Profile, packs: &[Vec<u8>]) -> DeltaManifest {
    DeltaManifest {
        profile,
        chunk_log2: 16,
        old: ImageId { length: 1 << 20, root: Digest::of(from) },
        new: ImageId { length: 1 << 20, root: Digest::of(to) },
        packs: packs.len().try_into().unwrap(),
        bytes: packs.iter().map(|pack| pack.len() as u64).sum(),
        root: chunk::root(&packs.iter().map(|pack| leaf(pack)).collect::<Vec<_>>()),
    }
}

fn add(store: &ChunkStore, manifest: &DeltaManifest, packs: &[Vec<u8>]) -> Result<(), StoreError> {
    let signed = sign(manifest, &[]).unwrap();
    store.add_delta(&signed, packs.iter().cloned().map(Ok)).map(drop)
}

fn found(store: &ChunkStore, from: &[u8], to: &[u8], profiles: &[Profile]) -> Option<DeltaManifest> {
    let profiles: Vec<u8> = profiles.iter().map(|profile| profile.id()).collect();
    let found = store.delta(&Digest::of(from), &Digest::of(to), &profiles).unwrap();
    found.map(|found| found.manifest)
}

fn files(store: &ChunkStore) -> usize {
    ["delta", "packs", "tree"].iter().map(|ending| store.files_named(ending).unwrap().len()).sum()
}

#[test]
fn packs_come_out_as_they_went_in_and_verify_by_the_deltas_root() {
    for count in [1, 2, 300] {
        let (folder, store) = store();
        let packs = packs(count);
        let manifest = manifest(b"old", b"new", Profile::Linux, &packs);
        add(&store, &manifest, &packs).unwrap();

        // By another program too, which opened the folder before.
        for store in [&store, &ChunkStore::open(folder.path()).unwrap()] {
            let shape = TreeShape::new(manifest.packs);
            let top = store.piece(&manifest.root, shape.top()).unwrap();
            assert_eq!(chunk::root(&top), manifest.root);
            for (index, pack) in (0..).zip(&packs) {
                assert_eq!(store.read_chunk(&manifest.root, index).unwrap(), *pack);
                let piece = store.piece(&manifest.root, shape.piece_of(index)).unwrap();
                assert_eq!(piece[index as usize % 256], leaf(pack));
            }
            let past = store.read_chunk(&manifest.root, manifest.packs);
            assert!(matches!(past, Err(StoreError::OutOfRange(_))));
        }
    }
}

#[test]
fn of_several_profiles_the_smallest_that_was_asked_for_is_returned() {
    let (_folder, store) = store();
    let (small, large) = (packs(1), packs(3));
    let linux = manifest(b"old", b"new", Profile::Linux, &large);
    let fast = manifest(b"old", b"new", Profile::Fast, &small);
    add(&store, &linux, &large).unwrap();
    add(&store, &fast, &small).unwrap();

    assert_eq!(found(&store, b"old", b"new", &[Profile::Linux, Profile::Fast]), Some(fast));
    assert_eq!(found(&store, b"old", b"new", &[Profile::Linux]), Some(linux));
    assert_eq!(found(&store, b"old", b"new", &[Profile::Mcu]), None);
    assert_eq!(found(&store, b"new", b"old", &[Profile::Linux]), None);
    assert_eq!(store.deltas().unwrap().len(), 2);
}

#[test]
fn packs_that_are_not_those_of_the_manifest_leave_nothing_behind() {
    let (_folder, store) = store();
    let good = packs(3);
    let named = manifest(b"old", b"new", Profile::Linux, &good);
    let changed = {
        let mut packs = good.clone();
        packs[1][0] ^= 1;
        packs
    };
    let longer = [&good[..], &[vec![1]]].concat();
    let mut says_more = named;
    says_more.bytes += 1;
    let huge = vec![vec![0; PART_MAX + 1]];
    let too_long = manifest(b"old", b"new", Profile::Linux, &huge);

    assert!(matches!(add(&store, &named, &changed), Err(StoreError::OtherRoot { .. })));
    assert!(matches!(add(&store, &named, &good[..2]), Err(StoreError::OtherRoot { .. })));
    assert!(matches!(add(&store, &named, &longer), Err(StoreError::OtherPacks)));
    assert!(matches!(add(&store, &says_more, &good), Err(StoreError::OtherPacks)));
    assert!(add(&store, &too_long, &huge).is_err());
    let broken = good.iter().cloned().map(Ok).chain([Err(io::Error::other("cut off"))]);
    assert!(store.add_delta(&sign(&named, &[]).unwrap(), broken).is_err());
    assert_eq!(files(&store), 0);
    assert_eq!(fs::read_dir(store.folder().join("incoming")).unwrap().count(), 0);

    add(&store, &named, &good).unwrap();
    assert_eq!(files(&store), 3);
}

#[test]
fn two_deltas_with_the_same_packs_share_them_until_both_are_gone() {
    let (_folder, store) = store();
    let packs = packs(1);
    let (one, other) =
        (manifest(b"a", b"b", Profile::Linux, &packs), manifest(b"c", b"d", Profile::Linux, &packs));
    add(&store, &one, &packs).unwrap();
    add(&store, &other, &packs).unwrap();
    store.read_chunk(&one.root, 0).unwrap();

    store.remove_delta(&one).unwrap();
    assert_eq!(found(&store, b"a", b"b", &Profile::ALL), None);
    assert!(store.read_chunk(&other.root, 0).is_ok());

    store.remove_delta(&other).unwrap();
    store.remove_delta(&other).unwrap();
    assert!(matches!(store.read_chunk(&other.root, 0), Err(StoreError::Missing(_))));
    assert_eq!(files(&store), 0);
}

#[test]
fn a_delta_that_is_made_again_replaces_the_one_before() {
    let (_folder, store) = store();
    let (before, after) = (packs(2), packs(1));
    add(&store, &manifest(b"a", b"b", Profile::Linux, &before), &before).unwrap();

    let newer = manifest(b"a", b"b", Profile::Linux, &after);
    add(&store, &newer, &after).unwrap();

    assert_eq!(found(&store, b"a", b"b", &Profile::ALL), Some(newer));
    assert_eq!(files(&store), 3);
}

#[test]
fn a_delta_goes_with_either_of_its_images() {
    let packs = packs(2);
    for gone in [&b"old"[..], b"new"] {
        let (_folder, store) = store();
        let roots = [&b"old"[..], b"new"].map(|image| store.add(image).unwrap().root);
        let mut manifest = manifest(b"", b"", Profile::Linux, &packs);
        (manifest.old.root, manifest.new.root) = roots.into();
        add(&store, &manifest, &packs).unwrap();

        store.remove(&chunk::root(&[leaf(gone)])).unwrap();

        assert_eq!(store.deltas().unwrap(), []);
        assert!(matches!(store.read_chunk(&manifest.root, 0), Err(StoreError::Missing(_))));
    }
}

#[test]
fn packs_that_an_end_in_the_middle_left_are_swept_and_named_ones_stay() {
    let (_folder, store) = store();
    let (kept, orphan) = (packs(2), packs(3));
    let named = manifest(b"a", b"b", Profile::Linux, &kept);
    let half = manifest(b"c", b"d", Profile::Linux, &orphan);
    add(&store, &named, &kept).unwrap();
    add(&store, &half, &orphan).unwrap();
    fs::remove_file(store.delta_path(&half)).unwrap();

    store.sweep_packs().unwrap();

    assert!(store.read_chunk(&named.root, 1).is_ok());
    assert!(matches!(store.read_chunk(&half.root, 0), Err(StoreError::Missing(_))));
    assert_eq!(files(&store), 3);
}

#[test]
fn a_manifest_without_its_packs_is_not_handed_out() {
    let (_folder, store) = store();
    let packs = packs(2);
    let manifest = manifest(b"a", b"b", Profile::Linux, &packs);
    add(&store, &manifest, &packs).unwrap();
    fs::remove_file(store.path(&manifest.root, "packs")).unwrap();

    assert_eq!(found(&store, b"a", b"b", &Profile::ALL), None);
}

#[test]
fn a_delta_is_signed_anew_only_if_it_is_the_same() {
    let (_folder, store) = store();
    let packs = packs(2);
    let mut manifest = manifest(b"a", b"b", Profile::Linux, &packs);
    add(&store, &manifest, &packs).unwrap();

    store.sign_delta(&sign(&manifest, &[]).unwrap()).unwrap();
    manifest.bytes += 1;
    let other = store.sign_delta(&sign(&manifest, &[]).unwrap());

    assert!(matches!(other, Err(StoreError::Missing(_))));
}
