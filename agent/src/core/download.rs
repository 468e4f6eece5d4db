//! Which packs to ask for next, and which to believe.
//!
//! Nothing is believed before its hash leads to the signed root: first the top piece of the tree, then the piece that
//! covers a chunk, then the chunk. A server sends pieces before chunks, so the first request asks for all three at once,
//! and the next piece is asked for while the chunks of the present one come. Two pieces are held at a time beside the top
//! one, whatever the image's size.

use tern_protocol::chunk::{ChunkSet, PIECE, PieceId, TreeShape, chunk_length, chunks_of, leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::limits::{GET_PACKS_MAX, GET_RANGES_MAX};
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::offer::Artifact;

use super::timing::Timing;
use super::window::Window;

/// Chunks that are synced at once, about a window's worth: few enough that a power cut costs little, enough that the
/// journal wears no flash. A ceiling below that is the owner's wish.
const SYNCED: [u32; 2] = [8, 32];
/// Silences in a row after which the link itself is in doubt.
const DOUBT: u32 = 2;

/// A download in progress; lost with the process, rebuilt from the journal's chunk set.
#[derive(Debug)]
pub struct Download {
    artifact: Artifact,
    chunks: u32,
    shape: TreeShape,
    top: Option<Vec<Digest>>,
    /// The piece that is worked on and the one after it, as far as they are here.
    pieces: Vec<(u32, Vec<Digest>)>,
    /// Every piece below this number was asked for in this connection.
    pieces_asked: u32,
    /// Chunks on their way, by number, and pieces.
    window: Window,
    ceiling: u32,
    /// All before it are here.
    first: u32,
    /// Here and written, not synced yet.
    unsynced: Vec<u32>,
    /// Here, written, and synced or being synced.
    here: ChunkSet,
    /// The connection is gone: what has come is made durable.
    cut: bool,
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
        let ceiling = timing.window.clamp(1, GET_PACKS_MAX);
        // Of one chunk the leaf is the root.
        let pieces = if chunks == 1 { vec![(0, vec![artifact.root])] } else { Vec::new() };
        Self {
            artifact: artifact.clone(),
            chunks,
            shape: TreeShape::new(chunks),
            top: None,
            pieces,
            pieces_asked: 0,
            window: Window::new(ceiling, timing.get_first, timing.get_most),
            ceiling,
            first: 0,
            unsynced: Vec::new(),
            here: have.clone(),
            cut: false,
            not_before: 0,
        }
    }

    /// Tells whether this download is of `artifact`.
    pub fn is_of(&self, artifact: &Artifact) -> bool {
        self.artifact == *artifact
    }

    /// Holds the first request back until `uptime`.
    pub fn wait_until(&mut self, uptime: u64) {
        self.not_before = uptime;
    }

    /// Returns when [`Download::request`] wants to be asked again, if nothing comes before.
    pub fn due(&self) -> u64 {
        if self.not_before > 0 { self.not_before } else { self.window.due() }
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

    /// Returns what to ask for now: what is lost, and as much as there is room for in the window.
    pub fn request(&mut self, uptime: u64) -> Option<Get> {
        if uptime < self.not_before {
            return None;
        }
        self.not_before = 0;
        while self.first < self.chunks && self.here.contains(self.first) {
            self.first += 1;
        }
        let lost = self.window.lost(uptime);
        let of = self.artifact.root;
        let (pieces, blind) = self.wanted_pieces();
        let mut want = Vec::new();
        for piece in pieces {
            self.window.asked_ahead(name_of(piece), uptime);
            want.push(Want::piece(of, piece));
        }
        let ranges = self.next_ranges(&lost, blind, uptime);
        if !ranges.is_empty() {
            want.push(Want::Packs { of, ranges });
        }
        (!want.is_empty()).then(|| Get::from(want))
    }

    /// Returns the pieces to ask for, and the one whose chunks may be asked for before it is here: it comes first. Once
    /// only: should it be lost, its chunks came in vain.
    fn wanted_pieces(&mut self) -> (Vec<PieceId>, Option<u32>) {
        let mut wanted = Vec::new();
        if self.first >= self.chunks {
            return (wanted, None);
        }
        let top = self.shape.top();
        if top.level == 1 && self.top.is_none() {
            wanted.push(top);
        }
        let present = self.first / PIECE;
        self.pieces.retain(|(index, _)| *index >= present);
        wanted.push(self.shape.piece_of(self.first));
        let ahead = self.first + 2 * self.window.size();
        if ahead >= (present + 1) * PIECE {
            // With a part here already the next piece that is missed may lie far behind.
            let next = ((present + 1) * PIECE..self.chunks).find(|chunk| !self.here.contains(*chunk));
            wanted.extend(next.map(|chunk| self.shape.piece_of(chunk)));
        }
        wanted.retain(|piece| piece.level == 1 || self.leaves(piece.index).is_none());
        wanted.retain(|piece| !self.window.is_open(name_of(*piece)));
        let blind = wanted.iter().any(|piece| piece.level == 0 && piece.index == present);
        let blind = (blind && present >= self.pieces_asked).then_some(present);
        for piece in wanted.iter().filter(|piece| piece.level == 0) {
            self.pieces_asked = self.pieces_asked.max(piece.index + 1);
        }
        (wanted, blind)
    }

    fn leaves(&self, piece: u32) -> Option<&Vec<Digest>> {
        self.pieces.iter().find(|(index, _)| *index == piece).map(|(_, leaves)| leaves)
    }

    /// Returns what is `lost`, and after it the next missing chunks that are not on their way, as far as they can be judged
    /// when they come.
    fn next_ranges(&mut self, lost: &[u32], blind: Option<u32>, uptime: u64) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let again = lost.iter().copied().filter(|chunk| *chunk < self.chunks && !self.here.contains(*chunk));
        for chunk in again.collect::<Vec<_>>() {
            if add(&mut ranges, chunk) {
                self.window.asked(chunk, uptime);
            }
        }
        let mut room = self.window.may_ask().min(GET_PACKS_MAX.saturating_sub(length(&ranges)));
        for chunk in self.first..self.chunks {
            if room == 0 {
                break;
            }
            if self.here.contains(chunk) || self.window.is_open(chunk) {
                continue;
            }
            let piece = self.shape.piece_of(chunk).index;
            let can_be_judged = self.leaves(piece).is_some() || blind == Some(piece);
            if !can_be_judged || !add(&mut ranges, chunk) {
                break;
            }
            self.window.asked(chunk, uptime);
            room -= 1;
        }
        ranges
    }

    /// Judges a pack that arrived.
    pub fn accept(&mut self, pack: Pack, uptime: u64) -> Accepted {
        if pack.of != self.artifact.root.short() {
            return Accepted::Nothing;
        }
        match pack.kind {
            PackKind::Piece(piece) => self.accept_piece(piece, &pack, uptime),
            PackKind::Chunk(index) => self.accept_chunk(index, pack.payload, uptime),
            PackKind::Delta => Accepted::Nothing,
        }
    }

    fn accept_piece(&mut self, piece: PieceId, pack: &Pack, uptime: u64) -> Accepted {
        let Some(digests) = pack.digests() else { return Accepted::Nothing };
        // What was not asked for is not kept.
        if self.shape.digests_in(piece) != Some(digests.len()) || !self.window.is_open(name_of(piece)) {
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
        self.window.arrived(name_of(piece), uptime);
        if piece.level == 1 {
            self.top = Some(digests);
        } else if self.leaves(piece.index).is_none() {
            self.pieces.push((piece.index, digests));
        }
        Accepted::Piece
    }

    fn accept_chunk(&mut self, index: u32, bytes: Vec<u8>, uptime: u64) -> Accepted {
        let Some(leaves) = self.leaves(self.shape.piece_of(index).index) else {
            // It came before its piece, and is asked for again behind it.
            if index < self.chunks {
                self.window.arrived(index, uptime);
            }
            return Accepted::Nothing;
        };
        let expected = leaves.get((index % PIECE) as usize);
        let fits = bytes.len() == chunk_length(self.artifact.length, index);
        if !fits || expected != Some(&leaf(&bytes)) {
            return Accepted::Nothing;
        }
        self.window.arrived(index, uptime);
        if !self.here.insert(index) {
            return Accepted::Nothing;
        }
        self.unsynced.push(index);
        Accepted::Chunk { index, bytes }
    }

    /// Returns the chunks that should be synced now: about a window's worth, the last ones, or those before a cut.
    pub fn to_sync(&mut self) -> Option<Vec<u32>> {
        let most = self.window.size().clamp(SYNCED[0], SYNCED[1]).min(self.ceiling);
        let enough = self.unsynced.len() >= most as usize || self.here.len() == self.chunks;
        let due = enough || std::mem::take(&mut self.cut);
        (due && !self.unsynced.is_empty()).then(|| std::mem::take(&mut self.unsynced))
    }
}

/// What a piece is called in the window, beside chunks.
fn name_of(piece: PieceId) -> u32 {
    u32::MAX - if piece.level == 1 { 0 } else { 1 + piece.index }
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
