//! Bundles as anybody at the broker may publish them, to a device that holds no dictionary and to one that does.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tern_protocol::bundle::{Bundle, Dictionary};
use tern_protocol::limits::BUNDLE_INFLATED_MAX;

static ROOT: &[u8] = include_bytes!("../corpus/root.json");
/// Begins with the number of its role, for the other target.
static TARGETS: &[u8] = include_bytes!("../corpus/tuf/targets");
static DICTIONARY: LazyLock<Dictionary> =
    LazyLock::new(|| Dictionary::unverified(ROOT, &TARGETS[1..]).expect("the corpus has a root and targets"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(bundle) = Bundle::unpack(bytes, Some(&DICTIONARY)) else {
        assert!(Bundle::unpack(bytes, None).is_err(), "a bundle that a dictionary makes unreadable");
        return;
    };
    let inside: usize = bundle.files.iter().map(|file| file.bytes.len()).sum();
    assert!(inside <= BUNDLE_INFLATED_MAX);
    // Plain bytes rarely make a deflate stream, so the fuzzer also gets to write the inside.
    assert_eq!(Bundle::unpack(&bundle.pack(), None).as_ref(), Ok(&bundle));
    let packed = bundle.pack_with(&DICTIONARY);
    assert_eq!(
        Bundle::unpack(&packed, Some(&DICTIONARY)).map(|again| again.files).as_ref(),
        Ok(&bundle.files)
    );
});
