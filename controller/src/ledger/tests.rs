use std::io::{Read, Seek, SeekFrom};

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::frame::{GENESIS, HEADER};
use super::super::read::verify;
use super::*;

fn folder() -> TempDir {
    TempDir::new().unwrap()
}

fn payload(n: u64) -> Vec<u8> {
    format!("{{\"n\":{n}}}").into_bytes()
}

/// A ledger of `count` frames, each synced by itself.
fn filled(dir: &Path, count: u64) -> Ledger {
    let (mut ledger, _) = Ledger::open(dir).unwrap();
    for n in 0..count {
        ledger.append(&[&payload(n)]).unwrap();
        ledger.sync().unwrap();
    }
    ledger
}

fn only_segment(dir: &Path) -> PathBuf {
    Segment::new(dir, 0).path
}

fn payloads(ledger: &Ledger, from: u64) -> Vec<Vec<u8>> {
    ledger.frames(from).unwrap().map(|frame| frame.unwrap().payload).collect()
}

fn flip(path: &Path, at: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

/// Bytes of one frame that holds `payload(0)` to `payload(9)`.
fn frame_length() -> u64 {
    (HEADER + payload(0).len()) as u64
}

#[test]
fn what_was_appended_is_read_back_after_reopening_and_the_chain_goes_on() {
    let dir = folder();
    let head = filled(dir.path(), 3).head_hash();

    let (mut ledger, recovery) = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.head_hash(), head);
    assert_eq!(ledger.append(&[b"four", b"five"]).unwrap(), 3..5);
    ledger.sync().unwrap();

    assert_eq!(recovery, Recovery { frames: 3, cut: None });
    assert_eq!(payloads(&ledger, 2), [payload(2), b"four".to_vec(), b"five".to_vec()]);
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.frames, report.first, report.last), (5, Some(0), Some(4)));
    assert_eq!(report.head_hash, ledger.head_hash());
}

#[test]
fn an_empty_ledger_is_whole() {
    let dir = folder();
    let (ledger, recovery) = Ledger::open(dir.path()).unwrap();
    assert_eq!((recovery.frames, ledger.next(), ledger.head_hash()), (0, 0, GENESIS));
    assert_eq!(verify(dir.path()).unwrap().last, None);
}

#[test]
fn a_cut_at_any_byte_of_the_last_frame_loses_that_frame_only() {
    let dir = folder();
    drop(filled(dir.path(), 4));
    let path = only_segment(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let good = 3 * frame_length();

    for length in good..whole.len() as u64 {
        std::fs::write(&path, &whole[..usize::try_from(length).unwrap()]).unwrap();

        let (mut ledger, recovery) = Ledger::open(dir.path()).unwrap();

        assert_eq!(recovery.frames, 3, "cut at {length}");
        let cut = recovery.cut.map(|cut| (cut.at, cut.bytes));
        assert_eq!(cut, (length > good).then_some((good, length - good)));
        assert_eq!(ledger.append(&[b"again"]).unwrap(), 3..4);
        ledger.sync().unwrap();
        assert_eq!(verify(dir.path()).unwrap().torn, None);
    }
}

#[test]
fn a_flip_of_any_byte_of_the_last_frame_loses_that_frame_only() {
    let dir = folder();
    drop(filled(dir.path(), 3));
    let path = only_segment(dir.path());
    let whole = std::fs::read(&path).unwrap();

    for at in 2 * frame_length()..3 * frame_length() {
        std::fs::write(&path, &whole).unwrap();
        flip(&path, at);

        let (_, recovery) = Ledger::open(dir.path()).unwrap();

        assert_eq!(recovery.frames, 2, "byte {at}");
        assert_eq!(recovery.cut.unwrap().at, 2 * frame_length());
    }
}

#[test]
fn damage_before_synced_frames_is_named_and_nothing_is_cut() {
    let dir = folder();
    drop(filled(dir.path(), 5));
    let path = only_segment(dir.path());
    let whole = std::fs::read(&path).unwrap();

    for at in 0..4 * frame_length() {
        std::fs::write(&path, &whole).unwrap();
        flip(&path, at);

        let error = Ledger::open(dir.path()).unwrap_err();

        let LedgerError::Damaged { file, offset, .. } = &error else { panic!("byte {at}: {error}") };
        assert_eq!((file, *offset), (&path, at - at % frame_length()));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole.len() as u64);
        assert!(verify(dir.path()).is_err());
    }
}

#[test]
fn a_batch_that_was_never_synced_may_lose_a_page_in_its_middle() {
    let dir = folder();
    let mut ledger = filled(dir.path(), 2);
    ledger.append(&[&payload(2), &payload(3), &payload(4)]).unwrap();
    drop(ledger);
    flip(&only_segment(dir.path()), 3 * frame_length() + 5);

    let (_, recovery) = Ledger::open(dir.path()).unwrap();

    assert_eq!(recovery.frames, 3);
    assert_eq!(recovery.cut.unwrap().bytes, 2 * frame_length());
}

#[test]
fn zeros_behind_the_last_frame_are_a_torn_tail() {
    let dir = folder();
    drop(filled(dir.path(), 2));
    OpenOptions::new().append(true).open(only_segment(dir.path())).unwrap().write_all(&[0; 4096]).unwrap();

    let (_, recovery) = Ledger::open(dir.path()).unwrap();

    assert_eq!(
        recovery.cut.unwrap(),
        Cut {
            file: only_segment(dir.path()),
            at: 2 * frame_length(),
            bytes: 4096,
            problem: Problem::Length(0),
        }
    );
}

#[test]
fn a_second_open_of_the_same_folder_is_refused_until_the_first_is_gone() {
    let dir = folder();
    let first = filled(dir.path(), 1);

    let error = Ledger::open(dir.path()).unwrap_err();

    assert!(matches!(error, LedgerError::InUse { .. }), "{error}");
    drop(first);
    assert!(Ledger::open(dir.path()).is_ok());
}

fn small_segments() -> Options {
    Options { segment_bytes: 3 * frame_length() }
}

#[test]
fn segments_are_named_for_their_first_frame_and_read_as_one() {
    let dir = folder();
    let (mut ledger, _) = Ledger::open_with(dir.path(), small_segments()).unwrap();
    for n in 0..8 {
        ledger.append(&[&payload(n)]).unwrap();
    }
    ledger.sync().unwrap();

    let names: Vec<_> = Segment::list(dir.path()).unwrap().into_iter().map(|segment| segment.path).collect();
    assert_eq!(names, [0, 3, 6].map(|n| dir.path().join(format!("{n:020}.ledger"))));
    for from in 0..9 {
        assert_eq!(payloads(&ledger, from), (from..8).map(payload).collect::<Vec<_>>(), "from {from}");
    }
    drop(ledger);
    assert_eq!(Ledger::open_with(dir.path(), small_segments()).unwrap().1.frames, 8);
}

#[test]
fn an_earlier_segment_may_be_neither_torn_nor_missing_nor_foreign() {
    let make = |name: &[u8]| {
        let dir = folder();
        let (mut ledger, _) = Ledger::open_with(dir.path(), small_segments()).unwrap();
        for _ in 0..8 {
            ledger.append(&[name]).unwrap();
        }
        ledger.sync().unwrap();
        dir
    };
    let (ours, theirs) = (make(b"{\"n\":1}"), make(b"{\"n\":2}"));
    let middle = Segment::new(ours.path(), 3).path;
    let whole = std::fs::read(&middle).unwrap();
    let refused = |what: &str| {
        let error = Ledger::open(ours.path()).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{what}: {error}");
    };

    std::fs::write(&middle, &whole[..whole.len() - 1]).unwrap();
    refused("torn");
    std::fs::remove_file(&middle).unwrap();
    refused("missing");
    std::fs::copy(Segment::new(theirs.path(), 3).path, &middle).unwrap();
    refused("foreign");
    std::fs::write(&middle, &whole).unwrap();
    assert!(Ledger::open(ours.path()).is_ok());
}

#[test]
fn a_payload_above_the_ceiling_is_refused_when_written() {
    let dir = folder();
    let mut ledger = filled(dir.path(), 1);

    let large = vec![b'x'; PAYLOAD_MAX + 1];
    assert!(matches!(ledger.append(&[b"ok", &large]), Err(LedgerError::PayloadSize { .. })));
    assert!(matches!(ledger.append(&[b""]), Err(LedgerError::PayloadSize { found: 0 })));

    assert_eq!(ledger.append(&[&large[1..]]).unwrap(), 1..2, "nothing of a refused batch was written");
    assert_eq!(payloads(&ledger, 1)[0].len(), PAYLOAD_MAX);
}

#[test]
fn a_length_above_the_ceiling_is_damage_when_read() {
    let dir = folder();
    drop(filled(dir.path(), 1));
    let path = only_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();

    assert_eq!(verify(dir.path()).unwrap().torn.unwrap().problem, Problem::Length(u32::MAX));
}

#[test]
fn a_full_disk_stops_the_ledger_and_keeps_what_was_synced() {
    let dir = folder();
    let mut ledger = filled(dir.path(), 2);
    ledger.file = OpenOptions::new().write(true).open("/dev/full").unwrap();

    let error = ledger.append(&[b"no room"]).unwrap_err();

    let LedgerError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(matches!(ledger.append(&[b"more"]), Err(LedgerError::Stopped)));
    assert!(matches!(ledger.sync(), Err(LedgerError::Stopped)), "a retried sync may lie");
    drop(ledger);
    assert_eq!(Ledger::open(dir.path()).unwrap().1, Recovery { frames: 2, cut: None });
}

#[test]
fn a_failed_sync_stops_the_ledger() {
    let dir = folder();
    let mut ledger = filled(dir.path(), 2);
    let (_reader, writer) = std::io::pipe().unwrap();
    ledger.file = File::from(std::os::fd::OwnedFd::from(writer));

    assert!(matches!(ledger.sync(), Err(LedgerError::Io { .. })));
    assert!(matches!(ledger.append(&[b"more"]), Err(LedgerError::Stopped)));
    assert_eq!(ledger.synced(), 2);
}

#[test]
fn a_term_never_falls() {
    let dir = folder();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.begin_term(3).unwrap();
    ledger.append(&[b"in term three"]).unwrap();
    drop(ledger);

    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();

    assert!(matches!(ledger.begin_term(2), Err(LedgerError::StaleTerm { term: 2, newest: 3 })));
    assert_eq!(ledger.frames(0).unwrap().next().unwrap().unwrap().term, 3);
}

#[test]
fn a_stream_ends_after_its_first_error() {
    let dir = folder();
    let ledger = filled(dir.path(), 4);
    flip(&only_segment(dir.path()), frame_length() + 1);

    let frames: Vec<_> = ledger.frames(0).unwrap().collect();

    assert_eq!(frames.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_batches_come_back_as_they_were(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 1..6), 1..8),
        segment_bytes in 1u64..4000,
    ) {
        let dir = folder();
        let (mut ledger, _) = Ledger::open_with(dir.path(), Options { segment_bytes }).unwrap();
        for batch in &batches {
            let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            ledger.append(&batch).unwrap();
        }
        ledger.sync().unwrap();
        drop(ledger);

        let (ledger, recovery) = Ledger::open(dir.path()).unwrap();

        prop_assert_eq!(recovery.cut, None);
        prop_assert_eq!(payloads(&ledger, 0), batches.concat());
    }
}
