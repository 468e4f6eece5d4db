//! One device's storage: two slots, a boot record, a journal; and the boot loader that reads the record.
//!
//! Slots lose unsynced writes at a power cut, each by itself and in no order. Boot record, journal and trust are
//! written whole or not at all, as the shell promises to write them.

use tern_agent::core::SlotName;
use tern_protocol::bundle::File;
use tern_protocol::chunk::{RootHasher, leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::offer::Artifact;

use super::clock::Rng;

/// Boots that a trial gets.
const TRIES: u8 = 2;

/// One slot.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Marked bad: what it holds is no image.
    pub bad: bool,
    /// What was found in it when it was last read back whole.
    pub label: Option<Label>,
}

/// What a slot is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Release counter.
    pub rc: u64,
    /// Version for people.
    pub version: String,
    /// The floor in the signed files that are kept with it.
    pub floor: u64,
    /// The image; none for the factory's.
    pub artifact: Option<Artifact>,
}

impl Slot {
    fn put(bytes: &mut Vec<u8>, offset: usize, what: &[u8]) {
        let end = offset + what.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(what);
    }

    /// Returns what a reader sees before the next power cut.
    pub fn read(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, what) in &self.unsynced {
            Self::put(&mut bytes, *offset, what);
        }
        bytes
    }

    /// Tells whether the slot begins with `image`.
    pub fn holds(&self, image: &[u8]) -> bool {
        if self.unsynced.is_empty() {
            self.durable.starts_with(image)
        } else {
            self.read().starts_with(image)
        }
    }

    /// Returns which chunks from `first` on are as these leaves say.
    pub fn right(&self, first: u32, leaves: &[Digest]) -> Vec<u32> {
        let bytes = self.read();
        let chunk = |index: u32| bytes.chunks(CHUNK).nth(index as usize).map(leaf);
        (first..)
            .zip(leaves)
            .filter(|(index, it)| chunk(*index) == Some(**it))
            .map(|(index, _)| index)
            .collect()
    }

    /// Writes without syncing.
    pub fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        self.unsynced.push((offset, bytes));
    }

    /// Makes every write durable.
    pub fn sync(&mut self) {
        for (offset, what) in std::mem::take(&mut self.unsynced) {
            Self::put(&mut self.durable, offset, &what);
        }
    }

    /// Loses some of what was not synced.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        for (offset, what) in std::mem::take(&mut self.unsynced) {
            if rng.chance(0.5) {
                Self::put(&mut self.durable, offset, &what);
            }
        }
    }

    /// Damages one byte, as worn flash does.
    pub fn rot(&mut self, at: usize) {
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= 0xff;
        }
    }

    /// Tells whether the slot holds exactly what an artifact names.
    pub fn matches(&self, artifact: &Artifact) -> bool {
        let bytes = self.read();
        let Some(image) = usize::try_from(artifact.length).ok().and_then(|length| bytes.get(..length)) else {
            return false;
        };
        let mut hasher = RootHasher::default();
        hasher.update(image);
        root(&hasher.finish()) == artifact.root && Digest::of(image) == artifact.sha256
    }
}

/// What boot loader and agent share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRecord {
    /// The slot that boots when nothing is on trial.
    pub active: SlotName,
    /// The slot on trial, and the boots that it has left.
    pub trial: Option<(SlotName, u8)>,
}

/// Everything that survives a power cut.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Slot a, slot b.
    pub slots: [Slot; 2],
    /// What boots.
    pub record: BootRecord,
    /// The journal as the shell would write it.
    pub journal: Option<Vec<u8>>,
    /// Trusted signed files.
    pub trust: Vec<File>,
}

impl Disk {
    /// Provisions slot a with the factory image.
    pub fn new(factory: &[u8], trust: Vec<File>) -> Self {
        let label = Label { rc: 0, version: "factory".to_owned(), floor: 0, artifact: None };
        let a = Slot { durable: factory.to_vec(), label: Some(label), ..Slot::default() };
        let b = Slot { bad: true, ..Slot::default() };
        let record = BootRecord { active: SlotName::A, trial: None };
        Self { slots: [a, b], record, journal: None, trust }
    }

    /// Returns a slot.
    pub fn slot(&self, name: SlotName) -> &Slot {
        &self.slots[usize::from(name == SlotName::B)]
    }

    /// Returns a slot to be changed.
    pub fn slot_mut(&mut self, name: SlotName) -> &mut Slot {
        &mut self.slots[usize::from(name == SlotName::B)]
    }

    /// Writes a record with a trial.
    pub fn arm(&mut self, slot: SlotName) {
        self.record.trial = Some((slot, TRIES));
    }

    /// What the boot loader does: a trial costs a try, and without tries the active slot comes up.
    pub fn boot(&mut self) -> SlotName {
        match &mut self.record.trial {
            Some((slot, tries)) if *tries > 0 => {
                *tries -= 1;
                *slot
            }
            _ => self.record.active,
        }
    }

    /// Loses some of what was not synced.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        self.slots.iter_mut().for_each(|slot| slot.power_cut(rng));
    }
}
