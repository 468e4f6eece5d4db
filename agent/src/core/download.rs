//! Which packs to ask for next, and which to believe: of an image, or of a delta, whose packs are its chunks.
//!
//! A server sends pieces of the tree before chunks, so the first request asks for all of them at once, and the next piece is
//! asked for while the chunks of the present one come.

use std::ops::Range;

use tern_protocol::chunk::{ChunkSet, PIECE, PieceId, chunk_length, chunks_of, leaf};
use tern_protocol::delta::DeltaManifest;
use tern_protocol::delta::manifest::PACK_EXCESS;
use tern_protocol::digest::Digest;
use tern_protocol::limits::{CHUNK, GET_PACKS_MAX, GET_RANGES_MAX};
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::offer::Artifact;

use super::timing::Timing;
use super::tree::Tree;
use super::window::Window;

/// Chunks that are synced at once, about a window's worth: few enough that a power cut costs little, enough that the
/// journal wears no flash. A ceiling below that is the owner's wish.
const SYNCED: [u32; 2] = [8, 32];
/// Silences in a row after which the link itself is in doubt.
const DOUBT: u32 = 2;

/// A download in progress; lost with the process, rebuilt from the journal's chunk set.
#[derive(Debug)]
pub struct Download {
    chunks: u32,
    /// Bytes of an image; a delta's packs have each their own length.
    length: Option<u64>,
    tree: Tree,
    /// Every piece below this number was asked for in this connection.
    pieces_asked: u32,
    /// Chunks that are wanted.
    within: Range<u32>,
    /// Chunks on their way, by number, and pieces.
    window: Window,
    ceiling: u32,
    /// All that are wanted before it are here.
    first: u32,
    /// Here and written, not synced yet.
    unsynced: Vec<u32>,
    /// Here, written, and synced or being synced.
    here: ChunkSet,
    /// The slot may hold chunks that are right: it is looked at, piece by piece, before anything of them is asked for.
    compares: bool,
    /// Every piece below this number was compared.
    compared: u32,
    /// The connection is gone: what has come is made durable.
    cut: bool,
    /// The last request could have asked for more.
    held_back: bool,
    not_before: u64,
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
        let ceiling = timing.window.clamp(1, GET_PACKS_MAX);
        Self {
            chunks,
            length,
            tree: Tree::new(root, chunks),
            pieces_asked: 0,
            within: 0..chunks,
            window: Window::new(ceiling, timing.get_first, timing.get_most),
            ceiling,
            first: 0,
            unsynced: Vec::new(),
            here: have.clone(),
            compares: false,
            compared: 0,
            cut: false,
            held_back: false,
            not_before: 0,
        }
    }

    /// Has it want these chunks alone, from here on.
    pub(super) fn within(&mut self, chunks: Range<u32>) {
        self.within = chunks.start..chunks.end.min(self.chunks);
        self.first = self.within.start;
    }

    /// Has what is in the slot compared before it is fetched anew.
    pub(super) fn comparing(mut self) -> Self {
        self.compares = true;
        self
    }

    /// Holds the first request back until `uptime`.
    pub fn wait_until(&mut self, uptime: u64) {
        self.not_before = uptime;
    }

    /// Returns when [`Download::request`] wants to be asked again, if nothing comes before.
    pub fn due(&self) -> u64 {
        if self.not_before > 0 {
            self.not_before
        } else if self.held_back {
            0
        } else {
            self.window.due()
        }
    }

    /// Tells whether nothing has come for so long that the link itself may be dead.
    pub fn doubts_link(&self) -> bool {
        self.window.silences() >= DOUBT
    }

    /// Takes note that the connection is gone: what was on its way does not come any more.
    pub fn cut(&mut self) {
        self.window.cut();
        self.pieces_asked = 0;
        self.cut = true;
    }

    /// Takes note that what is asked for from now on comes by another way.
    pub(super) fn renew(&mut self) {
        self.cut();
        self.window = self.window.renewed();
    }

    /// Tells whether this was asked for and is not here.
    pub(super) fn awaits(&self, kind: PackKind) -> bool {
        name_in_window(kind).is_some_and(|name| self.window.is_open(name))
    }

    /// Takes note that this does not come any more; tells whether it was on its way.
    pub(super) fn forget(&mut self, kind: PackKind) -> bool {
        name_in_window(kind).is_some_and(|name| self.window.forget_one(name))
    }

    /// Returns when [`Download::request_in_order`] wants to be asked again, if nothing comes before.
    pub(super) fn due_in_order(&self) -> u64 {
        match self.not_before {
            0 if self.held_back => 0,
            0 => u64::MAX,
            uptime => uptime,
        }
    }

    /// Returns how many chunks or packs there are, and the bytes of an image.
    pub(super) fn shape(&self) -> (u32, Option<u64>) {
        (self.chunks, self.length)
    }

    /// Returns its name.
    pub(super) fn root(&self) -> Digest {
        self.tree.root()
    }

    /// Returns what to ask for now: what is lost, and as much as there is room for in the window.
    pub fn request(&mut self, uptime: u64) -> Option<Get> {
        self.request_within(uptime, GET_PACKS_MAX)
    }

    /// The same, of at most `most` packs.
    pub(super) fn request_within(&mut self, uptime: u64, most: u32) -> Option<Get> {
        if uptime < self.not_before {
            return None;
        }
        let lost = self.window.lost(uptime);
        self.request_of(&lost, None, most, uptime)
    }

    /// The same of a source that answers in order, or says that it does not: nothing counts as lost before that.
    pub(super) fn request_in_order(&mut self, uptime: u64, most: u32) -> Option<Get> {
        if uptime < self.not_before { None } else { self.request_of(&[], Some(GET_PACKS_MAX), most, uptime) }
    }

    /// `room`: what may be asked for beside what is lost, where the window does not say it.
    fn request_of(&mut self, lost: &[u32], room: Option<u32>, most: u32, uptime: u64) -> Option<Get> {
        self.not_before = 0;
        self.held_back = false;
        self.passes_what_is_here();
        let of = self.tree.root();
        let (pieces, blind) = self.wanted_pieces();
        let mut want = Vec::new();
        for piece in pieces {
            self.window.asked_ahead(name_of(piece), uptime);
            want.push(Want::piece(of, piece));
        }
        let most = most.clamp(1, GET_PACKS_MAX);
        let ranges = self.next_ranges((lost, room), blind, most, uptime);
        if !ranges.is_empty() {
            want.push(Want::Packs { of, ranges });
        }
        (!want.is_empty()).then(|| Get::from(want))
    }

    fn passes_what_is_here(&mut self) {
        while self.first < self.within.end && self.here.contains(self.first) {
            self.first += 1;
        }
    }

    /// Returns the pieces to ask for, and the one whose chunks may be asked for before it is here: it comes first. Once
    /// only: should it be lost, its chunks came in vain.
    fn wanted_pieces(&mut self) -> (Vec<PieceId>, Option<u32>) {
        let mut wanted = Vec::new();
        if self.first >= self.within.end {
            return (wanted, None);
        }
        wanted.extend(self.tree.lacks_top());
        let present = Tree::piece_of(self.first);
        self.tree.keep_from(present);
        let piece = |index| PieceId { level: 0, index };
        wanted.push(piece(present));
        let ahead = self.first + 2 * self.window.size();
        if ahead >= (present + 1) * PIECE {
            // With a part here already the next piece that is missed may lie far behind.
            let mut next = (present + 1) * PIECE..self.within.end;
            wanted.extend(next.find(|chunk| !self.here.contains(*chunk)).map(Tree::piece_of).map(piece));
        }
        wanted.retain(|piece| piece.level == 1 || self.tree.leaves(piece.index).is_none());
        wanted.retain(|piece| !self.window.is_open(name_of(*piece)));
        let blind = wanted.iter().any(|piece| piece.level == 0 && piece.index == present);
        let blind = (blind && present >= self.pieces_asked && !self.compares).then_some(present);
        for piece in wanted.iter().filter(|piece| piece.level == 0) {
            self.pieces_asked = self.pieces_asked.max(piece.index + 1);
        }
        (wanted, blind)
    }

    /// Returns what is `lost`, and after it the next missing chunks that are not on their way, as far as they can be judged
    /// when they come.
    fn next_ranges(
        &mut self,
        (lost, room): (&[u32], Option<u32>),
        blind: Option<u32>,
        most: u32,
        uptime: u64,
    ) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for chunk in lost.iter().filter(|chunk| self.within.contains(chunk) && !self.here.contains(**chunk)) {
            if add(&mut ranges, *chunk) {
                self.window.asked(*chunk, uptime);
            }
        }
        let may_ask = room.unwrap_or_else(|| self.window.may_ask());
        let mut room = may_ask.min(most.saturating_sub(length(&ranges)));
        for chunk in self.first..self.within.end {
            if self.here.contains(chunk) || self.window.is_open(chunk) {
                continue;
            }
            if room == 0 {
                self.held_back = may_ask > most;
                break;
            }
            let piece = Tree::piece_of(chunk);
            let can_be_judged = self.tree.leaves(piece).is_some() || blind == Some(piece);
            let is_compared = !self.compares || piece < self.compared;
            if !can_be_judged || !is_compared || !add(&mut ranges, chunk) {
                break;
            }
            self.window.asked(chunk, uptime);
            room -= 1;
        }
        ranges
    }

    /// Judges a pack that arrived.
    pub fn accept(&mut self, pack: Pack, uptime: u64) -> Accepted {
        if pack.of != self.tree.root().short() {
            return Accepted::Nothing;
        }
        match pack.kind {
            // What was not asked for is not kept.
            PackKind::Piece(piece)
                if self.window.is_open(name_of(piece)) && self.tree.accept(piece, &pack) =>
            {
                self.window.arrived(name_of(piece), uptime);
                Accepted::Piece
            }
            PackKind::Chunk(index) => self.accept_chunk(index, pack.payload, uptime),
            PackKind::Piece(_) | PackKind::Delta => Accepted::Nothing,
        }
    }

    fn accept_chunk(&mut self, index: u32, bytes: Vec<u8>, uptime: u64) -> Accepted {
        let Some(expected) = self.tree.leaf(index) else {
            // It came before its piece, and is asked for again behind it.
            if index < self.chunks {
                self.window.arrived(index, uptime);
            }
            return Accepted::Nothing;
        };
        let fits = match self.length {
            Some(length) => bytes.len() == chunk_length(length, index),
            None => bytes.len() <= CHUNK + PACK_EXCESS,
        };
        if !fits || *expected != leaf(&bytes) {
            return Accepted::Nothing;
        }
        self.window.arrived(index, uptime);
        if !self.within.contains(&index) || !self.here.insert(index) {
            return Accepted::Nothing;
        }
        if self.length.is_some() {
            self.unsynced.push(index);
        }
        Accepted::Chunk { index, bytes }
    }

    /// Returns the chunks that should be synced now: about a window's worth, the last ones, or those before a cut.
    pub fn to_sync(&mut self) -> Option<Vec<u32>> {
        let most = self.window.size().clamp(SYNCED[0], SYNCED[1]).min(self.ceiling);
        let enough = self.unsynced.len() >= most as usize || self.is_here();
        let due = enough || std::mem::take(&mut self.cut);
        (due && !self.unsynced.is_empty()).then(|| std::mem::take(&mut self.unsynced))
    }

    fn is_here(&self) -> bool {
        (self.first.max(self.within.start)..self.within.end).all(|chunk| self.here.contains(chunk))
    }

    /// Returns the first chunk and the leaves that the slot is to be compared with.
    pub(super) fn comparison(&mut self) -> Option<(u32, &[Digest])> {
        self.passes_what_is_here();
        let present = Tree::piece_of(self.first);
        if !self.compares || self.first >= self.within.end || present < self.compared {
            return None;
        }
        self.tree.leaves(present).map(|leaves| (present * PIECE, leaves))
    }

    /// Takes what a comparison from `first` on has found to be right.
    pub(super) fn compared(&mut self, first: u32, right: &[u32]) {
        self.compared = Tree::piece_of(first) + 1;
        right.iter().for_each(|chunk| _ = self.here.insert(*chunk));
    }
}

/// What a piece is called in the window, beside chunks.
fn name_of(piece: PieceId) -> u32 {
    u32::MAX - if piece.level == 1 { 0 } else { 1 + piece.index }
}

fn name_in_window(kind: PackKind) -> Option<u32> {
    match kind {
        PackKind::Chunk(index) => Some(index),
        PackKind::Piece(piece) => Some(name_of(piece)),
        PackKind::Delta => None,
    }
}

/// Adds a chunk; false where no more ranges fit into a request.
fn add(ranges: &mut Vec<(u32, u32)>, chunk: u32) -> bool {
    let full = ranges.len() == GET_RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.1 == chunk => last.1 += 1,
        _ if full => return false,
        _ => ranges.push((chunk, chunk + 1)),
    }
    true
}

fn length(ranges: &[(u32, u32)]) -> u32 {
    ranges.iter().map(|(from, to)| to - from).sum()
}
