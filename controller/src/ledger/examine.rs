//! Checks a copy from what is in it: the chain, the tree, and what was signed.

use std::collections::BTreeMap;
use std::path::Path;

use tern_protocol::digest::Digest;

use super::ProofError;
use super::boundary::{self, Boundary};
use super::checkpoint::Checkpoint;
use super::notary::{agrees, kept, newest, public_key, sizes_of};
use super::note::NoteKey;
use super::read::{Report, Walk, report, walk_with};

/// What a ledger holds, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Its frames.
    pub report: Report,
    /// Where it begins, after older frames were dropped.
    pub boundary: Option<Boundary>,
    /// Whose signatures were checked; none in a ledger that was never signed.
    pub key: Option<NoteKey>,
    /// The key was named by whoever asked; else it is the copy's own word.
    pub pinned: bool,
    /// Frames that the newest checkpoint vouches for.
    pub vouched: Option<u64>,
    /// Earlier checkpoints that were found to agree.
    pub earlier: u64,
    /// Earlier checkpoints of frames that were dropped: their signatures are right, and no more can be said.
    pub older_than_boundary: u64,
}

/// Checks the ledger in `dir`, changing nothing and taking no lock. `pinned`: the key that must have signed it.
pub fn examine(dir: &Path, pinned: Option<NoteKey>) -> Result<Examination, ProofError> {
    let is_pinned = pinned.is_some();
    let key = match pinned {
        Some(key) => Some(key),
        None => public_key(dir)?,
    };
    let (newest_path, newest_text) = newest(dir)?;
    let kept = kept(dir)?;
    let boundary_text = boundary::text(dir)?;
    let texts = kept.iter().map(|(_, text)| text).chain(&newest_text);
    let walk = walk_with(dir, &sizes_of(texts), &mut |_, _| {})?;
    let frames = walk.link.sequence;
    let report = report(&walk);
    let Walk { boundary, roots, .. } = walk;
    let mut found = Examination {
        report,
        boundary: boundary.clone(),
        key: key.clone(),
        pinned: is_pinned,
        vouched: None,
        earlier: 0,
        older_than_boundary: 0,
    };
    if newest_text.is_none() && kept.is_empty() && boundary_text.is_none() {
        // A key that somebody names is a key that has signed.
        return if is_pinned { Err(ProofError::NoCheckpoint { path: newest_path }) } else { Ok(found) };
    }
    let Some(key) = key else { return Err(ProofError::NoKey { dir: dir.to_owned() }) };
    let note = |path: &Path| {
        let path = path.to_owned();
        move |source| ProofError::Note { path, source }
    };
    if let (Some(text), Some(boundary)) = (boundary_text, &boundary) {
        Boundary::open(&text, &key).map_err(note(&dir.join("boundary")))?;
        boundary.check_snapshot(dir)?;
    }
    let Some(text) = newest_text else { return Err(ProofError::NoCheckpoint { path: newest_path }) };
    let checkpoint = Checkpoint::open(&text, &key).map_err(note(&newest_path))?;
    let first = boundary.as_ref().map_or(0, Boundary::first);
    if checkpoint.size >= first {
        check(&newest_path, &checkpoint, frames, &roots)?;
    }
    // The boundary is a checkpoint itself.
    let mut vouched = checkpoint.size.max(first);
    for (path, text) in kept {
        let earlier = Checkpoint::open(&text, &key).map_err(note(&path))?;
        if earlier.size < first {
            found.older_than_boundary += 1;
            continue;
        }
        check(&path, &earlier, frames, &roots)?;
        // Kept ones are written first, so a power cut explains one that is ahead of the newest; it vouches as well.
        vouched = vouched.max(earlier.size);
        found.earlier += 1;
    }
    found.vouched = Some(vouched);
    Ok(found)
}

fn check(
    path: &Path,
    checkpoint: &Checkpoint,
    frames: u64,
    roots: &BTreeMap<u64, Digest>,
) -> Result<(), ProofError> {
    agrees(path, checkpoint, frames, roots.get(&checkpoint.size).copied())
}
