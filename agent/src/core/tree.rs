//! The part of an object's tree that is at hand: nothing of the object is believed that does not lead to its root.
//!
//! First the top piece, then the piece that covers a chunk, then the chunk. Beside the top one the piece that is worked on
//! and the one after it are held, whatever the object's size. An object is an image, cut into chunks, or a delta, whose
//! packs are its chunks.

use tern_protocol::chunk::{PIECE, PieceId, TreeShape, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::Pack;

/// The pieces of one object.
#[derive(Debug)]
pub(super) struct Tree {
    root: Digest,
    shape: TreeShape,
    top: Option<Vec<Digest>>,
    pieces: Vec<(u32, Vec<Digest>)>,
}

impl Tree {
    pub(super) fn new(root: Digest, chunks: u32) -> Self {
        // The one leaf of an object is its root, and there is nothing to ask for.
        let pieces = if chunks == 1 { vec![(0, vec![root])] } else { Vec::new() };
        Self { root, shape: TreeShape::new(chunks), top: None, pieces }
    }

    pub(super) fn root(&self) -> Digest {
        self.root
    }

    /// Returns the number of the piece that covers `chunk`.
    pub(super) fn piece_of(chunk: u32) -> u32 {
        chunk / PIECE
    }

    /// Returns the top piece if it is a level of its own and not here.
    pub(super) fn lacks_top(&self) -> Option<PieceId> {
        let top = self.shape.top();
        (top.level == 1 && self.top.is_none()).then_some(top)
    }

    /// Forgets the pieces before this one.
    pub(super) fn keep_from(&mut self, piece: u32) {
        self.pieces.retain(|(index, _)| *index >= piece);
    }

    /// Returns the leaves of a piece, if it is here.
    pub(super) fn leaves(&self, piece: u32) -> Option<&[Digest]> {
        self.pieces.iter().find(|(index, _)| *index == piece).map(|(_, leaves)| leaves.as_slice())
    }

    /// Returns the leaf of `chunk`, if its piece is here.
    pub(super) fn leaf(&self, chunk: u32) -> Option<&Digest> {
        self.leaves(Self::piece_of(chunk))?.get((chunk % PIECE) as usize)
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
        } else if self.leaves(piece.index).is_none() {
            self.pieces.push((piece.index, digests));
        }
        true
    }
}
