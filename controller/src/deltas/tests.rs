use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{ImageId, Profile, encode};
use tern_protocol::digest::Digest;
use tern_protocol::message::Registry;
use tern_protocol::tuf::build::Named;
use tern_protocol::tuf::content::ArtifactContent;

use super::book::{Book, Key, State};
use super::child::{ChildError, Made, Order};
use super::plan::{LEAST, Pair, pairs};
use crate::core::fleet::product::Release;

fn registry(model: &str) -> Registry {
    serde_json::from_value(
        serde_json::json!({"product": "cam", "model": model, "carrier": "none", "region": "eu"}),
    )
    .unwrap()
}

/// A release with an image for each of these models; an image is named by a word.
fn release(rc: u64, images: &[(&str, &str, u64)]) -> (u64, Release) {
    let artifact = |(model, image, length): &(&str, &str, u64)| {
        let content: ArtifactContent = serde_json::from_value(serde_json::json!({
            "rc": rc, "version": "1", "component": "rootfs", "models": [model], "root": Digest::of(image.as_bytes()),
        }))
        .unwrap();
        let path = format!("cam/{rc}/rootfs@{model}");
        (Named { path, length: *length, sha256: Digest::of(image.as_bytes()) }, content)
    };
    (rc, Release { rc, version: "1".into(), artifacts: images.iter().map(artifact).collect() })
}

fn ends(pairs: &[Pair]) -> Vec<(Option<u64>, u64)> {
    pairs.iter().map(|pair| (pair.from, pair.devices)).collect()
}

#[test]
fn what_most_devices_run_comes_first_and_the_whole_last() {
    let releases: BTreeMap<u64, Release> =
        (1..=4).map(|rc| release(rc, &[("b3", &format!("image {rc}"), LEAST)])).collect();
    let b3 = registry("b3");
    let runs = |rc: u64, count: usize| std::iter::repeat_n((rc, &b3), count);
    let fleet = || runs(1, 5).chain(runs(2, 9)).chain(runs(3, 1)).chain(runs(4, 7)).chain(runs(99, 30));

    let all = pairs(&releases, 4, fleet(), 4, true);

    assert_eq!(ends(&all), [(Some(2), 9), (Some(1), 5), (Some(3), 1), (None, 0)]);
    assert_eq!(ends(&pairs(&releases, 4, fleet(), 1, false)), [(Some(2), 9)]);
    assert_eq!(ends(&pairs(&releases, 5, fleet(), 4, true)), []);
}

#[test]
fn each_variant_has_its_own_deltas_and_what_is_the_same_or_small_has_none() {
    let releases: BTreeMap<u64, Release> = [
        release(1, &[("b3", "old b3", LEAST), ("b4", "same", LEAST), ("b5", "old b5", LEAST)]),
        release(2, &[("b3", "new b3", LEAST), ("b4", "same", LEAST), ("b5", "new b5", LEAST - 1)]),
    ]
    .into();
    let models = ["b3", "b4", "b5"].map(registry);

    let found = pairs(&releases, 2, models.iter().map(|registry| (1, registry)), 4, false);

    assert_eq!(ends(&found), [(Some(1), 1)]);
    assert_eq!(found[0].new.root, Digest::of(b"new b3"));
}

fn pair(word: &str) -> Pair {
    let new = ImageId { length: 100_000, root: Digest::of(word.as_bytes()) };
    Pair { component: "rootfs".into(), from: None, old: None, new, devices: 0 }
}

#[test]
fn a_delta_is_made_once_whoever_wants_it_and_again_after_it_was_refused() {
    let (cam, profiles) = ("cam".parse().unwrap(), [Profile::Linux]);
    let mut book = Book::default();
    book.plan(&cam, 1, vec![pair("a")], &profiles, |_| None);
    book.plan(&cam, 2, vec![pair("a"), pair("b")], &profiles, |key| {
        (key.new.root == Digest::of(b"b")).then_some(State::Ready { bytes: 7 })
    });
    assert_eq!((book.unfinished(&cam, 1, &profiles), book.unfinished(&cam, 2, &profiles)), ((1, 1), (1, 2)));

    let key = book.take_next().unwrap();
    assert_eq!((key.new.root, book.take_next()), (Digest::of(b"a"), None));
    book.set(&key, State::Refused { why: "the disk is full".into() });
    assert_eq!(book.unfinished(&cam, 2, &profiles), (0, 2));
    book.plan(&cam, 1, vec![pair("a")], &profiles, |_| None);

    assert_eq!(book.take_next(), Some(key));
}

#[test]
fn what_only_a_release_without_deltas_wanted_leaves_the_queue() {
    let (cam, profiles) = ("cam".parse().unwrap(), [Profile::Linux]);
    let mut book = Book::default();
    book.plan(&cam, 1, vec![pair("a"), pair("b")], &profiles, |_| None);
    book.plan(&cam, 2, vec![pair("b"), pair("c")], &profiles, |_| None);

    book.forget(&cam, 2);

    let left: Vec<Digest> = std::iter::from_fn(|| book.take_next()).map(|key| key.new.root).collect();
    assert_eq!(left, [Digest::of(b"a"), Digest::of(b"b")]);
}

/// A program in the encoder's place, and the order to it.
fn order(folder: &Path, script: &str) -> Order {
    let program = folder.join("encoder");
    fs::write(&program, format!("#!/bin/sh\nout=$5\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let new = b"an image that is long enough to be one".repeat(600);
    fs::write(folder.join("new"), &new).unwrap();
    let made = encode(&[], &new, Options::new(Profile::Linux));
    let mut written = made.manifest.write();
    for pack in &made.packs {
        written.extend_from_slice(&u32::try_from(pack.len()).unwrap().to_le_bytes());
        written.extend_from_slice(pack);
    }
    fs::write(folder.join("good"), written).unwrap();
    Order {
        program,
        key: Key { old: None, new: made.manifest.new, profile: Profile::Linux },
        old: None,
        new: folder.join("new"),
        out: folder.join("out"),
        threads: 1,
        memory: 1 << 30,
        patience: Duration::from_secs(60),
    }
}

async fn ran(script: &str, change: impl FnOnce(&mut Order)) -> (Result<Made, ChildError>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let mut order = order(folder.path(), &script.replace("{}", folder.path().to_str().unwrap()));
    change(&mut order);
    let told = std::sync::Mutex::new(Vec::new());
    let result = order.run(|percent| told.lock().unwrap().push(percent)).await;
    (result, told.into_inner().unwrap())
}

#[tokio::test]
async fn a_process_that_writes_what_was_asked_is_heard_and_read() {
    let (made, told) = ran("echo 40; echo 100; cp {}/good $out", |_| {}).await;

    assert!(matches!(made, Ok(Made::Delta(_))), "{made:?}");
    assert_eq!(told, [40, 100]);
    let (useless, _) = ran("echo useless 12345", |_| {}).await;
    assert_eq!(useless.unwrap(), Made::Useless { bytes: 12_345 });
}

#[tokio::test]
async fn a_process_that_fails_lies_or_hangs_gives_a_reason_and_nothing_else() {
    let (failed, _) = ran("echo no room on the disk >&2; exit 3", |_| {}).await;
    assert!(failed.unwrap_err().to_string().contains("no room on the disk"));
    let (killed, _) = ran("kill -9 $$", |_| {}).await;
    assert!(matches!(killed, Err(ChildError::Failed { .. })), "{killed:?}");
    let (nothing, _) = ran("exit 0", |_| {}).await;
    assert!(matches!(nothing, Err(ChildError::Read(_))), "{nothing:?}");
    let (short, _) = ran("head -c 50 {}/good > $out", |_| {}).await;
    assert!(matches!(short, Err(ChildError::Read(_))), "{short:?}");
    let other = |order: &mut Order| order.key.new.root = Digest::of(b"another image");
    let (lied, _) = ran("cp {}/good $out", other).await;
    assert!(matches!(lied, Err(ChildError::Other)), "{lied:?}");
    let (absent, _) = ran("", |order| order.program = PathBuf::from("/nowhere/tern")).await;
    assert!(matches!(absent, Err(ChildError::Run(_))), "{absent:?}");
    let (late, _) = ran("exec sleep 600", |order| order.patience = Duration::from_millis(200)).await;
    assert!(matches!(late, Err(ChildError::Late(_))), "{late:?}");
}

#[tokio::test]
async fn what_would_take_more_memory_than_it_may_is_not_begun() {
    let (refused, _) = ran("touch {}/begun; cp {}/good $out", |order| order.memory = 1 << 20).await;

    let why = refused.unwrap_err().to_string();
    assert!(why.contains("raise deltas.memory_mib"), "{why}");
}
