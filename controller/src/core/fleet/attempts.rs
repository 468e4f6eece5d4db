//! What a device did in each rollout: a small map, for most devices of one or two entries of 24 bytes.
//!
//! A tree would take room for eleven records from the first one on, which is more than everything else that is known of a
//! device. What many records have in common is shared, and records are packed where nothing unusual is in them: 15 bytes,
//! one that says so, and eight that lead to what is common. The first entry stands in the device itself.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use tern_protocol::id::RolloutId;

use super::common::Common;
use super::device::AttemptRecord;
use super::packed::Packed;

/// Records by rollout.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    /// Ascending by name, each once; no room for more.
    entries: SmallVec<[Entry; 1]>,
}

#[derive(Debug, Clone)]
struct Entry {
    common: Arc<Common>,
    kept: Kept,
}

/// A record as it is kept: packed exactly if that is possible.
#[derive(Debug, Clone)]
enum Kept {
    Usual(Packed),
    Unusual(Box<AttemptRecord>),
}

const _: () = assert!(size_of::<Kept>() == 16 && size_of::<Entry>() == 24 && size_of::<Attempts>() == 32);

impl Entry {
    fn record(&self) -> AttemptRecord {
        self.kept.record(&self.common)
    }

    fn open(&mut self) -> (&RolloutId, Opened<'_>) {
        let Self { common, kept } = self;
        (&common.rollout, Opened { record: kept.record(common), changed: false, common, kept })
    }
}

impl Kept {
    fn of(record: AttemptRecord, common: &Common) -> Self {
        match Packed::of(&record, common) {
            Some(packed) => Self::Usual(packed),
            None => Self::Unusual(Box::new(record)),
        }
    }

    fn record(&self, common: &Common) -> AttemptRecord {
        match self {
            Self::Usual(packed) => packed.record(common),
            Self::Unusual(record) => (**record).clone(),
        }
    }
}

/// A record that is looked at or changed; when this is dropped what was changed is kept.
pub struct Opened<'a> {
    record: AttemptRecord,
    changed: bool,
    common: &'a Common,
    kept: &'a mut Kept,
}

impl Deref for Opened<'_> {
    type Target = AttemptRecord;

    fn deref(&self) -> &AttemptRecord {
        &self.record
    }
}

impl DerefMut for Opened<'_> {
    fn deref_mut(&mut self) -> &mut AttemptRecord {
        self.changed = true;
        &mut self.record
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if self.changed {
            let empty = AttemptRecord::fresh(0, 0, 0);
            *self.kept = Kept::of(std::mem::replace(&mut self.record, empty), self.common);
        }
    }
}

impl Attempts {
    /// Bytes of a packed record with what tells it from a whole one, of the same with what leads to what is common, and
    /// of the map with room for one.
    pub const SIZES: [usize; 3] = [size_of::<Kept>(), size_of::<Entry>(), size_of::<Self>()];

    /// Returns what the device did in a rollout.
    pub fn get(&self, rollout: &RolloutId) -> Option<AttemptRecord> {
        self.place(rollout).ok().map(|place| self.entries[place].record())
    }

    /// Returns the same, to be changed.
    pub fn get_mut(&mut self, rollout: &RolloutId) -> Option<Opened<'_>> {
        let place = self.place(rollout).ok()?;
        Some(self.entries[place].open().1)
    }

    /// Tells whether it did anything there.
    pub fn contains_key(&self, rollout: &RolloutId) -> bool {
        self.place(rollout).is_ok()
    }

    /// Puts in what it did, in place of what was there, which is returned.
    pub(crate) fn insert(&mut self, common: Arc<Common>, record: AttemptRecord) -> Option<AttemptRecord> {
        let entry = Entry { kept: Kept::of(record, &common), common };
        match self.place(&entry.common.rollout) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place], entry).record()),
            Err(place) => {
                self.entries.reserve_exact(1);
                self.entries.insert(place, entry);
                None
            }
        }
    }

    /// Forgets what it did in rollouts of which this does not hold.
    pub fn retain(&mut self, mut stays: impl FnMut(&RolloutId, &AttemptRecord) -> bool) {
        self.entries.retain(|entry| stays(&entry.common.rollout, &entry.record()));
    }

    /// Forgets what it did.
    pub fn remove(&mut self, rollout: &RolloutId) {
        if let Ok(place) = self.place(rollout) {
            self.entries.remove(place);
        }
    }

    /// Walks rollouts and records in the order of the rollouts' names.
    pub fn iter(&self) -> impl Iterator<Item = (&RolloutId, AttemptRecord)> {
        self.entries.iter().map(|entry| (&entry.common.rollout, entry.record()))
    }

    /// Walks the same, to change the records.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&RolloutId, Opened<'_>)> {
        self.entries.iter_mut().map(Entry::open)
    }

    /// Walks the rollouts.
    pub fn keys(&self) -> impl Iterator<Item = &RolloutId> {
        self.entries.iter().map(|entry| &entry.common.rollout)
    }

    /// Walks the records.
    pub fn values(&self) -> impl Iterator<Item = AttemptRecord> {
        self.iter().map(|(_, record)| record)
    }

    /// Walks the records, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = Opened<'_>> {
        self.iter_mut().map(|(_, record)| record)
    }

    /// Puts every record where it shares what is common, after it was read; `common` finds that.
    pub(crate) fn share(&mut self, mut common: impl FnMut(&RolloutId, &AttemptRecord) -> Arc<Common>) {
        for entry in &mut self.entries {
            let record = entry.record();
            entry.common = common(&entry.common.rollout, &record);
            entry.kept = Kept::of(record, &entry.common);
        }
    }

    /// Counts the records that are kept whole, for something in them is unusual.
    pub fn unusual(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.kept, Kept::Unusual(_))).count()
    }

    fn place(&self, rollout: &RolloutId) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.common.rollout.cmp(rollout))
    }
}

/// Whatever they share: the same records of the same rollouts.
impl PartialEq for Attempts {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Attempts {}

impl Serialize for Attempts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut attempts = Self::default();
        for (rollout, record) in Vec::<(RolloutId, AttemptRecord)>::deserialize(from)? {
            attempts.insert(Arc::new(Common::unknown(rollout)), record);
        }
        Ok(attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(rollout: &str) -> Arc<Common> {
        Arc::new(Common::unknown(name(rollout)))
    }

    fn name(text: &str) -> RolloutId {
        text.parse().unwrap()
    }

    #[test]
    fn records_are_found_replaced_and_forgotten_by_their_rollout() {
        let mut attempts = Attempts::default();
        for (place, rollout) in ["c", "a", "b", "a"].into_iter().enumerate() {
            attempts.insert(common(rollout), AttemptRecord::fresh(1, place, 0));
        }

        attempts.remove(&name("c"));
        attempts.remove(&name("z"));
        attempts.get_mut(&name("b")).unwrap().attempt = 2;

        let all: Vec<_> = attempts.iter().map(|(id, r)| (id.as_str(), r.phase, r.attempt)).collect();
        assert_eq!(all, [("a", 3, 1), ("b", 2, 2)]);
        assert!(!attempts.contains_key(&name("c")) && attempts.get(&name("c")).is_none());
        assert_eq!(attempts.entries.capacity(), 3, "no room that nobody asked for");
    }

    #[test]
    fn a_record_becomes_unusual_and_usual_again() {
        let mut attempts = Attempts::default();
        let shared = Common { attempt: 1, ..Common::unknown(name("a")) };
        attempts.insert(Arc::new(shared), AttemptRecord::fresh(1, 0, 7));
        let is_usual = |attempts: &Attempts| attempts.unusual() == 0;
        assert!(is_usual(&attempts));

        attempts.get_mut(&name("a")).unwrap().reason = Some("probe".to_owned());
        assert!(!is_usual(&attempts));
        assert_eq!(attempts.get(&name("a")).unwrap().reason.as_deref(), Some("probe"));

        attempts.values_mut().for_each(|mut record| record.reason = None);
        assert!(is_usual(&attempts));
        assert_eq!(attempts.get(&name("a")).unwrap(), AttemptRecord::fresh(1, 0, 7));
    }
}
