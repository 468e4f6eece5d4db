//! The port to files, folders and block devices: all that must survive a power cut goes through it.
//!
//! Everything else of the agent says *what* must be durable and in which order; here is only how the system does it.
//! The power-cut campaign puts a disk behind this port that forgets, tears and reorders whatever was not synced.

pub mod system;
#[cfg(test)]
pub(crate) mod testing;

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk behind the port.
pub type Disk = Arc<dyn Storage>;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file; nothing is said of a block device.
    pub size: u64,
    /// Tells two places apart, whatever names lead there.
    pub identity: Identity,
}

/// What something at a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A block device.
    Block,
    /// A folder, a character device, a socket.
    Other,
}

/// Tells two files or devices apart: a device by its number, a file by its file system and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// A block device's own number is meant, not that of a file system.
    pub is_device: bool,
    /// Device number.
    pub device: u64,
    /// Inode; 0 for a device.
    pub inode: u64,
}

/// Whose a file is, and what they may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Permissions.
    pub mode: u32,
    /// User.
    pub owner: u32,
    /// Group.
    pub group: u32,
}

/// How the system itself uses a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A file system is mounted from it.
    Mounted,
    /// A loop device stands on it.
    Looped,
}

/// What a file or device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading past the page cache, with place, length and buffer aligned to [`DIRECT_ALIGNMENT`].
    ReadDirect,
    /// Reading and writing.
    Write,
    /// The same, as the only one: the system refuses a block device that it uses itself.
    Claim,
    /// Writing a file that must not be there yet, with this mode.
    CreateNew {
        /// Permissions.
        mode: u32,
    },
}

/// What direct reads ask of place, length and buffer: no medium that we know wants more.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// An open file or device.
pub trait Opened: Send {
    /// Reads at `offset` into `buffer`; returns how many bytes there were, 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; durable only after [`Self::sync`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything that was written durable.
    fn sync(&self) -> io::Result<()>;

    /// Returns where it ends.
    fn size(&self) -> io::Result<u64>;

    /// Has a file end at `size`; durable only after [`Self::sync`].
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Gives a file these permissions.
    fn set_mode(&self, mode: u32) -> io::Result<()>;

    /// Returns a file's rights.
    fn rights(&self) -> io::Result<Rights>;

    /// Gives a file these rights.
    fn set_rights(&self, rights: &Rights) -> io::Result<()>;

    /// Has the next read come from the medium, as far as the system takes such advice.
    fn drop_cache(&self) -> io::Result<()>;

    /// Returns what was opened.
    fn found(&self) -> io::Result<Found>;
}

/// Files, folders and block devices.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Looks at what stands at `path`, behind all links.
    fn look(&self, path: &Path) -> io::Result<Found>;

    /// Tells how the system uses what stands at `path`, if it does.
    fn use_of(&self, path: &Path, found: &Found) -> io::Result<Option<Use>>;

    /// Opens a file or device.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Opened>>;

    /// Returns the names in a folder, in no order; more than `most` are refused.
    fn list(&self, folder: &Path, most: usize) -> io::Result<Vec<OsString>>;

    /// Makes a folder, with those above it.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives a file another name in one step, over whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Takes a lock that lasts until the value is dropped; `WouldBlock` while somebody else has it.
    fn lock(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Any + Send>>;
}

/// Returns the system's own disk.
pub fn system() -> Disk {
    Arc::new(system::System)
}

/// Has the medium answer what is read of a file next, and not the page cache: there stands also what a failed sync has left,
/// which the kernel takes for written. A file system that knows no such advice only loses us that.
pub fn ask_medium(file: &dyn Opened) {
    if let Err(error) = file.drop_cache() {
        tracing::debug!(%error, "reading from the cache");
    }
}

/// Makes files durable as they are found: somebody who has died may have written them last, and not have lived to sync
/// that. What is read from the cache alone is taken back by the next power cut, and with it all that was built on it. Files
/// that are not there are left out.
///
/// What the system refuses is only said. A medium that cannot be written must not keep the agent from coming up.
pub fn catch_up(disk: &dyn Storage, files: &[PathBuf]) {
    let sync = |path: &PathBuf| match disk.open(path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened?.sync(),
    };
    // Each for itself: one that is worn out must not cost the others.
    for path in files {
        sync(path).unwrap_or_else(|error| not_durable(path, &error));
    }
}

/// The same with the names that they have in `folder`.
pub fn catch_up_in(disk: &dyn Storage, folder: &Path, files: &[PathBuf]) {
    catch_up(disk, files);
    // The name of a device is not on the device.
    if files.iter().any(|path| disk.look(path).is_ok_and(|found| found.kind == Kind::File)) {
        disk.sync_folder(folder).unwrap_or_else(|error| not_durable(folder, &error));
    }
}

fn not_durable(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "what an earlier run left could not be made durable");
}

/// Says that a folder has more names than somebody wants to read.
pub fn too_many(most: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it holds more than {most} files"))
}

/// Reads a small file whole; one of more than `most` bytes is refused.
pub fn read(disk: &dyn Storage, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {most} bytes"),
            ));
        }
    }
}

/// Reads exactly `buffer.len()` bytes at `offset`.
pub fn read_exact_at(file: &dyn Opened, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
