//! Signed files as anybody at the broker may publish them, against a device that trusts a root.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tern_protocol::bundle::{Dictionary, File};
use tern_protocol::tuf::content::{HaltContent, ReleaseContent, RolloutContent, Targets, TargetsContent};
use tern_protocol::tuf::metadata::{Metadata, RootMeta, SnapshotMeta, TargetsMeta, TimestampMeta};
use tern_protocol::tuf::verify::Unverified;
use tern_protocol::tuf::{Pool, Role, Trusted, canonical};

/// 2026-11-23: within the lives of the files in the corpus.
const NOW: u64 = 1_795_470_200;

static ROOT: &[u8] = include_bytes!("../corpus/root.json");
/// Begins with the number of its role, as the fuzzer's inputs do.
static TARGETS: &[u8] = include_bytes!("../corpus/tuf/targets");
static FRESH: LazyLock<Trusted> = LazyLock::new(|| Trusted::new(ROOT).expect("the corpus has a root"));

/// Reads the signed part as the role's own reader does.
fn interpret(role: Role, signed: &serde_json::Value) {
    fn read<T: Metadata>(role: Role, signed: &serde_json::Value) -> Option<T> {
        let meta = T::read(role, signed).ok()?;
        assert!(meta.version() > 0);
        Some(meta)
    }
    let targets: Option<TargetsMeta> = match role {
        Role::Root => read::<RootMeta>(role, signed).and(None),
        Role::Timestamp => read::<TimestampMeta>(role, signed).and(None),
        Role::Snapshot => read::<SnapshotMeta>(role, signed).and(None),
        Role::Targets => read::<Targets<TargetsContent>>(role, signed).map(|targets| targets.meta),
        Role::Release => read::<Targets<ReleaseContent>>(role, signed).map(|targets| targets.meta),
        Role::Rollout => read::<Targets<RolloutContent>>(role, signed).map(|targets| targets.meta),
        Role::Halt => read::<Targets<HaltContent>>(role, signed).map(|targets| targets.meta),
    };
    let delegations = targets.and_then(|targets| targets.delegations);
    for delegated in delegations.iter().flat_map(|delegations| &delegations.roles) {
        // A pattern is somebody else's and costs no more than its length times the path's.
        let _may = delegated.covers("cam/7/rootfs") || delegated.covers(&"a".repeat(60));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let role = Role::ALL[usize::from(*first) % Role::ALL.len()];
    if let Ok(value) = canonical::read(bytes)
        && let Ok(text) = canonical::write(&value)
    {
        // What is signed must have one form only, however the file was laid out. (The form itself is not JSON:
        // it leaves control characters as they are.)
        let plain = serde_json::to_vec(&value).expect("a value is JSON");
        let again = canonical::read(&plain).expect("what was read reads again");
        assert_eq!(canonical::write(&again).as_ref(), Ok(&text));
        // What is signed is interpreted only when it was verified; a thief of an online key gets that far.
        interpret(role, &value["signed"]);
    }
    // Refusing is the usual answer; falling over is not.
    drop(Unverified::read(role, bytes));
    // A chunk server builds dictionaries of files that it does not verify.
    drop(Dictionary::unverified(bytes, &TARGETS[1..]));
    drop(Dictionary::unverified(ROOT, bytes));
    let (mut trusted, mut pool) = (FRESH.clone(), Pool::default());
    pool.add(File { role, bytes: bytes.to_vec() });
    let done = trusted.refresh(&mut pool, NOW);
    // The fuzzer has no key. The one file that it can copy is a timestamp of the corpus.
    for role in done.changed {
        let held = trusted.file(role).expect("what has changed is held");
        assert_eq!(held, bytes, "{role:?} changed into something that did not arrive");
    }
});
