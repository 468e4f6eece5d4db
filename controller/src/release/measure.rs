//! Measuring an image: length, SHA-256 and Merkle root in one pass.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::limits::{CHUNK, CHUNKS_MAX};

use super::ReleaseError;

/// The largest image, in bytes.
pub const IMAGE_MAX: u64 = CHUNK as u64 * CHUNKS_MAX as u64;

/// What an image is, to those who must check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Bytes.
    pub length: u64,
    /// SHA-256.
    pub sha256: Digest,
    /// Merkle root over its chunks.
    pub root: Digest,
}

/// Reads an image once; `progress` hears how many bytes more were read.
pub fn measure(path: &Path, mut progress: impl FnMut(u64)) -> Result<Measured, ReleaseError> {
    let failed = || ReleaseError::io("read the image", path);
    let mut file = File::open(path).map_err(failed())?;
    let (mut sha256, mut tree, mut length) = (Sha256::new(), RootHasher::default(), 0u64);
    let mut buffer = vec![0; 16 * CHUNK];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed()(error)),
        };
        length += count as u64;
        if length > IMAGE_MAX {
            break;
        }
        sha256.update(&buffer[..count]);
        tree.update(&buffer[..count]);
        progress(count as u64);
    }
    if length == 0 || length > IMAGE_MAX {
        return Err(ReleaseError::Size { path: path.to_owned(), length });
    }
    Ok(Measured { length, sha256: Digest(sha256.finalize().into()), root: root(&tree.finish()) })
}
