//! Tells a data folder from a copy of it.
//!
//! `<data>/place` names the file in which the ledger is written, by what a copy cannot take along: its inode and the
//! moment at which that was made. Another file there, or no mark beside a ledger that has frames, means that somebody
//! put a copy in place, on this machine or another, and the copy may be older than the fleet. What this cannot see (a
//! virtual machine set back as a whole, a copy written into the old files) the devices' own claims show.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::files::{self, Readers};

const MARK: &str = "place";

/// Returns whether the folder is where the service wrote last. `frames`: of the ledger.
pub fn is_original(data: &Path, frames: u64) -> bool {
    let Ok(mark) = std::fs::read_to_string(data.join(MARK)) else { return frames == 0 };
    let mut words = mark.split_whitespace();
    let (Some(name), Some(found)) = (words.next(), words.next()) else { return false };
    // The name is a file's of the ledger folder, not a path.
    !name.contains('/') && identity(&data.join("ledger").join(name)).is_ok_and(|identity| identity == found)
}

/// Writes the mark, unless it is right; `ledger` is the file that the ledger is written to.
pub fn mark(data: &Path, ledger: &Path) -> io::Result<()> {
    let name = ledger.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (path, text) = (data.join(MARK), format!("{name} {}\n", identity(ledger)?));
    if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    files::replace(&path, text.as_bytes(), Readers::All)
}

fn identity(file: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(file)?;
    // Some file systems do not know when a file was made.
    let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok(format!("{}-{}", metadata.ino(), made.map_or(0, |made| made.as_nanos())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_the_folder_and_a_new_folder_is_none() {
        let home = tempfile::TempDir::new().unwrap();
        let data = home.path().join("data");
        let ledger = data.join("ledger").join("0.ledger");
        std::fs::create_dir_all(data.join("ledger")).unwrap();
        assert!(is_original(&data, 0));
        assert!(!is_original(&data, 5), "a ledger without its mark was put there");
        std::fs::write(&ledger, "frames").unwrap();
        mark(&data, &ledger).unwrap();

        std::fs::write(&ledger, "more frames").unwrap();
        assert!(is_original(&data, 5));
        let saved = std::fs::read(&ledger).unwrap();
        let beside = home.path().join("beside");
        std::fs::write(&beside, saved).unwrap();
        std::fs::rename(beside, &ledger).unwrap();

        assert!(!is_original(&data, 5));
        mark(&data, &ledger).unwrap();
        assert!(is_original(&data, 5));
    }
}
