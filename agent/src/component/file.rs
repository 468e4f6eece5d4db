//! A component that is one file.

use std::io;
use std::path::{Path, PathBuf};

use super::ComponentError;
use crate::record;
use crate::storage::{Access, Disk, Kind, Opened, Rights};

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;
/// What there was before, in the component's folder.
const BEFORE: &str = "before";

fn failed(path: &Path) -> impl Fn(io::Error) -> ComponentError {
    move |source| ComponentError::Io { path: path.to_owned(), source }
}

/// Copies what stands at `path` aside, with its owner and mode; tells whether there was something.
pub(super) fn before(disk: &Disk, path: &Path, folder: &Path) -> Result<Option<String>, ComponentError> {
    // What is put there takes the place of a link, and only a file comes back.
    if path.is_symlink() {
        let path = path.display();
        return Err(ComponentError::Failed(format!(
            "{path} is a symbolic link; name in agent.toml the file that it leads to"
        )));
    }
    let Some(rights) = rights(disk, path)? else { return Ok(None) };
    // Without a step aside: nobody reads it before it is noted, and that comes after this.
    fresh(disk, path, &folder.join(BEFORE), give(&rights))?;
    record::sync_folder_on(&**disk, folder)?;
    Ok(Some(BEFORE.to_owned()))
}

/// Puts a package at `path`. The file that it replaces says whose it is, and what they may do; without one it is ours, and
/// has this mode.
pub(super) fn install(disk: &Disk, package: &Path, path: &Path, mode: u32) -> Result<(), ComponentError> {
    match rights(disk, path)? {
        Some(rights) => copy(disk, package, path, give(&rights)),
        None => copy(disk, package, path, |file| file.set_mode(mode)),
    }
}

/// Returns whose the file at `path` is, if there is one.
fn rights(disk: &Disk, path: &Path) -> Result<Option<Rights>, ComponentError> {
    match disk.look(path) {
        Ok(found) if found.kind == Kind::File => {}
        Ok(_) => return Err(ComponentError::Failed(format!("{} is no file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    }
    disk.open(path, Access::Read).and_then(|file| file.rights()).map(Some).map_err(failed(path))
}

/// Gives a file these rights.
fn give(rights: &Rights) -> impl Fn(&dyn Opened) -> io::Result<()> {
    move |file| {
        let Rights { owner, group, .. } = rights;
        let named = |error: io::Error| {
            let kind = error.kind();
            io::Error::new(kind, format!("could not give it to {owner}:{group}, whose it was: {error}"))
        };
        file.set_rights(rights).map_err(named)
    }
}

/// Has `to` be a copy of `from`, in one step.
fn copy(
    disk: &Disk,
    from: &Path,
    to: &Path,
    admit: impl Fn(&dyn Opened) -> io::Result<()>,
) -> Result<(), ComponentError> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    let beside = beside(to);
    fresh(disk, from, &beside, admit)?;
    disk.rename(&beside, to).map_err(failed(to))?;
    Ok(record::sync_folder_on(&**disk, folder)?)
}

/// Has a new file `to`, in place of any that is there, have the bytes of `from`, durable but for its name.
fn fresh(
    disk: &Disk,
    from: &Path,
    to: &Path,
    admit: impl Fn(&dyn Opened) -> io::Result<()>,
) -> Result<(), ComponentError> {
    remove(disk, to)?;
    let file = disk.open(to, Access::CreateNew { mode: 0o600 }).map_err(failed(to))?;
    fill(disk, from, &*file, to)?;
    // After its bytes: writing takes permissions away that are more than reading and writing.
    admit(&*file).and_then(|()| file.sync()).map_err(failed(to))
}

/// Removes a file, if there is one.
fn remove(disk: &Disk, path: &Path) -> Result<(), ComponentError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tern-new");
    path.with_file_name(name)
}

fn fill(disk: &Disk, from: &Path, file: &dyn Opened, to: &Path) -> Result<(), ComponentError> {
    let source = disk.open(from, Access::Read).map_err(failed(from))?;
    let (mut buffer, mut offset) = (vec![0; PIECE], 0);
    loop {
        match source.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                file.write_at(&buffer[..count], offset).map_err(failed(to))?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(from)(error)),
        }
    }
}

/// Puts back what there was.
pub(super) fn revert(
    disk: &Disk,
    before: Option<&str>,
    path: &Path,
    folder: &Path,
) -> Result<(), ComponentError> {
    if before.is_some() {
        let before = folder.join(BEFORE);
        let Some(rights) = rights(disk, &before)? else {
            return Err(ComponentError::Failed(format!("{} is gone", before.display())));
        };
        return copy(disk, &before, path, give(&rights));
    }
    remove(disk, path)?;
    // Gone already, too: an agent that died may have removed it in the cache alone, and a power cut would bring it back.
    match disk.sync_folder(path.parent().unwrap_or(Path::new("/"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

/// What there was is not needed any more.
pub(super) fn forget(disk: &Disk, folder: &Path) {
    if let Err(error) = remove(disk, &folder.join(BEFORE)) {
        tracing::warn!(error = &error as &dyn std::error::Error, "could not remove what was kept of before");
    }
}
