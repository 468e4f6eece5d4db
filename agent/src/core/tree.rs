//! The part of an object's tree that is at hand: nothing of the object is believed that does not lead to its root.
//!
//! First the top piece, then the piece that covers a chunk, then the chunk. Two pieces are held at a time, whatever the
//! object's size. An object is an image, cut into chunks, or a delta, whose packs are its chunks.

use std::ops::Range;

use tern_protocol::chunk::{PIECE, PieceId, TreeShape, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::Pack;

/// The pieces of one object.
#[derive(Debug)]
pub(super) struct Tree {
    root: Digest,
    shape: TreeShape,
    top: Option<Vec<Digest>>,
    piece: Option<(u32, Vec<Digest>)>,
}

impl Tree {
    pub(super) fn new(root: Digest, chunks: u32) -> Self {
        // The one leaf of an object is its root, and there is nothing to ask for.
        let piece = (chunks == 1).then(|| (0, vec![root]));
        Self { root, shape: TreeShape::new(chunks), top: None, piece }
    }

    pub(super) fn root(&self) -> Digest {
        self.root
    }

    /// Returns the piece that must be here before `chunk` can be judged, if it is not.
    pub(super) fn needed(&self, chunk: u32) -> Option<PieceId> {
        if self.shape.top().level == 1 && self.top.is_none() {
            return Some(self.shape.top());
        }
        let wanted = self.shape.piece_of(chunk);
        (self.piece.as_ref().map(|(index, _)| *index) != Some(wanted.index)).then_some(wanted)
    }

    /// Returns the chunks that can be judged now.
    pub(super) fn covers(&self) -> Range<u32> {
        let Some((index, leaves)) = &self.piece else { return 0..0 };
        let first = index * PIECE;
        first..first + u32::try_from(leaves.len()).unwrap_or(0)
    }

    /// Returns the leaf of `chunk`, if its piece is here.
    pub(super) fn leaf(&self, chunk: u32) -> Option<&Digest> {
        let (index, leaves) = self.piece.as_ref()?;
        leaves.get(chunk.checked_sub(index * PIECE)? as usize)
    }

    /// Returns the leaves that are here.
    pub(super) fn leaves(&self) -> &[Digest] {
        self.piece.as_ref().map_or(&[], |(_, leaves)| leaves)
    }

    /// Takes a piece, if its parent vouches for it.
    pub(super) fn accept(&mut self, piece: PieceId, pack: &Pack) -> bool {
        let Some(digests) = pack.digests() else { return false };
        if self.shape.digests_in(piece) != Some(digests.len()) {
            return false;
        }
        let parent = if piece == self.shape.top() {
            Some(self.root)
        } else {
            self.top.as_ref().and_then(|top| top.get(piece.index as usize).copied())
        };
        if parent != Some(root(&digests)) {
            return false;
        }
        if piece.level == 1 {
            self.top = Some(digests);
        } else {
            self.piece = Some((piece.index, digests));
        }
        true
    }
}
