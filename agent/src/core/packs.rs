//! The packs of a delta: fetched some ahead, verified as they come, and handed on in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use tern_protocol::delta::{DeltaManifest, span};
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Pack, Want};

use super::download::{Accepted, Download};
use super::timing::Timing;
use super::way::Course;

/// Packs in memory beyond the one that is decoded.
const AHEAD: u32 = 8;
/// Packs that are decoded without a sync; after a power cut they are fetched again.
const UNSYNCED_PACKS: u32 = 4;
/// A pack that was asked for so often, while others came that were asked for later, will not come: it is damaged where it lies.
const TRIES: u32 = 8;
/// Bytes of the image for which a sync is due at the latest.
const UNSYNCED_BYTES: u64 = 32 * CHUNK as u64;

/// Packs on their way.
#[derive(Debug)]
pub(super) struct Packs {
    manifest: DeltaManifest,
    download: Download,
    /// Verified, and not decoded.
    waiting: BTreeMap<u32, Arc<Vec<u8>>>,
    /// The pack that is decoded next.
    next: u32,
    /// The pack before which it stops to ask.
    end: u32,
    unsynced: (u32, u64),
    /// How often the next one was asked for.
    tries: u32,
}

/// A pack to be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) number: u32,
    pub(super) pack: Arc<Vec<u8>>,
    /// Bytes are synced after it.
    pub(super) syncs: bool,
}

impl Packs {
    /// Goes on where `course` is.
    pub(super) fn new(course: &Course, timing: &Timing) -> Self {
        let mut download = Download::packs(&course.manifest, timing);
        let (manifest, next) = (course.manifest, course.decoded);
        let end = next + 1 + AHEAD;
        download.within(next..end);
        Self { manifest, download, waiting: BTreeMap::new(), next, end, unsynced: (0, 0), tries: 0 }
    }

    pub(super) fn due(&self) -> u64 {
        self.download.due()
    }

    pub(super) fn request(&mut self, uptime: u64, most: u32) -> Option<Get> {
        let get = self.download.request_within(uptime, most)?;
        let names = |want: &Want| match want {
            Want::Packs { ranges, .. } => ranges.iter().any(|(from, to)| (*from..*to).contains(&self.next)),
            _ => false,
        };
        self.tries += u32::from(get.want.iter().any(names));
        Some(get)
    }

    /// Tells whether the delta is given up: it gives the packs behind the next one, and never that one.
    pub(super) fn is_given_up(&self) -> bool {
        self.tries >= TRIES && !self.waiting.is_empty() && !self.waiting.contains_key(&self.next)
    }

    pub(super) fn doubts_link(&self) -> bool {
        self.download.doubts_link()
    }

    pub(super) fn asked(&self) -> &Download {
        &self.download
    }

    pub(super) fn download(&mut self) -> &mut Download {
        &mut self.download
    }

    /// Returns the delta.
    pub(super) fn manifest(&self) -> &DeltaManifest {
        &self.manifest
    }

    /// Takes a pack; returns how many bytes of it are new.
    pub(super) fn accept(&mut self, pack: Pack, uptime: u64) -> u64 {
        let Accepted::Chunk { index, bytes } = self.download.accept(pack, uptime) else { return 0 };
        let length = bytes.len() as u64;
        self.waiting.insert(index, Arc::new(bytes));
        length
    }

    /// Returns what is to be decoded now, if it is here.
    pub(super) fn next(&self) -> Option<Due> {
        let pack = self.waiting.get(&self.next)?;
        let bytes = span(&self.manifest, pack).map_or(0, |bytes| bytes.end - bytes.start);
        let is_last = self.next + 1 == self.manifest.packs;
        let syncs =
            is_last || self.unsynced.0 + 1 >= UNSYNCED_PACKS || self.unsynced.1 + bytes >= UNSYNCED_BYTES;
        Some(Due { number: self.next, pack: Arc::clone(pack), syncs })
    }

    /// Returns which chunks of the image a pack that went wrong in byte `from` still owes.
    pub(super) fn owed(&self, number: u32, from: u64) -> Option<(u32, u32)> {
        let bytes = span(&self.manifest, self.waiting.get(&number)?)?;
        let chunk = |at: u64| u32::try_from(at / CHUNK as u64).ok();
        let (from, to) =
            (chunk(from.max(bytes.start))?, chunk(bytes.end.div_ceil(CHUNK as u64) * CHUNK as u64)?);
        (from < to).then_some((from, to))
    }

    /// Notes that a pack is decoded, and perhaps that all before it is durable.
    pub(super) fn decoded(&mut self, number: u32, synced: bool) {
        if number != self.next {
            return;
        }
        let bytes = self.waiting.remove(&number).and_then(|pack| span(&self.manifest, &pack));
        self.next += 1;
        self.tries = 0;
        let bytes = bytes.map_or(0, |bytes| bytes.end - bytes.start);
        self.unsynced = if synced { (0, 0) } else { (self.unsynced.0 + 1, self.unsynced.1 + bytes) };
        // Half a window at a time: a request weighs something too.
        if self.next + 1 + AHEAD >= self.end + AHEAD / 2 {
            self.end = self.next + 1 + AHEAD;
        }
        self.download.within(self.next..self.end);
    }
}
