//! How often the agent has come up in this boot, and ended by itself: a release on trial whose agent crashes again and
//! again is not well, though each time it comes up in good order.
//!
//! Counted in `runtime_dir`, where it goes with the boot; never on the medium that may be the reason.

use std::fs;
use std::path::{Path, PathBuf};

/// The file in `runtime_dir`: the boot, and the starts in it.
const FILE: &str = "starts";
/// Starts of a trial; one more, and the trial is over.
pub const MOST: u32 = 5;

/// The count of this boot.
#[derive(Debug)]
pub struct Starts {
    path: PathBuf,
    boot_id: String,
    count: u32,
}

impl Starts {
    /// Counts this start.
    pub fn count(runtime: &Path, boot_id: &str) -> Self {
        let path = runtime.join(FILE);
        let before = fs::read_to_string(&path).ok().and_then(|text| {
            let (boot, count) = text.trim().split_once(' ')?;
            (boot == boot_id).then(|| count.parse().unwrap_or(0))
        });
        let count = before.unwrap_or(0u32).saturating_add(1);
        let starts = Self { path, boot_id: boot_id.to_owned(), count };
        starts.write(count);
        starts
    }

    /// Tells whether a trial is over by it.
    pub fn are_too_many(&self) -> bool {
        self.count > MOST
    }

    /// The agent is stopped by somebody: that does not count against it.
    pub fn take_back(&self) {
        self.write(self.count - 1);
    }

    fn write(&self, count: u32) {
        // A count that cannot be kept ends no trial; the guard and the watchdog remain.
        if let Err(error) = fs::write(&self.path, format!("{} {count}\n", self.boot_id)) {
            tracing::warn!(file = %self.path.display(), %error, "could not count the starts of the agent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_count_in_their_boot_unless_somebody_stopped_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let start = |boot| Starts::count(folder.path(), boot);

        for _ in 0..MOST {
            assert!(!start("one").are_too_many());
        }
        let last = start("one");
        assert!(last.are_too_many());
        last.take_back();
        assert!(start("one").are_too_many());
        assert!(!start("two").are_too_many());
    }

    #[test]
    fn a_damaged_count_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "one", "one many\n", "\0\0\0"] {
            fs::write(folder.path().join(FILE), text).unwrap();

            assert_eq!(Starts::count(folder.path(), "one").count, 1, "{text:?}");
        }
    }
}
