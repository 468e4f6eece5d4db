//! The folder of entries where it lies: on FAT, where a rename is two changes and a removed file frees its clusters.
//!
//! So nothing here is renamed, and a removed name cannot boot anything. A file is made under its last name with its
//! switch off, made durable, and switched on by a write of one byte; it is switched off before it is removed. Whatever a
//! power cut leaves of a name, or of two names for the same clusters, the one byte on the medium decides.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::entry::{Content, Entry, Name, SIZE_MAX, Text};
use crate::storage::{self, Access, Storage};

/// Ceiling on the files of the folder.
const FILES_MAX: usize = 1024;

/// Says why the entries could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused.
    #[error(
        "could not {action} {}; it must be mounted to be written, and whole (`fsck.vfat`)", path.display()
    )]
    Io {
        /// What we were doing.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The medium did not keep it.
    #[error("{} reads back differently from what was written; the medium is failing", .0.display())]
    ReadBack(PathBuf),
}

/// Reads all that is named as ours.
pub(super) fn entries(disk: &dyn Storage, folder: &Path) -> Result<Vec<Entry>, FolderError> {
    let mut entries = Vec::new();
    for file in disk.list(folder, FILES_MAX).map_err(io_error("list", folder))? {
        let Some(file) = file.to_str() else { continue };
        let Some(name) = Name::parse(file) else { continue };
        let path = folder.join(file);
        let content = match storage::read(disk, &path, SIZE_MAX) {
            Ok(bytes) => Content::read(&bytes),
            // None of ours.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Content::read(&[]),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        entries.push(Entry { file: file.to_owned(), name, content });
    }
    Ok(entries)
}

/// Makes the entries that are named as ours durable as they are found, as [`storage::catch_up`] does. Not their names: what
/// is on had its own before, and of what is off none matters.
pub(super) fn catch_up(disk: &dyn Storage, folder: &Path) {
    // Whoever reads them next says why they cannot be read.
    let Ok(names) = disk.list(folder, FILES_MAX) else { return };
    let is_ours = |name: &&OsString| name.to_str().and_then(Name::parse).is_some();
    let ours: Vec<_> = names.iter().filter(is_ours).map(|name| folder.join(name)).collect();
    storage::catch_up(disk, &ours);
}

/// Makes an entry under a name that is not there; it counts from the last write on, which is of one byte.
pub(super) fn make(disk: &dyn Storage, folder: &Path, name: Name, text: &Text) -> Result<(), FolderError> {
    let path = folder.join(name.file());
    let file = disk.open(&path, Access::CreateNew { mode: 0o644 }).map_err(io_error("make", &path))?;
    file.write_at(&text.off(), 0).and_then(|()| file.sync()).map_err(io_error("write", &path))?;
    disk.sync_folder(folder).map_err(io_error("sync", folder))?;
    let at = usize::try_from(text.switch).unwrap_or(0);
    file.write_at(&text.on[at..=at], text.switch)
        .and_then(|()| file.sync())
        .map_err(io_error("switch on", &path))?;
    storage::ask_medium(&*file);
    let found = storage::read(disk, &path, SIZE_MAX).map_err(io_error("read back", &path))?;
    if found == text.on { Ok(()) } else { Err(FolderError::ReadBack(path)) }
}

/// Has an entry boot nothing any more, under whatever names.
pub(super) fn switch_off(disk: &dyn Storage, folder: &Path, entry: &Entry) -> Result<(), FolderError> {
    if entry.content.switches.is_empty() {
        return Ok(());
    }
    let path = folder.join(&entry.file);
    let file = disk.open(&path, Access::Write).map_err(io_error("open", &path))?;
    for at in &entry.content.switches {
        file.write_at(b"#", *at).map_err(io_error("switch off", &path))?;
    }
    file.sync().map_err(io_error("switch off", &path))
}

/// Takes entries away, each switched off before: a name that a power cut brings back boots nothing. So the folder is not
/// synced for it; whatever makes an entry under such a name again does that before it switches it on.
pub(super) fn remove<'a>(
    disk: &dyn Storage,
    folder: &Path,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<(), FolderError> {
    for entry in entries {
        switch_off(disk, folder, entry)?;
        let path = folder.join(&entry.file);
        disk.remove(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { action, path: path.to_owned(), source }
}
