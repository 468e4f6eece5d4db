//! Bundles as anybody at the broker may publish them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern_protocol::bundle::Bundle;
use tern_protocol::limits::BUNDLE_INFLATED_MAX;

fuzz_target!(|bytes: &[u8]| {
    // Plain bytes rarely make a deflate stream, so the fuzzer also gets to write the inside.
    if let Ok(bundle) = Bundle::unpack(bytes, None) {
        let inside: usize = bundle.files.iter().map(|file| file.bytes.len()).sum();
        assert!(inside <= BUNDLE_INFLATED_MAX);
        assert_eq!(Bundle::unpack(&bundle.pack(), None).as_ref(), Ok(&bundle));
    }
});
