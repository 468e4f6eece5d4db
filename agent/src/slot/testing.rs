//! What the tests of every kind of slots share.

use tern_protocol::chunk::{self, RootHasher};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

use super::{Image, SlotName, Slots};

/// Returns the description of `bytes` as release `rc`.
pub(crate) fn image(rc: u64, bytes: &[u8]) -> Image {
    let mut root = RootHasher::default();
    root.update(bytes);
    let (sha256, root) = (Digest::of(bytes), chunk::root(&root.finish()));
    Image { rc, version: format!("1.{rc}"), length: bytes.len() as u64, sha256, root }
}

/// Puts `bytes` into slot b as release `rc`, as an update does.
pub(crate) fn install(slots: &mut impl Slots, rc: u64, bytes: &[u8]) -> Image {
    let image = image(rc, bytes);
    slots.mark_bad(SlotName::B).unwrap();
    for (part, offset) in bytes.chunks(CHUNK).zip((0u64..).step_by(CHUNK)) {
        slots.write(SlotName::B, offset, part).unwrap();
    }
    slots.sync(SlotName::B).unwrap();
    assert_eq!(slots.hash(SlotName::B, image.length).unwrap(), (image.sha256, image.root));
    slots.set_label(SlotName::B, image.clone()).unwrap();
    image
}
