//! Slots and the copies of the boot record stand apart, under whatever names: a copy on a slot's device would be written
//! over by the first update, and two names of one place are one copy.

use std::path::{Path, PathBuf};

use crate::boot::uboot::medium::Medium;
use crate::config::SlotsConfig;
use crate::storage::{Identity, Storage};

/// Says what is not apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApart {
    /// A slot has a copy on it.
    #[error(
        "boot.copies: {} lies on the device or file of slot {}, and an update would write over it; give the U-Boot \
         environment a partition of its own", copy.display(), slot.display()
    )]
    CopyOnSlot {
        /// The copy.
        copy: PathBuf,
        /// The slot.
        slot: PathBuf,
    },
    /// The loader's entries are on a slot.
    #[error(
        "boot.entries: {} lies on the device of slot {}, and an update would write over it; name the folder on the \
         partition that the boot loader reads, and mount it there", entries.display(), slot.display()
    )]
    EntriesOnSlot {
        /// The folder.
        entries: PathBuf,
        /// The slot.
        slot: PathBuf,
    },
    /// Two names lead to one copy.
    #[error(
        "boot.copies: {} and {} are two names of one place, where the copies overlap; compare with /etc/fw_env.config",
        .0[0].display(), .0[1].display()
    )]
    Copies([PathBuf; 2]),
}

/// Refuses copies that meet a slot, or each other. What is not there meets nothing: whoever needs it says so later.
///
/// The whole of a disk and a partition of it are two devices here: a copy that is named by its place on the disk is not
/// held against the partition that begins before it.
pub(super) fn check(disk: &dyn Storage, slots: &SlotsConfig, medium: &Medium) -> Result<(), NotApart> {
    let identity = |path: &Path| -> Option<Identity> { disk.look(path).ok().map(|found| found.identity) };
    let [first, second] = &medium.copies;
    let copies = [identity(&first.path), identity(&second.path)];
    for slot in slots.paths.iter().flatten().chain(&slots.system) {
        let Some(place) = identity(slot) else { continue };
        for (copy, found) in medium.copies.iter().zip(&copies) {
            if *found == Some(place) {
                return Err(NotApart::CopyOnSlot { copy: copy.path.clone(), slot: slot.clone() });
            }
        }
    }
    let near = first.offset.abs_diff(second.offset) < medium.size as u64;
    if near && copies[0].is_some() && copies[0] == copies[1] {
        return Err(NotApart::Copies([first.path.clone(), second.path.clone()]));
    }
    Ok(())
}

/// Refuses a folder of entries on the file system of a slot: also where it is, because nothing is mounted there.
pub(super) fn check_entries(disk: &dyn Storage, slots: &SlotsConfig, entries: &Path) -> Result<(), NotApart> {
    let Ok(folder) = disk.look(entries) else { return Ok(()) };
    for slot in slots.paths.iter().flatten() {
        let Ok(found) = disk.look(slot) else { continue };
        if found.identity.is_device && found.identity.device == folder.identity.device {
            return Err(NotApart::EntriesOnSlot { entries: entries.to_owned(), slot: slot.clone() });
        }
    }
    Ok(())
}
