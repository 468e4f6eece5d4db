//! Media that fail: reads that are not given, sectors that are worn out, copies that are gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::FakeDisk;
use super::medium::Node;
use super::outcome::SECTOR;

/// What of a disk fails, and did.
#[derive(Debug, Default)]
pub(super) struct Wear {
    reads: u64,
    /// The read that fails, by its number, and whether its sector does so for good.
    flaw: Option<(u64, bool)>,
    /// Where it failed.
    failed: Option<(PathBuf, u64)>,
    /// Reads of a place that fail from here on.
    failing: BTreeMap<PathBuf, u32>,
}

impl Wear {
    /// Counts a read, and tells whether the medium does not give it.
    pub(super) fn fails(&mut self, node: &mut Node, path: &Path, offset: u64, length: usize) -> bool {
        self.reads += 1;
        if let Some(left) = self.failing.get_mut(path).filter(|left| **left > 0) {
            *left -= 1;
            return true;
        }
        let first = usize::try_from(offset).unwrap_or(usize::MAX) / SECTOR;
        // Where nothing stands there is no sector that could fail.
        if let Some((_, for_good)) = self.flaw.take_if(|(number, _)| *number <= self.reads)
            && first * SECTOR < node.seen.bytes().len()
        {
            self.failed = Some((path.to_owned(), offset));
            if for_good {
                node.worn.insert(first);
            }
            return true;
        }
        node.worn.range(first..first + length.div_ceil(SECTOR)).next().is_some()
    }
}

impl FakeDisk {
    /// Damages one byte that is durable.
    pub fn rot(&self, path: &Path, at: usize) {
        if let Some(node) = self.state().medium.node(path) {
            node.change_durable(|bytes| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0xff;
                }
            });
        }
    }

    /// Has the next reads of a place fail, and those after them succeed.
    pub fn fail_reads(&self, path: &Path, count: u32) {
        self.state().wear.failing.insert(path.to_owned(), count);
    }

    /// Has the read with this number fail, counted from now, 1 being the next one: once, or for good with its sector.
    pub fn fail_read(&self, number: u64, for_good: bool) {
        let wear = &mut self.state().wear;
        wear.flaw = Some((wear.reads + number, for_good));
    }

    /// Returns which read has failed by [`Self::fail_read`]: where, and from which byte on.
    pub fn failed_read(&self) -> Option<(PathBuf, u64)> {
        self.state().wear.failed.clone()
    }

    /// Returns how many reads were asked for.
    pub fn reads(&self) -> u64 {
        self.state().wear.reads
    }

    /// Has the sector with this byte never be read again, whatever is written to it.
    pub fn wear_out(&self, path: &Path, at: usize) {
        if let Some(node) = self.state().medium.node(path) {
            node.worn.insert(at / SECTOR);
        }
    }

    /// Destroys bytes that are durable: one copy of something that is kept twice. A file of them is gone altogether if it
    /// `vanishes`.
    pub fn lose(&self, path: &Path, range: std::ops::Range<usize>, vanishes: bool) {
        let medium = &mut self.state().medium;
        let Some(node) = medium.node(path) else { return };
        if vanishes && !node.is_device {
            medium.names.remove(path);
            medium.durable_names.remove(path);
            return;
        }
        node.change_durable(|bytes| {
            let end = range.end.min(bytes.len());
            bytes[range.start.min(end)..end].fill(0);
        });
    }
}
