//! The state that the ledger adds up to; may be deleted and rebuilt.
//!
//! No engine is trusted with the truth: the [`ledger`](crate::ledger) is synced first, and a store that is
//! damaged, lost or merely doubtful is wiped and filled again by replaying the ledger after its `applied_seq`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`key`] | every key, rendered to bytes and read back in one place |
//! | [`memory`] | a store that forgets, for tests and simulations; as strict as the real one |
//! | [`sled`] | the embedded store, behind guard rails (`folder`: its lock, and where damaged ones go) |

mod folder;
pub mod key;
pub mod memory;
pub mod sled;

#[cfg(test)]
mod conformance;

use std::io;
use std::path::PathBuf;

pub use key::{Key, Meta, Prefix};

/// Most keys in one batch: the embedded engine's memory grows beyond reason with larger ones.
pub const BATCH_KEYS_MAX: usize = 1000;
/// Largest value. A few hundred bytes are usual.
pub const VALUE_MAX: usize = 512 * 1024;
/// Most entries in one page.
pub const PAGE_MAX: usize = 1000;

/// A place for the state of one partition.
///
/// Batches follow the ledger: each says which frames it adds up, and is applied whole or not at all. Applying
/// promises nothing about the disk; [`Store::checkpoint`] does.
pub trait Store: Send {
    /// Returns what the store holds now.
    fn recovered(&self) -> Recovered;

    /// Applies a batch whole. One that was applied before changes nothing; one of a term that is over is
    /// refused, a newer term is taken up.
    fn apply(&mut self, term: u64, batch: &Batch) -> Result<(), StoreError>;

    /// Writes entries, and takes out others, while the sequence stays where it is: for what nothing points at before a
    /// later batch is applied. Refused like a batch of a term that is over, or above a ceiling.
    fn stage(&mut self, term: u64, puts: Vec<(Key, Vec<u8>)>, deletes: Vec<Key>) -> Result<(), StoreError>;

    /// Takes up a term. From here on, an earlier one is refused.
    fn fence(&mut self, term: u64) -> Result<(), StoreError>;

    /// Makes everything applied so far durable.
    fn checkpoint(&mut self) -> Result<(), StoreError>;

    /// Returns the value of a key.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns at most `limit` entries (and at most [`PAGE_MAX`]) in the order of their keys, from after
    /// `after` on. Pass on the page's `next` for the following one.
    fn scan(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Page, StoreError>;

    /// Reads every entry and returns how many there are, or the first damage.
    fn verify(&self) -> Result<u64, StoreError>;

    /// Forgets everything but the term, so that the ledger can be replayed from its beginning.
    fn wipe(&mut self) -> Result<(), StoreError>;

    /// Returns figures for the operator.
    fn stats(&self) -> Result<Stats, StoreError>;
}

/// What a store held when it was opened, or holds now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Last frame of the ledger that is in here; none: replay all of it.
    pub applied_seq: Option<u64>,
    /// Newest term that was taken up.
    pub term: u64,
    /// Where a damaged store was moved to when this one was opened or wiped.
    pub set_aside: Option<PathBuf>,
}

/// Changes that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// First frame of the ledger that the changes add up.
    pub first_seq: u64,
    /// Last one.
    pub last_seq: u64,
    /// Entries to write. Of two with the same key the later one stays.
    pub puts: Vec<(Key, Vec<u8>)>,
    /// Entries to take out, after the puts.
    pub deletes: Vec<Key>,
}

/// A part of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Entries in the order of their keys.
    pub entries: Vec<(Key, Vec<u8>)>,
    /// Pass this on as `after` for the next page; none at the end.
    pub next: Option<Key>,
}

/// Figures for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Last frame of the ledger that is in here.
    pub applied_seq: Option<u64>,
}

/// Says why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has taken over.
    #[error("term {term} is over: the store is already in term {newest}; stop this service")]
    Fenced {
        /// Term of the caller.
        term: u64,
        /// The store's.
        newest: u64,
    },
    /// A batch does not follow the one before it. The caller has lost count, and must replay.
    #[error("a batch begins with frame {first}, expected {expected}; replay the ledger from there")]
    Gap {
        /// First frame of the batch.
        first: u64,
        /// The one that would follow.
        expected: u64,
    },
    /// A batch that ends before it begins.
    #[error("a batch runs from frame {first} to {last}")]
    Backwards {
        /// Its first frame.
        first: u64,
        /// Its last.
        last: u64,
    },
    /// A batch with too many keys.
    #[error("a batch has {found} keys, allowed are {BATCH_KEYS_MAX}; split it between frames")]
    BatchSize {
        /// How many.
        found: usize,
    },
    /// A value above the ceiling.
    #[error("the value of {key:?} has {found} bytes, allowed are {VALUE_MAX}")]
    ValueSize {
        /// Its key.
        key: Key,
        /// Its length.
        found: usize,
    },
    /// Another process holds the folder.
    #[error("the store in {} is in use by another process; stop that one first", dir.display())]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// What is there cannot be trusted.
    #[error("the store is damaged: {what}; wipe it and replay the ledger")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The disk refused.
    #[error("could not {what} the store")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Tells whether wiping the store and replaying the ledger mends this.
    pub fn wants_rebuild(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Gap { .. })
    }
}

/// What a batch means for a store that has applied up to `applied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is the next one.
    Next,
    /// It is in already.
    Repeated,
}

/// Checks a batch against its ceilings, the term and what was applied: the same for every engine.
fn check(now: &Recovered, term: u64, batch: &Batch) -> Result<Step, StoreError> {
    if term < now.term {
        return Err(StoreError::Fenced { term, newest: now.term });
    }
    let (first, last) = (batch.first_seq, batch.last_seq);
    if first > last {
        return Err(StoreError::Backwards { first, last });
    }
    check_size(batch)?;
    if now.applied_seq.is_some_and(|applied| last <= applied) {
        return Ok(Step::Repeated);
    }
    let expected = now.applied_seq.map_or(0, |applied| applied + 1);
    if first != expected {
        return Err(StoreError::Gap { first, expected });
    }
    Ok(Step::Next)
}

/// Checks what is staged against the term and the ceilings.
fn check_staged(now: &Recovered, term: u64, batch: &Batch) -> Result<(), StoreError> {
    if term < now.term {
        return Err(StoreError::Fenced { term, newest: now.term });
    }
    check_size(batch)
}

fn check_size(batch: &Batch) -> Result<(), StoreError> {
    let found = batch.puts.len() + batch.deletes.len();
    if found > BATCH_KEYS_MAX {
        return Err(StoreError::BatchSize { found });
    }
    match batch.puts.iter().find(|(_, value)| value.len() > VALUE_MAX) {
        Some((key, value)) => Err(StoreError::ValueSize { key: key.clone(), found: value.len() }),
        None => Ok(()),
    }
}
