//! Trusted metadata as files: `<role>.json`, the role's name quoted.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tern_protocol::tuf::RoleName;
use tern_protocol::tuf::client::{BoxError, Store};

/// A folder of metadata files.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_path_buf())
    }

    fn path(&self, role: &RoleName) -> PathBuf {
        self.0.join(format!("{}.json", role.quoted()))
    }
}

impl Store for Folder {
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, BoxError> {
        match fs::read(self.path(role)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn keep(&mut self, role: &RoleName, bytes: &[u8]) -> Result<(), BoxError> {
        fs::create_dir_all(&self.0)?;
        Ok(replace(&self.path(role), bytes)?)
    }

    fn forget(&mut self, role: &RoleName) -> Result<(), BoxError> {
        match fs::remove_file(self.path(role)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// Writes a file in place of the one before; after a power cut it is one of the two.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}
