//! Signed files as anybody at the broker may publish them, against a device that trusts a root.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tern_protocol::bundle::File;
use tern_protocol::tuf::verify::Unverified;
use tern_protocol::tuf::{Pool, Role, Trusted, canonical};

/// 2026-11-23: within the lives of the files in the corpus.
const NOW: u64 = 1_795_470_200;

static ROOT: &[u8] = include_bytes!("../corpus/root.json");
static FRESH: LazyLock<Trusted> = LazyLock::new(|| Trusted::new(ROOT).expect("the corpus has a root"));

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
    }
    // Refusing is the usual answer; falling over is not.
    drop(Unverified::read(role, bytes));
    let (mut trusted, mut pool) = (FRESH.clone(), Pool::default());
    pool.add(File { role, bytes: bytes.to_vec() });
    let done = trusted.refresh(&mut pool, NOW);
    // The fuzzer has no key. The one file that it can copy is a timestamp of the corpus.
    for role in done.changed {
        let held = trusted.file(role).expect("what has changed is held");
        assert_eq!(held, bytes, "{role:?} changed into something that did not arrive");
    }
});
