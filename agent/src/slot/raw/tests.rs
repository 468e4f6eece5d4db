mod devices;

use std::fs::{self, OpenOptions};

use super::super::testing::{image, install};
use super::*;

const CAPACITY: u64 = 300_000;
/// Room of each slot: no multiple of a block, and more than the capacity.
const SIZE: u64 = 300_300;

/// Two slots, as files or loop devices, full of bytes that nobody wrote.
struct Scene {
    folder: tempfile::TempDir,
    paths: [PathBuf; 2],
}

impl Scene {
    fn files() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["first", "second"].map(|name| folder.path().join(name));
        for path in &paths {
            fs::write(path, vec![0xee; usize::try_from(SIZE).unwrap()]).unwrap();
        }
        fs::create_dir(folder.path().join("labels")).unwrap();
        Self { folder, paths }
    }

    fn slots(&self) -> RawSlots {
        self.slots_at(self.paths.clone())
    }

    fn slots_at(&self, paths: [PathBuf; 2]) -> RawSlots {
        RawSlots::open(paths, &self.folder.path().join("labels"), CAPACITY, SlotName::A).unwrap()
    }

    /// What slot b is refused for when these are the slots.
    fn problem(&self, paths: [PathBuf; 2]) -> Problem {
        let mut slots = self.slots_at(paths);
        let before = slots.label(SlotName::B).unwrap();
        match slots.mark_bad(SlotName::B) {
            Err(SlotError::Unfit { slot: SlotName::B, problem, .. }) => {
                assert_eq!(slots.label(SlotName::B).unwrap(), before, "it keeps what it holds");
                problem
            }
            other => panic!("{other:?}"),
        }
    }
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[test]
fn an_installed_image_is_vouched_for_also_after_a_restart_and_the_rest_of_the_slot_stays() {
    let scene = Scene::files();
    let bytes = pattern(200_001);

    let image = install(&mut scene.slots(), 7, &bytes);

    assert_eq!(scene.slots().label(SlotName::B).unwrap(), SlotLabel::Holds(image));
    let found = fs::read(&scene.paths[1]).unwrap();
    assert_eq!(found.len() as u64, SIZE);
    assert!(found[..bytes.len()] == bytes[..] && found[bytes.len()..].iter().all(|byte| *byte == 0xee));
    assert!(fs::read(&scene.paths[0]).unwrap().iter().all(|byte| *byte == 0xee));
}

#[test]
fn any_range_is_written_and_nothing_around_it() {
    let scene = Scene::files();
    let mut slots = scene.slots();
    slots.mark_bad(SlotName::B).unwrap();
    let mut expected = vec![0xee; usize::try_from(SIZE).unwrap()];
    let edges = [0, 1, 4095, 4096, 4097, 8192, 65_536, 299_008, 299_999];
    for (value, (offset, length)) in
        (1u8..).zip(edges.iter().flat_map(|offset| [0usize, 1, 4095, 4096, 70_000].map(|l| (*offset, l))))
    {
        let length = length.min(300_000 - offset);

        slots.write(SlotName::B, offset as u64, &vec![value; length]).unwrap();

        expected[offset..offset + length].fill(value);
        assert!(fs::read(&scene.paths[1]).unwrap() == expected, "{length} at {offset}");
    }
}

#[test]
fn the_running_slot_cannot_be_changed_in_any_way() {
    let scene = Scene::files();
    let mut slots = scene.slots();

    let attempts = [
        slots.mark_bad(SlotName::A),
        slots.write(SlotName::A, 0, b"x"),
        slots.sync(SlotName::A),
        slots.set_label(SlotName::A, image(1, b"x")),
    ];

    for attempt in attempts {
        assert!(matches!(attempt, Err(SlotError::Running(SlotName::A))), "{attempt:?}");
    }
}

#[test]
fn bytes_past_the_capacity_are_refused_even_where_the_device_has_room() {
    let scene = Scene::files();
    let mut slots = scene.slots();
    slots.mark_bad(SlotName::B).unwrap();

    assert!(slots.write(SlotName::B, CAPACITY - 1, b"x").is_ok());
    for offset in [CAPACITY - 1, CAPACITY, u64::MAX - 1, u64::MAX] {
        let result = slots.write(SlotName::B, offset, b"xy");
        assert!(matches!(result, Err(SlotError::PastEnd { .. })), "{offset}");
    }
}

#[test]
fn a_label_needs_a_matching_hash_that_is_younger_than_the_last_write() {
    let scene = Scene::files();
    let mut slots = scene.slots();
    assert!(matches!(slots.write(SlotName::B, 0, b"x"), Err(SlotError::NotMarkedBad(_))));
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"right").unwrap();
    slots.hash(SlotName::B, 5).unwrap();
    slots.write(SlotName::B, 0, b"w").unwrap();

    let result = slots.set_label(SlotName::B, image(7, b"right"));

    assert!(matches!(result, Err(SlotError::NotHashed(_))), "{result:?}");
    slots.write(SlotName::B, 0, b"r").unwrap();
    slots.hash(SlotName::B, 5).unwrap();
    slots.set_label(SlotName::B, image(7, b"right")).unwrap();
}

#[test]
fn hashing_more_than_is_there_says_how_much_there_is() {
    let scene = Scene::files();

    let result = scene.slots().hash(SlotName::B, SIZE + 1);

    assert!(matches!(result, Err(SlotError::Short { found: SIZE, .. })), "{result:?}");
    assert!(scene.slots().hash(SlotName::B, SIZE).is_ok());
}

#[test]
fn what_stands_at_a_path_is_refused_before_the_first_byte_if_it_is_no_slot() {
    let scene = Scene::files();
    let [first, second] = scene.paths.clone();
    let small = scene.folder.path().join("small");
    fs::write(&small, vec![0; usize::try_from(CAPACITY).unwrap() - 1]).unwrap();
    let link = scene.folder.path().join("link");
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let hard = scene.folder.path().join("hard");
    fs::hard_link(&first, &hard).unwrap();
    install(&mut scene.slots(), 7, b"release seven");
    let bytes = fs::read(&first).unwrap();

    let problem = |path: &Path| scene.problem([first.clone(), path.to_owned()]);

    assert_eq!(problem(&scene.folder.path().join("none")), Problem::Missing);
    assert_eq!(problem(scene.folder.path()), Problem::Kind);
    assert_eq!(problem(Path::new("/dev/null")), Problem::Kind);
    assert_eq!(problem(&small), Problem::TooSmall { size: CAPACITY - 1, capacity: CAPACITY });
    for same in [&first, &link, &hard] {
        assert_eq!(problem(same), Problem::SameAsOther);
    }
    // The control: the declared one is taken.
    scene.slots_at([first.clone(), second]).mark_bad(SlotName::B).unwrap();
    assert!(fs::read(&first).unwrap() == bytes, "nothing was written");
    assert!(!scene.folder.path().join("none").exists(), "nothing is ever made");
}

#[test]
fn a_slot_that_goes_wrong_under_way_is_not_written_any_further() {
    let scene = Scene::files();
    let mut slots = scene.slots();
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"x").unwrap();
    fs::remove_file(&scene.paths[1]).unwrap();
    std::os::unix::fs::symlink(&scene.paths[0], &scene.paths[1]).unwrap();

    for result in [slots.write(SlotName::B, 1, b"x"), slots.sync(SlotName::B)] {
        let refused = matches!(result, Err(SlotError::Unfit { problem: Problem::SameAsOther, .. }));
        assert!(refused, "{result:?}");
    }
    assert!(fs::read(&scene.paths[0]).unwrap().iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_slot_that_a_factory_has_written_is_compared_and_only_labelled() {
    let scene = Scene::files();
    let bytes = pattern(100_000);
    let from = scene.folder.path().join("first.img");
    fs::write(&from, &bytes).unwrap();
    let mut slot = bytes.clone();
    slot.resize(usize::try_from(SIZE).unwrap(), 0xee);
    fs::write(&scene.paths[1], &slot).unwrap();
    fs::set_permissions(&scene.paths[1], std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let modified = fs::metadata(&scene.paths[1]).unwrap().modified().unwrap();

    scene.slots().provision(SlotName::B, &from, image(1, &bytes)).unwrap();

    assert_eq!(scene.slots().label(SlotName::B).unwrap(), SlotLabel::Holds(image(1, &bytes)));
    assert_eq!(fs::metadata(&scene.paths[1]).unwrap().modified().unwrap(), modified);
    fs::write(&from, b"another image").unwrap();
    scene.slots().provision(SlotName::B, &from, image(2, b"another image")).unwrap();
    assert_eq!(scene.slots().label(SlotName::B).unwrap(), SlotLabel::Holds(image(2, b"another image")));
}

#[test]
fn another_place_that_takes_the_name_of_a_slot_under_way_is_not_written() {
    let scene = Scene::files();
    let mut slots = scene.slots();
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"x").unwrap();
    fs::rename(&scene.paths[1], scene.folder.path().join("unplugged")).unwrap();
    let gone = slots.write(SlotName::B, 1, b"x");
    assert!(matches!(gone, Err(SlotError::Unfit { problem: Problem::Missing, .. })), "{gone:?}");
    fs::write(&scene.paths[1], vec![0xee; usize::try_from(SIZE).unwrap()]).unwrap();

    let result = slots.write(SlotName::B, 1, b"x");

    assert!(matches!(result, Err(SlotError::Unfit { problem: Problem::Exchanged, .. })), "{result:?}");
    assert!(fs::read(&scene.paths[1]).unwrap().iter().all(|byte| *byte == 0xee));
}
