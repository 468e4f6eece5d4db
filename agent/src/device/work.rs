//! What takes long and blocks: the work is made here, and done apart from the loop. One at a time; the next one ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tern_protocol::bundle::File;
use tern_protocol::digest::Digest;
use tern_protocol::offer::Artifact;

use crate::core::SlotName;
use crate::core::agent::{Decode, Done, Target};
use crate::delta;
use crate::slot::{Image, SlotError, Slots, reread, signed};

use super::{Device, Place, chain, done, lock};

impl Device {
    /// Returns the work of decoding a pack; it blocks. Whatever else is asked of the slots ends it.
    pub fn decode(&mut self, order: Decode) -> impl FnOnce() -> Done + use<> {
        let (disk, tables) = (self.disk.clone(), Arc::clone(&self.tables));
        let place = self.place(&order.target);
        self.stop_hashing();
        self.stop = Arc::default();
        let stop = Arc::clone(&self.stop);
        move || {
            // One at a time: the one before, if there was one, has been stopped.
            let tables = &mut *tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match place {
                Ok(Place::Slot(slots, slot)) => {
                    let mut slots = lock(&slots);
                    let base = slots.path(slot.other());
                    delta::decode((&mut **slots, slot), &disk, Some(base), tables, &order, &stop)
                }
                Ok(Place::Component(mut slots, free)) => {
                    delta::decode((&mut *slots, free), &disk, None, tables, &order, &stop)
                }
                Err(reason) => Done::Failed(reason),
            }
        }
    }

    /// Returns the work of comparing chunks with their leaves; it blocks.
    pub fn compare(
        &mut self,
        target: &Target,
        length: u64,
        first: u32,
        leaves: Vec<Digest>,
    ) -> impl FnOnce() -> Done + use<> {
        let (disk, place) = (self.disk.clone(), self.place(target));
        self.stop_hashing();
        self.stop = Arc::default();
        let stop = Arc::clone(&self.stop);
        move || {
            let synced = |slots: &mut dyn Slots, slot| {
                // What is right only in the cache would be lost with the power.
                slots.sync(slot).map(|()| slots.path(slot)).map_err(|error| chain(&error))
            };
            let path = match place {
                Ok(Place::Slot(slots, slot)) => synced(&mut **lock(&slots), slot),
                Ok(Place::Component(mut slots, free)) => synced(&mut *slots, free),
                Err(reason) => Err(reason),
            };
            path.map_or_else(Done::Failed, |path| {
                Done::Compared(reread::compare(&*disk, &path, (first, &leaves), length, &stop))
            })
        }
    }

    /// Drops the tables of a delta: it is over.
    pub fn forget_delta(&self) {
        // While a pack is decoded that nobody waits for any more, they go with the next call.
        if let Ok(mut tables) = self.tables.try_lock() {
            tables.forget();
        }
    }

    /// Returns the work of reading a component's package back, comparing and labelling it; it blocks.
    pub fn hash_component(
        &mut self,
        name: &str,
        artifact: Artifact,
        rc: u64,
        version: String,
    ) -> impl FnOnce() -> Done + use<> {
        let component = self.component(name);
        self.stop_hashing();
        self.stop = Arc::default();
        let stop = Arc::clone(&self.stop);
        move || match component.map(|component| component.hash(&artifact, rc, version, &stop)) {
            Some(Ok(true)) => Done::Ok,
            Some(Ok(false)) => Done::Mismatch,
            Some(Err(error)) => Done::Failed(chain(&error)),
            None => Done::Failed("there is no such component any more".into()),
        }
    }

    /// Ends the hash of a slot that still runs, if one does: nobody waits for it any more. It holds the slots for one more
    /// chunk at most.
    pub fn stop_hashing(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns the work of reading a slot back, comparing and labelling it, with `files` kept beside it; it blocks. Whatever
    /// else is asked of the slots ends it.
    pub fn hash(
        &mut self,
        slot: SlotName,
        artifact: Artifact,
        rc: u64,
        version: String,
        files: Vec<File>,
    ) -> impl FnOnce() -> Done + use<> {
        let (slots, folder, disk) = (Arc::clone(&self.slots), self.slots_dir.clone(), self.disk.clone());
        // To label it is to say that it may boot: not what is confirmed or on trial already.
        let unwanted = self.unwanted(slot);
        self.stop_hashing();
        self.stop = Arc::default();
        let stop = Arc::clone(&self.stop);
        move || {
            if let Err(reason) = unwanted {
                return Done::Failed(reason);
            }
            let mut slots = lock(&slots);
            match slots.hash_until(slot, artifact.length, &stop) {
                Ok((sha256, root)) if sha256 == artifact.sha256 && root == artifact.root => {
                    let length = artifact.length;
                    // Before the label: a slot that may run has its files.
                    if let Err(error) = signed::keep(&disk, &folder, slot, &files) {
                        return Done::Failed(chain(&error));
                    }
                    done(slots.set_label(slot, Image { rc, version, length, sha256, root }))
                }
                Ok(_) | Err(SlotError::Short { .. }) => Done::Mismatch,
                Err(error) => Done::Failed(chain(&error)),
            }
        }
    }
}
