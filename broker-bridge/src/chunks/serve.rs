//! From a request to the messages that answer it.

use tern_protocol::bundle::{Bundle, File};
use tern_protocol::limits::{BUNDLE_INFLATED_MAX, BUNDLE_MAX};
use tern_protocol::message::{Get, Pack, PackKind, Want};

use super::pending::Job;
use super::store::{ChunkStore, StoreError};
use crate::files::SignedFiles;

/// Packs read from the disk at once: enough to keep a fast link busy, little enough for a thousand devices.
pub(crate) const PACKS_AT_ONCE: usize = 4;

/// Reads what `job` asks for as a frame; blocks on the disk.
pub(crate) fn pack(store: &ChunkStore, job: &Job) -> Result<Vec<u8>, StoreError> {
    let pack = match job.part {
        PackKind::Chunk(index) => Pack::chunk(&job.of, index, store.read_chunk(&job.of, index)?),
        PackKind::Piece(piece) => Pack::piece(&job.of, piece, &store.piece(&job.of, piece)?),
    };
    Ok(pack.write())
}

/// Returns the bundles that answer the wishes for files in `get`; one if they fit, else one a file.
pub(crate) fn bundles(files: &SignedFiles, get: &Get) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for want in &get.want {
        if let Want::File { product, role, version } = want {
            found.extend(files.find(product, *role, *version));
        }
    }
    let pack = |files: Vec<File>| Bundle { root: 0, files }.pack();
    if found.is_empty() {
        return Vec::new();
    }
    let inflated: usize = found.iter().map(|file| file.bytes.len()).sum();
    if inflated < BUNDLE_INFLATED_MAX - 1024 {
        let whole = pack(found.clone());
        if whole.len() <= BUNDLE_MAX {
            return vec![whole];
        }
    }
    found.into_iter().map(|file| pack(vec![file])).collect()
}
