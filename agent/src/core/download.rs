//! Which packs to ask for next, and which to believe.
//!
//! Nothing is believed before its hash leads to the signed root: first the top piece of the tree, then the
//! piece that covers a chunk, then the chunk. Two pieces are held at a time, whatever the image's size.

use std::collections::BTreeSet;

use tern_protocol::chunk::{ChunkSet, PieceId, TreeShape, chunk_length, chunks_of, leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::offer::Artifact;

use super::timing::{Backoff, Timing};

/// A download in progress; lost with the process, rebuilt from the journal's chunk set.
#[derive(Debug)]
pub struct Download {
    artifact: Artifact,
    chunks: u32,
    shape: TreeShape,
    top: Option<Vec<Digest>>,
    piece: Option<(u32, Vec<Digest>)>,
    piece_asked: Option<PieceId>,
    /// Asked for and not here yet.
    asked: BTreeSet<u32>,
    /// Here and written, not synced yet.
    unsynced: Vec<u32>,
    /// Here, written, and synced or being synced.
    here: ChunkSet,
    window: u32,
    repeat: Backoff,
    ask_again: u64,
}

/// What a pack gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A chunk that the signed root vouches for.
    Chunk {
        /// Its number.
        index: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A piece of the tree: go on asking.
    Piece,
    /// Not asked for, not ours, or poisoned: nothing changed.
    Nothing,
}

impl Download {
    /// Starts or goes on with `artifact`, of which `have` is in the slot already.
    pub fn new(artifact: &Artifact, have: &ChunkSet, timing: &Timing) -> Self {
        // Eligibility has refused anything larger.
        let chunks = chunks_of(artifact.length).unwrap_or(0);
        Self {
            artifact: artifact.clone(),
            chunks,
            shape: TreeShape::new(chunks),
            top: None,
            piece: None,
            piece_asked: None,
            asked: BTreeSet::new(),
            unsynced: Vec::new(),
            here: have.clone(),
            window: timing.window.clamp(1, tern_protocol::limits::GET_PACKS_MAX),
            repeat: Backoff::new(timing.get_first, timing.get_most),
            ask_again: 0,
        }
    }

    /// Tells whether this download is of `artifact`.
    pub fn is_of(&self, artifact: &Artifact) -> bool {
        self.artifact == *artifact
    }

    /// Returns when [`Download::request`] wants to be asked again.
    pub fn due(&self) -> u64 {
        self.ask_again
    }

    /// Returns what to ask for now: the next window when half of the last one is here, or the same again when
    /// nothing came for a while.
    pub fn request(&mut self, uptime: u64) -> Option<Get> {
        let stalled = uptime >= self.ask_again;
        if stalled {
            self.asked.clear();
        }
        let Some(next) = self.here.missing(self.chunks, 1).first().map(|r| r.start) else {
            self.ask_again = u64::MAX;
            return None;
        };
        let of = self.artifact.root;
        let want = match self.needed_piece(next) {
            Some(piece) if stalled || self.piece_asked != Some(piece) => {
                self.piece_asked = Some(piece);
                vec![Want::piece(of, piece)]
            }
            Some(_) => return None,
            None => {
                let outstanding = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
                if outstanding > self.window / 2 {
                    return None;
                }
                vec![Want::Packs { of, ranges: self.next_ranges(self.window - outstanding)? }]
            }
        };
        self.ask_again = uptime + self.repeat.step();
        Some(Get::from(want))
    }

    /// Returns the piece that must be here before `chunk` can be judged, if it is not.
    fn needed_piece(&self, chunk: u32) -> Option<PieceId> {
        if self.shape.top().level == 1 && self.top.is_none() {
            return Some(self.shape.top());
        }
        let wanted = self.shape.piece_of(chunk);
        (self.piece.as_ref().map(|(index, _)| *index) != Some(wanted.index)).then_some(wanted)
    }

    /// Returns the next missing chunks that were not asked for, within the present piece.
    fn next_ranges(&mut self, most: u32) -> Option<Vec<(u32, u32)>> {
        let (index, leaves) = self.piece.as_ref()?;
        let first = index * tern_protocol::chunk::PIECE;
        let end = first + u32::try_from(leaves.len()).unwrap_or(0);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut left = most;
        for chunk in first..end {
            if left == 0 || ranges.len() == tern_protocol::limits::GET_RANGES_MAX {
                break;
            }
            if self.here.contains(chunk) || self.asked.contains(&chunk) {
                continue;
            }
            left -= 1;
            match ranges.last_mut() {
                Some(last) if last.1 == chunk => last.1 += 1,
                _ => ranges.push((chunk, chunk + 1)),
            }
        }
        for (from, to) in &ranges {
            for chunk in *from..*to {
                self.asked.insert(chunk);
            }
        }
        (!ranges.is_empty()).then_some(ranges)
    }

    /// Judges a pack that arrived.
    pub fn accept(&mut self, pack: Pack, uptime: u64) -> Accepted {
        if pack.of != self.artifact.root.short() {
            return Accepted::Nothing;
        }
        let accepted = match pack.kind {
            PackKind::Piece(piece) => self.accept_piece(piece, &pack),
            PackKind::Chunk(index) => self.accept_chunk(index, pack.payload),
            PackKind::Delta => Accepted::Nothing,
        };
        if accepted != Accepted::Nothing {
            // Progress: the stall clock starts anew; a piece lets the next request go out at once.
            self.repeat.reset();
            let wait = if accepted == Accepted::Piece { 0 } else { self.repeat.first() };
            self.ask_again = uptime + wait;
        }
        accepted
    }

    fn accept_piece(&mut self, piece: PieceId, pack: &Pack) -> Accepted {
        let Some(digests) = pack.digests() else { return Accepted::Nothing };
        if self.shape.digests_in(piece) != Some(digests.len()) {
            return Accepted::Nothing;
        }
        let parent = if piece == self.shape.top() {
            Some(self.artifact.root)
        } else {
            self.top.as_ref().and_then(|top| top.get(piece.index as usize).copied())
        };
        if parent != Some(root(&digests)) {
            return Accepted::Nothing;
        }
        if piece.level == 1 {
            self.top = Some(digests);
        } else {
            self.piece = Some((piece.index, digests));
        }
        Accepted::Piece
    }

    fn accept_chunk(&mut self, index: u32, bytes: Vec<u8>) -> Accepted {
        let Some((piece, leaves)) = &self.piece else { return Accepted::Nothing };
        let expected = index
            .checked_sub(piece * tern_protocol::chunk::PIECE)
            .and_then(|offset| leaves.get(offset as usize));
        let fits = bytes.len() == chunk_length(self.artifact.length, index);
        if self.here.contains(index) || !fits || expected != Some(&leaf(&bytes)) {
            return Accepted::Nothing;
        }
        self.here.insert(index);
        self.asked.remove(&index);
        self.unsynced.push(index);
        Accepted::Chunk { index, bytes }
    }

    /// Returns the chunks that should be synced now: a window's worth, or the last ones.
    pub fn to_sync(&mut self) -> Option<Vec<u32>> {
        let enough = self.unsynced.len() >= self.window as usize || self.here.len() == self.chunks;
        (enough && !self.unsynced.is_empty()).then(|| std::mem::take(&mut self.unsynced))
    }
}

impl Download {
    /// Holds the first request back until `uptime`.
    pub fn wait_until(&mut self, uptime: u64) {
        self.ask_again = uptime;
    }
}
