//! Images as chunks of 64 KiB under one signed Merkle root, and the pieces of the tree that travel.
//!
//! The tree is the one of RFC 6962 section 2.1: leaf = SHA-256(0x00 ‖ chunk), node = SHA-256(0x01 ‖ left ‖
//! right), split at the largest power of two below the count. A *piece* is a run of at most 256 digests of
//! one level: level 0 holds leaves, level 1 the roots of level 0's pieces. Because 256 is a power of two, the
//! tree over the pieces' roots is the tree over the leaves, so every piece is verified by itself against its
//! parent, and a device holds two pieces at a time instead of the whole index.

use std::ops::Range;

use crate::digest::Digest;
use crate::limits::{CHUNK, CHUNKS_MAX};

/// Digests in a full piece.
pub const PIECE: u32 = 256;

/// Returns the number of chunks of an image of `length` bytes, or `None` above the ceiling.
pub fn chunks_of(length: u64) -> Option<u32> {
    u32::try_from(length.div_ceil(CHUNK as u64)).ok().filter(|n| *n <= CHUNKS_MAX)
}

/// Returns the length of chunk `index` in an image of `length` bytes; 0 past its end.
pub fn chunk_length(length: u64, index: u32) -> usize {
    let start = u64::from(index) * CHUNK as u64;
    usize::try_from(length.saturating_sub(start)).map_or(CHUNK, |left| left.min(CHUNK))
}

/// Hashes one chunk as a leaf of the tree.
pub fn leaf(chunk: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], chunk])
}

/// Returns the root over `leaves`; the empty tree's root is SHA-256 of nothing, as in RFC 6962.
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [one] => *one,
        more => {
            let split = more.len().next_power_of_two() / 2;
            let (left, right) = more.split_at(split);
            Digest::of_parts(&[&[1], &root(left).0, &root(right).0])
        }
    }
}

/// Computes the root while an image goes by.
#[derive(Debug, Default)]
pub struct RootHasher {
    leaves: Vec<Digest>,
    partial: Vec<u8>,
}

impl RootHasher {
    /// Takes the next bytes of the image.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = (CHUNK - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.partial.len() == CHUNK {
                self.leaves.push(leaf(&self.partial));
                self.partial.clear();
            }
        }
    }

    /// Returns the leaves; their [`root`] is the image's.
    pub fn finish(mut self) -> Vec<Digest> {
        if !self.partial.is_empty() {
            self.leaves.push(leaf(&self.partial));
        }
        self.leaves
    }
}

/// The shape of one image's tree: how many pieces each level has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeShape {
    chunks: u32,
}

/// Names a piece of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceId {
    /// 0: leaves. 1: roots of the pieces of level 0.
    pub level: u8,
    /// Number of the piece in its level.
    pub index: u32,
}

impl TreeShape {
    /// Describes the tree over `chunks` chunks (at most [`CHUNKS_MAX`]).
    pub fn new(chunks: u32) -> Self {
        debug_assert!(chunks <= CHUNKS_MAX, "two levels reach no further");
        Self { chunks }
    }

    /// Returns the top piece, the one that the signed root verifies.
    pub fn top(self) -> PieceId {
        PieceId { level: u8::from(self.chunks > PIECE), index: 0 }
    }

    /// Returns the piece that holds the leaf of `chunk`.
    pub fn piece_of(self, chunk: u32) -> PieceId {
        PieceId { level: 0, index: chunk / PIECE }
    }

    /// Returns how many digests `piece` holds, or `None` if the tree has no such piece.
    pub fn digests_in(self, piece: PieceId) -> Option<usize> {
        let total = match piece.level {
            0 => self.chunks,
            1 if self.chunks > PIECE => self.chunks.div_ceil(PIECE),
            _ => return None,
        };
        let start = piece.index.checked_mul(PIECE)?;
        (start < total).then(|| (total - start).min(PIECE) as usize)
    }

    /// Returns the digests of `piece`, cut from the full list of leaves.
    pub fn cut(self, leaves: &[Digest], piece: PieceId) -> Option<Vec<Digest>> {
        let count = self.digests_in(piece)?;
        let start = (piece.index * PIECE) as usize;
        match piece.level {
            0 => leaves.get(start..start + count).map(<[_]>::to_vec),
            _ => Some(leaves.chunks(PIECE as usize).map(root).collect::<Vec<_>>())
                .and_then(|roots| roots.get(start..start + count).map(<[_]>::to_vec)),
        }
    }
}

/// A set of chunks, one bit each; survives in the journal as hex.
#[derive(Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChunkSet {
    bits: Vec<u8>,
}

impl ChunkSet {
    /// Adds `chunk`; tells whether it was new. Chunks past the ceiling are ignored.
    pub fn insert(&mut self, chunk: u32) -> bool {
        if chunk >= CHUNKS_MAX {
            return false;
        }
        let (byte, bit) = ((chunk / 8) as usize, 1u8 << (chunk % 8));
        if self.bits.len() <= byte {
            self.bits.resize(byte + 1, 0);
        }
        let new = self.bits[byte] & bit == 0;
        self.bits[byte] |= bit;
        new
    }

    /// Tells whether `chunk` is in the set.
    pub fn contains(&self, chunk: u32) -> bool {
        self.bits.get((chunk / 8) as usize).is_some_and(|b| b & (1 << (chunk % 8)) != 0)
    }

    /// Returns how many chunks are in the set.
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|b| b.count_ones()).sum()
    }

    /// Tells whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|b| *b == 0)
    }

    /// Returns the first chunks of `0..chunks` that are missing, at most `most` of them, as ranges.
    pub fn missing(&self, chunks: u32, most: u32) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let mut left = most;
        for chunk in 0..chunks {
            if left == 0 {
                break;
            }
            if self.contains(chunk) {
                continue;
            }
            left -= 1;
            match ranges.last_mut() {
                Some(last) if last.end == chunk => last.end += 1,
                _ => ranges.push(chunk..chunk + 1),
            }
        }
        ranges
    }
}

impl std::fmt::Debug for ChunkSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} chunks", self.len())
    }
}

impl From<ChunkSet> for String {
    fn from(set: ChunkSet) -> String {
        hex::encode(set.bits)
    }
}

impl TryFrom<String> for ChunkSet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > CHUNKS_MAX as usize / 4 {
            return Err("a chunk set longer than the largest image".into());
        }
        hex::decode(text).map(|bits| Self { bits }).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(n: u32) -> Vec<Digest> {
        (0..n).map(|i| leaf(&i.to_be_bytes())).collect()
    }

    #[test]
    fn every_piece_is_verified_by_its_parent() {
        for n in [1, 2, 255, 256, 257, 511, 512, 513, 1000, 5000] {
            let (all, shape) = (leaves(n), TreeShape::new(n));
            let top = shape.cut(&all, shape.top()).unwrap();
            assert_eq!(root(&top), root(&all), "{n} chunks");
            if shape.top().level == 1 {
                for (index, parent) in (0..).zip(&top) {
                    let piece = shape.cut(&all, PieceId { level: 0, index }).unwrap();
                    assert_eq!(root(&piece), *parent, "{n} chunks, piece {index}");
                }
            }
        }
    }

    #[test]
    fn the_last_chunk_is_as_long_as_what_is_left_and_none_follows() {
        let length = 2 * CHUNK as u64 + 5;

        assert_eq!(chunks_of(length), Some(3));
        assert_eq!([0, 1, 2, 3, 4].map(|index| chunk_length(length, index)), [CHUNK, CHUNK, 5, 0, 0]);
        assert_eq!((chunk_length(0, 0), chunks_of(0)), (0, Some(0)));
        let most = u64::from(CHUNKS_MAX) * CHUNK as u64;
        assert_eq!((chunks_of(most), chunks_of(most + 1)), (Some(CHUNKS_MAX), None));
    }

    #[test]
    fn a_tree_has_the_pieces_of_its_shape_and_no_others() {
        let piece = |level, index| PieceId { level, index };
        for (chunks, level_0, level_1) in [
            (0, vec![], None),
            (1, vec![1], None),
            (255, vec![255], None),
            (256, vec![256], None),
            (257, vec![256, 1], Some(2)),
            (512, vec![256, 256], Some(2)),
        ] {
            let shape = TreeShape::new(chunks);
            let found: Vec<_> = (0..5).map_while(|index| shape.digests_in(piece(0, index))).collect();

            assert_eq!(found, level_0, "{chunks} chunks");
            assert_eq!(shape.digests_in(piece(1, 0)), level_1, "{chunks} chunks");
            assert_eq!(
                [piece(1, 1), piece(2, 0), piece(0, u32::MAX)].map(|p| shape.digests_in(p)),
                [None; 3]
            );
        }
        let shape = TreeShape::new(1000);
        assert_eq!([0, 255, 256, 999].map(|chunk| shape.piece_of(chunk).index), [0, 0, 1, 3]);
        assert!([0, 999].iter().all(|chunk| shape.piece_of(*chunk).level == 0));
    }

    #[test]
    fn a_set_survives_as_text_up_to_its_ceiling() {
        let mut set = ChunkSet::default();
        assert_eq!((set.is_empty(), set.len()), (true, 0));
        for chunk in [0, 9, 17] {
            set.insert(chunk);
        }
        assert!(!set.is_empty() && !set.insert(9) && set.len() == 3);
        assert_eq!(format!("{set:?}"), "3 chunks");

        let text = String::from(set.clone());
        assert_eq!((text.as_str(), ChunkSet::try_from(text.clone())), ("010202", Ok(set)));
        let zeros = |digits: usize| ChunkSet::try_from("0".repeat(digits));
        let most = CHUNKS_MAX as usize / 4;
        assert!(zeros(most).is_ok() && zeros(most).unwrap().is_empty());
        assert!(zeros(most + 2).is_err() && zeros(most + 4).is_err());
        assert!(ChunkSet::try_from("zz".to_owned()).is_err());
    }

    /// The vectors of RFC 6962's reference implementation for 1, 2 and 3 leaves, recomputed by hand.
    #[test]
    fn the_tree_is_the_one_of_rfc_6962() {
        let l = leaves(3);
        let pair = Digest::of_parts(&[&[1], &l[0].0, &l[1].0]);
        assert_eq!(root(&l[..1]), l[0]);
        assert_eq!(root(&l[..2]), pair);
        assert_eq!(root(&l), Digest::of_parts(&[&[1], &pair.0, &l[2].0]));
    }

    #[test]
    fn hashing_in_odd_steps_gives_the_same_leaves() {
        let image: Vec<u8> = (0..200_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut hasher = RootHasher::default();
        image.chunks(777).for_each(|part| hasher.update(part));
        assert_eq!(hasher.finish(), image.chunks(CHUNK).map(leaf).collect::<Vec<_>>());
    }

    #[test]
    fn missing_chunks_come_as_ranges_up_to_the_window() {
        let mut have = ChunkSet::default();
        for chunk in [0, 3, 4] {
            assert!(have.insert(chunk));
        }
        assert_eq!(have.missing(8, 3), vec![1..3, 5..6]);
        assert_eq!(have.missing(8, 99), vec![1..3, 5..8]);
    }
}
