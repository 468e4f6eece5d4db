use std::fs;

use super::super::testing::{image, install};
use super::*;

fn scene() -> (tempfile::TempDir, FileSlots) {
    let folder = tempfile::tempdir().unwrap();
    let slots = FileSlots::open(folder.path(), 300_000, SlotName::A).unwrap();
    (folder, slots)
}

#[test]
fn an_installed_image_is_vouched_for_also_after_a_restart() {
    let (folder, mut slots) = scene();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(slots.label(SlotName::B).unwrap(), SlotLabel::Empty);

    let image = install(&mut slots, 7, &bytes);

    let slots = FileSlots::open(folder.path(), 300_000, SlotName::A).unwrap();
    assert_eq!(slots.label(SlotName::B).unwrap(), SlotLabel::Holds(image));
    assert!(is_bootable(&storage::system(), folder.path(), SlotName::B));
    assert!(!is_bootable(&storage::system(), folder.path(), SlotName::A));
}

#[test]
fn the_running_slot_cannot_be_changed_in_any_way() {
    let (_folder, mut slots) = scene();

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
fn bytes_past_the_capacity_are_refused_and_the_last_byte_is_not() {
    let (_folder, mut slots) = scene();
    slots.mark_bad(SlotName::B).unwrap();

    assert!(slots.write(SlotName::B, 299_999, b"x").is_ok());
    for offset in [299_999, 300_000, u64::MAX - 1, u64::MAX] {
        assert!(
            matches!(slots.write(SlotName::B, offset, b"xy"), Err(SlotError::PastEnd { .. })),
            "{offset}"
        );
    }
}

#[test]
fn a_slot_that_something_vouches_for_is_not_written() {
    let (_folder, mut slots) = scene();
    assert!(matches!(slots.write(SlotName::B, 0, b"x"), Err(SlotError::NotMarkedBad(_))));

    let image = install(&mut slots, 7, b"release seven");

    assert!(matches!(slots.write(SlotName::B, 0, b"x"), Err(SlotError::NotMarkedBad(_))));
    assert_eq!(slots.hash(SlotName::B, image.length).unwrap().0, image.sha256);
}

#[test]
fn a_label_needs_a_matching_hash_that_is_younger_than_the_last_write() {
    let (_folder, mut slots) = scene();
    let good = image(7, b"right");
    let refused = |slots: &mut FileSlots| {
        matches!(slots.set_label(SlotName::B, good.clone()), Err(SlotError::NotHashed(_)))
    };
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"right").unwrap();
    assert!(refused(&mut slots), "never hashed");
    slots.hash(SlotName::B, 4).unwrap();
    assert!(refused(&mut slots), "hashed over another length");
    slots.hash(SlotName::B, 5).unwrap();
    slots.write(SlotName::B, 0, b"w").unwrap();
    assert!(refused(&mut slots), "written since");
    slots.hash(SlotName::B, 5).unwrap();
    assert!(refused(&mut slots), "hashed to something else");

    slots.write(SlotName::B, 0, b"r").unwrap();
    slots.hash(SlotName::B, 5).unwrap();

    assert!(slots.set_label(SlotName::B, good).is_ok());
}

#[test]
fn a_shorter_image_leaves_nothing_of_the_longer_one_behind_it() {
    let (folder, mut slots) = scene();
    install(&mut slots, 7, &[7; 1000]);

    install(&mut slots, 8, b"short");

    assert_eq!(fs::read(slots.path(SlotName::B)).unwrap(), b"short");
    assert!(is_bootable(&storage::system(), folder.path(), SlotName::B));
}

#[test]
fn any_changed_added_or_lost_byte_makes_a_slot_unbootable() {
    let (folder, mut slots) = scene();
    install(&mut slots, 7, b"release seven");
    let path = slots.path(SlotName::B);

    for broken in [&b"release Seven"[..], b"release seven!", b"release seve", b""] {
        fs::write(&path, broken).unwrap();
        assert!(!is_bootable(&storage::system(), folder.path(), SlotName::B), "{broken:?}");
    }
    fs::write(&path, b"release seven").unwrap();
    assert!(is_bootable(&storage::system(), folder.path(), SlotName::B));
}

#[test]
fn hashing_more_than_is_there_says_how_much_there_is() {
    let (_folder, mut slots) = scene();
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"12345").unwrap();

    let result = slots.hash(SlotName::B, 6);

    assert!(matches!(result, Err(SlotError::Short { found: 5, expected: 6, .. })), "{result:?}");
}

#[test]
fn a_label_damaged_in_both_copies_vouches_for_nothing_and_can_be_renewed() {
    let (folder, mut slots) = scene();
    install(&mut slots, 7, b"release seven");
    for copy in ["b.label.0", "b.label.1"] {
        fs::write(folder.path().join(copy), b"rubbish").unwrap();
    }
    assert_eq!(slots.label(SlotName::B).unwrap(), SlotLabel::Bad);

    slots.mark_bad(SlotName::B).unwrap();

    assert_eq!(
        label::record(&storage::system(), folder.path(), SlotName::B).unwrap().load().unwrap(),
        Some(SlotLabel::Bad)
    );
}

#[test]
fn slot_files_can_be_executed_as_soon_as_they_are_labelled() {
    let (_folder, mut slots) = scene();

    install(&mut slots, 7, b"#!/bin/sh\nexit 42\n");

    // Another test's child may still share our descriptor for the moment between its fork and exec.
    let status = loop {
        match std::process::Command::new(slots.path(SlotName::B)).status() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            result => break result.unwrap(),
        }
    };
    assert_eq!(status.code(), Some(42));
}

#[test]
fn labels_are_written_the_way_the_documents_say() {
    let json = serde_json::to_value(SlotLabel::Holds(image(7, b"x"))).unwrap();
    assert_eq!(json["holds"]["rc"], 7);
    assert_eq!(serde_json::to_string(&SlotName::B).unwrap(), "\"b\"");
}

#[test]
fn a_label_survives_the_loss_of_either_of_its_copies() {
    for lost in ["b.label.0", "b.label.1"] {
        let (folder, mut slots) = scene();
        let image = install(&mut slots, 7, b"release seven");

        fs::write(folder.path().join(lost), b"rubbish").unwrap();

        assert_eq!(slots.label(SlotName::B).unwrap(), SlotLabel::Holds(image), "{lost}");
    }
}
