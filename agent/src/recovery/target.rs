//! The system slot: opened for writing as the only one, filled, and read back.

use std::io;
use std::path::{Path, PathBuf};

use crate::slot::raw::Problem;
use crate::storage::{Access, Disk, Kind, Opened, Use};

/// Says why the system slot cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// What stands there may not be written.
    #[error("the system slot {} is not written: {problem}", path.display())]
    Unfit {
        /// Its device or file.
        path: PathBuf,
        /// Why.
        problem: Problem,
    },
    /// The system refused.
    #[error("could not {action} the system slot {}", path.display())]
    Io {
        /// What we were doing.
        action: &'static str,
        /// Its device or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens the system slot for an image of `length` bytes. It is refused where a file system is mounted from it: recovery is
/// a system of its own, and nothing of the one that is replaced may run.
pub(super) fn open(disk: &Disk, path: &Path, length: u64) -> Result<Box<dyn Opened>, TargetError> {
    let unfit = |problem| TargetError::Unfit { path: path.to_owned(), problem };
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => unfit(Problem::Missing),
        io::ErrorKind::ResourceBusy => unfit(Problem::InUse),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => unfit(Problem::ReadOnly),
        _ => TargetError::Io { action: "open", path: path.to_owned(), source },
    };
    let found = disk.look(path).map_err(refused)?;
    if found.kind == Kind::Other {
        return Err(unfit(Problem::Kind));
    }
    match disk.use_of(path, &found).map_err(refused)? {
        Some(Use::Mounted) => return Err(unfit(Problem::Mounted)),
        Some(Use::Looped) => return Err(unfit(Problem::InUse)),
        None => {}
    }
    let file = disk.open(path, Access::Claim).map_err(refused)?;
    let size = file.size().map_err(refused)?;
    if size < length {
        return Err(unfit(Problem::TooSmall { size, capacity: length }));
    }
    Ok(file)
}
