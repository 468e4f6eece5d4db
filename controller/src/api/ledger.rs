//! Paths under `/v1/ledger`.

use std::path::Path;

use axum::extract::State;
use serde::Deserialize;

use super::answer::{Answer, Failure, Query, good};
use super::routes::Shared;
use super::types::{LedgerFrame, LedgerPage, LedgerView};
use super::views;
use crate::core::fact::Entry;
use crate::ledger::{Boundary, Frames};

/// Frames in one answer, at most.
const LIMIT: usize = 1000;
/// Payload in one answer: frames with signed files are large.
const BYTES: usize = 4 * 1024 * 1024;

pub(super) async fn head(State(state): State<Shared>) -> Answer<LedgerView> {
    good(state.api.engine.query(|_, ledger| views::ledger(ledger)).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

pub(super) async fn frames(State(state): State<Shared>, query: Query<Range>) -> Answer<LedgerPage> {
    let Range { from, limit } = query.0;
    let limit = limit.unwrap_or(100).min(LIMIT);
    let opened = |_: &mut _, ledger: &crate::ledger::Ledger| (ledger.dir().to_owned(), ledger.next());
    let (dir, end) = state.api.engine.query(opened).await?;
    // Frames are never changed once written, so they are read outside the engine's thread.
    let read = tokio::task::spawn_blocking(move || page(&dir, from, end, limit)).await;
    good(read.map_err(Failure::internal)??)
}

fn page(dir: &Path, from: u64, end: u64, limit: usize) -> Result<LedgerPage, Failure> {
    let first = Boundary::find(dir).map_err(Failure::internal)?.map_or(0, |boundary| boundary.first());
    let stream = Frames::new(dir, from.max(first), end).map_err(Failure::internal)?;
    let mut frames = Vec::new();
    let mut bytes = 0;
    for frame in stream.take(limit) {
        let frame = frame.map_err(Failure::internal)?;
        let entry: Entry = serde_json::from_slice(&frame.payload).map_err(Failure::internal)?;
        bytes += frame.payload.len();
        frames.push(LedgerFrame { seq: frame.sequence, hash: frame.hash, entry });
        if bytes >= BYTES {
            break;
        }
    }
    let next = frames.last().map(|last| last.seq + 1).filter(|next| *next < end);
    Ok(LedgerPage { frames, next, first })
}
