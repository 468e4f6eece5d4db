//! Which packs to ask for next, and which to believe: of an image, or of a delta, whose packs are its chunks.

use std::collections::BTreeSet;
use std::ops::Range;

use tern_protocol::chunk::{ChunkSet, PieceId, chunk_length, chunks_of, leaf};
use tern_protocol::delta::DeltaManifest;
use tern_protocol::delta::manifest::PACK_EXCESS;
use tern_protocol::digest::Digest;
use tern_protocol::limits::{CHUNK, GET_PACKS_MAX, GET_RANGES_MAX};
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::offer::Artifact;

use super::timing::{Backoff, Timing};
use super::tree::Tree;

/// A download in progress; lost with the process, rebuilt from the journal's chunk set.
#[derive(Debug)]
pub struct Download {
    chunks: u32,
    /// Bytes of an image; a delta's packs have each their own length.
    length: Option<u64>,
    tree: Tree,
    piece_asked: Option<PieceId>,
    /// Chunks that are wanted.
    within: Range<u32>,
    /// Asked for and not here yet.
    asked: BTreeSet<u32>,
    /// Here and written, not synced yet.
    unsynced: Vec<u32>,
    /// Here, written, and synced or being synced.
    here: ChunkSet,
    /// The slot may hold chunks that are right: it is looked at, piece by piece, before anything of them is asked for.
    compares: bool,
    /// The piece that was compared last.
    compared: Option<u32>,
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
        Self::of(artifact.root, chunks, Some(artifact.length), have, timing)
    }

    /// Starts with the packs of a delta.
    pub(super) fn packs(delta: &DeltaManifest, timing: &Timing) -> Self {
        Self::of(delta.root, delta.packs, None, &ChunkSet::default(), timing)
    }

    fn of(root: Digest, chunks: u32, length: Option<u64>, have: &ChunkSet, timing: &Timing) -> Self {
        Self {
            chunks,
            length,
            tree: Tree::new(root, chunks),
            piece_asked: None,
            within: 0..chunks,
            asked: BTreeSet::new(),
            unsynced: Vec::new(),
            here: have.clone(),
            compares: false,
            compared: None,
            window: timing.window.clamp(1, GET_PACKS_MAX),
            repeat: Backoff::new(timing.get_first, timing.get_most),
            ask_again: 0,
        }
    }

    /// Has it want these chunks alone, from here on.
    pub(super) fn within(&mut self, chunks: Range<u32>, uptime: u64) {
        self.within = chunks.start..chunks.end.min(self.chunks);
        if !self.is_here() {
            self.wants_more(uptime);
        }
    }

    /// Has what is in the slot compared before it is fetched anew.
    pub(super) fn comparing(mut self) -> Self {
        self.compares = true;
        self
    }

    /// Returns when [`Download::request`] wants to be asked again.
    pub fn due(&self) -> u64 {
        self.ask_again
    }

    /// Returns what to ask for now, at most `most` packs: the next window when half of the last one is here, or the same
    /// again when nothing came for a while.
    pub(super) fn request_within(&mut self, uptime: u64, most: u32) -> Option<Get> {
        let stalled = uptime >= self.ask_again;
        if stalled {
            self.asked.clear();
        }
        let Some(next) = self.within.clone().find(|chunk| !self.here.contains(*chunk)) else {
            self.ask_again = u64::MAX;
            return None;
        };
        let of = self.tree.root();
        let want = match self.tree.needed(next) {
            Some(piece) if stalled || self.piece_asked != Some(piece) => {
                self.piece_asked = Some(piece);
                vec![Want::piece(of, piece)]
            }
            Some(_) => return None,
            None if self.to_compare().is_some() => {
                // Its end is waited for, and lets the next request go out.
                self.ask_again = u64::MAX;
                return None;
            }
            None => {
                let window = self.window.min(most.max(1));
                let outstanding = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
                if outstanding > window / 2 {
                    return None;
                }
                vec![Want::Packs { of, ranges: self.next_ranges(window - outstanding)? }]
            }
        };
        self.ask_again = uptime + self.repeat.step();
        Some(Get::from(want))
    }

    /// The same without a bound but the window.
    pub fn request(&mut self, uptime: u64) -> Option<Get> {
        self.request_within(uptime, u32::MAX)
    }

    /// Returns the next missing chunks that were not asked for, within the present piece.
    fn next_ranges(&mut self, most: u32) -> Option<Vec<(u32, u32)>> {
        let covered = self.tree.covers();
        let wanted = covered.start.max(self.within.start)..covered.end.min(self.within.end);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut left = most;
        for chunk in wanted {
            if left == 0 || ranges.len() == GET_RANGES_MAX {
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
        self.asked.extend(ranges.iter().flat_map(|(from, to)| *from..*to));
        (!ranges.is_empty()).then_some(ranges)
    }

    /// Judges a pack that arrived.
    pub fn accept(&mut self, pack: Pack, uptime: u64) -> Accepted {
        if pack.of != self.tree.root().short() {
            return Accepted::Nothing;
        }
        let accepted = match pack.kind {
            PackKind::Piece(piece) if self.tree.accept(piece, &pack) => Accepted::Piece,
            PackKind::Chunk(index) => self.accept_chunk(index, pack.payload),
            PackKind::Piece(_) | PackKind::Delta => Accepted::Nothing,
        };
        if accepted != Accepted::Nothing {
            // Progress: the stall clock starts anew; a piece lets the next request go out at once.
            self.repeat.reset();
            let wait = if accepted == Accepted::Piece { 0 } else { self.repeat.first() };
            self.ask_again = uptime + wait;
        }
        accepted
    }

    fn accept_chunk(&mut self, index: u32, bytes: Vec<u8>) -> Accepted {
        let Some(expected) = self.tree.leaf(index) else { return Accepted::Nothing };
        let fits = match self.length {
            Some(length) => bytes.len() == chunk_length(length, index),
            None => bytes.len() <= CHUNK + PACK_EXCESS,
        };
        let wanted = self.within.contains(&index) && !self.here.contains(index);
        if !wanted || !fits || *expected != leaf(&bytes) {
            return Accepted::Nothing;
        }
        self.here.insert(index);
        self.asked.remove(&index);
        if self.length.is_some() {
            self.unsynced.push(index);
        }
        Accepted::Chunk { index, bytes }
    }

    /// Returns the chunks that should be synced now: a window's worth, or the last ones.
    pub fn to_sync(&mut self) -> Option<Vec<u32>> {
        let enough = self.unsynced.len() >= self.window as usize || self.is_here();
        (enough && !self.unsynced.is_empty()).then(|| std::mem::take(&mut self.unsynced))
    }

    fn is_here(&self) -> bool {
        self.within.clone().all(|chunk| self.here.contains(chunk))
    }

    /// Returns the first chunk and the leaves that the slot is to be compared with.
    pub(super) fn to_compare(&self) -> Option<(u32, &[Digest])> {
        let covered = self.tree.covers();
        let is_due = self.compares && !covered.is_empty() && self.compared != Some(covered.start);
        is_due.then(|| (covered.start, self.tree.leaves()))
    }

    /// Takes what a comparison from `first` on has found to be right.
    pub(super) fn compared(&mut self, first: u32, right: &[u32], uptime: u64) {
        self.compared = Some(first);
        right.iter().for_each(|chunk| _ = self.here.insert(*chunk));
        self.ask_again = uptime;
    }

    /// Holds the first request back until `uptime`.
    pub fn wait_until(&mut self, uptime: u64) {
        self.ask_again = uptime;
    }

    /// What was asked for was lost with the link: it is asked for again as soon as there is another.
    pub(super) fn link_lost(&mut self) {
        if !self.asked.is_empty() || self.piece_asked.is_some() {
            self.ask_again = 0;
        }
    }

    /// More is wanted than before: where nothing was owed the stall clock starts anew.
    fn wants_more(&mut self, uptime: u64) {
        if self.ask_again == u64::MAX {
            self.ask_again = uptime + self.repeat.first();
        }
    }
}
