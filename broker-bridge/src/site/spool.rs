//! What devices said and upstream has not yet taken: a queue on the disk, with a bound, in the order in which it came.
//!
//! ```text
//! <dir>/000000000000002a.log   messages from number 42 on, one after the other
//! <dir>/position               number of the first that upstream has not taken
//!
//! message = length u32 | check u64 | time u64 | topic length u16 | topic | payload        big endian; check = start of SHA-256
//! ```
//! A message is kept before it is acknowledged, and goes only when upstream has acknowledged it, so a kill at any moment
//! sends some twice and none never. What is repeated while it still waits is kept once: a device says everything again
//! until the service itself answers. At the bound the oldest segment goes, and what it held is counted.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tern_protocol::digest::Digest;
use tern_protocol::limits::{MQTT_PACKET_MAX, PRESENTED_MAX};

const HEAD: usize = 4 + 8 + 8 + 2;
/// Messages, whatever their bytes: what is remembered of each while it waits is in memory.
const MESSAGES_MAX: usize = 200_000;
/// Segments of a full queue: as much as goes at once when it is.
const SEGMENTS: u64 = 16;
/// Bytes that may wait in memory while the disk takes nothing.
const MEMORY_MAX: usize = 1024 * 1024;

/// A message, as it is sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its place in the queue.
    pub(crate) number: u64,
    /// Where to.
    pub(crate) topic: String,
    /// What; byte for byte as the device sent it.
    pub(crate) payload: Vec<u8>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// On the disk.
    OnDisk,
    /// In memory: the disk takes nothing.
    InMemory,
    /// It waited already.
    Already,
}

/// The queue. Calls block on the disk.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    bound: u64,
    segments: VecDeque<Segment>,
    writer: Option<File>,
    /// From `first` on, those that wait.
    waiting: VecDeque<Waiting>,
    hashes: HashSet<u64>,
    first: u64,
    /// Next to be sent.
    next: u64,
    taken: BTreeSet<u64>,
    /// Numbers of those that wait in memory, and their bytes.
    memory: VecDeque<u64>,
    memory_bytes: usize,
    saved: u64,
    /// Whether something was written since the last sync.
    dirty: bool,
    dropped: u64,
    fault: Option<String>,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    count: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Waiting {
    at: u64,
    hash: u64,
    length: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Offset in its segment.
    Disk(u64),
    Memory(String, Vec<u8>),
}

impl Waiting {
    /// A number under which there is nothing to send.
    fn nothing() -> Self {
        Self { at: u64::MAX, hash: 0, length: 0, place: Place::Memory(String::new(), Vec::new()) }
    }
}

impl Spool {
    /// Opens the queue in `folder`; what a crash tore at its end is cut.
    pub(crate) fn open(folder: PathBuf, bound: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let position: u64 =
            fs::read_to_string(folder.join("position")).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        let mut firsts: Vec<u64> = Vec::new();
        for file in fs::read_dir(&folder)? {
            let name = file?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
            firsts.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        firsts.sort_unstable();
        let mut spool = Self {
            folder,
            bound,
            segments: VecDeque::new(),
            writer: None,
            waiting: VecDeque::new(),
            hashes: HashSet::new(),
            first: position,
            next: position,
            taken: BTreeSet::new(),
            memory: VecDeque::new(),
            memory_bytes: 0,
            saved: position,
            dirty: false,
            dropped: 0,
            fault: None,
        };
        for first in firsts {
            spool.load(first)?;
        }
        spool.next = spool.first;
        Ok(spool)
    }

    /// Reads a segment; numbers that are missing were dropped, or lost with a power cut.
    fn load(&mut self, first: u64) -> io::Result<()> {
        let path = self.path(first);
        let mut bytes = Vec::new();
        File::open(&path)?.take(self.bound.saturating_mul(2)).read_to_end(&mut bytes)?;
        let (mut offset, mut number) = (0, first);
        while let Some((at, topic, payload, length)) = parse(&bytes[offset..]) {
            if number >= self.end() {
                if self.waiting.is_empty() {
                    self.first = number;
                }
                while self.end() < number && self.waiting.len() < MESSAGES_MAX {
                    self.waiting.push_back(Waiting::nothing());
                }
                let hash = hash(topic, payload);
                self.hashes.insert(hash);
                let place = Place::Disk(offset as u64);
                self.waiting.push_back(Waiting {
                    at,
                    hash,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                    place,
                });
            }
            (offset, number) = (offset + length, number + 1);
        }
        if number <= self.first {
            return remove(&path);
        }
        if offset < bytes.len() {
            OpenOptions::new().write(true).open(&path)?.set_len(offset as u64)?;
        }
        self.segments.push_back(Segment { first, count: number - first, bytes: offset as u64 });
        Ok(())
    }

    /// Returns the number that the next message gets.
    fn end(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:016x}.log"))
    }

    /// Keeps a message.
    pub(crate) fn push(&mut self, topic: &str, payload: &[u8], at: u64) -> Kept {
        let hash = hash(topic, payload);
        if self.hashes.contains(&hash) {
            return Kept::Already;
        }
        let record = record(topic, payload, at);
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        while self.waiting.len() >= MESSAGES_MAX || self.bytes() + u64::from(length) > self.bound {
            if !self.drop_oldest() {
                break;
            }
        }
        // Behind what waits in memory, or the order would change.
        let offset = if self.memory.is_empty() { self.append(&record) } else { None };
        let place = match offset {
            Some(offset) => Place::Disk(offset),
            None => {
                self.make_room(record.len());
                self.memory.push_back(self.end());
                self.memory_bytes += record.len();
                Place::Memory(topic.to_owned(), payload.to_vec())
            }
        };
        let kept = if matches!(place, Place::Disk(_)) { Kept::OnDisk } else { Kept::InMemory };
        self.hashes.insert(hash);
        self.waiting.push_back(Waiting { at, hash, length, place });
        kept
    }

    fn append(&mut self, record: &[u8]) -> Option<u64> {
        let result = self.try_append(record);
        result
            .map_err(|error| {
                if self.fault.is_none() {
                    tracing::error!(%error, "the site's queue cannot be written; what devices report waits in memory");
                }
                self.fault = Some(format!("the queue cannot be written: {error}"));
                // What was half written is cut before anything else is.
                self.writer = None;
                if let Some(last) = self.segments.back() {
                    let cut = OpenOptions::new().write(true).open(self.path(last.first)).and_then(|f| f.set_len(last.bytes));
                    cut.ok();
                }
            })
            .ok()
    }

    fn try_append(&mut self, record: &[u8]) -> io::Result<u64> {
        let first = self.end();
        // A segment has no holes: behind what waited in memory a new one begins.
        let goes_on = |last: &Segment| last.bytes < self.bound / SEGMENTS && last.first + last.count == first;
        if !self.segments.back().is_some_and(goes_on) {
            self.writer = Some(OpenOptions::new().create(true).append(true).open(self.path(first))?);
            self.segments.push_back(Segment { first, count: 0, bytes: 0 });
        }
        let last = self.segments.back().map_or(0, |last| last.first);
        let path = self.path(last);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(OpenOptions::new().append(true).open(path)?),
        };
        writer.write_all(record)?;
        self.dirty = true;
        let Some(last) = self.segments.back_mut() else { return Ok(0) };
        let offset = last.bytes;
        last.bytes += record.len() as u64;
        last.count += 1;
        Ok(offset)
    }

    /// Makes room in memory: the oldest that waits there goes. Its number stays, and is nothing.
    fn make_room(&mut self, length: usize) {
        while self.memory_bytes + length > MEMORY_MAX
            && let Some(number) = self.memory.pop_front()
        {
            let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
            if let Some(gone) = place.and_then(|place| self.waiting.get_mut(place)) {
                let gone = std::mem::replace(gone, Waiting::nothing());
                self.memory_bytes -= gone.length as usize;
                self.hashes.remove(&gone.hash);
                self.dropped += 1;
            }
        }
    }

    /// Gives up the oldest segment, or where there is but one what is too much; tells whether there was any.
    fn drop_oldest(&mut self) -> bool {
        let end = match self.segments.get(1) {
            Some(next) => next.first,
            None if self.waiting.len() >= MESSAGES_MAX => self.first + 1,
            None => return false,
        };
        if self.dropped == 0 {
            tracing::error!("the site's queue is full: the oldest reports of its devices are dropped");
        }
        self.fault = Some("the queue is at its bound".to_owned());
        while self.first < end && !self.waiting.is_empty() {
            self.dropped += 1;
            self.leave();
        }
        self.next = self.next.max(self.first);
        self.taken = self.taken.split_off(&self.first);
        self.remove_segments();
        true
    }

    /// Takes the first message out.
    fn leave(&mut self) {
        if let Some(waiting) = self.waiting.pop_front() {
            self.hashes.remove(&waiting.hash);
            if self.memory.front() == Some(&self.first) {
                self.memory.pop_front();
                self.memory_bytes -= waiting.length as usize;
            }
        }
        self.first += 1;
    }

    fn remove_segments(&mut self) {
        while self.segments.get(1).is_some_and(|next| next.first <= self.first) {
            let oldest = self.segments.pop_front().map(|oldest| remove(&self.path(oldest.first)));
            if let Some(Err(error)) = oldest {
                tracing::warn!(%error, "a segment of the site's queue cannot be removed");
            }
        }
    }

    /// Returns the next message to be sent, if one waits.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            let number = self.next;
            let waiting = self.waiting.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
            self.next += 1;
            let message = match &waiting.place {
                Place::Memory(topic, payload) => {
                    Some((topic.clone(), payload.clone())).filter(|(t, _)| !t.is_empty())
                }
                Place::Disk(offset) => self.read(number, *offset, waiting.length),
            };
            match message {
                Some((topic, payload)) => return Some(Message { number, topic, payload }),
                // Nothing to send: as if it had been taken.
                None => self.taken(number),
            }
        }
    }

    fn read(&self, number: u64, offset: u64, length: u32) -> Option<(String, Vec<u8>)> {
        let segment = self.segments.iter().rev().find(|segment| segment.first <= number)?;
        let mut bytes = vec![0; length as usize];
        let read =
            File::open(self.path(segment.first)).and_then(|file| file.read_exact_at(&mut bytes, offset));
        let message = read
            .ok()
            .and_then(|()| parse(&bytes))
            .map(|(_, topic, payload, _)| (topic.to_owned(), payload.to_vec()));
        if message.is_none() {
            tracing::error!(number, "a message of the site's queue is damaged, and left out");
        }
        message
    }

    /// Takes in that upstream has taken a message.
    pub(crate) fn taken(&mut self, number: u64) {
        if number < self.first {
            return;
        }
        self.taken.insert(number);
        while self.taken.remove(&self.first) {
            self.leave();
        }
        self.remove_segments();
        if self.waiting.is_empty() {
            self.fault = None;
        }
    }

    /// Sends from the first on that was not taken: the connection is a new one.
    pub(crate) fn again(&mut self) {
        self.next = self.first;
    }

    /// Returns the file that has to be synced, if anything was written. To be done without holding the queue up.
    pub(crate) fn take_unsynced(&mut self) -> Option<File> {
        std::mem::take(&mut self.dirty).then(|| self.writer.as_ref()?.try_clone().ok()).flatten()
    }

    /// Saves how far upstream is. A kill before sends some messages twice.
    pub(crate) fn save(&mut self) {
        if self.saved == self.first {
            return;
        }
        let (aside, path) = (self.folder.join("position.new"), self.folder.join("position"));
        let written = fs::write(&aside, self.first.to_string()).and_then(|()| fs::rename(&aside, &path));
        if written.is_ok() {
            self.saved = self.first;
        }
        // An empty queue takes no room, and the segment that is written next has a number of its own.
        if self.waiting.is_empty() && self.saved == self.first {
            for segment in std::mem::take(&mut self.segments) {
                remove(&self.path(segment.first)).ok();
            }
            self.writer = None;
        }
    }

    /// Returns how many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns when the oldest that waits was kept, in Unix seconds.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.at)
    }

    /// Returns how many were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns what is wrong with it.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

fn hash(topic: &str, payload: &[u8]) -> u64 {
    Digest::of_parts(&[topic.as_bytes(), &[0], payload]).short()
}

fn record(topic: &str, payload: &[u8], at: u64) -> Vec<u8> {
    let length = u32::try_from(HEAD + topic.len() + payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEAD + topic.len() + payload.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&at.to_be_bytes());
    out.extend_from_slice(&u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(payload);
    let check = Digest::of(&out[12..]).short();
    out[4..12].copy_from_slice(&check.to_be_bytes());
    out
}

/// Reads the message at the start of `bytes`: time, topic, payload and length.
fn parse(bytes: &[u8]) -> Option<(u64, &str, &[u8], usize)> {
    let number = |from: usize, to: usize| {
        bytes.get(from..to).map(|part| part.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let length = usize::try_from(number(0, 4)?)
        .ok()
        .filter(|n| (HEAD..=MQTT_PACKET_MAX + PRESENTED_MAX).contains(n))?;
    let whole = bytes.get(..length)?;
    if number(4, 12)? != Digest::of(&whole[12..]).short() {
        return None;
    }
    let topic = usize::try_from(number(20, 22)?).ok()?;
    let (topic, payload) = whole[HEAD..].split_at_checked(topic)?;
    Some((number(12, 20)?, std::str::from_utf8(topic).ok()?, payload, length))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
