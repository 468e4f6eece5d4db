//! Files that are there whole or not at all, also after a power cut.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// How often a lock is tried again that another holds: a child of this process that is just being started has a copy of every
/// open file until it executes, so one that was given back a moment ago may still look taken.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Everybody.
    All,
}

/// Locks an open file until it is closed; tells whether it could, for another may keep it. Waits a second for that.
pub fn lock(file: &File) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(source),
        }
    }
    Ok(false)
}

/// Writes a file beside its place, syncs it and moves it there. What lay there is replaced.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let draft = folder.join(format!(".{name}.{}.part", std::process::id()));
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        // The first error is the one to report.
        drop(fs::remove_file(&draft));
        return Err(error);
    }
    // A new name lasts only when its folder is synced.
    File::open(folder)?.sync_all()
}

/// Tells whether something is read like a file: one, or a pipe, as shells make of `<(…)`. Of a folder or a device
/// the permissions say nothing, and a device may never end.
pub fn reads_as_file(about: &fs::Metadata) -> bool {
    about.is_file() || about.file_type().is_fifo()
}

/// Tells whether a folder is there and may be written to.
pub fn usable(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    access(folder, Access::EXISTS | Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
}

/// Keeps those out of a folder who are neither its owner nor of its group; tells whether they could enter before.
pub fn keep_others_out(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = fs::metadata(path)?.permissions();
    let mode = permissions.mode();
    if mode & 0o007 == 0 {
        return Ok(false);
    }
    permissions.set_mode(mode & !0o007);
    fs::set_permissions(path, permissions)?;
    Ok(true)
}

/// Makes a folder that only its owner may enter, unless it is there already.
pub fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_was_open_to_everybody_is_closed_and_a_group_keeps_its_way_in() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("data");
        private_folder(&folder).unwrap();
        let mode = || fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();

        assert!(keep_others_out(&folder).unwrap());

        assert_eq!(mode(), 0o750);
        assert!(!keep_others_out(&folder).unwrap());
    }
}
