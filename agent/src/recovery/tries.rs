//! How often recovery has come up, and a package has not been read, since the system came up last: nothing here is done for
//! ever.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::{RecordError, RecordFile};
use crate::slot::{SlotName, place};
use crate::storage::Disk;

/// Runs of recovery that may end well without the system coming up after them. An update whose release does not start takes
/// two; each more is a boot loader that comes here all the same.
pub(super) const TURNS: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Counts {
    /// Runs that ended well.
    #[serde(default)]
    turns: u32,
    /// Runs in which a package was in doubt.
    #[serde(default)]
    doubts: [u32; 2],
}

/// The counts, in a record beside the packages.
pub(super) struct Tries {
    record: RecordFile<Counts>,
    counts: Counts,
}

impl Tries {
    pub(super) fn load(disk: &Disk, folder: &Path) -> Result<Self, RecordError> {
        let record = RecordFile::on(disk, folder, "recovery-tries")?;
        let counts = record.load().unwrap_or_default().unwrap_or_default();
        Ok(Self { record, counts })
    }

    /// Counts a run that ends well; an error where it cannot be counted, for then nothing would end the turns.
    pub(super) fn turn(&mut self) -> Result<u32, RecordError> {
        self.counts.turns = self.counts.turns.saturating_add(1);
        self.record.renew(&self.counts)?;
        Ok(self.counts.turns)
    }

    /// Counts a run in which a package was in doubt. Where that cannot be counted it is in doubt no longer.
    pub(super) fn doubt(&mut self, slot: SlotName) -> u32 {
        let runs = &mut self.counts.doubts[place(slot)];
        *runs = runs.saturating_add(1);
        let runs = *runs;
        match self.record.renew(&self.counts) {
            Ok(()) => runs,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not count the tries");
                u32::MAX
            }
        }
    }

    /// A package was read after all.
    pub(super) fn clear_doubt(&mut self, slot: SlotName) {
        if std::mem::take(&mut self.counts.doubts[place(slot)]) > 0 {
            self.keep();
        }
    }

    fn keep(&self) {
        if let Err(error) = self.record.renew(&self.counts) {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not keep the tries of recovery");
        }
    }
}

/// The system has come up: what recovery did before is over.
pub(crate) fn came_up(disk: &Disk, folder: &Path) {
    match Tries::load(disk, folder) {
        Ok(mut tries) if tries.counts != Counts::default() => {
            tries.counts = Counts::default();
            tries.keep();
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "no tries of recovery"),
    }
}
