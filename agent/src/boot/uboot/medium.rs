//! The two copies of the environment where they lie: read, and changed, under the lock of U-Boot's own tools.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::environment::{Environment, Newest, TooLarge, newest, rewrite, settled};
use crate::storage::{self, Access, Kind, Storage};

/// How often, and how far apart, a lock that somebody holds is asked for: five seconds in all. `fw_setenv` holds it for
/// milliseconds; one that hangs must not hang the agent.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How often a copy that cannot be read is tried.
const READ_ATTEMPTS: u32 = 3;

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
    /// One copy cannot be read, so nobody knows which one the boot loader will believe.
    #[error("{} cannot be read; no slot is written while a copy of the U-Boot environment is in doubt", .0.display())]
    Unreadable(PathBuf),
    /// No room.
    #[error("could not change the U-Boot environment")]
    TooLarge(#[from] TooLarge),
    /// The medium did not keep it.
    #[error("{} reads back differently from what was written; the medium is failing", .0.display())]
    ReadBack(PathBuf),
}

impl Medium {
    /// Returns the variables that count.
    ///
    /// Without the lock: a copy that somebody is writing is not whole yet, and the other one counts as it did before. So
    /// nobody who holds the lock can keep a device from knowing what it boots.
    pub fn read(&self, disk: &dyn Storage) -> Result<Environment, MediumError> {
        Ok(self.newest(&self.both(disk)?)?.environment)
    }

    /// Changes variables: one write of the copy that does not count, made durable, read back and compared.
    pub fn change(
        &self,
        disk: &dyn Storage,
        change: impl FnOnce(&mut Environment),
    ) -> Result<(), MediumError> {
        // Held from the reading on: what somebody else writes in between would be lost.
        let _lock = self.lock(disk)?;
        let found = self.newest(&self.both(disk)?)?;
        match rewrite(found, self.size, change)? {
            Some((index, bytes)) => self.write(disk, index, &bytes),
            None => Ok(()),
        }
    }

    /// Has both copies say the same, so that losing either one of them changes nothing.
    ///
    /// Both have to be readable: as long as one is not, nobody can tell which of them the boot loader will believe.
    pub fn settle(&self, disk: &dyn Storage) -> Result<(), MediumError> {
        let _lock = self.lock(disk)?;
        let copies = self.readable(disk)?;
        let found = self.newest(&copies)?;
        let other = copies[1 - found.index].as_deref().unwrap_or_default();
        match settled(&found, other, self.size)? {
            Some((index, bytes)) => self.write(disk, index, &bytes),
            None => Ok(()),
        }
    }

    /// Makes both copies durable as they are found, as [`storage::catch_up`] does.
    pub fn catch_up(&self, disk: &dyn Storage) {
        let mut paths: Vec<_> = self.copies.iter().map(|copy| copy.path.clone()).collect();
        paths.dedup();
        storage::catch_up(disk, &paths);
    }

    /// Writes both copies anew, one after the other, with what counts, and reads each back: whoever relies on changing them
    /// later knows now that they can be changed. Fails, and changes no variable, where one of them cannot be read or written.
    pub fn prove(&self, disk: &dyn Storage) -> Result<(), MediumError> {
        let _lock = self.lock(disk)?;
        for _ in 0..2 {
            let found = self.newest(&self.readable(disk)?)?;
            let bytes = found.environment.encode(found.flag.wrapping_add(1), self.size)?;
            self.write(disk, 1 - found.index, &bytes)?;
        }
        Ok(())
    }

    fn write(&self, disk: &dyn Storage, index: usize, bytes: &[u8]) -> Result<(), MediumError> {
        let Location { path, offset } = &self.copies[index];
        let io = |action| move |source| MediumError::Io { action, path: path.clone(), source };
        let file = disk.open(path, Access::Write).map_err(io("open"))?;
        file.write_at(bytes, *offset).map_err(io("write the U-Boot environment to"))?;
        file.sync().map_err(io("sync"))?;
        storage::ask_medium(&*file);
        let mut found = vec![0; self.size];
        let mut read = Ok(());
        for _ in 0..READ_ATTEMPTS {
            read = storage::read_exact_at(&*file, &mut found, *offset);
            if read.is_ok() {
                break;
            }
        }
        read.map_err(io("read back"))?;
        if found == bytes { Ok(()) } else { Err(MediumError::ReadBack(path.clone())) }
    }

    fn newest(&self, copies: &[Option<Vec<u8>>; 2]) -> Result<Newest, MediumError> {
        newest(copies.each_ref().map(|copy| copy.as_deref().unwrap_or_default()))
            .ok_or_else(|| MediumError::NeitherWhole(self.copies.each_ref().map(|copy| copy.path.clone())))
    }

    /// Reads both copies; nothing of one that the medium does not give.
    fn both(&self, disk: &dyn Storage) -> Result<[Option<Vec<u8>>; 2], MediumError> {
        Ok([self.copy(disk, 0)?, self.copy(disk, 1)?])
    }

    /// The same, and refuses where the medium does not give one of them.
    fn readable(&self, disk: &dyn Storage) -> Result<[Option<Vec<u8>>; 2], MediumError> {
        let copies = self.both(disk)?;
        match copies.iter().position(Option::is_none) {
            Some(index) => Err(MediumError::Unreadable(self.copies[index].path.clone())),
            None => Ok(copies),
        }
    }

    fn copy(&self, disk: &dyn Storage, index: usize) -> Result<Option<Vec<u8>>, MediumError> {
        let Location { path, offset } = &self.copies[index];
        let io = |action| move |source| MediumError::Io { action, path: path.clone(), source };
        if disk.look(path).map_err(io("look at"))?.kind == Kind::Other {
            return Err(MediumError::Kind(path.clone()));
        }
        let file = disk.open(path, Access::Read).map_err(io("open"))?;
        storage::ask_medium(&*file);
        let mut bytes = vec![0; self.size];
        for attempt in 1..=READ_ATTEMPTS {
            match storage::read_exact_at(&*file, &mut bytes, *offset) {
                Ok(()) => return Ok(Some(bytes)),
                // Too small is a slip in the configuration, and must not pass for damage.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io("find the copy in")(error));
                }
                // A worn-out block under one copy is what the other is for; U-Boot goes on as well.
                Err(error) => {
                    let file = path.display();
                    tracing::warn!(%file, attempt, %error, "could not read a copy of the U-Boot environment");
                }
            }
        }
        Ok(None)
    }

    /// Takes the lock as libubootenv does: flock on a file that it shares with all of U-Boot's tools.
    fn lock(&self, disk: &dyn Storage) -> Result<Box<dyn Any + Send>, MediumError> {
        for _ in 0..LOCK_ATTEMPTS {
            // Whoever comes first makes it, and everybody may use it.
            match disk.lock(&self.lock, 0o666) {
                Ok(lock) => return Ok(lock),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(LOCK_PAUSE),
                Err(source) => {
                    return Err(MediumError::Io { action: "lock", path: self.lock.clone(), source });
                }
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
