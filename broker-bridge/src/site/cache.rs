//! Parts by content, on the disk of a site: a bound in bytes, and the one that was used longest ago goes first.
//!
//! ```text
//! <dir>/3f/3fa2…-c17     a part; its name says which, see `key`
//! <dir>/incoming/…       being written; swept at start
//! ```
//! A file has its name only when it is whole. Nothing is synced: after a power cut a file may hold anything, and is found
//! out when it is read, for every part is verified on its way out as it was on its way in. The newest parts stay in memory
//! too, so that a full disk makes a site slow and not deaf.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::Key;

/// Parts in memory: 4 MiB at most, and more than are on their way from upstream to devices at one time.
const RECENT_MAX: usize = 64;
/// What a file costs beyond its bytes: an inode, and half a block.
const FILE_COST: u64 = 2048;

/// The cache. Calls block on the disk.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bound: u64,
    state: Mutex<State>,
    aside: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, File>,
    /// By last use.
    order: BTreeMap<u64, String>,
    uses: u64,
    bytes: u64,
    recent: VecDeque<(Key, Arc<Vec<u8>>)>,
}

#[derive(Debug, Clone, Copy)]
struct File {
    bytes: u64,
    used: u64,
}

/// A part that was found, and whether it still has to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Was verified since it came.
    InMemory(Vec<u8>),
    /// Lay on the disk.
    OnDisk(Vec<u8>),
}

impl Cache {
    /// Opens the cache in `folder`, removes what is no part of it, and what is above `bound` bytes.
    pub(crate) fn open(folder: PathBuf, bound: u64) -> io::Result<Self> {
        let incoming = folder.join("incoming");
        if incoming.exists() {
            fs::remove_dir_all(&incoming)?;
        }
        fs::create_dir_all(&incoming)?;
        let mut found = Vec::new();
        for shelf in fs::read_dir(&folder)? {
            let shelf = shelf?.path();
            if shelf == incoming || !shelf.is_dir() {
                continue;
            }
            for file in fs::read_dir(&shelf)? {
                let file = file?;
                let (data, name) = (file.metadata()?, file.file_name());
                match name.to_str().filter(|name| is_name(name) && data.is_file()) {
                    Some(name) => found.push((data.modified()?, name.to_owned(), data.len())),
                    None => remove(&file.path())?,
                }
            }
        }
        found.sort();
        let cache = Self { folder, bound, state: Mutex::default(), aside: AtomicU64::new(0) };
        let mut state = cache.lock();
        found.into_iter().for_each(|(_, name, bytes)| state.enter(name, bytes));
        let over = state.above(bound);
        drop(state);
        cache.forget(&over)?;
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(&name[..2]).join(name)
    }

    /// Tells whether a part is here.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        let state = self.lock();
        state.recent.iter().any(|(known, _)| known == key) || state.files.contains_key(&key.file_name())
    }

    /// Returns a part.
    pub(crate) fn read(&self, key: &Key) -> Option<Found> {
        let name = key.file_name();
        {
            let mut state = self.lock();
            state.touch(&name);
            if let Some((_, content)) = state.recent.iter().find(|(known, _)| known == key) {
                return Some(Found::InMemory(content.to_vec()));
            }
            if !state.files.contains_key(&name) {
                return None;
            }
        }
        match fs::read(self.path(&name)) {
            Ok(content) => Some(Found::OnDisk(content)),
            Err(error) => {
                tracing::warn!(%error, name, "a part of the cache cannot be read; it is fetched again");
                self.remove(key);
                None
            }
        }
    }

    /// Marks a part as used now, so that it outlives others.
    pub(crate) fn touch(&self, key: &Key) {
        self.lock().touch(&key.file_name());
    }

    /// Keeps a part; says what the disk said if that works in memory alone.
    pub(crate) fn put(&self, key: &Key, content: Vec<u8>) -> io::Result<()> {
        let content = Arc::new(content);
        {
            let mut state = self.lock();
            state.recent.push_back((key.clone(), content.clone()));
            if state.recent.len() > RECENT_MAX {
                state.recent.pop_front();
            }
        }
        let name = key.file_name();
        let bytes = content.len() as u64;
        let mut over = self.lock().above(self.bound.saturating_sub(bytes + FILE_COST));
        self.forget(&over)?;
        if let Err(error) = self.write(&name, &content) {
            // Others may fill this disk too: give back as much again, once.
            let held = self.lock().bytes;
            over = self.lock().above(held.saturating_sub(4 * (bytes + FILE_COST)));
            self.forget(&over)?;
            self.write(&name, &content).map_err(|_| error)?;
        }
        self.lock().enter(name, bytes);
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let number = self.aside.fetch_add(1, Ordering::Relaxed);
        let (aside, path) = (self.folder.join(format!("incoming/{number}")), self.path(name));
        let written = fs::write(&aside, content)
            .and_then(|()| fs::create_dir_all(path.parent().unwrap_or(&self.folder)))
            .and_then(|()| fs::rename(&aside, &path));
        if written.is_err() {
            // Half a file takes room too; what stays is swept at the next start.
            fs::remove_file(&aside).ok();
        }
        written
    }

    /// Removes a part, which was found to be damaged.
    pub(crate) fn remove(&self, key: &Key) {
        let name = key.file_name();
        let mut state = self.lock();
        state.recent.retain(|(known, _)| known != key);
        state.leave(&name);
        drop(state);
        if let Err(error) = remove(&self.path(&name)) {
            tracing::warn!(%error, name, "a damaged part of the cache cannot be removed");
        }
    }

    fn forget(&self, names: &[String]) -> io::Result<()> {
        names.iter().try_for_each(|name| remove(&self.path(name)))
    }

    /// Returns the bytes that its files hold.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}

impl State {
    fn enter(&mut self, name: String, bytes: u64) {
        self.leave(&name);
        self.uses += 1;
        self.order.insert(self.uses, name.clone());
        self.files.insert(name, File { bytes, used: self.uses });
        self.bytes += bytes + FILE_COST;
    }

    fn leave(&mut self, name: &str) {
        if let Some(file) = self.files.remove(name) {
            self.order.remove(&file.used);
            self.bytes -= file.bytes + FILE_COST;
        }
    }

    fn touch(&mut self, name: &str) {
        if let Some(file) = self.files.get_mut(name) {
            self.uses += 1;
            if let Some(name) = self.order.remove(&file.used) {
                self.order.insert(self.uses, name);
            }
            file.used = self.uses;
        }
    }

    /// Takes out what was used longest ago until at most `bound` bytes are left.
    fn above(&mut self, bound: u64) -> Vec<String> {
        let mut over = Vec::new();
        while self.bytes > bound
            && let Some((_, name)) = self.order.pop_first()
        {
            if let Some(file) = self.files.remove(&name) {
                self.bytes -= file.bytes + FILE_COST;
            }
            over.push(name);
        }
        over
    }
}

/// Tells whether a file is named like a part.
fn is_name(name: &str) -> bool {
    let Some((of, part)) = name.split_once('-') else { return false };
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    of.len() == 64 && hex(of) && part.starts_with(['c', 'p', 'd']) && part.len() <= 65
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tern_protocol::digest::Digest;

    use super::*;
    use crate::chunks::pending::Part;

    fn chunk(index: u32) -> Key {
        Key { of: Digest::of(b"x"), part: Part::Chunk(index) }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for shelf in fs::read_dir(folder).unwrap().flatten().filter(|shelf| shelf.file_name() != "incoming") {
            let inside = fs::read_dir(shelf.path()).unwrap().flatten();
            names.extend(inside.map(|file| file.file_name().into_string().unwrap()));
        }
        names
    }

    #[test]
    fn the_one_that_was_used_longest_ago_goes_and_the_bound_holds_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let bound = 10 * (1000 + FILE_COST);
        let cache = Cache::open(folder.path().into(), bound).unwrap();
        for index in 0..10 {
            cache.put(&chunk(index), vec![7; 1000]).unwrap();
        }
        cache.touch(&chunk(0));

        (10..15).for_each(|index| cache.put(&chunk(index), vec![7; 1000]).unwrap());

        let kept: Vec<u32> =
            (0..15).filter(|n| files(folder.path()).contains(&chunk(*n).file_name())).collect();
        assert_eq!(kept, [0, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert!(cache.bytes() <= bound);
    }

    #[test]
    fn a_start_sweeps_what_is_no_part_and_what_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1 << 20).unwrap();
        (0..9).for_each(|index| cache.put(&chunk(index), vec![7; 1000]).unwrap());
        drop(cache);
        let shelf = folder.path().join(&chunk(0).file_name()[..2]);
        fs::write(shelf.join("note"), b"x").unwrap();
        fs::write(folder.path().join("incoming/3"), b"half").unwrap();

        let cache = Cache::open(folder.path().into(), 5 * (1000 + FILE_COST)).unwrap();

        assert_eq!(files(folder.path()).len(), 5);
        assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
        let kept: Vec<Key> = (0..9).map(chunk).filter(|key| cache.contains(key)).collect();
        assert_eq!(kept.len(), 5);
        assert_eq!(cache.read(&kept[0]), Some(Found::OnDisk(vec![7; 1000])));
    }

    #[test]
    fn without_a_disk_the_newest_parts_are_still_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1 << 20).unwrap();
        fs::remove_dir_all(folder.path().join("incoming")).unwrap();

        cache.put(&chunk(1), vec![7; 10]).unwrap_err();

        assert_eq!(cache.read(&chunk(1)), Some(Found::InMemory(vec![7; 10])));
        (2..200).for_each(|index| drop(cache.put(&chunk(index), vec![7; 10])));
        assert_eq!(cache.read(&chunk(1)), None);
    }
}
