//! What the embedded store does to its folder: locking it, and moving a damaged one out of the way.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::files;

/// Damaged folders that are kept to look into; older ones are deleted, or a crash loop would fill the disk.
const ASIDE_MAX: usize = 3;

/// Locks `<dir>/<name>.lock`: a folder that another process has open must not be taken for a damaged one.
pub(super) fn lock(dir: &Path, name: &str) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(format!("{name}.lock")))
        .map_err(io_error("open the lock file of"))?;
    match files::lock(&file).map_err(io_error("lock"))? {
        true => Ok(file),
        false => Err(StoreError::InUse { dir: dir.to_owned() }),
    }
}

/// Renames `dir` to `<dir>.damaged-<n>`, deletes the oldest of those beyond [`ASIDE_MAX`], and returns where
/// it is now; none if there was nothing.
pub(super) fn move_aside(dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let prefix = format!("{}.damaged-", dir.file_name().unwrap_or_default().to_string_lossy());
    let numbers = numbers(parent, &prefix)?;
    let number = numbers.last().map_or(1, |last| last.saturating_add(1));
    let aside = parent.join(format!("{prefix}{number}"));
    match fs::rename(dir, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed.map_err(io_error("set aside"))?,
    }
    let surplus = (numbers.len() + 1).saturating_sub(ASIDE_MAX);
    for old in numbers.into_iter().take(surplus) {
        fs::remove_dir_all(parent.join(format!("{prefix}{old}")))
            .map_err(io_error("delete an old damaged copy of"))?;
    }
    sync(parent)?;
    Ok(Some(aside))
}

fn numbers(parent: &Path, prefix: &str) -> Result<BTreeSet<u32>, StoreError> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(parent).map_err(io_error("list the folder of"))? {
        let entry = entry.map_err(io_error("list the folder of"))?.file_name();
        numbers.extend(entry.to_str().and_then(|entry| entry.strip_prefix(prefix)?.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// Syncs a file, or the names in a folder.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync"))
}

/// Says what was being done when the disk refused.
pub(super) fn io_error(what: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { what, source }
}
