//! What outlives the service beside the deltas themselves: which releases want none, and which deltas saved nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tern_protocol::id::ProductId;

use super::Shared;
use super::book::Key;
use crate::files::{self, Readers};

/// Useless deltas that are remembered; of more the newest are made again after a start.
const USELESS_MAX: usize = 10_000;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Notes {
    /// Releases for which no deltas are wanted, by product.
    none: BTreeMap<ProductId, Vec<u64>>,
    /// Bytes of the packs that were not worth keeping.
    useless: BTreeMap<String, u64>,
}

impl Notes {
    pub(super) fn leave_out(&mut self, product: &ProductId, rc: u64) {
        let releases = self.none.entry(product.clone()).or_default();
        if !releases.contains(&rc) {
            releases.push(rc);
        }
    }

    pub(super) fn leaves_out(&self, product: &ProductId, rc: u64) -> bool {
        self.none.get(product).is_some_and(|releases| releases.contains(&rc))
    }

    pub(super) fn found_useless(&mut self, key: &Key, bytes: u64) {
        if self.useless.len() < USELESS_MAX {
            self.useless.insert(name(key), bytes);
        }
    }

    pub(super) fn useless(&self, key: &Key) -> Option<u64> {
        self.useless.get(&name(key)).copied()
    }
}

fn name(key: &Key) -> String {
    format!("{} {} {}", key.old().root, key.new.root, key.profile.name())
}

const FILE: &str = "notes.json";

impl Notes {
    /// Reads the notes of a folder; without them only time is lost.
    pub(super) fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

impl Shared {
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Notes)) -> io::Result<()> {
        let mut notes = self.notes();
        change(&mut notes);
        files::private_folder(&self.folder)?;
        files::replace(&self.folder.join(FILE), &serde_json::to_vec(&*notes)?, Readers::Owner)
    }
}
