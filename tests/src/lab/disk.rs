//! A disk that is small enough to be filled: a tmpfs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::in_ci;

/// A mounted tmpfs; unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a tmpfs of `kib` KiB at `path`, or none where that is not allowed.
    ///
    /// # Panics
    /// In CI, when it cannot be mounted: a test that needs it must not pass by skipping.
    pub fn mount(path: &Path, kib: u64) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a folder to mount on");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=700"), "tern-test"])
            .arg(path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { path: path.to_owned() }),
            other => {
                assert!(!in_ci(), "CI must be able to mount a tmpfs: {other:?}");
                let text = format!("SKIPPED: a tmpfs cannot be mounted here; run as root ({other:?})\n");
                let _shown = std::io::stderr().write_all(text.as_bytes());
                None
            }
        }
    }

    /// Fills what is left, to the last byte, with a file that [`SmallDisk::free`] removes.
    pub fn fill(&self) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a file on the small disk");
        for size in [64 * 1024, 4096, 1] {
            let block = vec![0x55; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Frees what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("the disk was filled before");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that the test leaves to its own drop may still have files open.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
