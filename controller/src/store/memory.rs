//! A store that forgets, for tests and simulations; as strict as the real one.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{
    Batch, Key, PAGE_MAX, Page, Prefix, Recovered, Stats, Step, Store, StoreError, check, check_staged,
};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// By rendered key, so that scans have the order that the embedded engine gives.
    entries: BTreeMap<Vec<u8>, (Key, Vec<u8>)>,
    now: Recovered,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn write(&mut self, batch: &Batch) {
        for (key, value) in &batch.puts {
            self.entries.insert(key.to_bytes(), (key.clone(), value.clone()));
        }
        for key in &batch.deletes {
            self.entries.remove(&key.to_bytes());
        }
    }
}

impl Store for MemoryStore {
    fn recovered(&self) -> Recovered {
        self.now.clone()
    }

    fn apply(&mut self, term: u64, batch: &Batch) -> Result<(), StoreError> {
        let step = check(&self.now, term, batch)?;
        self.now.term = term;
        if step == Step::Repeated {
            return Ok(());
        }
        self.write(batch);
        self.now.applied_seq = Some(batch.last_seq);
        Ok(())
    }

    fn stage(&mut self, term: u64, puts: Vec<(Key, Vec<u8>)>, deletes: Vec<Key>) -> Result<(), StoreError> {
        let batch = Batch { puts, deletes, ..Batch::default() };
        check_staged(&self.now, term, &batch)?;
        self.now.term = term;
        self.write(&batch);
        Ok(())
    }

    fn fence(&mut self, term: u64) -> Result<(), StoreError> {
        if term < self.now.term {
            return Err(StoreError::Fenced { term, newest: self.now.term });
        }
        self.now.term = term;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.entries.get(&key.to_bytes()).map(|(_, value)| value.clone()))
    }

    fn scan(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let prefix = prefix.to_bytes();
        let limit = limit.clamp(1, PAGE_MAX);
        let from = match after.map(Key::to_bytes) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let mut found = self
            .entries
            .range((from, Bound::Unbounded))
            .take_while(|(bytes, _)| bytes.starts_with(&prefix))
            .map(|(_, entry)| entry.clone());
        let entries: Vec<_> = found.by_ref().take(limit).collect();
        let more = found.next().is_some();
        let next = entries.last().filter(|_| more).map(|(key, _)| key.clone());
        Ok(Page { entries, next })
    }

    fn verify(&self) -> Result<u64, StoreError> {
        Ok(self.entries.len() as u64)
    }

    fn wipe(&mut self) -> Result<(), StoreError> {
        self.entries.clear();
        self.now = Recovered { term: self.now.term, ..Recovered::default() };
        Ok(())
    }

    fn stats(&self) -> Result<Stats, StoreError> {
        let bytes = self.entries.iter().map(|(key, (_, value))| key.len() + value.len()).sum::<usize>();
        Ok(Stats { bytes: bytes as u64, applied_seq: self.now.applied_seq })
    }
}
