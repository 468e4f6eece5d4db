//! Whether a package is what its label says: read several times before it is given up.
//!
//! ```text
//! whole, once                             ──►  whole
//! other bytes, the same ones each time    ──►  damaged
//! not read, or other bytes each time      ──►  in doubt: this run of recovery changes nothing because of it
//! in doubt in run after run               ──►  damaged
//! ```
//! A good package that is withdrawn has to come over the network again, which a device in recovery may not have.

use super::RecoveryError;
use super::tries::Tries;
use crate::slot::SlotName;
use crate::slot::file::{self, Bytes};
use crate::storage::Disk;

/// How often a package is read in one run of recovery.
const READS: u32 = 3;
/// Runs of recovery in which a package may be in doubt before it counts as damaged; whoever calls pauses between them.
const RUNS: u32 = 3;

/// What reading a package came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judged {
    Whole,
    Damaged,
    InDoubt(String),
}

/// Tells whether a package can be used; an error while nobody knows.
pub(super) fn is_whole(
    disk: &Disk,
    folder: &std::path::Path,
    slot: SlotName,
    tries: &mut Tries,
) -> Result<bool, RecoveryError> {
    match judge(disk, folder, slot) {
        Judged::Whole => {
            tries.clear_doubt(slot);
            Ok(true)
        }
        Judged::Damaged => {
            tracing::warn!(%slot, reads = READS, "a package is not what its label says");
            Ok(false)
        }
        Judged::InDoubt(why) => match tries.doubt(slot) {
            runs if runs <= RUNS => Err(RecoveryError::InDoubt { slot, why }),
            runs => {
                tracing::warn!(%slot, runs, why, "a package could not be read in run after run; it counts as damaged");
                Ok(false)
            }
        },
    }
}

fn judge(disk: &Disk, folder: &std::path::Path, slot: SlotName) -> Judged {
    let (mut found, mut doubt): (Option<Bytes>, Option<String>) = (None, None);
    for _ in 0..READS {
        match file::bytes(disk, folder, slot) {
            Ok(Bytes::Whole) => return Judged::Whole,
            Ok(other) => {
                if found.is_some_and(|before| before != other) {
                    doubt.get_or_insert_with(|| "it reads differently each time".to_owned());
                }
                found = Some(other);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%slot, error, "a package could not be read");
                doubt = Some(error.source().map_or(error.to_string(), |source| format!("{error}: {source}")));
            }
        }
    }
    doubt.map_or(Judged::Damaged, Judged::InDoubt)
}
