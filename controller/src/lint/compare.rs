//! What changed since the image before, and whether it looks like chance.

use tern_protocol::limits::CHUNK;

use super::Finding;

/// A chunk that differs in at most so many bytes has hardly changed.
pub const FEW: usize = 256;
/// Fewer chunks than this are no pattern.
const CHUNKS_MIN: u64 = 4;

/// Where an ext4 says who it is (Documentation/filesystems/ext4/super.rst): from the start of the superblock.
const EXT4: [(&str, usize, usize); 5] = [
    ("UUID", 0x68, 16),
    ("hash seed", 0xec, 16),
    ("time of mkfs", 0x108, 4),
    ("time of writing", 0x30, 4),
    ("time of the check", 0x40, 4),
];
/// The same of a squashfs.
const SQUASHFS: [(&str, usize, usize); 1] = [("time of mkfs", 8, 4)];
/// The same of an erofs.
const EROFS: [(&str, usize, usize); 2] = [("UUID", 48, 16), ("time of the build", 24, 8)];

/// Compares two images place by place.
pub fn compare(old: &[u8], new: &[u8]) -> Vec<Finding> {
    identity(old, new).into_iter().chain(scattered(old, new)).collect()
}

fn identity(old: &[u8], new: &[u8]) -> Option<Finding> {
    let is =
        |image: &[u8], at: usize, magic: &[u8]| image.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let both = |at, magic| is(old, at, magic) && is(new, at, magic);
    let (system, start, fields): (_, usize, &[(&str, usize, usize)]) = if both(1024 + 56, &[0x53, 0xef]) {
        ("ext4", 1024, &EXT4)
    } else if both(0, b"hsqs") {
        ("squashfs", 0, &SQUASHFS)
    } else if both(1024, &[0xe2, 0xe1, 0xf5, 0xe0]) {
        ("erofs", 1024, &EROFS)
    } else {
        return None;
    };
    let differs = |(_, at, length): &&(&str, usize, usize)| {
        let place = start + at..start + at + length;
        old.get(place.clone()) != new.get(place)
    };
    let fields: Vec<String> = fields.iter().filter(differs).map(|(name, ..)| (*name).to_owned()).collect();
    (!fields.is_empty()).then(|| Finding::FileSystemIdentity { system: system.to_owned(), fields })
}

fn scattered(old: &[u8], new: &[u8]) -> Option<Finding> {
    let (mut few, mut changed, mut all) = (0, 0, 0);
    for (old, new) in old.chunks(CHUNK).zip(new.chunks(CHUNK)) {
        all += 1;
        if old == new {
            continue;
        }
        changed += 1;
        let differ = old.iter().zip(new).filter(|(a, b)| a != b).count() + old.len().abs_diff(new.len());
        few += u64::from(differ <= FEW);
    }
    // What is built again from the same source changes little everywhere; new source changes much somewhere.
    let pattern = few >= CHUNKS_MIN && few * 4 >= changed && few * 20 >= all;
    pattern.then_some(Finding::ScatteredChanges { chunks: few, changed, all })
}
