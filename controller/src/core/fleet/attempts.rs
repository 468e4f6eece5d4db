//! What a device did in each rollout: a small map, for most devices of one or two entries of 56 bytes.
//!
//! A tree would take room for eleven records from the first one on, which is more than everything else that is known of a
//! device. Names of rollouts are shared, and records packed where nothing unusual is in them.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tern_protocol::id::RolloutId;

use super::device::AttemptRecord;
use super::packed::Packed;

/// Records by rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Ascending by name, each once; no room for more.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    rollout: Arc<RolloutId>,
    kept: Kept,
}

/// A record as it is kept: packed exactly if that is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Usual(Packed),
    Unusual(Box<AttemptRecord>),
}

const _: () = assert!(size_of::<Entry>() == 56);

impl Kept {
    fn of(record: AttemptRecord) -> Self {
        match Packed::of(&record) {
            Some(packed) => Self::Usual(packed),
            None => Self::Unusual(Box::new(record)),
        }
    }

    fn record(&self) -> AttemptRecord {
        match self {
            Self::Usual(packed) => packed.record(),
            Self::Unusual(record) => (**record).clone(),
        }
    }
}

/// A record that is looked at or changed; when this is dropped what was changed is kept.
pub struct Opened<'a> {
    record: AttemptRecord,
    changed: bool,
    kept: &'a mut Kept,
}

impl<'a> Opened<'a> {
    fn of(kept: &'a mut Kept) -> Self {
        Self { record: kept.record(), changed: false, kept }
    }
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
            *self.kept = Kept::of(std::mem::replace(&mut self.record, empty));
        }
    }
}

impl Attempts {
    /// Returns what the device did in a rollout.
    pub fn get(&self, rollout: &RolloutId) -> Option<AttemptRecord> {
        self.place(rollout).ok().map(|place| self.entries[place].kept.record())
    }

    /// Returns the same, to be changed.
    pub fn get_mut(&mut self, rollout: &RolloutId) -> Option<Opened<'_>> {
        let place = self.place(rollout).ok()?;
        Some(Opened::of(&mut self.entries[place].kept))
    }

    /// Tells whether it did anything there.
    pub fn contains_key(&self, rollout: &RolloutId) -> bool {
        self.place(rollout).is_ok()
    }

    /// Puts in what it did, in place of what was there, which is returned.
    pub fn insert(&mut self, rollout: Arc<RolloutId>, record: AttemptRecord) -> Option<AttemptRecord> {
        let kept = Kept::of(record);
        match self.place(&rollout) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place].kept, kept).record()),
            Err(place) => {
                self.entries.reserve_exact(1);
                self.entries.insert(place, Entry { rollout, kept });
                None
            }
        }
    }

    /// Forgets what it did in rollouts of which this does not hold.
    pub fn retain(&mut self, mut stays: impl FnMut(&RolloutId, &AttemptRecord) -> bool) {
        self.entries.retain(|entry| stays(&entry.rollout, &entry.kept.record()));
    }

    /// Forgets what it did.
    pub fn remove(&mut self, rollout: &RolloutId) {
        if let Ok(place) = self.place(rollout) {
            self.entries.remove(place);
        }
    }

    /// Walks rollouts and records in the order of the rollouts' names.
    pub fn iter(&self) -> impl Iterator<Item = (&RolloutId, AttemptRecord)> {
        self.entries.iter().map(|entry| (&*entry.rollout, entry.kept.record()))
    }

    /// Walks the same, to change the records.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&RolloutId, Opened<'_>)> {
        self.entries.iter_mut().map(|entry| (&*entry.rollout, Opened::of(&mut entry.kept)))
    }

    /// Walks the rollouts.
    pub fn keys(&self) -> impl Iterator<Item = &RolloutId> {
        self.entries.iter().map(|entry| &*entry.rollout)
    }

    /// Walks the records.
    pub fn values(&self) -> impl Iterator<Item = AttemptRecord> {
        self.iter().map(|(_, record)| record)
    }

    /// Walks the records, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = Opened<'_>> {
        self.iter_mut().map(|(_, record)| record)
    }

    /// Shares the rollouts' names with everybody who has them from `shared`.
    pub(crate) fn share(&mut self, shared: &mut Names) {
        self.entries.iter_mut().for_each(|entry| entry.rollout = shared.of(&entry.rollout));
    }

    fn place(&self, rollout: &RolloutId) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.rollout.as_ref().cmp(rollout))
    }
}

impl Serialize for Attempts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut attempts = Self::default();
        for (rollout, record) in Vec::<(RolloutId, AttemptRecord)>::deserialize(from)? {
            attempts.insert(Arc::new(rollout), record);
        }
        Ok(attempts)
    }
}

/// Names of rollouts that many devices share; two fleets are the same fleet whoever has met which name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Vec<Arc<RolloutId>>);

impl PartialEq for Names {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Names {
    /// Returns the one name that all share.
    pub(crate) fn of(&mut self, rollout: &RolloutId) -> Arc<RolloutId> {
        let place = self.0.binary_search_by(|known| known.as_ref().cmp(rollout)).unwrap_or_else(|place| {
            self.0.insert(place, Arc::new(rollout.clone()));
            place
        });
        self.0[place].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RolloutId {
        text.parse().unwrap()
    }

    #[test]
    fn records_are_found_replaced_and_forgotten_by_their_rollout() {
        let mut attempts = Attempts::default();
        for (place, rollout) in ["c", "a", "b", "a"].into_iter().enumerate() {
            attempts.insert(Arc::new(name(rollout)), AttemptRecord::fresh(1, place, 0));
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
        attempts.insert(Arc::new(name("a")), AttemptRecord::fresh(1, 0, 7));
        let is_usual = |attempts: &Attempts| matches!(attempts.entries[0].kept, Kept::Usual(_));
        assert!(is_usual(&attempts));

        attempts.get_mut(&name("a")).unwrap().reason = Some("probe".to_owned());
        assert!(!is_usual(&attempts));
        assert_eq!(attempts.get(&name("a")).unwrap().reason.as_deref(), Some("probe"));

        attempts.values_mut().for_each(|mut record| record.reason = None);
        assert!(is_usual(&attempts));
        assert_eq!(attempts.get(&name("a")).unwrap(), AttemptRecord::fresh(1, 0, 7));
    }

    #[test]
    fn names_are_shared() {
        let (mut names, mut one, mut other) = (Names::default(), Attempts::default(), Attempts::default());
        for attempts in [&mut one, &mut other] {
            attempts.insert(Arc::new(name("a")), AttemptRecord::fresh(1, 0, 0));
            attempts.share(&mut names);
        }
        assert!(Arc::ptr_eq(&one.entries[0].rollout, &other.entries[0].rollout));
    }
}
