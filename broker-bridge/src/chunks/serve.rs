//! From a request to the messages that answer it.

use tern_protocol::message::{Pack, PackKind};

use super::pending::Job;
use super::store::{ChunkStore, StoreError};

/// Packs read from the disk at once: enough to keep a fast link busy, little enough for a thousand devices.
pub(crate) const PACKS_AT_ONCE: usize = 4;

/// Reads what `job` asks for as a frame; blocks on the disk.
pub(crate) fn pack(store: &ChunkStore, job: &Job) -> Result<Vec<u8>, StoreError> {
    let pack = match job.part {
        PackKind::Chunk(index) => Pack::chunk(&job.of, index, store.read_chunk(&job.of, index)?),
        PackKind::Piece(piece) => Pack::piece(&job.of, piece, &store.piece(&job.of, piece)?),
        PackKind::Delta => return Err(StoreError::Missing(job.of)),
    };
    Ok(pack.write())
}
