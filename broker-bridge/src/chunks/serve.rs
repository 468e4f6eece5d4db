//! From a request to the messages that answer it.

use tern_protocol::message::Pack;

use super::pending::{Job, Part};
use super::store::{ChunkStore, StoreError};

/// Packs read from the disk at once: enough to keep a fast link busy, little enough for a thousand devices.
pub(crate) const PACKS_AT_ONCE: usize = 4;

/// Reads what `job` asks for as a frame; blocks on the disk.
pub(crate) fn pack(store: &ChunkStore, job: &Job) -> Result<Vec<u8>, StoreError> {
    let pack = match &job.part {
        Part::Chunk(index) => Pack::chunk(&job.of, *index, store.read_chunk(&job.of, *index)?),
        Part::Piece(piece) => Pack::piece(&job.of, *piece, &store.piece(&job.of, *piece)?),
        // That there is none is an answer too: the device need not wait to take another way.
        Part::Delta { from, profiles } => {
            let delta = store.delta(from, &job.of, profiles)?;
            Pack::delta(from, &job.of, &delta.map(|delta| delta.signed).unwrap_or_default())
        }
    };
    Ok(pack.write())
}

/// Tells whether a frame says that there is no delta.
pub(crate) fn is_no_delta(job: &Job, frame: &[u8]) -> bool {
    matches!(job.part, Part::Delta { .. })
        && Pack::read(frame).is_ok_and(|pack| pack.as_delta().is_none_or(|(_, signed)| signed.is_empty()))
}
