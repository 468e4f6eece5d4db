use std::fs;

use super::*;

type Folder = tempfile::TempDir;

fn record(folder: &Folder) -> RecordFile<String> {
    RecordFile::open(folder.path(), "journal").unwrap()
}

fn saved(values: &[&str]) -> Folder {
    let folder = tempfile::tempdir().unwrap();
    for value in values {
        record(&folder).save(&(*value).to_owned()).unwrap();
    }
    folder
}

fn files(folder: &Folder) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn what_was_saved_last_is_loaded() {
    for count in 0..5 {
        let values = ["one", "two", "three", "four", "five"];

        let folder = saved(&values[..count]);

        assert_eq!(record(&folder).load().unwrap().as_deref(), values[..count].last().copied());
    }
}

#[test]
fn a_power_cut_at_any_byte_of_a_save_leaves_the_old_or_the_new_value() {
    for (old, new) in [("short", "a much longer value"), ("a much longer value", "short"), ("same", "size")] {
        let folder = saved(&["zero", "first", old]);
        let before = files(&folder);
        record(&folder).save(&new.to_owned()).unwrap();
        let after = files(&folder);
        let changed: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).collect();
        assert_eq!(changed.len(), 1, "a save touches one copy");
        let ((path, was), (_, is)) = changed[0];

        for cut in 0..=is.len() {
            let kept = was.get(cut..).unwrap_or_default();
            for torn in
                [[&is[..cut], kept].concat(), is[..cut].to_vec(), [&vec![0; cut], &is[cut..]].concat()]
            {
                fs::write(path, &torn).unwrap();
                let found = record(&folder).load().unwrap().unwrap();
                assert!(found == old || found == new, "cut at {cut}: {found}");
                assert!(torn != *is || found == new, "a whole save must count");

                // The next save must not sacrifice the only whole copy.
                record(&folder).save(&"next".to_owned()).unwrap();
                assert_eq!(record(&folder).load().unwrap().unwrap(), "next");
                for (path, bytes) in &before {
                    fs::write(path, bytes).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_power_cut_in_the_very_first_save_means_that_nothing_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("journal.0.new"), b"TREC\0\0").unwrap();

    assert_eq!(record(&folder).load().unwrap(), None);
    record(&folder).save(&"one".to_owned()).unwrap();
    assert_eq!(record(&folder).load().unwrap().unwrap(), "one");
}

#[test]
fn any_flipped_bit_in_one_copy_is_noticed_and_the_other_copy_answers() {
    let folder = saved(&["one", "two"]);
    for (path, bytes) in files(&folder) {
        let survivor = if path.ends_with("journal.0") { "two" } else { "one" };
        for position in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[position / 8] ^= 1 << (position % 8);
            fs::write(&path, flipped).unwrap();
            assert_eq!(record(&folder).load().unwrap().unwrap(), survivor, "bit {position}");
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn two_bad_copies_are_an_error_that_names_both_and_saving_needs_intent() {
    let folder = saved(&["one", "two"]);
    for (path, _) in files(&folder) {
        fs::write(path, b"rubbish").unwrap();
    }

    let error = record(&folder).load().unwrap_err();

    assert!(error.to_string().contains("journal.0") && error.to_string().contains("journal.1"), "{error}");
    assert!(matches!(record(&folder).save(&"three".to_owned()), Err(RecordError::Corrupt(_))));
    record(&folder).renew(&"three".to_owned()).unwrap();
    assert_eq!(record(&folder).load().unwrap().unwrap(), "three");
}

#[test]
fn the_only_copy_gone_bad_is_damage_and_not_a_fresh_device() {
    let folder = saved(&["one"]);
    fs::write(folder.path().join("journal.0"), b"").unwrap();

    assert!(matches!(record(&folder).load(), Err(RecordError::Corrupt(_))));
}

#[test]
fn a_record_of_a_newer_program_is_neither_read_nor_overwritten() {
    let folder = saved(&["one", "two"]);
    let mut bytes = encode(9, b"\"from the future\"").unwrap();
    bytes[7] = 2;
    let checksum = checksum(&bytes[..20], &bytes[HEADER..]);
    bytes[20..24].copy_from_slice(&checksum.to_be_bytes());
    fs::write(folder.path().join("journal.0"), bytes).unwrap();
    let before = files(&folder);

    let found = [
        record(&folder).load().map(|_| ()),
        record(&folder).save(&"x".into()),
        record(&folder).renew(&"x".into()),
    ];

    for result in found {
        assert!(matches!(result, Err(RecordError::NewerFormat { found: 2, .. })), "{result:?}");
    }
    assert_eq!(files(&folder), before);
}

#[test]
fn a_whole_record_of_another_kind_is_refused() {
    let folder = saved(&["text"]);

    let numbers = RecordFile::<u64>::open(folder.path(), "journal").unwrap();

    assert!(matches!(numbers.load(), Err(RecordError::Content { .. })));
}

#[test]
fn a_value_above_the_ceiling_is_refused_before_a_copy_is_touched() {
    let folder = saved(&["one"]);

    let result = record(&folder).save(&"x".repeat(JSON_MAX));

    assert!(matches!(result, Err(RecordError::TooLarge { .. })));
    assert_eq!(record(&folder).load().unwrap().unwrap(), "one");
}

#[test]
fn room_that_was_reserved_is_kept_whatever_is_saved_later() {
    let folder = tempfile::tempdir().unwrap();
    let record = record(&folder).with_room(4096);

    record.reserve(|| "first".to_owned()).unwrap();

    assert_eq!(record.load().unwrap().as_deref(), Some("first"));
    for value in ["short", &"long".repeat(700), "short again"] {
        record.save(&value.to_owned()).unwrap();
        assert_eq!(record.load().unwrap().as_deref(), Some(value));
        let lengths: Vec<usize> = files(&folder).iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [4096, 4096]);
    }
    record.reserve(|| "never".to_owned()).unwrap();
    assert_eq!(record.load().unwrap().as_deref(), Some("short again"));
}
