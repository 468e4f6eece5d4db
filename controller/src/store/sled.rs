//! The embedded store, behind guard rails. The only file that names the engine.
//!
//! What the engine does by itself, and what is done about it here:
//!
//! - its `flush` is not durable on Linux: [`SledStore`] syncs its files afterwards;
//! - it may refuse to open, or panic, after an unclean stop: every call is guarded, and
//!   [`SledStore::open_or_set_aside`] moves such a folder away and starts empty;
//! - it may return what nobody wrote: every value carries a checksum over itself and its key;
//! - its cache has no useful default: it is bounded.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::sled::Db;
use tern_protocol::digest::Digest;

use super::folder::{self, io_error};
use super::key::OWN;
use super::{
    Batch, Key, PAGE_MAX, Page, Prefix, Recovered, Stats, Step, Store, StoreError, check, check_staged,
};
use crate::fault::{Operation, around};

/// Bytes that the engine may keep in memory.
const CACHE: u64 = 64 * 1024 * 1024;
/// Bytes of checksum before every value.
const SUM: usize = 8;
/// How often the engine's own lock is tried again: it lets go of a folder some time after it was closed.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// A store in a folder, one engine a partition.
#[derive(Debug)]
pub struct SledStore {
    /// The engine's own folder.
    dir: PathBuf,
    /// None after a failed wipe only.
    db: Option<Db>,
    now: Recovered,
    /// Blob files that are synced already.
    blobs: BTreeSet<OsString>,
    /// Held until the store is dropped.
    _lock: File,
}

impl SledStore {
    /// Opens the store of `partition` in `dir`, making an empty one if there is none. A folder that is damaged
    /// is moved away, and [`Recovered::set_aside`] says where to; the term is lost with it, so the caller fences
    /// with the ledger's.
    pub fn open_or_set_aside(dir: &Path, partition: u8) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(io_error("make the folder of"))?;
        let lock = folder::lock(dir, &format!("partition-{partition:03}"))?;
        let dir = dir.join(format!("partition-{partition:03}"));
        let (db, now) = match open(&dir) {
            Err(StoreError::Damaged { .. }) => {
                let aside = folder::move_aside(&dir)?;
                let (db, now) = open(&dir)?;
                (db, Recovered { set_aside: aside, ..now })
            }
            opened => opened?,
        };
        Ok(Self { dir, db: Some(db), now, blobs: BTreeSet::new(), _lock: lock })
    }

    fn db(&self) -> Result<&Db, StoreError> {
        self.db.as_ref().ok_or_else(|| damaged("it was closed by a failed wipe"))
    }

    fn write(&mut self, now: Recovered, batch: &Batch) -> Result<(), StoreError> {
        let mut changes = ::sled::Batch::default();
        for (key, value) in &batch.puts {
            let key = key.to_bytes();
            let value = sealed(&key, value);
            changes.insert(key, value);
        }
        for key in &batch.deletes {
            changes.remove(key.to_bytes());
        }
        // In the same batch as the entries: what is applied and what is said to be can never differ.
        changes.insert(OWN, sealed(OWN, &own_record(&now)));
        let db = self.db()?;
        around(Operation::Apply, || guard("write to", || db.apply_batch(changes)))?;
        self.now = now;
        Ok(())
    }

    /// Flushes and syncs everything; returns the blobs that are synced now.
    fn flush(&self) -> Result<BTreeSet<OsString>, StoreError> {
        let db = self.db()?;
        guard("flush", || db.flush().map(drop))?;
        // Blobs first: the main file points at them.
        let blobs = self.dir.join("blobs");
        let mut synced = BTreeSet::new();
        for blob in fs::read_dir(&blobs).map_err(io_error("list the blobs of"))? {
            let blob = blob.map_err(io_error("list the blobs of"))?;
            let name = blob.file_name();
            if !self.blobs.contains(&name) {
                match folder::sync(&blob.path()) {
                    // The engine's own threads let go of blobs that nothing points at any more.
                    Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        continue;
                    }
                    synced => synced?,
                }
            }
            synced.insert(name);
        }
        folder::sync(&blobs)?;
        folder::sync(&self.dir.join("db"))?;
        folder::sync(&self.dir)?;
        Ok(synced)
    }
}

impl Store for SledStore {
    fn recovered(&self) -> Recovered {
        self.now.clone()
    }

    fn apply(&mut self, term: u64, batch: &Batch) -> Result<(), StoreError> {
        match check(&self.now, term, batch)? {
            Step::Repeated => self.fence(term),
            Step::Next => {
                let now = Recovered { applied_seq: Some(batch.last_seq), term, ..self.now.clone() };
                self.write(now, batch)
            }
        }
    }

    fn stage(&mut self, term: u64, puts: Vec<(Key, Vec<u8>)>, deletes: Vec<Key>) -> Result<(), StoreError> {
        let batch = Batch { puts, deletes, ..Batch::default() };
        check_staged(&self.now, term, &batch)?;
        self.write(Recovered { term, ..self.now.clone() }, &batch)
    }

    fn fence(&mut self, term: u64) -> Result<(), StoreError> {
        if term < self.now.term {
            return Err(StoreError::Fenced { term, newest: self.now.term });
        }
        if term == self.now.term {
            return Ok(());
        }
        self.write(Recovered { term, ..self.now.clone() }, &Batch::default())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.blobs = around(Operation::Flush, || self.flush())?;
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        let bytes = key.to_bytes();
        let value = guard("read from", || db.get(&bytes))?;
        value.map(|value| unsealed(&bytes, &value)).transpose()
    }

    fn scan(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let db = self.db()?;
        let prefix = prefix.to_bytes();
        let limit = limit.clamp(1, PAGE_MAX);
        let from = match after.map(Key::to_bytes) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let raw: Vec<_> = guard("read from", || {
            db.range::<Vec<u8>, _>((from, Bound::Unbounded))
                .take_while(|entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
                .take(limit + 1)
                .collect()
        })?;
        let mut entries = Vec::with_capacity(raw.len());
        for (bytes, value) in raw.iter().take(limit) {
            let key = Key::from_bytes(bytes).ok_or_else(|| damaged("a key that nobody wrote"))?;
            entries.push((key, unsealed(bytes, value)?));
        }
        let next = entries.last().filter(|_| raw.len() > limit).map(|(key, _)| key.clone());
        Ok(Page { entries, next })
    }

    fn verify(&self) -> Result<u64, StoreError> {
        let db = self.db()?;
        let mut entries = 0;
        let mut all = db.iter();
        while let Some((bytes, value)) = guard("read from", || all.next().transpose())? {
            unsealed(&bytes, &value)?;
            if *bytes != *OWN {
                Key::from_bytes(&bytes).ok_or_else(|| damaged("a key that nobody wrote"))?;
                entries += 1;
            }
        }
        Ok(entries)
    }

    fn wipe(&mut self) -> Result<(), StoreError> {
        // The engine writes files by path when it closes, so it has to be gone before the folder is moved.
        let db = self.db.take();
        let closed = guard("close", || {
            drop(db);
            Ok(())
        });
        if closed.is_err() {
            tracing::warn!("the store's engine panicked while it was closed for a wipe");
        }
        let aside = around(Operation::Wipe, || folder::move_aside(&self.dir))?;
        self.blobs.clear();
        let (db, _) = open(&self.dir)?;
        self.db = Some(db);
        let term = self.now.term;
        self.now = Recovered::default();
        self.fence(term)?;
        self.now.set_aside = aside;
        Ok(())
    }

    fn stats(&self) -> Result<Stats, StoreError> {
        let db = self.db()?;
        let bytes = guard("measure", || db.size_on_disk())?;
        Ok(Stats { bytes, applied_seq: self.now.applied_seq })
    }
}

fn open(dir: &Path) -> Result<(Db, Recovered), StoreError> {
    let mut tries = 0;
    let db = loop {
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            // Its own flusher swallows errors; `checkpoint` does not.
            .flush_every_ms(None);
        match guard("open", || config.open()) {
            Err(StoreError::Io { source, .. }) if is_lock(&source) => {
                tries += 1;
                if tries == LOCK_TRIES {
                    return Err(StoreError::InUse { dir: dir.to_owned() });
                }
                std::thread::sleep(LOCK_WAIT);
            }
            opened => break opened?,
        }
    };
    let own = guard("read from", || db.get(OWN))?;
    let now = match own {
        Some(value) => read_own(&unsealed(OWN, &value)?)?,
        // The first write of every store is its own record.
        None if guard("read from", || Ok(!db.is_empty()))? => {
            return Err(damaged("entries, but no record of what was applied"));
        }
        None => Recovered::default(),
    };
    Ok((db, now))
}

/// Runs one call of the engine. An error that means damage and a panic are the same to the caller.
fn guard<T>(what: &'static str, call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::sled::Error::Io(source))) => match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
                Err(damaged(format!("{source} on an attempt to {what} it")))
            }
            _ => Err(StoreError::Io { what, source }),
        },
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged(format!("the engine panicked on an attempt to {what} it"))),
    }
}

/// The engine has no error of its own for a held lock.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().starts_with("could not acquire lock")
}

fn own_record(now: &Recovered) -> [u8; 17] {
    let mut out = [0; 17];
    out[0] = u8::from(now.applied_seq.is_some());
    out[1..9].copy_from_slice(&now.applied_seq.unwrap_or(0).to_be_bytes());
    out[9..].copy_from_slice(&now.term.to_be_bytes());
    out
}

fn read_own(value: &[u8]) -> Result<Recovered, StoreError> {
    let read = || {
        let (applied, rest) = value.split_first()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let term = u64::from_be_bytes(*rest.first_chunk()?);
        let applied_seq = (*applied == 1).then_some(u64::from_be_bytes(*sequence));
        Some(Recovered { applied_seq, term, set_aside: None })
    };
    read().ok_or_else(|| damaged("its own record is too short"))
}

/// The key is part of the checksum: a value that turns up under another key is damage too.
fn checksum(key: &[u8], value: &[u8]) -> [u8; SUM] {
    Digest::of_parts(&[key, value]).short().to_be_bytes()
}

fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SUM + value.len());
    out.extend_from_slice(&checksum(key, value));
    out.extend_from_slice(value);
    out
}

fn unsealed(key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    match sealed.split_first_chunk::<SUM>() {
        Some((sum, value)) if *sum == checksum(key, value) => Ok(value.to_vec()),
        _ => Err(damaged(format!("the checksum of entry {} does not match", hex::encode(key)))),
    }
}

fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: what.into() }
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
