//! The two copies of the environment where they lie: read, and changed, under the lock of U-Boot's own tools.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::environment::{Environment, Newest, TooLarge, newest, rewrite};

/// How often, and how far apart, a lock that somebody holds is asked for: five seconds in all. `fw_setenv` holds it for
/// milliseconds; one that hangs must not hang the agent.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where one copy lies: a line of `fw_env.config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Block device or file.
    pub path: PathBuf,
    /// Its first byte there.
    pub offset: u64,
}

/// The medium with both copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The copies, in the order of `fw_env.config`: of two equally new ones the first counts.
    pub copies: [Location; 2],
    /// Bytes of each.
    pub size: usize,
    /// The lock file that `fw_setenv` takes.
    pub lock: PathBuf,
}

/// Says why the environment could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// The system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What we were doing.
        action: &'static str,
        /// The file or device.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Raw flash has other rules: erase first, and a flag that is no number.
    #[error("{} is neither a block device nor a file; an environment in raw flash (MTD, UBI) is not supported", .0.display())]
    Kind(PathBuf),
    /// Somebody holds the lock.
    #[error("the lock {} of the U-Boot environment is held by another program; see who with `fuser`", .0.display())]
    Locked(PathBuf),
    /// No copy is whole.
    #[error(
        "neither copy of the U-Boot environment is whole, in {} and {}; compare boot.copies with /etc/fw_env.config, \
         then make one with `saveenv` in U-Boot or with mkenvimage", .0[0].display(), .0[1].display()
    )]
    NeitherWhole([PathBuf; 2]),
    /// No room.
    #[error("could not change the U-Boot environment")]
    TooLarge(#[from] TooLarge),
    /// The medium did not keep it.
    #[error("{} reads back differently from what was written; the medium is failing", .0.display())]
    ReadBack(PathBuf),
}

impl Medium {
    /// Returns the variables that count.
    pub fn read(&self) -> Result<Environment, MediumError> {
        let _lock = self.lock()?;
        Ok(self.newest()?.environment)
    }

    /// Changes variables: one write of the copy that does not count, made durable, read back and compared.
    pub fn change(&self, change: impl FnOnce(&mut Environment)) -> Result<(), MediumError> {
        // Held from the reading on: what somebody else writes in between would be lost.
        let _lock = self.lock()?;
        let Some((index, bytes)) = rewrite(self.newest()?, self.size, change)? else { return Ok(()) };
        let Location { path, offset } = &self.copies[index];
        let io = |action| move |source| MediumError::Io { action, path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io("open"))?;
        file.write_all_at(&bytes, *offset).map_err(io("write the U-Boot environment to"))?;
        file.sync_all().map_err(io("sync"))?;
        // Have the medium answer, not the page cache. A file system that knows no such advice only loses us that.
        if let Err(error) = fadvise(&file, 0, None, Advice::DontNeed) {
            tracing::debug!(%error, "reading the U-Boot environment back from the cache");
        }
        let mut found = vec![0; self.size];
        file.read_exact_at(&mut found, *offset).map_err(io("read back"))?;
        if found == bytes { Ok(()) } else { Err(MediumError::ReadBack(path.clone())) }
    }

    fn newest(&self) -> Result<Newest, MediumError> {
        let copies = [self.copy(0)?, self.copy(1)?];
        newest([&copies[0], &copies[1]])
            .ok_or_else(|| MediumError::NeitherWhole(self.copies.each_ref().map(|copy| copy.path.clone())))
    }

    fn copy(&self, index: usize) -> Result<Vec<u8>, MediumError> {
        let Location { path, offset } = &self.copies[index];
        let io = |action| move |source| MediumError::Io { action, path: path.clone(), source };
        let kind = fs::metadata(path).map_err(io("look at"))?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(MediumError::Kind(path.clone()));
        }
        let file = File::open(path).map_err(io("open"))?;
        let mut bytes = vec![0; self.size];
        match file.read_exact_at(&mut bytes, *offset) {
            Ok(()) => Ok(bytes),
            // Too small is a slip in the configuration, and must not pass for damage.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io("find the copy in")(error)),
            // A worn-out block under one copy is what the other is for; U-Boot goes on as well.
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "could not read a copy of the U-Boot environment");
                Ok(Vec::new())
            }
        }
    }

    /// Takes the lock as libubootenv does: flock on a file that it shares with all of U-Boot's tools.
    fn lock(&self) -> Result<File, MediumError> {
        let io = |action| move |source| MediumError::Io { action, path: self.lock.clone(), source };
        // Whoever comes first makes it, and everybody may use it.
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o666).open(&self.lock);
        let file = options.map_err(io("open the lock"))?;
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
            }
        }
        Err(MediumError::Locked(self.lock.clone()))
    }
}

/// Tells whether two copies of `size` bytes share a byte.
pub fn overlap(copies: &[Location; 2], size: usize) -> bool {
    let [first, second] = copies;
    first.path == second.path && first.offset.abs_diff(second.offset) < size as u64
}
