//! The checkpoint: what the ledger adds up to, in the [`store`](crate::store), so that a start need not read all of the
//! ledger.
//!
//! Devices stand on pages of 1,024. A page has two places; the directory says which one counts, and is written in one
//! batch with the sequence and everything else:
//!
//! ```text
//! changed pages ──> their other place, staged, synced ──> one batch: directory, rollouts, ..., sequence ──> synced
//!                        nothing points there yet                    from here on all of it counts
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`changed`] | what the facts since the last checkpoint have changed |
//! | [`page`] | devices as bytes |
//! | [`directory`] | which place of each page counts |
//! | [`read`] | from the store to a fleet |

pub mod changed;
pub mod directory;
pub mod page;
pub mod read;

pub use changed::Changed;

use self::directory::Directory;
use crate::core::fact::Fact;
use crate::core::fleet::Fleet;
use crate::store::{Batch, Key, Meta, Store, StoreError};

/// Of a large fleet a checkpoint is written after one frame for so many devices: reports are of all devices, so a few of
/// them change every page.
const DEVICES_A_FRAME: u64 = 4;
/// Keys of one store batch; more of them cost the store memory out of proportion.
const KEYS: usize = 900;
/// Bytes of pages that are staged together.
const STAGED: usize = 4 * 1024 * 1024;

/// Says why a checkpoint could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store refused.
    #[error("could not write the checkpoint")]
    Store(#[from] StoreError),
    /// A part of the fleet has no form on the disk.
    #[error("could not encode the fleet for the checkpoint")]
    Json(#[from] serde_json::Error),
    /// A page of devices has none.
    #[error("could not encode devices for the checkpoint")]
    Page(#[from] postcard::Error),
}

/// The checkpoint of an open data folder.
pub struct Checkpoint {
    store: Box<dyn Store>,
    directory: Directory,
    /// First frame that it does not have.
    next: u64,
    changed: Changed,
}

/// A key of the checkpoint and its value; none: it is to go.
type Kept = (Key, Option<Vec<u8>>);

impl Checkpoint {
    /// Goes on from what a start has read.
    pub(crate) fn new(store: Box<dyn Store>, directory: Directory, next: u64) -> Self {
        Self { store, directory, next, changed: Changed::default() }
    }

    /// Begins with what dropped frames added up to: all of it is to be written.
    pub(crate) fn of_all(store: Box<dyn Store>, fleet: &Fleet) -> Self {
        Self { store, directory: Directory::default(), next: 0, changed: Changed::everything(fleet) }
    }

    /// Returns the first frame that the checkpoint does not have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Notes what a fact has changed that `fleet` has taken in.
    pub fn note(&mut self, fact: &Fact, fleet: &Fleet) {
        self.changed.note(fact, fleet);
    }

    /// Syncs what an earlier run may have left unsynced.
    pub fn sync(&mut self) -> Result<(), CheckpointError> {
        Ok(self.store.checkpoint()?)
    }

    /// Tells whether so much has happened that it is time for another one; `end`: frames of the ledger,
    /// `every`: frames between two checkpoints of a small fleet.
    pub fn is_due(&self, end: u64, every: u64, fleet: &Fleet) -> bool {
        end >= self.next + every.max(fleet.devices.len() as u64 / DEVICES_A_FRAME)
    }

    /// Writes what has changed since the last one; `end`: frames of the ledger that are synced.
    pub fn write(&mut self, term: u64, fleet: &Fleet, end: u64) -> Result<(), CheckpointError> {
        if end <= self.next {
            return Ok(());
        }
        let mut directory = self.directory.clone();
        self.stage(term, fleet, &mut directory)?;
        let mut values = self.changed.values(fleet)?;
        values.push((Key::Meta(Meta::Directory), Some(directory.to_bytes()?)));
        // Rollouts and counters must move together. Where one batch is too small for that, a mark says so, and a start
        // that finds it rebuilds the store from the ledger.
        let marked = values.len() > KEYS;
        if marked {
            self.store.stage(term, vec![(Key::Meta(Meta::Checkpointing), b"1".to_vec())], Vec::new())?;
        }
        while values.len() > KEYS {
            let (puts, deletes) = parted(values.split_off(values.len() - KEYS));
            self.store.stage(term, puts, deletes)?;
        }
        let (puts, mut deletes) = parted(values);
        deletes.extend(marked.then_some(Key::Meta(Meta::Checkpointing)));
        self.store.apply(term, &Batch { first_seq: self.next, last_seq: end - 1, puts, deletes })?;
        self.store.checkpoint()?;
        self.next = end;
        self.directory = directory;
        self.changed = Changed::default();
        Ok(())
    }

    /// Writes the pages that have changed to the place that does not count yet, and says so in `directory`.
    fn stage(&mut self, term: u64, fleet: &Fleet, directory: &mut Directory) -> Result<(), CheckpointError> {
        let pages = fleet.devices.on_pages(&self.changed.pages(fleet));
        if pages.is_empty() {
            return Ok(());
        }
        let (mut puts, mut bytes) = (Vec::new(), 0);
        for (number, devices) in pages {
            let place = directory.turn(number);
            for (part, value) in (0..).zip(page::to_parts(&devices)?) {
                if bytes + value.len() > STAGED || puts.len() == KEYS {
                    self.store.stage(term, std::mem::take(&mut puts), Vec::new())?;
                    bytes = 0;
                }
                bytes += value.len();
                puts.push((Key::Page { number, place, part }, value));
            }
        }
        self.store.stage(term, puts, Vec::new())?;
        // Before anything points at them.
        self.store.checkpoint()?;
        Ok(())
    }
}

/// Tells what is to stay from what is to go.
fn parted(values: Vec<Kept>) -> (Vec<(Key, Vec<u8>)>, Vec<Key>) {
    let (mut puts, mut deletes) = (Vec::with_capacity(values.len()), Vec::new());
    for (key, value) in values {
        match value {
            Some(value) => puts.push((key, value)),
            None => deletes.push(key),
        }
    }
    (puts, deletes)
}

#[cfg(test)]
mod tests;
