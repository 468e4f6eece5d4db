//! Objects as files, in a chunk store as on a web server: what they are called, and where in them each part is.
//!
//! ```text
//! 3f/3fa2….image   an image's bytes: chunk i is 65 536 of them from i × 65 536 on
//! 3f/3fa2….packs   count u32   for each pack: where it ends behind this list, u64   the packs      (little endian)
//! 3f/3fa2….tree    level 0 of the tree over the chunks or packs, then level 1, 32 bytes a digest
//! ```
//! Every file is named by the root over what is in it, so it never changes, and who keeps it need not be trusted. Parts that
//! follow each other in number do so in the file: a run of them is one range.

use std::ops::Range;

use crate::chunk::{PIECE, PieceId, TreeShape};
use crate::digest::Digest;
use crate::limits::CHUNK;

/// Bytes of a pack's end in the list.
const END: u64 = 8;
/// Bytes of the count before it.
const COUNT: u64 = 4;

/// A file of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectFile {
    /// The bytes of an image.
    Image,
    /// The packs of a delta.
    Packs,
    /// The tree over either.
    Tree,
}

impl ObjectFile {
    /// Returns what the name ends in.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Packs => "packs",
            Self::Tree => "tree",
        }
    }

    /// Returns its path below the folder, or the prefix, that objects are in.
    pub fn path(self, root: &Digest) -> String {
        path(root, self.ending())
    }
}

/// Returns the path of whatever belongs to an object: the first two digits of its root are a folder.
pub fn path(root: &Digest, ending: &str) -> String {
    let name = root.to_string();
    format!("{}/{name}.{ending}", &name[..2])
}

/// Returns where a run of chunks is in an image of `length` bytes; empty past its end.
pub fn chunks_at(length: u64, chunks: Range<u32>) -> Range<u64> {
    let at = |chunk: u32| (u64::from(chunk) * CHUNK as u64).min(length);
    at(chunks.start)..at(chunks.end)
}

/// Returns where a piece is in the tree over `parts` chunks or packs, if there is such a piece.
pub fn piece_at(parts: u32, piece: PieceId) -> Option<Range<u64>> {
    let digests = TreeShape::new(parts).digests_in(piece)? as u64;
    let level = if piece.level == 0 { 0 } else { u64::from(parts) };
    let start = (level + u64::from(piece.index) * u64::from(PIECE)) * 32;
    Some(start..start + digests * 32)
}

/// Returns where, in a file of packs, it is said where these packs begin and end. The first one begins where the list ends, and
/// nothing says so: [`ends_in`] reads what is there.
pub fn ends_at(packs: Range<u32>) -> Range<u64> {
    let end = |pack: u32| COUNT + u64::from(pack) * END;
    end(packs.start.saturating_sub(1))..end(packs.end)
}

/// Reads [`ends_at`] of a file of `parts` packs. Returns where each of `packs` begins in the file, and where the last one ends; nothing if
/// `bytes` are not as many as they should be, or a pack has less than no bytes.
pub fn ends_in(parts: u32, packs: Range<u32>, bytes: &[u8]) -> Option<Vec<u64>> {
    let (ends, rest) = bytes.as_chunks::<8>();
    let first = (packs.start == 0).then_some(0);
    let ends = first.into_iter().chain(ends.iter().map(|end| u64::from_le_bytes(*end)));
    let base = packs_at(parts);
    let places: Vec<u64> = ends.map(|end| base.checked_add(end)).collect::<Option<_>>()?;
    let is_whole = rest.is_empty() && places.len() == packs.len() + 1;
    (is_whole && places.is_sorted()).then_some(places)
}

/// Returns where the first pack begins in a file of `parts` packs.
pub fn packs_at(parts: u32) -> u64 {
    COUNT + u64::from(parts) * END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_where_the_file_has_them() {
        let piece = |level, index| PieceId { level, index };

        assert_eq!(chunks_at(65_536 * 2 + 5, 1..3), 65_536..65_536 * 2 + 5);
        assert_eq!(chunks_at(65_536, 3..4), 65_536..65_536, "past the end there is nothing");
        assert_eq!(piece_at(3, piece(0, 0)), Some(0..96));
        assert_eq!(piece_at(300, piece(0, 1)), Some(256 * 32..300 * 32));
        assert_eq!(piece_at(300, piece(1, 0)), Some(300 * 32..302 * 32));
        assert_eq!(piece_at(3, piece(1, 0)), None);
        assert_eq!(ObjectFile::Tree.path(&Digest([0xab; 32])), format!("ab/{}.tree", "ab".repeat(32)));
    }

    #[test]
    fn packs_begin_where_the_one_before_ends() {
        // Three packs of 10, 0 and 7 bytes.
        let mut file = 3u32.to_le_bytes().to_vec();
        [10u64, 10, 17].iter().for_each(|end| file.extend(end.to_le_bytes()));
        let read = |packs: Range<u32>| {
            let at = ends_at(packs.clone());
            let [from, to] = [at.start, at.end].map(|at| usize::try_from(at).unwrap());
            ends_in(3, packs, &file[from..to])
        };

        assert_eq!(packs_at(3), 28);
        assert_eq!(read(0..3), Some(vec![28, 38, 38, 45]));
        assert_eq!(read(0..1), Some(vec![28, 38]));
        assert_eq!(read(2..3), Some(vec![38, 45]));
    }

    #[test]
    fn a_list_of_ends_that_cannot_be_is_refused() {
        let ends = |ends: &[u64]| ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();

        assert_eq!(ends_in(3, 1..3, &ends(&[5, 9])), None, "one is missing");
        assert_eq!(ends_in(3, 1..3, &ends(&[5, 9, 12, 13])), None, "one too many");
        assert_eq!(ends_in(3, 1..3, &ends(&[5, 4, 12])), None, "it ends before it begins");
        assert_eq!(ends_in(3, 1..3, &ends(&[5, 9, u64::MAX])), None, "beyond all files");
        assert_eq!(ends_in(3, 1..3, &ends(&[5, 9, 12])[1..]), None);
        assert!(ends_in(3, 1..3, &ends(&[5, 9, 12])).is_some());
    }
}
