//! The proof that one frame is in the ledger: enough for somebody who has nothing but the ledger's public key.
//!
//! The text is C2SP's (c2sp.org/tlog-proof). Its extra data is the frame itself, header and payload: SHA-256 of it is
//! the frame's hash, and the leaf follows from that.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tern_protocol::digest::Digest;

use super::ProofError;
use super::boundary::Boundary;
use super::checkpoint::Checkpoint;
use super::frame::{self, Frame, HEADER, Link, PAYLOAD_MAX};
use super::notary::{agrees, newest, public_key, sizes_of};
use super::note::{NOTE_MAX, NoteError, NoteKey};
use super::read::walk_with;
use super::tree::{self, PATH_MAX, PathFinder};

const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// A longer text is no proof: a frame in base64, a path, a checkpoint.
pub const PROOF_MAX: usize = (HEADER + PAYLOAD_MAX) / 3 * 4 + PATH_MAX * 64 + NOTE_MAX + 256;

/// A frame, the way from it to a signed root, and the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The frame as it stands in its file.
    pub frame: Vec<u8>,
    /// Its place.
    pub index: u64,
    /// Hashes beside the way to the root, the leaf's sibling first.
    pub path: Vec<Digest>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// What a proof has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The frame.
    pub frame: Frame,
    /// What the checkpoint says.
    pub checkpoint: Checkpoint,
}

/// Proves a frame of the ledger in `dir` against its newest checkpoint.
pub fn prove(dir: &Path, index: u64) -> Result<Proof, ProofError> {
    let boundary = Boundary::find(dir)?;
    let first = boundary.as_ref().map_or(0, Boundary::first);
    if index < first {
        return Err(ProofError::Dropped { frame: index, first });
    }
    let (path, text) = newest(dir)?;
    let Some(text) = text else { return Err(ProofError::NoCheckpoint { path }) };
    let Some(key) = public_key(dir)? else { return Err(ProofError::NoKey { dir: dir.to_owned() }) };
    let note = |source| ProofError::Note { path: path.clone(), source };
    let checkpoint = Checkpoint::open(&text, &key).map_err(note)?;
    if index >= checkpoint.size {
        let frames = walk_with(dir, &BTreeSet::new(), &mut |_, _| {})?.link.sequence;
        if index >= frames {
            return Err(ProofError::NoFrame { frame: index, frames });
        }
        return Err(ProofError::NotVouched { frame: index, size: checkpoint.size });
    }
    let known = boundary.map(|boundary| boundary.tree).unwrap_or_default();
    let mut finder =
        PathFinder::new(index, checkpoint.size, &known).ok_or(ProofError::Dropped { frame: index, first })?;
    let mut found = None;
    let mut see = |before: Link, frame: &Frame| {
        finder.take(frame.sequence, tree::leaf(frame.hash));
        if frame.sequence == index {
            let mut bytes = Vec::new();
            let at = Link { term: frame.term, synced: frame.synced, ..before };
            frame::encode(&mut bytes, at, &frame.payload);
            found = Some(bytes);
        }
    };
    let walk = walk_with(dir, &sizes_of(std::iter::once(&text)), &mut see)?;
    agrees(&path, &checkpoint, walk.link.sequence, walk.roots.get(&checkpoint.size).copied())?;
    let (Some(frame), Some(way)) = (found, finder.path()) else {
        return Err(ProofError::Dropped { frame: index, first });
    };
    Ok(Proof { frame, index, path: way, checkpoint: text })
}

impl Proof {
    /// Writes it down.
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}\nextra {}\nindex {}\n", STANDARD.encode(&self.frame), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash.0));
            text.push('\n');
        }
        format!("{text}\n{}", self.checkpoint)
    }

    /// Reads one; says nothing yet about what it shows.
    pub fn read(text: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Form;
        if text.len() > PROOF_MAX {
            return Err(bad("a proof is shorter"));
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(bad("the checkpoint is missing"))?;
        let mut lines = head.lines();
        if lines.next() != Some(HEAD) {
            return Err(bad("its first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let frame = extra.and_then(|extra| STANDARD.decode(extra).ok()).ok_or(bad("the frame is missing"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(|index| index.parse().ok()).ok_or(bad("the frame's number is missing"))?;
        let hash = |line: &str| Some(Digest(STANDARD.decode(line).ok()?.try_into().ok()?));
        let path: Option<Vec<Digest>> = lines.take(PATH_MAX + 1).map(hash).collect();
        let path = path.filter(|path| path.len() <= PATH_MAX).ok_or(bad("the path does not read"))?;
        Ok(Self { frame, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// Checks it against the ledger's key.
    pub fn check(&self, key: &NoteKey) -> Result<Proved, ProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key).map_err(ProofError::Proof)?;
        let (frame, _) = frame::decode(&self.frame)
            .map_err(|_| ProofError::Proof(NoteError::Form("the frame is not whole")))?;
        let fits = frame.sequence == self.index
            && tree::includes(
                checkpoint.root,
                checkpoint.size,
                self.index,
                tree::leaf(frame.hash),
                &self.path,
            );
        if fits {
            Ok(Proved { frame, checkpoint })
        } else {
            Err(ProofError::NotIncluded { frame: self.index })
        }
    }
}
