//! Kernel panics: files that the kernel's crash store did not hold before.
//!
//! A crash store keeps what a panic left over the reset: `/sys/fs/pstore`, or where systemd moves it,
//! `/var/lib/systemd/pstore`, with a folder for each. A file is known by its name and time, since stores use names again.
//! `console-`, `pmsg-` and `ftrace-` are there after every warm boot and say nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tern_protocol::digest::Digest;

use super::Counted;

/// Files that are remembered.
const SEEN_MAX: usize = 1024;
/// Files that are looked at.
const FILES_MAX: usize = 65_536;
/// What no panic leaves.
const OTHERS: [&str; 4] = ["console-", "pmsg-", "ftrace-", "."];

/// Says in the record that counting has begun.
const BEGUN: &str = "panics begun";
/// Begins the hash of each file that was counted already.
///
/// Of more than a thousand files those with the smallest hashes are remembered: which they are does not hang on the order
/// in which they are listed, so that none is taken for a new one later.
const SEEN: &str = "panic ";

/// Takes what is there for known, if nothing is known yet; tells whether that is so.
pub(super) fn begin(counted: &mut Counted, folder: &Path) -> bool {
    let begins = !counted.contains_key(BEGUN);
    if begins {
        remember(counted, &listed(folder).unwrap_or_default());
    }
    begins
}

/// Counts the files that are new, and remembers them. `None` where there is no such folder.
pub(super) fn count(counted: &mut Counted, folder: &Path) -> Option<u64> {
    let now = listed(folder)?;
    let known = |key: &String| u64::from_str_radix(key.strip_prefix(SEEN)?, 16).ok();
    // In ascending order, as the keys are.
    let seen: Vec<u64> = counted.keys().filter_map(known).collect();
    // Beyond the largest that a full memory holds there may be old ones that it does not know.
    let most = seen.last().filter(|_| seen.len() >= SEEN_MAX).copied().unwrap_or(u64::MAX);
    let new = now.iter().filter(|file| **file <= most && seen.binary_search(file).is_err()).count();
    remember(counted, &now);
    Some(new as u64)
}

fn remember(counted: &mut Counted, files: &[u64]) {
    counted.retain(|key, _| !key.starts_with(SEEN));
    counted.extend(files.iter().map(|file| (format!("{SEEN}{file:016x}"), 0)));
    counted.insert(BEGUN.to_owned(), 0);
}

/// Returns the hashes of the files in a crash store, in ascending order.
fn listed(folder: &Path) -> Option<Vec<u64>> {
    let mut hashes = Vec::new();
    for entry in fs::read_dir(folder).ok()?.take(FILES_MAX).flatten() {
        let name = entry.file_name();
        let Ok(found) = entry.metadata() else { continue };
        if OTHERS.iter().any(|other| name.as_encoded_bytes().starts_with(other.as_bytes())) {
            continue;
        }
        let time = format!("{}.{:09}/", found.mtime(), found.mtime_nsec());
        let hash = Digest::of(&[time.as_bytes(), name.as_encoded_bytes()].concat()).short();
        if let Err(place) = hashes.binary_search(&hash) {
            hashes.insert(place, hash);
            hashes.truncate(SEEN_MAX);
        }
    }
    Some(hashes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Leaves a file of that second behind.
    fn leaves(folder: &Path, name: &str, second: u64) {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    #[test]
    fn each_panic_counts_once_and_those_of_before_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path();
        leaves(store, "dmesg-ramoops-0", 1000);
        let mut known = Counted::new();
        begin(&mut known, store);
        assert_eq!(count(&mut known, store), Some(0));

        leaves(store, "dmesg-ramoops-1", 2000);
        leaves(store, "console-ramoops-0", 2000);
        fs::create_dir(store.join("1700000000")).unwrap();

        assert_eq!(count(&mut known, store), Some(2), "a file, and a folder of systemd's");
        assert_eq!(count(&mut known, store), Some(0));
        leaves(store, "dmesg-ramoops-0", 3000);
        assert_eq!(count(&mut known, store), Some(1), "the same name at another time");
        fs::remove_file(store.join("dmesg-ramoops-1")).unwrap();
        assert_eq!(count(&mut known, store), Some(0), "one that is gone is no panic");
    }

    #[test]
    fn without_a_crash_store_nothing_is_counted() {
        let mut known = Counted::new();
        begin(&mut known, Path::new("/no/such/folder"));

        assert_eq!(count(&mut known, Path::new("/no/such/folder")), None);
    }

    #[test]
    fn ten_thousand_files_take_no_more_memory_than_a_thousand_and_none_counts_twice() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path();
        let mut known = Counted::new();
        begin(&mut known, store);
        (0..10_000).for_each(|n| leaves(store, &format!("dmesg-{n}"), n));

        let counted = count(&mut known, store);

        assert_eq!(counted, Some(SEEN_MAX as u64));
        assert!(serde_json::to_vec(&known).unwrap().len() < 32 * 1024);
        assert_eq!(count(&mut known, store), Some(0));
        // Others come into view when some go; they are not new.
        (0..5_000).for_each(|n| fs::remove_file(store.join(format!("dmesg-{n}"))).unwrap());
        assert_eq!(count(&mut known, store), Some(0));
        (0..9_000).for_each(|n| {
            fs::remove_file(store.join(format!("dmesg-{n}"))).ok();
        });
        count(&mut known, store);
        (9_000..10_000).for_each(|n| fs::remove_file(store.join(format!("dmesg-{n}"))).unwrap());
        count(&mut known, store);
        leaves(store, "dmesg-new", 1);
        assert_eq!(count(&mut known, store), Some(1), "with room again, a new one is seen");
    }
}
