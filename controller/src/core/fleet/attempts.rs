//! What a device did in each rollout: a small map, for most devices of one or two entries.
//!
//! A tree would take room for eleven from the first one on, which is more than everything else that is known of a device.

use serde::{Deserialize, Serialize};
use tern_protocol::id::RolloutId;

use super::device::AttemptRecord;

/// Records by rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Ascending by name, each once; no room for more.
    records: Vec<(RolloutId, AttemptRecord)>,
}

impl Attempts {
    /// Returns what the device did in a rollout.
    pub fn get(&self, rollout: &RolloutId) -> Option<&AttemptRecord> {
        self.place(rollout).ok().map(|place| &self.records[place].1)
    }

    /// Returns the same, to be changed.
    pub fn get_mut(&mut self, rollout: &RolloutId) -> Option<&mut AttemptRecord> {
        self.place(rollout).ok().map(|place| &mut self.records[place].1)
    }

    /// Tells whether it did anything there.
    pub fn contains_key(&self, rollout: &RolloutId) -> bool {
        self.place(rollout).is_ok()
    }

    /// Puts in what it did, in place of what was there.
    pub fn insert(&mut self, rollout: RolloutId, record: AttemptRecord) {
        match self.place(&rollout) {
            Ok(place) => self.records[place].1 = record,
            Err(place) => {
                self.records.reserve_exact(1);
                self.records.insert(place, (rollout, record));
            }
        }
    }

    /// Forgets what it did.
    pub fn remove(&mut self, rollout: &RolloutId) {
        if let Ok(place) = self.place(rollout) {
            self.records.remove(place);
        }
    }

    /// Walks rollouts and records in the order of the rollouts' names.
    pub fn iter(&self) -> impl Iterator<Item = (&RolloutId, &AttemptRecord)> {
        self.records.iter().map(|(rollout, record)| (rollout, record))
    }

    /// Walks the same, to change the records.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&RolloutId, &mut AttemptRecord)> {
        self.records.iter_mut().map(|(rollout, record)| (&*rollout, record))
    }

    /// Walks the rollouts.
    pub fn keys(&self) -> impl Iterator<Item = &RolloutId> {
        self.iter().map(|(rollout, _)| rollout)
    }

    /// Walks the records.
    pub fn values(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.iter().map(|(_, record)| record)
    }

    /// Walks the records, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut AttemptRecord> {
        self.iter_mut().map(|(_, record)| record)
    }

    fn place(&self, rollout: &RolloutId) -> Result<usize, usize> {
        self.records.binary_search_by(|(known, _)| known.cmp(rollout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_replaced_and_forgotten_by_their_rollout() {
        let id = |text: &str| text.parse::<RolloutId>().unwrap();
        let mut attempts = Attempts::default();
        for (place, name) in ["c", "a", "b", "a"].into_iter().enumerate() {
            attempts.insert(id(name), AttemptRecord::fresh(1, place, 0));
        }

        attempts.remove(&id("c"));
        attempts.remove(&id("z"));
        attempts.get_mut(&id("b")).unwrap().attempt = 2;

        let all: Vec<_> = attempts.iter().map(|(id, r)| (id.as_str(), r.phase, r.attempt)).collect();
        assert_eq!(all, [("a", 3, 1), ("b", 2, 2)]);
        assert!(!attempts.contains_key(&id("c")) && attempts.get(&id("c")).is_none());
        assert_eq!(attempts.records.capacity(), 3, "no room that nobody asked for");
    }
}
