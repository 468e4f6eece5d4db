//! The system's own files and block devices.

use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, OFlags, SeekFrom, fadvise, major, minor, seek};

use super::{Access, Found, Identity, Kind, Opened, Rights, Storage, Use, too_many};

/// How often, and how far apart, a device that is claimed is asked for.
const CLAIM_ATTEMPTS: u32 = 10;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// The system.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Storage for System {
    fn look(&self, path: &Path) -> io::Result<Found> {
        fs::metadata(path).map(|found| found_of(&found))
    }

    fn use_of(&self, path: &Path, found: &Found) -> io::Result<Option<Use>> {
        if is_looped(&found.identity) {
            return Ok(Some(Use::Looped));
        }
        if found.kind != Kind::Block {
            return Ok(None);
        }
        let number = fs::metadata(path)?.rdev();
        let device = format!("{}:{}", major(number), minor(number));
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let is_mounted = mounts.lines().any(|mount| mount.split_whitespace().nth(2) == Some(&device));
        Ok(is_mounted.then_some(Use::Mounted))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Opened>> {
        let mut options = OpenOptions::new();
        let file = match access {
            Access::Read => options.read(true).open(path),
            Access::ReadDirect => options.read(true).custom_flags(flag(OFlags::DIRECT)).open(path),
            Access::Write => options.read(true).write(true).open(path),
            Access::Claim => {
                options.read(true).write(true);
                if fs::metadata(path)?.file_type().is_block_device() {
                    // The kernel then refuses whatever it uses itself, also what no list of mounts names.
                    options.custom_flags(flag(OFlags::EXCL));
                }
                open_when_free(&options, path)
            }
            Access::CreateNew { mode } => {
                options.read(true).write(true).create_new(true).mode(mode).open(path)
            }
        };
        Ok(Box::new(file?))
    }

    fn list(&self, folder: &Path, most: usize) -> io::Result<Vec<OsString>> {
        let names = fs::read_dir(folder)?.take(most + 1).map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        if names.len() > most { Err(too_many(most)) } else { Ok(names) }
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Any + Send>> {
        // Whoever may only read it can still lock it: it is a file of somebody else's on some devices.
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)?
            }
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Opened for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn size(&self) -> io::Result<u64> {
        // A block device has no length of its own but where it ends.
        Ok(seek(self, SeekFrom::End(0))?)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.set_permissions(Permissions::from_mode(mode))
    }

    fn rights(&self) -> io::Result<Rights> {
        let found = self.metadata()?;
        Ok(Rights { mode: found.mode() & 0o7777, owner: found.uid(), group: found.gid() })
    }

    fn set_rights(&self, rights: &Rights) -> io::Result<()> {
        let found = self.metadata()?;
        // Whoever may not give files away can still have the same owner.
        if (found.uid(), found.gid()) != (rights.owner, rights.group) {
            fchown(self, Some(rights.owner), Some(rights.group))?;
        }
        // Last: another owner takes some permissions away.
        self.set_mode(rights.mode)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(fadvise(self, 0, None, Advice::DontNeed)?)
    }

    fn found(&self) -> io::Result<Found> {
        self.metadata().map(|found| found_of(&found))
    }
}

fn flag(flag: OFlags) -> i32 {
    i32::from_ne_bytes(flag.bits().to_ne_bytes())
}

fn found_of(found: &Metadata) -> Found {
    let kind = match found.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_block_device() => Kind::Block,
        _ => Kind::Other,
    };
    let is_device = kind == Kind::Block;
    let (device, inode) = if is_device { (found.rdev(), 0) } else { (found.dev(), found.ino()) };
    Found { kind, size: found.len(), identity: Identity { is_device, device, inode } }
}

/// Opens what may be claimed for the moment: a program that we start has our last claim between its fork and its exec,
/// and a partition scanner looks into everything that changes.
fn open_when_free(options: &OpenOptions, path: &Path) -> io::Result<File> {
    for _ in 1..CLAIM_ATTEMPTS {
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(CLAIM_PAUSE),
            other => return other,
        }
    }
    options.open(path)
}

/// Tells whether a loop device stands on the file or device, so that it may be mounted under that name.
fn is_looped(identity: &Identity) -> bool {
    let Ok(devices) = fs::read_dir("/sys/block") else { return false };
    devices.flatten().any(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file"));
        let file = backing.and_then(|path| fs::metadata(path.trim_end_matches('\n')));
        file.is_ok_and(|file| found_of(&file).identity == *identity)
    })
}
