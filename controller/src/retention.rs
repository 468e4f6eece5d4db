//! Which old frames may be dropped, and what is kept of them.
//!
//! Whole segments go, the oldest first, and only as far as all of this holds:
//!
//! 1. the store's checkpoint, synced, has every frame of them;
//! 2. their newest frame is older than the operator wants;
//! 3. no rollout that is still active began in them;
//! 4. one segment stays: the one that is written to.
//!
//! What the dropped frames add up to is kept as a snapshot, hashed into the signed boundary: the store can still be
//! rebuilt, and a replay goes on from there as if it had read them. What a replay cannot do any more is to work the
//! verdicts out again that were dropped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tern_protocol::digest::Digest;
use tern_protocol::id::RolloutId;

use crate::core::fact::{Entry, Fact, Millis};
use crate::core::fleet::Fleet;
use crate::core::replay::Replay;
use crate::core::rollout::record::Status;
use crate::ledger::boundary::{self, Boundary, Step};
use crate::ledger::frame::Link;
use crate::ledger::segment::Segment;
use crate::ledger::tree::{CompactRange, leaf};
use crate::ledger::{Frame, Frames, LedgerError, NoteSigner, ProofError};

/// A day in milliseconds.
pub const DAY: Millis = 24 * 3600 * 1000;
/// Most days that frames can be kept for; longer is for ever.
pub const DAYS_MAX: u64 = 36_500;

/// Says why nothing could be dropped.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The ledger could not be read or written.
    #[error("could not drop old frames of the ledger")]
    Ledger(#[from] LedgerError),
    /// What the frames before add up to is not what was signed.
    #[error("could not begin at the ledger's boundary")]
    Proof(#[from] ProofError),
    /// A frame or a snapshot does not read.
    #[error(
        "{what} does not read with this version of the program; use the one that wrote it, or a newer one"
    )]
    Fact {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What the service knows that the ledger's files do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The ledger's folder.
    pub dir: PathBuf,
    /// The file that is written to.
    pub file: PathBuf,
    /// First frame that the store's checkpoint, which is synced, does not have.
    pub checkpointed: u64,
    /// First frame that is not synced.
    pub end: u64,
    /// Rollouts that run or are paused.
    pub active: BTreeSet<RolloutId>,
}

/// Returns the rollouts that run or are paused.
pub fn active(fleet: &Fleet) -> BTreeSet<RolloutId> {
    let active = |status| matches!(status, Status::Running | Status::Paused);
    fleet.rollouts.values().filter(|r| active(r.status)).map(|r| r.id.clone()).collect()
}

/// A segment, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// First sequence after it.
    pub end: u64,
    /// Time of its newest frame.
    pub newest: Millis,
    /// Rollouts that began in it.
    pub began: BTreeSet<RolloutId>,
}

/// Tells whether a segment, and so all before it, may go.
pub fn may_go(segment: &Seen, standing: &Standing, before: Millis) -> bool {
    segment.end <= standing.checkpointed
        && segment.newest < before
        && segment.began.is_disjoint(&standing.active)
}

/// What is to be dropped.
#[derive(Debug)]
pub struct Plan {
    /// Where the ledger is to begin.
    pub boundary: Boundary,
    /// Frames that go.
    pub frames: u64,
    /// What is to be done, in this order.
    pub steps: Vec<Step>,
}

/// Works out what is to be dropped of a ledger; none if nothing may go. Reads, and changes nothing.
pub fn plan(
    standing: &Standing,
    signer: &NoteSigner,
    days: u64,
    now: Millis,
) -> Result<Option<Plan>, RetentionError> {
    let dir = &standing.dir;
    let present = Boundary::find(dir)?;
    let first = present.as_ref().map_or(0, Boundary::first);
    let Some(end) = reach(standing, first, now.saturating_sub(days.saturating_mul(DAY)))? else {
        return Ok(None);
    };
    let (mut replay, mut tree, mut link) = match &present {
        Some(boundary) => (snapshot(dir, boundary)?, boundary.tree.clone(), boundary.link),
        None => (Replay::new(), CompactRange::default(), Link::START),
    };
    for frame in Frames::new(dir, first, end)? {
        let frame = frame?;
        replay.take(&entry(&frame)?);
        tree.push(leaf(frame.hash));
        link =
            Link { sequence: frame.sequence + 1, term: frame.term, synced: frame.synced, hash: frame.hash };
    }
    let kept = serde_json::to_vec(&replay)
        .map_err(|source| RetentionError::Fact { what: "the state at the boundary".to_owned(), source })?;
    let boundary = Boundary { link, tree, snapshot: Digest::of(&kept), dropped_at: now, days };
    let steps = boundary::steps(dir, &boundary, signer, kept)?;
    Ok(Some(Plan { frames: end - first, boundary, steps }))
}

/// Returns the first sequence that stays; none if nothing may go.
fn reach(standing: &Standing, first: u64, before: Millis) -> Result<Option<u64>, RetentionError> {
    let mut segments = Segment::list(&standing.dir)?;
    segments.retain(|segment| segment.first >= first);
    let mut found = None;
    for pair in segments.windows(2) {
        let [segment, next] = pair else { break };
        // Its first frame is cheap to look at, and most often enough.
        if next.first > standing.checkpointed
            || began_at(&standing.dir, segment.first)?.is_none_or(|at| at >= before)
        {
            break;
        }
        let mut seen = Seen { end: next.first, newest: 0, began: BTreeSet::new() };
        for frame in Frames::new(&standing.dir, segment.first, next.first)? {
            let entry = entry(&frame?)?;
            seen.newest = seen.newest.max(entry.at);
            if let Fact::RolloutStarted { rollout, .. } = entry.fact {
                seen.began.insert(rollout);
            }
        }
        if !may_go(&seen, standing, before) {
            break;
        }
        found = Some(next.first);
    }
    Ok(found)
}

/// Returns the time of a frame; none if it is not there.
pub fn began_at(dir: &Path, sequence: u64) -> Result<Option<Millis>, RetentionError> {
    let Some(frame) = Frames::new(dir, sequence, sequence + 1)?.next() else { return Ok(None) };
    Ok(Some(entry(&frame?)?.at))
}

/// Returns the state that the ledger of `dir` begins with.
pub fn snapshot(dir: &Path, boundary: &Boundary) -> Result<Replay, RetentionError> {
    let bytes = boundary.read_snapshot(dir)?;
    serde_json::from_slice(&bytes).map_err(|source| RetentionError::Fact {
        what: boundary.snapshot_path(dir).display().to_string(),
        source,
    })
}

fn entry(frame: &Frame) -> Result<Entry, RetentionError> {
    serde_json::from_slice(&frame.payload).map_err(|source| RetentionError::Fact {
        what: format!("frame {} of the ledger", frame.sequence),
        source,
    })
}

#[cfg(test)]
mod tests;
