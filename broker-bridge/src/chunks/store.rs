//! Images by content: files addressed by the Merkle root of what is in them.
//!
//! ```text
//! <dir>/3f/3fa2….image     the bytes
//! <dir>/3f/3fa2….tree      level 0, then level 1 of the tree, 32 bytes a digest; there before the image is
//! <dir>/incoming/…         being written; swept at start
//! ```
//! A file is complete or absent: written aside, synced, renamed, folder synced. Devices verify every chunk, so
//! reading does not hash again.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use tern_protocol::chunk::{self, PIECE, PieceId, RootHasher, TreeShape};
use tern_protocol::digest::Digest;
use tern_protocol::limits::{CHUNK, CHUNKS_MAX};

/// Files kept open: more than there are releases in the air at once.
const OPEN_MAX: usize = 16;

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
    #[error("the image's root is {found}, expected {expected}")]
    OtherRoot {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// No such object.
    #[error("object {0} is not in the chunk store")]
    Missing(Digest),
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
    /// Most recently used last.
    open: Mutex<Vec<Arc<Object>>>,
    aside: AtomicU64,
}

#[derive(Debug)]
struct Object {
    root: Digest,
    length: u64,
    chunks: u32,
    image: File,
    tree: File,
}

impl ChunkStore {
    /// Opens the store in `folder`, making it if need be.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        let incoming = folder.join("incoming");
        if incoming.exists() {
            fs::remove_dir_all(&incoming).map_err(at("sweep", &incoming))?;
        }
        fs::create_dir_all(&incoming).map_err(at("make", &incoming))?;
        Ok(Self { folder, open: Mutex::default(), aside: AtomicU64::new(0) })
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
        let number = self.aside.fetch_add(1, Ordering::Relaxed);
        let aside = Aside(self.folder.join(format!("incoming/{}-{number}", std::process::id())));
        let mut file = File::create(&aside.0).map_err(at("create", &aside.0))?;
        let (mut leaves, mut whole) = (RootHasher::default(), Sha256::new());
        let mut buffer = vec![0; CHUNK];
        let mut length = 0u64;
        loop {
            let count = match image.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(at("read the image for", &aside.0)(error)),
            };
            length += count as u64;
            if chunk::chunks_of(length).is_none() {
                return Err(StoreError::Length);
            }
            leaves.update(&buffer[..count]);
            whole.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(at("write", &aside.0))?;
        }
        if length == 0 {
            return Err(StoreError::Length);
        }
        let leaves = leaves.finish();
        let root = chunk::root(&leaves);
        if let Some(expected) = expected.filter(|e| *e != root) {
            return Err(StoreError::OtherRoot { expected, found: root });
        }
        file.sync_all().map_err(at("sync", &aside.0))?;
        drop(file);
        self.keep(root, &leaves, &aside)?;
        Ok(ObjectInfo { root, sha256: Digest(whole.finalize().into()), length })
    }

    fn keep(&self, root: Digest, leaves: &[Digest], aside: &Aside) -> Result<(), StoreError> {
        let (image, tree) = (self.path(&root, "image"), self.path(&root, "tree"));
        if image.exists() {
            return Ok(());
        }
        let folder = self.folder.join(&root.to_string()[..2]);
        fs::create_dir_all(&folder).map_err(at("make", &folder))?;
        let roots = leaves.chunks(PIECE as usize).map(chunk::root);
        let bytes: Vec<u8> = leaves.iter().copied().chain(roots).flat_map(|d| d.0).collect();
        let tree_aside = Aside(aside.0.with_extension("tree"));
        let mut file = File::create(&tree_aside.0).map_err(at("create", &tree_aside.0))?;
        file.write_all(&bytes).map_err(at("write", &tree_aside.0))?;
        file.sync_all().map_err(at("sync", &tree_aside.0))?;
        // The tree first: an image without one would be served without the means to verify it.
        fs::rename(&tree_aside.0, &tree).map_err(at("rename to", &tree))?;
        fs::rename(&aside.0, &image).map_err(at("rename to", &image))?;
        for folder in [&folder, &self.folder] {
            File::open(folder).and_then(|f| f.sync_all()).map_err(at("sync", folder))?;
        }
        Ok(())
    }

    /// Tells whether the object is here.
    pub fn contains(&self, root: &Digest) -> bool {
        self.path(root, "image").exists()
    }

    /// Returns the length of an object's image.
    pub fn length(&self, root: &Digest) -> Result<u64, StoreError> {
        self.object(root).map(|object| object.length)
    }

    /// Removes an object; one that is not here is no error.
    pub fn remove(&self, root: &Digest) -> Result<(), StoreError> {
        self.lock().retain(|object| object.root != *root);
        // The image first, so that none is ever without its tree.
        for what in ["image", "tree"] {
            let path = self.path(root, what);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads one chunk of an object.
    pub fn read_chunk(&self, root: &Digest, index: u32) -> Result<Vec<u8>, StoreError> {
        let object = self.object(root)?;
        let mut bytes = vec![0; chunk::chunk_length(object.length, index)];
        if bytes.is_empty() {
            return Err(StoreError::OutOfRange(*root));
        }
        let start = u64::from(index) * CHUNK as u64;
        object.image.read_exact_at(&mut bytes, start).map_err(|e| self.unreadable(root, "image", e))?;
        Ok(bytes)
    }

    /// Reads one piece of an object's tree.
    pub fn piece(&self, root: &Digest, piece: PieceId) -> Result<Vec<Digest>, StoreError> {
        let object = self.object(root)?;
        let count = TreeShape::new(object.chunks).digests_in(piece).ok_or(StoreError::OutOfRange(*root))?;
        let level = if piece.level == 0 { 0 } else { u64::from(object.chunks) };
        let mut bytes = vec![0; count * 32];
        let start = (level + u64::from(piece.index) * u64::from(PIECE)) * 32;
        object.tree.read_exact_at(&mut bytes, start).map_err(|e| self.unreadable(root, "tree", e))?;
        let digest = |bytes: &[u8]| {
            let mut out = [0; 32];
            out.copy_from_slice(bytes);
            Digest(out)
        };
        Ok(bytes.chunks_exact(32).map(digest).collect())
    }

    fn path(&self, root: &Digest, what: &str) -> PathBuf {
        let name = root.to_string();
        self.folder.join(&name[..2]).join(format!("{name}.{what}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Object>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self, root: &Digest, what: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { what: "read", path: self.path(root, what), source }
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
        let path = self.path(root, "image");
        let image = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing(*root)),
            other => other.map_err(at("open", &path))?,
        };
        let length = image.metadata().map_err(at("look at", &path))?.len();
        let chunks = chunk::chunks_of(length).ok_or(StoreError::Length)?;
        let path = self.path(root, "tree");
        let tree = File::open(&path).map_err(at("open", &path))?;
        let object = Arc::new(Object { root: *root, length, chunks, image, tree });
        let mut open = self.lock();
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push(object.clone());
        Ok(object)
    }
}

/// A file being written; gone when dropped, unless it was renamed.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        // Renamed away is the good case; whatever else stays is swept at the next start.
        fs::remove_file(&self.0).ok();
    }
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
