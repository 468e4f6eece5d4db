//! A disk behind the agent's storage port.
//!
//! It keeps what a reader sees apart from what is durable. A write is durable after a sync of the same file or device,
//! a name after a sync of its folder, and nothing else makes either durable. Every operation that changes something is
//! counted, so that the power can fail before any of them; from then on nothing works: [`FakeDisk::futures`] says what comes up again.
//!
//! What real storage refuses is refused: writes past the end of a device, to a medium that may not be written, beyond
//! the room there is, into a slot that has vanished, direct reads that are not aligned.
//!
//! Reads fail, too: one once ([`FakeDisk::fail_reads`]), or a sector for good ([`FakeDisk::wear_out`]), which no writing over it
//! heals; and a whole copy of something that is kept twice may be gone when the device comes up ([`FakeDisk::lose`]).

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_agent::storage::{
    Access, DIRECT_ALIGNMENT, Found, Identity, Kind, Opened, Rights, Storage, Use, too_many,
};

use super::outcome::{Outcome, SECTOR};

/// Folders in memory: a power cut empties them.
const MEMORY: [&str; 2] = ["/run", "/proc"];

/// An operation that changes something, as the campaign names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Bytes of a file or device.
    Write,
    /// Where a file ends.
    Size,
    /// A file or device made durable.
    Sync,
    /// A name given, changed or taken.
    Name,
    /// Names made durable.
    SyncFolder,
}

/// A sync that the disk only pretends to do: the harness's way to take it out of the agent's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lie {
    /// Never done, for places of this class.
    Never(Operation, String),
    /// Done only after the next sync of the other class: the order of two writes is turned round.
    After(Operation, String, Operation, String),
}

/// What was not made durable yet.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write(usize, Vec<u8>),
    Size(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    is_device: bool,
    read_only: bool,
    seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Pending>,
    /// Sectors that nobody can read any more.
    worn: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Naming {
    Give(PathBuf, usize),
    Take(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// What the disk is made of; a copy of it is a picture of the device at one moment.
#[derive(Debug, Clone, Default)]
pub struct Medium {
    pub(super) nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) naming: Vec<Naming>,
    folders: BTreeSet<PathBuf>,
    /// Bytes that files may still take.
    room: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    medium: Medium,
    done: u64,
    cut_before: Option<u64>,
    dead: bool,
    lie: Option<Lie>,
    deferred: Vec<(Operation, PathBuf, usize)>,
    trace: Vec<(Operation, String)>,
    written: BTreeMap<String, u64>,
    reads: u64,
    /// The read that fails, by its number, and whether its sector does so for good.
    flaw: Option<(u64, bool)>,
    /// Where it failed.
    failed: Option<(PathBuf, u64)>,
    /// Reads of a place that fail from here on.
    failing: BTreeMap<PathBuf, u32>,
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub struct FakeDisk(Arc<Mutex<State>>);

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

fn is_memory(path: &Path) -> bool {
    MEMORY.iter().any(|folder| path.starts_with(folder))
}

/// What a path is to the campaign: its file name without the number of a copy.
pub fn class(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.strip_suffix(".new").map_or(name.clone(), |name| format!("{name} first"));
    name.replace(".0", "").replace(".1", "")
}

impl FakeDisk {
    /// Puts a picture back, with the power on.
    pub fn of(medium: Medium) -> Self {
        Self(Arc::new(Mutex::new(State { medium, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a block device of `bytes`.
    pub fn device(&self, path: &Path, bytes: Vec<u8>) {
        let node = Node {
            is_device: true,
            read_only: false,
            seen: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
            worn: BTreeSet::new(),
        };
        self.state().medium.add(path, node);
    }

    /// Puts a durable file somewhere, as a factory or a kernel does.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let (seen, durable) = (bytes.to_vec(), bytes.to_vec());
        let (pending, worn) = Default::default();
        let node = Node { is_device: false, read_only: false, seen, durable, pending, worn };
        let state = &mut *self.state();
        let folder = path.parent().unwrap_or(path).to_owned();
        state.medium.folders.insert(folder);
        state.medium.add(path, node);
    }

    /// Has a file or device refuse to be written.
    pub fn set_read_only(&self, path: &Path, read_only: bool) {
        let state = &mut *self.state();
        if let Some(node) = state.medium.names.get(path).copied() {
            state.medium.nodes[node].read_only = read_only;
        }
    }

    /// Takes a device away, as a card that is pulled.
    pub fn unplug(&self, path: &Path) {
        let state = &mut *self.state();
        state.medium.names.remove(path);
        state.medium.durable_names.remove(path);
    }

    /// Says how many bytes files may still take.
    pub fn set_room(&self, room: Option<u64>) {
        self.state().medium.room = room;
    }

    /// Returns what a reader sees.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let node = state.medium.names.get(path)?;
        Some(state.medium.nodes[*node].seen.clone())
    }

    /// Damages one byte that is durable.
    pub fn rot(&self, path: &Path, at: usize) {
        let state = &mut *self.state();
        let Some(node) = state.medium.names.get(path).copied() else { return };
        let node = &mut state.medium.nodes[node];
        if let Some(byte) = node.durable.get_mut(at) {
            *byte ^= 0xff;
            node.seen = replayed(&node.durable, &node.pending);
        }
    }

    /// Has the next reads of a place fail, and those after them succeed.
    pub fn fail_reads(&self, path: &Path, count: u32) {
        self.state().failing.insert(path.to_owned(), count);
    }

    /// Has the read with this number fail, counted from now, 1 being the next one: once, or for good with its sector.
    pub fn fail_read(&self, number: u64, for_good: bool) {
        let state = &mut *self.state();
        state.flaw = Some((state.reads + number, for_good));
    }

    /// Returns which read has failed by [`Self::fail_read`]: where, and from which byte on.
    pub fn failed_read(&self) -> Option<(PathBuf, u64)> {
        self.state().failed.clone()
    }

    /// Has the sector with this byte never be read again, whatever is written to it.
    pub fn wear_out(&self, path: &Path, at: usize) {
        let state = &mut *self.state();
        if let Some(node) = state.medium.names.get(path).copied() {
            state.medium.nodes[node].worn.insert(at / SECTOR);
        }
    }

    /// Destroys bytes that are durable: one copy of something that is kept twice. A file of them is gone altogether if it
    /// `vanishes`.
    pub fn lose(&self, path: &Path, range: std::ops::Range<usize>, vanishes: bool) {
        let state = &mut *self.state();
        let Some(number) = state.medium.names.get(path).copied() else { return };
        let node = &mut state.medium.nodes[number];
        if vanishes && !node.is_device {
            state.medium.names.remove(path);
            state.medium.durable_names.remove(path);
            return;
        }
        let end = range.end.min(node.durable.len());
        node.durable[range.start.min(end)..end].fill(0);
        node.seen = replayed(&node.durable, &node.pending);
    }

    /// Returns every file that is kept, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let is_file = |node: &usize| !state.medium.nodes[*node].is_device;
        state.medium.names.iter().filter(|(_, node)| is_file(node)).map(|(path, _)| path.clone()).collect()
    }

    /// Returns how many reads were asked for.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Has the power fail before the operation with this number, counted from now; 1 is the next one.
    pub fn cut_before(&self, number: u64) {
        let state = &mut *self.state();
        state.cut_before = Some(state.done + number);
    }

    /// Takes a sync out.
    pub fn lie(&self, lie: Option<Lie>) {
        self.state().lie = lie;
    }

    /// Returns what was taken out.
    pub fn lie_told(&self) -> Option<Lie> {
        self.state().lie.clone()
    }

    /// Tells whether the power has failed.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Returns how many operations were done.
    pub fn done(&self) -> u64 {
        self.state().done
    }

    /// Returns every operation since the beginning, with the class of its place.
    pub fn trace(&self) -> Vec<(Operation, String)> {
        self.state().trace.clone()
    }

    /// Returns the bytes that were written, by the class of their place.
    pub fn written(&self) -> BTreeMap<String, u64> {
        self.state().written.clone()
    }

    /// Returns what every different outcome of a power cut at this moment would leave.
    pub fn futures(&self, outcomes: &[Outcome]) -> Vec<(Outcome, Medium)> {
        let state = self.state();
        let mut seen = BTreeSet::new();
        let mut futures = Vec::new();
        for outcome in outcomes {
            let medium = outcome.of(&state.medium);
            if seen.insert(medium.fingerprint()) {
                futures.push((*outcome, medium));
            }
        }
        futures
    }

    /// Goes down in order: everything is made durable, and memory is emptied.
    pub fn shut_down(&self) -> Medium {
        let mut medium = Outcome::EVERYTHING.of(&self.state().medium);
        medium.room = self.state().medium.room;
        medium
    }

    /// Goes down in order and comes up again; the count of operations goes on.
    pub fn restart(&self) {
        let medium = self.shut_down();
        let state = &mut *self.state();
        state.medium = medium;
        state.deferred.clear();
    }

    fn change(&self, operation: Operation, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.dead {
            return Err(dead());
        }
        if is_memory(path) {
            return Ok(state);
        }
        if state.cut_before == Some(state.done + 1) {
            state.dead = true;
            return Err(dead());
        }
        state.done += 1;
        state.trace.push((operation, class(path)));
        Ok(state)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.dead { Err(dead()) } else { Ok(state) }
    }
}

impl State {
    /// Does a sync, unless the harness has taken it out.
    fn sync(&mut self, operation: Operation, path: &Path, node: usize) {
        let class = class(path);
        let lie = self.lie.clone();
        match &lie {
            Some(Lie::Never(of, what)) if *of == operation && *what == class => return,
            Some(Lie::After(of, what, ..)) if *of == operation && *what == class => {
                self.deferred.push((operation, path.to_owned(), node));
                return;
            }
            _ => self.settle(operation, path, node),
        }
        if let Some(Lie::After(_, _, of, what)) = &lie
            && *of == operation
            && *what == class
        {
            for (operation, path, node) in std::mem::take(&mut self.deferred) {
                self.settle(operation, &path, node);
            }
        }
    }

    /// Counts a read, and tells whether the medium does not give it.
    fn read_fails(&mut self, path: &Path, node: usize, offset: u64, length: usize) -> bool {
        self.reads += 1;
        if let Some(left) = self.failing.get_mut(path).filter(|left| **left > 0) {
            *left -= 1;
            return true;
        }
        let first = usize::try_from(offset).unwrap_or(usize::MAX) / SECTOR;
        let node = &mut self.medium.nodes[node];
        // Where nothing stands there is no sector that could fail.
        if let Some((_, for_good)) = self.flaw.take_if(|(number, _)| *number <= self.reads)
            && first * SECTOR < node.seen.len()
        {
            self.failed = Some((path.to_owned(), offset));
            if for_good {
                node.worn.insert(first);
            }
            return true;
        }
        node.worn.range(first..first + length.div_ceil(SECTOR)).next().is_some()
    }

    fn settle(&mut self, operation: Operation, path: &Path, node: usize) {
        match operation {
            Operation::Sync => {
                let node = &mut self.medium.nodes[node];
                node.pending.clear();
                node.durable.clone_from(&node.seen);
            }
            _ => self.medium.settle_names(path),
        }
    }
}

impl Medium {
    fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.names.insert(path.to_owned(), number);
        self.durable_names.insert(path.to_owned(), number);
    }

    fn name(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        let is_in_memory = match &naming {
            Naming::Give(path, _) | Naming::Take(path) | Naming::Rename(path, _) => is_memory(path),
        };
        if !is_in_memory {
            self.naming.push(naming);
        }
    }

    fn settle_names(&mut self, folder: &Path) {
        let is_here = |naming: &Naming| match naming {
            Naming::Give(path, _) | Naming::Take(path) | Naming::Rename(path, _) => {
                path.parent() == Some(folder)
            }
        };
        for naming in std::mem::take(&mut self.naming) {
            if is_here(&naming) {
                apply(&mut self.durable_names, &naming);
            } else {
                self.naming.push(naming);
            }
        }
    }

    /// Returns the disk as it comes up with these durable contents and names.
    pub(super) fn reborn(mut self, contents: Vec<Vec<u8>>, names: BTreeMap<PathBuf, usize>) -> Self {
        for (node, durable) in self.nodes.iter_mut().zip(contents) {
            node.pending.clear();
            node.seen.clone_from(&durable);
            node.durable = durable;
        }
        self.durable_names = names.into_iter().filter(|(path, _)| !is_memory(path)).collect();
        self.names.clone_from(&self.durable_names);
        self.naming.clear();
        self
    }

    fn fingerprint(&self) -> tern_protocol::digest::Digest {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for (path, node) in &self.durable_names {
            parts.push(path.as_os_str().as_encoded_bytes().to_vec());
            parts.push(self.nodes[*node].durable.clone());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        tern_protocol::digest::Digest::of_parts(&parts)
    }
}

pub(super) fn apply(names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
    match naming {
        Naming::Give(path, node) => {
            names.insert(path.clone(), *node);
        }
        Naming::Take(path) => {
            names.remove(path);
        }
        Naming::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

/// Returns what `durable` becomes by what is pending.
pub(super) fn replayed(durable: &[u8], pending: &[Pending]) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    for change in pending {
        match change {
            Pending::Write(offset, what) => {
                let end = offset + what.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(what);
            }
            Pending::Size(size) => bytes.resize(*size, 0),
        }
    }
    bytes
}

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
                let (seen, durable, pending, worn) = Default::default();
                let node = Node { is_device: false, read_only: false, seen, durable, pending, worn };
                state.medium.nodes.push(node);
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
        let here = state.medium.names.keys().filter(|path| path.parent() == Some(folder));
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
        state.sync(Operation::SyncFolder, folder, 0);
        Ok(())
    }

    fn lock(&self, _path: &Path, _mode: u32) -> io::Result<Box<dyn Any + Send>> {
        self.alive().map(|_| Box::new(()) as Box<dyn Any + Send>)
    }
}

fn found(number: usize, node: &Node) -> Found {
    let kind = if node.is_device { Kind::Block } else { Kind::File };
    let size = if node.is_device { 0 } else { node.seen.len() as u64 };
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
        if !is_memory(&self.path) && state.read_fails(&self.path, self.node, offset, buffer.len()) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let is_aligned = buffer.len().is_multiple_of(DIRECT_ALIGNMENT)
            && offset.is_multiple_of(DIRECT_ALIGNMENT as u64)
            && buffer.as_ptr().align_offset(DIRECT_ALIGNMENT) == 0;
        if self.direct && !is_aligned {
            return Err(ErrorKind::InvalidInput.into());
        }
        let bytes = &state.medium.nodes[self.node].seen;
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
        let node = &mut state.medium.nodes[self.node];
        let growth = (offset + bytes.len()).saturating_sub(node.seen.len()) as u64;
        if node.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if growth > 0 && (node.is_device || room.is_some_and(|room| room < growth)) {
            return Err(ErrorKind::StorageFull.into());
        }
        let change = Pending::Write(offset, bytes.to_vec());
        let seen = std::mem::take(&mut node.seen);
        node.seen = replace(seen, offset, bytes);
        node.pending.push(change);
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
        state.sync(Operation::Sync, &self.path, self.node);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.medium.nodes[self.node].seen.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(|_| ErrorKind::InvalidInput)?;
        let mut state = self.disk.change(Operation::Size, &self.path)?;
        let node = &mut state.medium.nodes[self.node];
        if node.is_device {
            return Err(ErrorKind::InvalidInput.into());
        }
        node.seen.resize(size, 0);
        node.pending.push(Pending::Size(size));
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

fn replace(mut bytes: Vec<u8>, offset: usize, what: &[u8]) -> Vec<u8> {
    let end = offset + what.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(what);
    bytes
}
