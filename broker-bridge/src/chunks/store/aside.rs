//! Writing so that a file is complete or absent: aside, synced, renamed, folder synced.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tern_protocol::chunk::{self, PIECE};
use tern_protocol::digest::Digest;

use super::StoreError;

/// Where files are written before they have their names.
#[derive(Debug)]
pub(super) struct Incoming {
    folder: PathBuf,
    next: AtomicU64,
}

impl Incoming {
    /// Opens the folder and sweeps what was half written.
    pub(super) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at("sweep", &folder))?;
        }
        fs::create_dir_all(&folder).map_err(at("make", &folder))?;
        Ok(Self::beside(folder))
    }

    /// Sweeps nothing: another process may be writing there.
    pub(super) fn beside(folder: PathBuf) -> Self {
        Self { folder, next: AtomicU64::new(0) }
    }

    /// Begins a file.
    pub(super) fn begin(&self) -> Result<Aside, StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}", std::process::id()));
        let file = File::create(&path).map_err(at("create", &path))?;
        Ok(Aside { path, file })
    }

    /// Writes the tree over `leaves`: level 0, then level 1.
    pub(super) fn tree(&self, leaves: &[Digest]) -> Result<Aside, StoreError> {
        let mut tree = self.begin()?;
        let roots = leaves.chunks(PIECE as usize).map(chunk::root);
        let bytes: Vec<u8> = leaves.iter().copied().chain(roots).flat_map(|d| d.0).collect();
        tree.write(&bytes)?;
        tree.sync()?;
        Ok(tree)
    }
}

/// A file being written; gone when dropped, unless it was renamed.
pub(super) struct Aside {
    path: PathBuf,
    file: File,
}

impl Aside {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(at("write", &self.path))
    }

    /// Writes over what stands at the start.
    pub(super) fn write_at_start(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, 0).map_err(at("write", &self.path))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(at("sync", &self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file, which is synced, its name.
    pub(super) fn rename(self, to: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, to).map_err(at("rename to", to))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Renamed away is the good case; whatever else stays is swept at the next start.
        fs::remove_file(&self.path).ok();
    }
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes renames in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(at("sync", folder))
}

pub(super) fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}
