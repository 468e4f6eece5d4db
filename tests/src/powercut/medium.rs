//! What a disk is made of: what a reader sees, what is durable, and what was not made durable yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tern_protocol::digest::Digest;

use super::state::Said;

/// Folders in memory: a power cut empties them.
const MEMORY: [&str; 2] = ["/run", "/proc"];

pub(super) fn is_memory(path: &Path) -> bool {
    MEMORY.iter().any(|folder| path.starts_with(folder))
}

/// Bytes that many pictures of a disk share, and that are hashed once.
#[derive(Debug, Clone, Default)]
pub(super) struct Content(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    digest: OnceLock<Digest>,
    said: OnceLock<Said>,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Held { bytes, ..Held::default() }))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        match Arc::get_mut(&mut self.0) {
            Some(held) => {
                (held.digest, held.said) = Default::default();
                change(&mut held.bytes);
            }
            None => {
                let mut bytes = self.0.bytes.clone();
                change(&mut bytes);
                *self = Self::new(bytes);
            }
        }
    }

    pub(super) fn digest(&self) -> Digest {
        *self.0.digest.get_or_init(|| Digest::of(&self.0.bytes))
    }

    /// Returns what `read` makes of it, which is the same one at each call.
    pub(super) fn said(&self, read: fn(&[u8]) -> Said) -> Said {
        *self.0.said.get_or_init(|| read(&self.0.bytes))
    }
}

/// What was not made durable yet.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write(usize, Arc<[u8]>),
    Size(usize),
}

/// A file or device.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) is_device: bool,
    pub(super) read_only: bool,
    pub(super) seen: Content,
    pub(super) durable: Content,
    pub(super) pending: Vec<Pending>,
    /// Sectors that nobody can read any more.
    pub(super) worn: BTreeSet<usize>,
}

impl Node {
    /// One whose bytes are durable.
    pub(super) fn of(bytes: Vec<u8>, is_device: bool) -> Self {
        let seen = Content::new(bytes);
        Self { is_device, durable: seen.clone(), seen, ..Self::default() }
    }

    pub(super) fn change(&mut self, change: Pending) {
        self.seen.change(|bytes| replay(bytes, &change));
        self.pending.push(change);
    }

    pub(super) fn settle(&mut self) {
        self.pending.clear();
        self.durable = self.seen.clone();
    }

    /// Changes what is durable, below everything that is pending.
    pub(super) fn change_durable(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.durable.change(change);
        self.seen = Content::new(replayed(self.durable.bytes(), &self.pending));
    }
}

/// A change of names.
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
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) naming: Vec<Naming>,
    pub(super) folders: BTreeSet<PathBuf>,
    /// What was changed last.
    pub(super) latest: Option<usize>,
    /// Bytes that files may still take.
    pub(super) room: Option<u64>,
}

impl Medium {
    pub(super) fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.names.insert(path.to_owned(), number);
        self.durable_names.insert(path.to_owned(), number);
    }

    /// Returns what has this name.
    pub(super) fn node(&mut self, path: &Path) -> Option<&mut Node> {
        self.names.get(path).map(|number| &mut self.nodes[*number])
    }

    pub(super) fn change(&mut self, node: usize, change: Pending) {
        self.nodes[node].change(change);
        self.latest = Some(node);
    }

    pub(super) fn name(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        let is_in_memory = match &naming {
            Naming::Give(path, _) | Naming::Take(path) | Naming::Rename(path, _) => is_memory(path),
        };
        if !is_in_memory {
            self.naming.push(naming);
        }
    }

    pub(super) fn settle_names(&mut self, folder: &Path) {
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

    /// Returns the disk as it comes up with these durable contents, one of each node, and these names.
    pub(super) fn reborn(&self, contents: &[Content], names: &BTreeMap<PathBuf, usize>) -> Self {
        let mut reborn = Self { folders: self.folders.clone(), ..Self::default() };
        // What has no name is gone.
        for (path, number) in names.iter().filter(|(path, _)| !is_memory(path)) {
            let (seen, durable) = (contents[*number].clone(), contents[*number].clone());
            let Node { is_device, read_only, ref worn, .. } = self.nodes[*number];
            let node = Node { is_device, read_only, seen, durable, pending: Vec::new(), worn: worn.clone() };
            reborn.add(path, node);
        }
        reborn
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
    pending.iter().for_each(|change| replay(&mut bytes, change));
    bytes
}

fn replay(bytes: &mut Vec<u8>, change: &Pending) {
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
