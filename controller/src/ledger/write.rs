//! [`Ledger`]: opening, cutting a torn tail, appending, syncing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tern_protocol::digest::Digest;

use super::LedgerError;
use super::boundary::{self, Boundary};
use super::frame::{self, Link, PAYLOAD_MAX, Problem};
use super::read::{Frames, walk};
use super::segment::Segment;
use super::tree::{CompactRange, leaf};
use crate::fault::{Operation, around};
use crate::files;

/// Bytes after which a new segment is begun.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
const LOCK: &str = "lock";

/// How a ledger is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment that would grow above this is closed and another begun.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Number of whole frames.
    pub frames: u64,
    /// What was cut away. A store that has applied more than `frames` knew more than this ledger does:
    /// then synced frames were lost, and a person must decide.
    pub cut: Option<Cut>,
}

/// A torn tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: PathBuf,
    /// Its length after the cut.
    pub at: u64,
    /// How many bytes lay behind.
    pub bytes: u64,
    /// What was wrong with them.
    pub problem: Problem,
}

/// A ledger that may be written to. One process at a time has it.
///
/// Appending is cheap and promises nothing; [`Ledger::sync`] makes everything appended so far durable. The
/// caller gathers what arrived in the meantime into one batch. After a failed write or sync the ledger refuses
/// everything: a second fsync may succeed although the first one's pages are gone.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    options: Options,
    file: File,
    path: PathBuf,
    length: u64,
    /// First sequence of the segment that is written to.
    begins: u64,
    link: Link,
    tree: CompactRange,
    boundary: Option<Boundary>,
    roots: BTreeMap<u64, Digest>,
    stopped: bool,
    /// Held until the ledger is dropped.
    _lock: File,
}

impl Ledger {
    /// Opens the ledger in `dir`, making an empty one if there is none, and reads all of it. A torn tail is
    /// cut; damage before frames that were synced is an error.
    pub fn open(dir: &Path) -> Result<(Self, Recovery), LedgerError> {
        Self::open_with(dir, Options::default())
    }

    /// Opens as [`Ledger::open`] does, with other options.
    pub fn open_with(dir: &Path, options: Options) -> Result<(Self, Recovery), LedgerError> {
        fs::create_dir_all(dir).map_err(LedgerError::io("make the ledger folder", dir))?;
        let lock = lock(dir)?;
        boundary::finish(dir)?;
        let walk = walk(dir)?;
        // Right after everything was dropped there is a boundary and no segment.
        let next = walk.link.sequence;
        let (segment, length) = walk.tail.unwrap_or_else(|| (Segment::new(dir, next), 0));
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&segment.path)
            .map_err(LedgerError::io("open the ledger file", &segment.path))?;
        if walk.torn.is_some() {
            around(Operation::CutTail, || file.set_len(length))
                .map_err(LedgerError::io("cut the torn end off", &segment.path))?;
        }
        // Frames that were read may still be in the page cache only; from here on they count as synced.
        around(Operation::SyncOpened, || {
            file.sync_all().map_err(LedgerError::io("sync the ledger file", &segment.path))?;
            sync_folder(dir)?;
            match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => sync_folder(parent),
                None => Ok(()),
            }
        })?;
        let frames = walk.link.sequence;
        let ledger = Self {
            dir: dir.to_owned(),
            options,
            file,
            path: segment.path,
            length,
            begins: segment.first,
            link: Link { synced: frames, ..walk.link },
            tree: walk.tree,
            boundary: walk.boundary,
            roots: walk.roots,
            stopped: false,
            _lock: lock,
        };
        Ok((ledger, Recovery { frames, cut: walk.torn }))
    }

    /// Writes a batch and returns its sequences. Nothing of it is promised before [`Ledger::sync`] returns.
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<Range<u64>, LedgerError> {
        self.check_running()?;
        for payload in payloads {
            if !(1..=PAYLOAD_MAX).contains(&payload.len()) {
                return Err(LedgerError::PayloadSize { found: payload.len() });
            }
        }
        let mut bytes = Vec::with_capacity(payloads.iter().map(|p| p.len() + frame::HEADER).sum());
        if self.length > 0 && self.length + bytes.capacity() as u64 > self.options.segment_bytes {
            self.rotate()?;
        }
        let first = self.link.sequence;
        let mut link = self.link;
        let mut tree = self.tree.clone();
        for payload in payloads {
            link = frame::encode(&mut bytes, link, payload);
            tree.push(leaf(link.hash));
        }
        let written = around(Operation::Append, || self.file.write_all(&bytes));
        self.or_stop("append to the ledger file", written)?;
        self.length += bytes.len() as u64;
        self.link = link;
        self.tree = tree;
        Ok(first..link.sequence)
    }

    /// Makes everything appended so far durable.
    pub fn sync(&mut self) -> Result<(), LedgerError> {
        self.check_running()?;
        let synced = around(Operation::Sync, || self.file.sync_data());
        self.or_stop("sync the ledger file", synced)?;
        self.link.synced = self.link.sequence;
        Ok(())
    }

    /// Begins a term. All later frames carry it; a writer of an earlier one is refused.
    pub fn begin_term(&mut self, term: u64) -> Result<(), LedgerError> {
        if term < self.link.term {
            return Err(LedgerError::StaleTerm { term, newest: self.link.term });
        }
        self.link.term = term;
        Ok(())
    }

    /// Returns the file that is written to now.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// Returns the sequence with which that file begins.
    pub fn segment(&self) -> u64 {
        self.begins
    }

    /// Returns the term that new frames carry.
    pub fn term(&self) -> u64 {
        self.link.term
    }

    /// Returns the sequence that the next frame will have.
    pub fn next(&self) -> u64 {
        self.link.sequence
    }

    /// Returns the first sequence that is not yet durable.
    pub fn synced(&self) -> u64 {
        self.link.synced
    }

    /// Returns the hash of the newest frame, which speaks for all of them.
    pub fn head_hash(&self) -> Digest {
        self.link.hash
    }

    /// Returns the root of the tree over all frames.
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// Returns the root over the first `size` frames, if a checkpoint spoke of them when the ledger was opened.
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        self.roots.get(&size).copied()
    }

    /// Returns where the ledger began when it was opened, unless with its first frame.
    pub fn boundary(&self) -> Option<&Boundary> {
        self.boundary.as_ref()
    }

    /// Returns the ledger's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins a segment, so that the frames so far can be dropped some day. Does nothing in an empty one.
    pub fn begin_segment(&mut self) -> Result<(), LedgerError> {
        self.check_running()?;
        if self.length > 0 { self.rotate() } else { Ok(()) }
    }

    /// Streams the frames from sequence `from` to the newest that is appended now.
    pub fn frames(&self, from: u64) -> Result<Frames, LedgerError> {
        Frames::new(&self.dir, from, self.link.sequence)
    }

    /// Closes the segment and begins the next one. The old one is synced first: only the last may be torn.
    fn rotate(&mut self) -> Result<(), LedgerError> {
        self.sync()?;
        let segment = Segment::new(&self.dir, self.link.sequence);
        let opened = around(Operation::BeginSegment, || {
            OpenOptions::new().append(true).create_new(true).open(&segment.path)
        });
        self.path = segment.path;
        self.file = self.or_stop("begin the ledger file", opened)?;
        self.length = 0;
        self.begins = segment.first;
        let synced = around(Operation::SyncFolder, || sync_folder(&self.dir));
        self.stopped = synced.is_err();
        synced
    }

    fn check_running(&self) -> Result<(), LedgerError> {
        if self.stopped { Err(LedgerError::Stopped) } else { Ok(()) }
    }

    fn or_stop<T>(&mut self, what: &'static str, result: std::io::Result<T>) -> Result<T, LedgerError> {
        self.stopped = result.is_err();
        result.map_err(LedgerError::io(what, &self.path))
    }
}

fn lock(dir: &Path) -> Result<File, LedgerError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(LedgerError::io("open the lock file", &path))?;
    match files::lock(&file).map_err(LedgerError::io("lock", path))? {
        true => Ok(file),
        false => Err(LedgerError::InUse { dir: dir.to_owned() }),
    }
}

/// Makes the names in a folder durable: syncing a new file does not.
fn sync_folder(dir: &Path) -> Result<(), LedgerError> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(LedgerError::io("sync the folder", dir))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
