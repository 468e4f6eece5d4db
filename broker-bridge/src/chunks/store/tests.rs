use tern_protocol::chunk::{PIECE, TreeShape};

use super::*;

fn image(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i / 7 % 251).unwrap()).collect()
}

fn store() -> (tempfile::TempDir, ChunkStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ChunkStore::open(folder.path()).unwrap();
    (folder, store)
}

#[test]
fn what_comes_out_is_verified_by_the_root_that_went_in() {
    let (_folder, store) = store();
    for length in [1, CHUNK, CHUNK + 1, 300 * CHUNK + 5] {
        let image = image(length);
        let info = store.add(image.as_slice()).unwrap();
        assert_eq!((info.length, info.sha256), (length as u64, Digest::of(&image)));

        let shape = TreeShape::new(chunk::chunks_of(info.length).unwrap());
        let top = store.piece(&info.root, shape.top()).unwrap();
        assert_eq!(chunk::root(&top), info.root);
        for (index, expected) in (0..).zip(image.chunks(CHUNK)) {
            let piece = shape.piece_of(index);
            let leaves = store.piece(&info.root, piece).unwrap();
            let read = store.read_chunk(&info.root, index).unwrap();
            assert_eq!(read, expected);
            assert_eq!(chunk::leaf(&read), leaves[(index % PIECE) as usize]);
            if shape.top().level == 1 {
                assert_eq!(chunk::root(&leaves), top[piece.index as usize]);
            }
        }
    }
}

#[test]
fn parts_that_do_not_exist_are_errors() {
    let (_folder, store) = store();
    let root = store.add(image(CHUNK).as_slice()).unwrap().root;

    assert!(matches!(store.read_chunk(&root, 1), Err(StoreError::OutOfRange(_))));
    assert!(matches!(store.read_chunk(&root, u32::MAX), Err(StoreError::OutOfRange(_))));
    assert!(matches!(store.piece(&root, PieceId { level: 1, index: 0 }), Err(StoreError::OutOfRange(_))));
    assert!(matches!(store.read_chunk(&Digest::of(b""), 0), Err(StoreError::Missing(_))));
}

#[test]
fn an_image_with_another_root_leaves_nothing_behind() {
    let (folder, store) = store();

    let refused = store.add_expected(image(100).as_slice(), Digest::of(b"other"));

    assert!(matches!(refused, Err(StoreError::OtherRoot { .. })));
    assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn objects_survive_a_restart_and_what_was_half_written_does_not() {
    let (folder, store) = store();
    let root = store.add(image(100).as_slice()).unwrap().root;
    fs::write(folder.path().join("incoming/half"), b"x").unwrap();
    drop(store);

    let store = ChunkStore::open(folder.path()).unwrap();

    assert_eq!(store.read_chunk(&root, 0).unwrap(), image(100));
    assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn a_removed_object_is_missing_even_if_it_was_open() {
    let (_folder, store) = store();
    let root = store.add(image(100).as_slice()).unwrap().root;
    store.read_chunk(&root, 0).unwrap();

    store.remove(&root).unwrap();
    store.remove(&root).unwrap();

    assert!(!store.contains(&root));
    assert!(matches!(store.read_chunk(&root, 0), Err(StoreError::Missing(_))));
}

#[test]
fn more_objects_than_open_files_are_all_readable() {
    let (_folder, store) = store();
    let roots: Vec<_> = (1..40).map(|n| store.add(image(n).as_slice()).unwrap().root).collect();

    for (root, length) in roots.iter().zip(1..) {
        assert_eq!(store.read_chunk(root, 0).unwrap().len(), length);
    }
}

/// Changes a file that others have open, in its place.
fn damage(path: &Path, change: impl FnOnce(&fs::File)) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    change(&file);
    // A clock of the file system that is coarse must not hide the change from the test.
    file.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
}

#[test]
fn what_is_damaged_is_not_served_whether_it_was_read_before_or_not_and_is_again_when_it_is_mended() {
    use std::os::unix::fs::FileExt as _;
    let (folder, store) = store();
    let image = image(5 * CHUNK + 9);
    let root = store.add(image.as_slice()).unwrap().root;
    let file = store.image_path(&root);
    assert_eq!(store.read_chunk(&root, 1).unwrap(), &image[CHUNK..2 * CHUNK]);

    damage(&file, |file| file.write_all_at(b"x", CHUNK as u64 + 5).unwrap());

    for store in [&store, &ChunkStore::open(folder.path()).unwrap()] {
        assert!(matches!(store.read_chunk(&root, 1), Err(StoreError::Damaged { .. })));
        assert_eq!(store.read_chunk(&root, 2).unwrap(), &image[2 * CHUNK..3 * CHUNK], "the rest is");
    }
    damage(&file, |file| file.write_all_at(&image[CHUNK..2 * CHUNK], CHUNK as u64).unwrap());
    assert_eq!(store.read_chunk(&root, 1).unwrap(), &image[CHUNK..2 * CHUNK]);
}

#[test]
fn an_image_that_has_lost_its_end_is_not_served_as_another_one() {
    let (folder, store) = store();
    let root = store.add(image(5 * CHUNK + 9).as_slice()).unwrap().root;
    assert!(store.read_chunk(&root, 0).is_ok());

    damage(&store.image_path(&root), |file| file.set_len(3 * CHUNK as u64).unwrap());

    // Whoever had it open reads what is there, as far as that goes; whoever opens it sees that it is another one.
    assert!(store.read_chunk(&root, 4).is_err());
    let other = ChunkStore::open(folder.path()).unwrap();
    assert!(matches!(other.read_chunk(&root, 0), Err(StoreError::Damaged { .. })));
    assert!(matches!(other.piece(&root, PieceId { level: 0, index: 0 }), Err(StoreError::Damaged { .. })));
}
