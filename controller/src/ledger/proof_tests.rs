//! What is signed finds out what the chain cannot. Each test shows first that the untouched copy is believed.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::boundary::Boundary;
use super::checkpoint::Checkpoint;
use super::notary::{Due, Notary, Occasion};
use super::note::NoteError;
use super::note::tests::signer;
use super::segment::Segment;
use super::write::Options;
use super::*;

const NOW: u64 = 1_700_000_000_000;

fn payload(n: u64) -> Vec<u8> {
    format!("{{\"n\":{n}}}").into_bytes()
}

fn append(ledger: &mut Ledger, payloads: impl IntoIterator<Item = Vec<u8>>) {
    for payload in payloads {
        ledger.append(&[&payload]).unwrap();
        ledger.sync().unwrap();
    }
}

fn notary(ledger: &Ledger, seed: u8) -> Notary {
    Notary::open(signer(seed), ledger, true).unwrap().0
}

/// A ledger of these frames in small segments, with a kept checkpoint of half of them and a newest one of all.
fn signed(payloads: &[Vec<u8>], seed: u8) -> TempDir {
    let dir = TempDir::new().unwrap();
    let (mut ledger, _) = Ledger::open_with(dir.path(), Options { segment_bytes: 400 }).unwrap();
    let mut notary = notary(&ledger, seed);
    let (first, second) = payloads.split_at(payloads.len() / 2);
    append(&mut ledger, first.to_vec());
    assert_eq!(notary.consider(&ledger, Occasion::Verdict, NOW).unwrap(), Due::Kept);
    append(&mut ledger, second.to_vec());
    assert_eq!(notary.consider(&ledger, Occasion::Stop, NOW + 1).unwrap(), Due::Newest);
    dir
}

fn story() -> Vec<Vec<u8>> {
    (0..20).map(payload).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    Segment::list(dir).unwrap().into_iter().map(|segment| segment.path).collect()
}

fn newest(dir: &Path) -> PathBuf {
    dir.join("checkpoints/newest")
}

fn key(seed: u8) -> Option<NoteKey> {
    Some(signer(seed).public().clone())
}

/// Puts the frames of one ledger in the place of another's.
fn replace_frames(dir: &Path, other: &Path) {
    segments(dir).into_iter().for_each(|path| fs::remove_file(path).unwrap());
    for path in segments(other) {
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn an_untouched_copy_is_believed_with_its_own_key_and_with_the_pinned_one() {
    let dir = signed(&story(), 1);
    for pinned in [None, key(1)] {
        let found = examine(dir.path(), pinned.clone()).unwrap();
        assert_eq!((found.vouched, found.earlier, found.pinned), (Some(20), 1, pinned.is_some()));
        assert_eq!(found.key, key(1));
    }
}

#[test]
fn a_changed_frame_is_found_though_the_whole_chain_was_written_anew() {
    for changed in [0, 7, 19] {
        let dir = signed(&story(), 1);
        let mut other = story();
        other[changed] = b"{\"n\":\"other\"}".to_vec();
        let forged = signed(&other, 2);
        assert!(examine(dir.path(), key(1)).is_ok());

        replace_frames(dir.path(), forged.path());

        assert_eq!(verify(dir.path()).unwrap().frames, 20, "the chain alone is right");
        let error = examine(dir.path(), None).unwrap_err();
        assert!(matches!(error, ProofError::Forged { .. }), "frame {changed}: {error}");
        // The service does not go on with it either.
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        assert!(matches!(Notary::open(signer(1), &ledger, true), Err(ProofError::Forged { .. })));
        assert!(matches!(Notary::open(signer(1), &ledger, false), Err(ProofError::Forged { .. })));
    }
}

#[test]
fn a_forger_with_a_key_of_his_own_is_found_by_the_pinned_key_alone() {
    let mut other = story();
    other[3] = b"{}".to_vec();
    let forged = signed(&other, 2);

    assert!(examine(forged.path(), None).is_ok(), "by its own word it is right");
    let error = examine(forged.path(), key(1)).unwrap_err();

    assert!(matches!(&error, ProofError::Note { source: NoteError::OtherKey { .. }, .. }), "{error}");
}

#[test]
fn a_copy_whose_end_is_missing_is_found() {
    let dir = signed(&story(), 1);
    let last = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() - frame::HEADER - payload(19).len()]).unwrap();

    let error = examine(dir.path(), None).unwrap_err();

    assert!(verify(dir.path()).is_ok(), "the chain alone is right");
    assert!(matches!(error, ProofError::Truncated { size: 20, frames: 19, .. }), "{error}");
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    assert!(matches!(Notary::open(signer(1), &ledger, true), Err(ProofError::Truncated { .. })));
    // A copy that is a little older than its checkpoints goes on, and says so.
    let (_, notes) = Notary::open(signer(1), &ledger, false).unwrap();
    assert!(notes[0].contains("set aside"), "{notes:?}");
    assert!(!newest(dir.path()).exists());
    // A whole segment may be missing as well.
    let dir = signed(&story(), 1);
    fs::remove_file(segments(dir.path()).pop().unwrap()).unwrap();
    assert!(matches!(examine(dir.path(), key(1)), Err(ProofError::Truncated { .. })));
}

#[test]
fn a_checkpoint_of_another_ledger_is_found_also_when_the_same_key_has_signed_it() {
    let mut other = story();
    other[0] = b"{}".to_vec();
    for (seed, place) in
        [(1, "newest"), (2, "newest"), (1, "00000000000000000010"), (2, "00000000000000000010")]
    {
        let (dir, swapped) = (signed(&story(), 1), signed(&other, seed));
        assert!(examine(dir.path(), key(1)).is_ok());
        let path = dir.path().join("checkpoints").join(place);

        fs::copy(swapped.path().join("checkpoints").join(place), &path).unwrap();

        let error = examine(dir.path(), key(1)).unwrap_err();
        match seed {
            1 => assert!(matches!(error, ProofError::Forged { .. }), "{place}: {error}"),
            _ => assert!(matches!(error, ProofError::Note { .. }), "{place}: {error}"),
        }
    }
}

#[test]
fn a_pinned_key_wants_a_checkpoint_and_an_old_ledger_has_none() {
    let dir = signed(&story(), 1);
    fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();

    assert!(matches!(examine(dir.path(), key(1)), Err(ProofError::NoCheckpoint { .. })));
    assert_eq!(examine(dir.path(), None).unwrap().vouched, None);
    // One that is kept shows that there was a newest.
    let dir = signed(&story(), 1);
    fs::remove_file(newest(dir.path())).unwrap();
    assert!(matches!(examine(dir.path(), None), Err(ProofError::NoCheckpoint { .. })));
}

#[test]
fn a_torn_checkpoint_is_refused_by_whoever_checks_and_signed_anew_by_the_service() {
    let dir = signed(&story(), 1);
    let whole = fs::read(newest(dir.path())).unwrap();
    for length in 0..whole.len() {
        for zeros in [false, true] {
            let mut torn = whole[..length].to_vec();
            torn.resize(if zeros { whole.len() } else { length }, 0);
            fs::write(newest(dir.path()), &torn).unwrap();
            assert!(matches!(examine(dir.path(), None), Err(ProofError::Note { .. })), "cut at {length}");
        }
    }
    // A draft of a process that was cut off is in nobody's way.
    fs::write(dir.path().join(format!("checkpoints/.newest.{}.part", std::process::id())), b"half").unwrap();

    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let (mut notary, notes) = Notary::open(signer(1), &ledger, true).unwrap();
    notary.consider(&ledger, Occasion::Stop, NOW).unwrap();

    assert!(notes[0].contains("not whole"), "{notes:?}");
    assert_eq!(fs::read(newest(dir.path())).unwrap(), whole, "the same frames, the same signature");
    assert!(examine(dir.path(), key(1)).is_ok());
}

#[test]
fn nothing_is_signed_that_is_not_on_the_disk() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    let mut notary = notary(&ledger, 1);
    ledger.append(&[b"one"]).unwrap();

    assert_eq!(notary.consider(&ledger, Occasion::Verdict, NOW).unwrap(), Due::No);
    ledger.sync().unwrap();

    assert_eq!(notary.consider(&ledger, Occasion::Verdict, NOW).unwrap(), Due::Kept);
}

#[test]
fn a_lost_key_sets_its_checkpoints_aside_where_they_can_still_be_checked() {
    let dir = signed(&story(), 1);
    let (ledger, _) = Ledger::open(dir.path()).unwrap();

    let (mut notary, notes) = Notary::open(signer(2), &ledger, true).unwrap();
    notary.consider(&ledger, Occasion::Stop, NOW).unwrap();

    assert!(notes[0].contains("set aside"), "{notes:?}");
    assert!(examine(dir.path(), key(2)).is_ok());
    assert!(examine(dir.path(), key(1)).is_err());
    let aside = dir.path().join(format!("checkpoints-{}", signer(1).public().name().replace('/', "-")));
    let old = fs::read_to_string(aside.join("newest")).unwrap();
    let old_key = NoteKey::read(&fs::read_to_string(aside.join("ledger.pub")).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&old, &old_key).unwrap();
    assert_eq!(Some(checkpoint.root), ledger.root_at(20));
}

#[test]
fn every_frame_is_proved_to_somebody_who_has_nothing_but_the_key() {
    let dir = signed(&story(), 1);
    for index in 0..20 {
        let text = prove(dir.path(), index).unwrap().text();

        let proof = Proof::read(&text).unwrap();
        let proved = proof.check(signer(1).public()).unwrap();

        assert_eq!((proved.frame.sequence, proved.checkpoint.size), (index, 20));
        assert_eq!(proved.frame.payload, payload(index));
        assert!(proof.check(signer(2).public()).is_err(), "another key");
    }
    assert!(matches!(prove(dir.path(), 20), Err(ProofError::NoFrame { frames: 20, .. })));
}

#[test]
fn no_changed_byte_of_a_proof_shows_anything_else() {
    let dir = signed(&story(), 1);
    let text = prove(dir.path(), 13).unwrap().text();
    let shown = Proof::read(&text).unwrap().check(signer(1).public()).unwrap();
    let mut refused = 0;
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        let found =
            Proof::read(&changed).map_err(ProofError::Proof).and_then(|p| p.check(signer(1).public()));
        match found {
            Ok(found) => assert_eq!(found, shown, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > text.len() * 9 / 10, "{refused} of {}", text.len());
    // The path of one frame proves no other.
    let (mut own, other) = (prove(dir.path(), 13).unwrap(), prove(dir.path(), 12).unwrap());
    own.frame = other.frame;
    assert!(matches!(own.check(signer(1).public()), Err(ProofError::NotIncluded { .. })));
    own.index = 12;
    assert!(matches!(own.check(signer(1).public()), Err(ProofError::NotIncluded { .. })));
}

#[test]
fn a_forged_ledger_proves_nothing() {
    let dir = signed(&story(), 1);
    let mut other = story();
    other[2] = b"{}".to_vec();
    let forged = signed(&other, 2);
    assert!(prove(dir.path(), 5).is_ok());

    replace_frames(dir.path(), forged.path());

    assert!(matches!(prove(dir.path(), 5), Err(ProofError::Forged { .. })));
}

/// Drops everything below the second segment.
fn drop_first(dir: &Path, seed: u8) -> u64 {
    let first = Segment::list(dir).unwrap()[1].first;
    let mut tree = tree::CompactRange::default();
    let mut link = frame::Link::START;
    for frame in Frames::new(dir, 0, first).unwrap() {
        let frame = frame.unwrap();
        tree.push(tree::leaf(frame.hash));
        link = frame::Link {
            sequence: frame.sequence + 1,
            term: frame.term,
            synced: frame.synced,
            hash: frame.hash,
        };
    }
    let snapshot = b"{}".to_vec();
    let digest = tern_protocol::digest::Digest::of(&snapshot);
    let boundary = Boundary { link, tree, snapshot: digest, dropped_at: NOW, days: 9 };
    let steps = boundary::steps(dir, &boundary, &signer(seed), snapshot).unwrap();
    steps.iter().for_each(|step| step.take().unwrap());
    first
}

#[test]
fn chain_tree_and_proofs_go_on_after_frames_were_dropped() {
    let dir = signed(&story(), 1);
    let root = Ledger::open(dir.path()).unwrap().0.root();

    let first = drop_first(dir.path(), 1);

    assert!(first > 0);
    let (mut ledger, recovery) = Ledger::open(dir.path()).unwrap();
    assert_eq!((recovery.frames, ledger.root()), (20, root));
    assert!(matches!(ledger.frames(first - 1), Err(LedgerError::Dropped { .. })));
    assert_eq!(ledger.frames(first).unwrap().count() as u64, 20 - first);
    let found = examine(dir.path(), key(1)).unwrap();
    assert_eq!((found.report.first, found.vouched), (Some(first), Some(20)));
    for index in first..20 {
        let proof = prove(dir.path(), index).unwrap();
        assert_eq!(proof.check(signer(1).public()).unwrap().frame.payload, payload(index));
    }
    assert!(matches!(prove(dir.path(), first - 1), Err(ProofError::Dropped { .. })));
    append(&mut ledger, (20..30).map(payload));
    notary(&ledger, 1).consider(&ledger, Occasion::Stop, NOW).unwrap();
    drop(ledger);
    assert_eq!(examine(dir.path(), key(1)).unwrap().vouched, Some(30));
}

#[test]
fn a_boundary_of_somebody_else_and_another_snapshot_are_found() {
    let dir = signed(&story(), 1);
    drop_first(dir.path(), 2);
    assert!(examine(dir.path(), key(2)).is_err(), "the checkpoints are of the other key");
    assert!(matches!(examine(dir.path(), key(1)), Err(ProofError::Note { .. })));

    let dir = signed(&story(), 1);
    let first = drop_first(dir.path(), 1);
    assert!(examine(dir.path(), key(1)).is_ok());
    fs::write(dir.path().join(format!("snapshot-{first:020}.json")), b"{ }").unwrap();
    assert!(matches!(examine(dir.path(), key(1)), Err(ProofError::Snapshot { .. })));
}

#[test]
fn frames_cannot_be_cut_off_at_the_beginning_without_a_boundary() {
    let dir = signed(&story(), 1);
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(matches!(examine(dir.path(), None), Err(ProofError::Ledger(LedgerError::Damaged { .. }))));
}
