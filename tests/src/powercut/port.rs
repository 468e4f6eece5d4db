//! The agent's storage port, on the fake disk: what real storage refuses is refused.

use std::any::Any;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tern_agent::storage::{
    Access, DIRECT_ALIGNMENT, Found, Identity, Kind, Opened, Rights, Storage, Use, too_many,
};

use super::disk::{FakeDisk, State};
use super::lie::{Operation, class};
use super::medium::{Naming, Node, Pending, is_memory};

impl Storage for FakeDisk {
    fn look(&self, path: &Path) -> io::Result<Found> {
        let state = self.alive()?;
        if let Some(number) = state.medium.names.get(path) {
            return Ok(found(*number, &state.medium.nodes[*number]));
        }
        let identity = Identity { is_device: false, device: 1, inode: u64::MAX };
        match state.medium.folders.contains(path) {
            true => Ok(Found { kind: Kind::Other, size: 0, identity }),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    fn use_of(&self, _path: &Path, _found: &Found) -> io::Result<Option<Use>> {
        self.alive().map(|_| None)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Opened>> {
        let node = match access {
            Access::CreateNew { .. } => {
                let folder = path.parent().unwrap_or(path).to_owned();
                let mut state = self.change(Operation::Name, path)?;
                if !state.medium.folders.contains(&folder) {
                    return Err(ErrorKind::NotFound.into());
                }
                if state.medium.names.contains_key(path) {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                state.medium.nodes.push(Node::default());
                let number = state.medium.nodes.len() - 1;
                state.medium.name(Naming::Give(path.to_owned(), number));
                number
            }
            _ => {
                let state = self.alive()?;
                let node = *state.medium.names.get(path).ok_or(ErrorKind::NotFound)?;
                let wants_writing = matches!(access, Access::Write | Access::Claim);
                if wants_writing && state.medium.nodes[node].read_only {
                    return Err(ErrorKind::ReadOnlyFilesystem.into());
                }
                node
            }
        };
        let direct = access == Access::ReadDirect;
        Ok(Box::new(Open { disk: self.clone(), path: path.to_owned(), node, direct }))
    }

    fn list(&self, folder: &Path, most: usize) -> io::Result<Vec<OsString>> {
        let state = self.alive()?;
        if !state.medium.folders.contains(folder) {
            return Err(ErrorKind::NotFound.into());
        }
        let files = state.medium.names.keys();
        let here = files.chain(&state.medium.folders).filter(|path| path.parent() == Some(folder));
        let names: Vec<_> = here.filter_map(|path| path.file_name().map(OsString::from)).collect();
        if names.len() > most { Err(too_many(most)) } else { Ok(names) }
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        // Folders are the factory's: the agent makes its own once, and nothing of value is in them before they last.
        let mut state = self.alive()?;
        for folder in folder.ancestors() {
            state.medium.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change(Operation::Name, to)?;
        if !state.medium.names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        state.medium.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.alive()?.medium.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        self.change(Operation::Name, path)?.medium.name(Naming::Take(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // A name of the folder itself, so that it is a class of its own beside the files in it.
        let mut state = self.change(Operation::SyncFolder, folder)?;
        state.sync(folder, 0);
        Ok(())
    }

    fn lock(&self, _path: &Path, _mode: u32) -> io::Result<Box<dyn Any + Send>> {
        self.alive().map(|_| Box::new(()) as Box<dyn Any + Send>)
    }
}

fn found(number: usize, node: &Node) -> Found {
    let kind = if node.is_device { Kind::Block } else { Kind::File };
    let size = if node.is_device { 0 } else { node.seen.bytes().len() as u64 };
    let identity = Identity { is_device: node.is_device, device: number as u64 + 10, inode: number as u64 };
    Found { kind, size, identity }
}

struct Open {
    disk: FakeDisk,
    path: PathBuf,
    node: usize,
    direct: bool,
}

impl Open {
    /// A device that was pulled answers nobody who still holds it.
    fn is_gone(&self, state: &State) -> bool {
        let node = &state.medium.nodes[self.node];
        node.is_device && !state.medium.names.values().any(|number| *number == self.node)
    }
}

impl Opened for Open {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.alive()?;
        if self.is_gone(&state) {
            return Err(io::Error::from_raw_os_error(6));
        }
        let State { medium, wear, .. } = &mut *state;
        let node = &mut medium.nodes[self.node];
        if !is_memory(&self.path) && wear.fails(node, &self.path, offset, buffer.len()) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let is_aligned = buffer.len().is_multiple_of(DIRECT_ALIGNMENT)
            && offset.is_multiple_of(DIRECT_ALIGNMENT as u64)
            && buffer.as_ptr().align_offset(DIRECT_ALIGNMENT) == 0;
        if self.direct && !is_aligned {
            return Err(ErrorKind::InvalidInput.into());
        }
        let bytes = node.seen.bytes();
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let Some(rest) = bytes.get(offset..) else { return Ok(0) };
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let mut state = self.disk.change(Operation::Write, &self.path)?;
        if self.is_gone(&state) {
            return Err(io::Error::from_raw_os_error(6));
        }
        let room = state.medium.room;
        let node = &state.medium.nodes[self.node];
        let growth = (offset + bytes.len()).saturating_sub(node.seen.bytes().len()) as u64;
        if node.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if growth > 0 && (node.is_device || room.is_some_and(|room| room < growth)) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.medium.change(self.node, Pending::Write(offset, bytes.into()));
        state.medium.room = room.map(|room| room - growth);
        if !is_memory(&self.path) {
            *state.written.entry(class(&self.path)).or_default() += bytes.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.change(Operation::Sync, &self.path)?;
        if self.is_gone(&state) {
            return Err(io::Error::from_raw_os_error(5));
        }
        state.sync(&self.path, self.node);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.medium.nodes[self.node].seen.bytes().len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(|_| ErrorKind::InvalidInput)?;
        let mut state = self.disk.change(Operation::Size, &self.path)?;
        if state.medium.nodes[self.node].is_device {
            return Err(ErrorKind::InvalidInput.into());
        }
        state.medium.change(self.node, Pending::Size(size));
        Ok(())
    }

    fn set_mode(&self, _mode: u32) -> io::Result<()> {
        self.disk.alive().map(|_| ())
    }

    fn rights(&self) -> io::Result<Rights> {
        self.disk.alive().map(|_| Rights { mode: 0o755, owner: 0, group: 0 })
    }

    fn set_rights(&self, _rights: &Rights) -> io::Result<()> {
        self.disk.alive().map(|_| ())
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.alive().map(|_| ())
    }

    fn found(&self) -> io::Result<Found> {
        let state = self.disk.alive()?;
        Ok(found(self.node, &state.medium.nodes[self.node]))
    }
}
