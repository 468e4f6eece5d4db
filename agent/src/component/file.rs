//! A component that is one file.

use std::io;
use std::path::{Path, PathBuf};

use super::ComponentError;
use crate::record;
use crate::storage::{Access, Disk, Kind};

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;
/// What there was before, in the component's folder.
const BEFORE: &str = "before";

fn failed(path: &Path) -> impl Fn(io::Error) -> ComponentError {
    move |source| ComponentError::Io { path: path.to_owned(), source }
}

/// Copies what stands at `path` aside; tells whether there was something.
pub(super) fn before(disk: &Disk, path: &Path, folder: &Path) -> Result<Option<String>, ComponentError> {
    match disk.look(path) {
        Ok(found) if found.kind == Kind::File => {}
        Ok(_) => return Err(ComponentError::Failed(format!("{} is no file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    }
    put(disk, path, &folder.join(BEFORE))?;
    Ok(Some(BEFORE.to_owned()))
}

/// Has `to` be a copy of `from`, in one step.
pub(super) fn put(disk: &Disk, from: &Path, to: &Path) -> Result<(), ComponentError> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    let beside = beside(to);
    match disk.remove(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&beside)(error)),
        _ => {}
    }
    copy(disk, from, &beside)?;
    disk.rename(&beside, to).map_err(failed(to))?;
    Ok(record::sync_folder_on(&**disk, folder)?)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tern-new");
    path.with_file_name(name)
}

fn copy(disk: &Disk, from: &Path, to: &Path) -> Result<(), ComponentError> {
    let source = disk.open(from, Access::Read).map_err(failed(from))?;
    // May be a program, like what is in a slot.
    let file = disk.open(to, Access::CreateNew { mode: 0o755 }).map_err(failed(to))?;
    file.set_mode(0o755).map_err(failed(to))?;
    let (mut buffer, mut offset) = (vec![0; PIECE], 0);
    loop {
        match source.read_at(&mut buffer, offset) {
            Ok(0) => break,
            Ok(count) => {
                file.write_at(&buffer[..count], offset).map_err(failed(to))?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(from)(error)),
        }
    }
    file.sync().map_err(failed(to))
}

/// Puts back what there was.
pub(super) fn revert(
    disk: &Disk,
    before: Option<&str>,
    path: &Path,
    folder: &Path,
) -> Result<(), ComponentError> {
    if before.is_some() {
        return put(disk, &folder.join(BEFORE), path);
    }
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path)(error)),
        Ok(()) => Ok(record::sync_folder_on(&**disk, path.parent().unwrap_or(Path::new("/")))?),
    }
}

/// What there was is not needed any more.
pub(super) fn forget(disk: &Disk, folder: &Path) {
    let path = folder.join(BEFORE);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "could not remove what was kept of before");
        }
        _ => {}
    }
}
