//! Packs of a delta against an image, and delta manifests.
#![no_main]

use std::cell::RefCell;
use std::io;

use libfuzzer_sys::fuzz_target;
use tern_protocol::delta::{Decoder, DeltaManifest, ImageId, Profile, ReadAt, Slot};
use tern_protocol::digest::Digest;

const LENGTH: u64 = 150_000;
const CHUNK: u64 = 1 << 14;

/// A slot that takes whole chunks in their places.
struct Strict(Vec<u8>);

impl ReadAt for Strict {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
}

impl Slot for Strict {
    fn write_chunk(&mut self, chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(offset, u64::from(chunk) * CHUNK);
        assert_eq!(bytes.len() as u64, CHUNK.min(LENGTH - offset));
        self.0.write_chunk(chunk, offset, bytes)
    }
}

fn manifest() -> DeltaManifest {
    let image = ImageId { length: LENGTH, root: Digest::of(&[]) };
    let root = image.root;
    DeltaManifest { profile: Profile::Mcu, chunk_log2: 14, old: image, new: image, packs: 0, bytes: 0, root }
}

thread_local! {
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((
        Decoder::new(&manifest()),
        (0..LENGTH).map(|i| (i * i >> 7) as u8 ^ i as u8).collect(),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = DeltaManifest::read(bytes) {
        assert_eq!(manifest.write(), bytes);
    }
    DECODER.with_borrow_mut(|(decoder, old)| {
        let mut slot = Strict(Vec::new());
        if let Ok(chunks) = decoder.decode(bytes, old, &mut slot) {
            assert_eq!(slot.0.len() as u64, LENGTH.min(u64::from(chunks.end) * CHUNK));
        }
    });
});
