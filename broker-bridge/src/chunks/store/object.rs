//! An open object: an image, or the packs of a delta, and the tree over either.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tern_protocol::chunk::{self, ChunkSet, PieceId};
use tern_protocol::delta::manifest::{DELTA_PACKS_MAX, PACK_EXCESS};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::object;

use super::StoreError;
use super::aside::at;

/// The longest chunk of an object: an image's, or a pack of one chunk that cannot be coded.
pub(super) const PART_MAX: usize = CHUNK + PACK_EXCESS;

#[derive(Debug)]
pub(super) struct Object {
    pub(super) root: Digest,
    /// Chunks of an image or packs of a delta.
    parts: u32,
    path: PathBuf,
    file: File,
    body: Body,
    tree: File,
    tree_path: PathBuf,
    proven: Mutex<Proven>,
}

/// Which parts were found to be what the tree says, while the file was as it is.
#[derive(Debug, Default)]
struct Proven {
    file: Option<(SystemTime, u64)>,
    parts: ChunkSet,
}

#[derive(Debug)]
enum Body {
    /// All parts have the same length, but the last.
    Image { length: u64 },
    /// Each has its own length, which a list says.
    Packs,
}

impl Object {
    /// Opens an image, or `None` if there is no such file.
    pub(super) fn image(root: Digest, path: &Path, tree: &Path) -> Result<Option<Self>, StoreError> {
        let Some(file) = open(path)? else { return Ok(None) };
        let length = file.metadata().map_err(at("look at", path))?.len();
        let parts = chunk::chunks_of(length).ok_or(StoreError::Length)?;
        Self::with_tree(root, (path, file), parts, Body::Image { length }, tree)
    }

    /// Opens the packs of a delta, or `None` if there is no such file.
    pub(super) fn packs(root: Digest, path: &Path, tree: &Path) -> Result<Option<Self>, StoreError> {
        let Some(mut file) = open(path)? else { return Ok(None) };
        let mut count = [0; 4];
        file.read_exact(&mut count).map_err(at("read", path))?;
        let parts = u32::from_le_bytes(count);
        if parts > DELTA_PACKS_MAX {
            return Err(StoreError::Length);
        }
        Self::with_tree(root, (path, file), parts, Body::Packs, tree)
    }

    fn with_tree(
        root: Digest,
        (path, file): (&Path, File),
        parts: u32,
        body: Body,
        tree_path: &Path,
    ) -> Result<Option<Self>, StoreError> {
        let tree = File::open(tree_path).map_err(at("open", tree_path))?;
        let (path, tree_path) = (path.to_owned(), tree_path.to_owned());
        let object = Self { root, parts, path, file, body, tree, tree_path, proven: Mutex::default() };
        // A tree over another number of parts is another one: so an image shows that has lost its end.
        if chunk::root(&object.leaves()?) == root { Ok(Some(object)) } else { Err(object.damaged()) }
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged { root: self.root, path: self.path.clone() }
    }

    fn leaves(&self) -> Result<Vec<Digest>, StoreError> {
        self.digests(0..u64::from(self.parts) * 32)
    }

    fn digests(&self, place: std::ops::Range<u64>) -> Result<Vec<Digest>, StoreError> {
        let mut bytes = vec![0; usize::try_from(place.end - place.start).map_err(|_| StoreError::Length)?];
        self.tree.read_exact_at(&mut bytes, place.start).map_err(at("read", &self.tree_path))?;
        let (digests, _) = bytes.as_chunks::<32>();
        Ok(digests.iter().copied().map(Digest).collect())
    }

    /// Tells whether a part is what the tree says: hashed once, as long as nobody writes to the file.
    fn is_true(&self, index: u32, bytes: &[u8], file: (SystemTime, u64)) -> Result<bool, StoreError> {
        let file = Some(file);
        {
            let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            if proven.file != file {
                *proven = Proven { file, parts: ChunkSet::default() };
            }
            if proven.parts.contains(index) {
                return Ok(true);
            }
        }
        let place = u64::from(index) * 32;
        if self.digests(place..place + 32)? != [chunk::leaf(bytes)] {
            return Ok(false);
        }
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.file == file {
            proven.parts.insert(index);
        }
        Ok(true)
    }

    /// Returns the length of an image.
    pub(super) fn length(&self) -> Option<u64> {
        match self.body {
            Body::Image { length } => Some(length),
            Body::Packs => None,
        }
    }

    /// Reads one chunk of an image, or one pack of a delta.
    pub(super) fn part(&self, index: u32) -> Result<Vec<u8>, StoreError> {
        if index >= self.parts {
            return Err(StoreError::OutOfRange(self.root));
        }
        let (start, length) = match self.body {
            Body::Image { length } => {
                (object::chunks_at(length, index..index + 1).start, chunk::chunk_length(length, index))
            }
            Body::Packs => self.place(index)?,
        };
        // Before it is read: what changes from here on is hashed anew the next time.
        let data = self.file.metadata().map_err(at("look at", &self.path))?;
        let file = (data.modified().map_err(at("look at", &self.path))?, data.len());
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start).map_err(at("read", &self.path))?;
        if self.is_true(index, &bytes, file)? { Ok(bytes) } else { Err(self.damaged()) }
    }

    /// Returns where a pack begins in the file, and its length.
    fn place(&self, index: u32) -> Result<(u64, usize), StoreError> {
        let list = object::ends_at(index..index + 1);
        let mut ends = [0; 16];
        // Before the first one there is no other's end.
        let ends = if index == 0 { &mut ends[8..] } else { &mut ends[..] };
        self.file.read_exact_at(ends, list.start).map_err(at("read", &self.path))?;
        let places = object::ends_in(self.parts, index..index + 1, ends).ok_or(StoreError::Length)?;
        let [start, end] = places[..] else { return Err(StoreError::Length) };
        let length = usize::try_from(end - start).ok().filter(|length| *length <= PART_MAX);
        Ok((start, length.ok_or(StoreError::Length)?))
    }

    /// Reads one piece of the tree.
    pub(super) fn piece(&self, piece: PieceId) -> Result<Vec<Digest>, StoreError> {
        let place = object::piece_at(self.parts, piece).ok_or(StoreError::OutOfRange(self.root))?;
        self.digests(place)
    }
}

fn open(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(at("open", path)),
    }
}
