//! Images and deltas by content: files addressed by the Merkle root of what is in them.
//!
//! ```text
//! <dir>/3f/3fa2….image                    the bytes
//! <dir>/3f/3fa2….packs                    a delta's packs
//! <dir>/3f/3fa2….tree                     the tree over either; there before them
//! <dir>/3f/3fa2….<from>.<profile>.delta   signed manifest of a delta to this image; there after its packs
//! <dir>/incoming/…                        being written; swept at start
//! ```
//! The first three are as `tern_protocol::object` says; `export` copies them out for a web server. A file is complete or
//! absent. A part is hashed when it is read first, and again when its file has changed: what is damaged is not sent. What is here is what lies in the folder: a chunk
//! server may be given files by another program while it runs.

mod aside;
mod deltas;
mod export;
mod object;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tern_protocol::chunk::{self, PieceId, RootHasher};
use tern_protocol::delta::SignedDeltaError;
use tern_protocol::digest::Digest;
use tern_protocol::limits::{CHUNK, CHUNKS_MAX};
use tern_protocol::object::path as path_of;

use aside::{Aside, Incoming, at, remove, sync_folder};
pub use deltas::StoredDelta;
pub use export::Exported;
use object::Object;

/// Objects kept open: more than there are releases in the air at once, and deltas to them.
const OPEN_MAX: usize = 64;

/// Says why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("could not {what} {path}")]
    Io {
        /// What we did.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Too many chunks, or none.
    #[error("an image must have 1 B to {} MiB", CHUNKS_MAX as usize / 16)]
    Length,
    /// The bytes are not the ones asked for.
    #[error("the root of what came is {found}, expected {expected}")]
    OtherRoot {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// What is on the disk is not what it was.
    #[error(
        "{path} is damaged: nothing of it is served. Remove the file; a delta is then made again, an image comes back with \
         `tern release publish`, `tern-bridge chunk add` or from a backup"
    )]
    Damaged {
        /// Of which object.
        root: Digest,
        /// In which file.
        path: PathBuf,
    },
    /// No such object.
    #[error("object {0} is not in the chunk store")]
    Missing(Digest),
    /// The packs are not those that the manifest names.
    #[error("the packs differ in number or bytes from what the delta's manifest says; make the delta again")]
    OtherPacks,
    /// What should be a signed manifest.
    #[error("the delta's manifest cannot be used")]
    Delta(#[from] SignedDeltaError),
    /// The object has no such chunk or piece.
    #[error("object {0} has no such part")]
    OutOfRange(Digest),
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its Merkle root, which is its name.
    pub root: Digest,
    /// SHA-256 of the whole image.
    pub sha256: Digest,
    /// Bytes of the image.
    pub length: u64,
}

/// A folder of objects. Calls block on the disk; from async code use a blocking thread.
#[derive(Debug)]
pub struct ChunkStore {
    folder: PathBuf,
    incoming: Incoming,
    /// Most recently used last.
    open: Mutex<Vec<Arc<Object>>>,
    /// Objects of which trouble was logged since they were written.
    complained: Mutex<BTreeSet<Digest>>,
    /// Held while deltas come or go: they share packs.
    changing: Mutex<()>,
}

impl ChunkStore {
    /// Opens the store in `folder`, making it if need be.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        let incoming = Incoming::open(folder.join("incoming"))?;
        let (open, complained, changing) = Default::default();
        Ok(Self { folder, incoming, open, complained, changing })
    }

    /// Opens the store in `folder`, which another process has open: what that one is writing is left alone. To read from.
    pub fn beside(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let incoming = Incoming::beside(folder.join("incoming"));
        let (open, complained, changing) = Default::default();
        Self { folder, incoming, open, complained, changing }
    }

    /// Adds the image in the file at `path`.
    pub fn add_file(&self, path: &Path) -> Result<ObjectInfo, StoreError> {
        self.add(File::open(path).map_err(at("open", path))?)
    }

    /// Adds an image; an object that is there already is left as it is.
    pub fn add(&self, image: impl Read) -> Result<ObjectInfo, StoreError> {
        self.take_in(image, None)
    }

    /// Adds an image that must have this root.
    pub fn add_expected(&self, image: impl Read, root: Digest) -> Result<ObjectInfo, StoreError> {
        self.take_in(image, Some(root))
    }

    fn take_in(&self, mut image: impl Read, expected: Option<Digest>) -> Result<ObjectInfo, StoreError> {
        let mut file = self.incoming.begin()?;
        let (mut leaves, mut whole) = (RootHasher::default(), Sha256::new());
        let mut buffer = vec![0; CHUNK];
        let mut length = 0u64;
        loop {
            let count = match image.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(at("read the image for", file.path())(error)),
            };
            length += count as u64;
            if chunk::chunks_of(length).is_none() {
                return Err(StoreError::Length);
            }
            leaves.update(&buffer[..count]);
            whole.update(&buffer[..count]);
            file.write(&buffer[..count])?;
        }
        if length == 0 {
            return Err(StoreError::Length);
        }
        let leaves = leaves.finish();
        let root = chunk::root(&leaves);
        if let Some(expected) = expected.filter(|e| *e != root) {
            return Err(StoreError::OtherRoot { expected, found: root });
        }
        if !self.contains(&root) {
            file.sync()?;
            self.keep(&root, &leaves, "image", file)?;
        }
        Ok(ObjectInfo { root, sha256: Digest(whole.finalize().into()), length })
    }

    /// Gives what was written its name. The tree first: bytes without one would be served without the means to verify them.
    fn keep(&self, root: &Digest, leaves: &[Digest], what: &str, file: Aside) -> Result<(), StoreError> {
        let folder = self.folder_of(root)?;
        self.complaints().remove(root);
        self.incoming.tree(leaves)?.rename(&self.path(root, "tree"))?;
        file.rename(&self.path(root, what))?;
        sync_folder(&folder)
    }

    /// Tells whether the image is here.
    pub fn contains(&self, root: &Digest) -> bool {
        self.path(root, "image").exists()
    }

    /// Returns the length of an image.
    pub fn length(&self, root: &Digest) -> Result<u64, StoreError> {
        self.object(root)?.length().ok_or(StoreError::Missing(*root))
    }

    /// Returns the file that holds an image's bytes.
    pub fn image_path(&self, root: &Digest) -> PathBuf {
        self.path(root, "image")
    }

    /// Removes an image, and the deltas that lead from it or to it; one that is not here is no error.
    pub fn remove(&self, root: &Digest) -> Result<(), StoreError> {
        for delta in self.deltas()? {
            if [delta.manifest.old.root, delta.manifest.new.root].contains(root) {
                self.remove_delta(&delta.manifest)?;
            }
        }
        self.forget(root);
        // The image first, so that none is ever without its tree.
        remove(&self.path(root, "image"))?;
        if self.path(root, "packs").exists() { Ok(()) } else { remove(&self.path(root, "tree")) }
    }

    /// Reads one chunk of an image, or one pack of a delta.
    pub fn read_chunk(&self, root: &Digest, index: u32) -> Result<Vec<u8>, StoreError> {
        let part = self.object(root).and_then(|object| object.part(index));
        if matches!(part, Err(StoreError::Damaged { .. })) {
            // The next try looks at the files anew: somebody may have mended them.
            self.forget(root);
        }
        part
    }

    /// Logs why a part is not served; what somebody has to mend, once.
    pub(crate) fn complain(&self, root: &Digest, error: &StoreError, topic: &str) {
        let must_be_mended = !matches!(error, StoreError::Missing(_) | StoreError::OutOfRange(_));
        if must_be_mended && self.complaints().insert(*root) {
            tracing::error!(%error, object = %root, "devices that want this object wait");
        } else {
            tracing::debug!(%error, topic, "a pack could not be served");
        }
    }

    fn complaints(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.complained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one piece of an object's tree.
    pub fn piece(&self, root: &Digest, piece: PieceId) -> Result<Vec<Digest>, StoreError> {
        self.object(root)?.piece(piece)
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, root: &Digest, what: &str) -> PathBuf {
        self.folder.join(path_of(root, what))
    }

    /// Makes the folder that an object's files are in.
    fn folder_of(&self, root: &Digest) -> Result<PathBuf, StoreError> {
        let folder = self.folder.join(&root.to_string()[..2]);
        if !folder.exists() {
            fs::create_dir_all(&folder).map_err(at("make", &folder))?;
            sync_folder(&self.folder)?;
        }
        Ok(folder)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Object>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes an object's files.
    fn forget(&self, root: &Digest) {
        self.lock().retain(|object| object.root != *root);
    }

    fn object(&self, root: &Digest) -> Result<Arc<Object>, StoreError> {
        {
            let mut open = self.lock();
            if let Some(place) = open.iter().position(|object| object.root == *root) {
                open[place..].rotate_left(1);
                if let Some(object) = open.last() {
                    return Ok(object.clone());
                }
            }
        }
        let tree = self.path(root, "tree");
        let object = match Object::image(*root, &self.path(root, "image"), &tree)? {
            Some(image) => image,
            None => {
                Object::packs(*root, &self.path(root, "packs"), &tree)?.ok_or(StoreError::Missing(*root))?
            }
        };
        let object = Arc::new(object);
        let mut open = self.lock();
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push(object.clone());
        Ok(object)
    }
}

#[cfg(test)]
mod tests;
