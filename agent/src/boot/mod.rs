//! Booting: which slot comes up next, and the one record in which agent and boot loader agree on it.
//!
//! ```text
//! confirmed: active = a            ──arm (one write)──►  trial: active = a, trial = b with 2 tries
//! trial, power on, tries left      ──►  one try less, boot b
//! trial, power on, no tries left   ──►  boot a
//! trial, agent confirms            ──►  active = b       (one write)
//! trial, agent disarms or rolls back ──►  active = a     (one write)
//! ```
//! Tries are counted in a trial only: a confirmed slot is never worn down by power cycles. When nothing is left
//! to boot, the answer is recovery, never a loop.

pub mod file;
pub mod kernel;
pub mod script;
pub mod systemd_boot;
pub mod uboot;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::RecordError;
use crate::slot::{SlotError, SlotName, place};

/// What agent and boot loader agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// The confirmed slot.
    pub active: SlotName,
    /// The slot that is to prove itself, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// A slot that boots a bounded number of times until it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The slot on trial.
    pub slot: SlotName,
    /// Counter of the release that it holds.
    pub rc: u64,
    /// Boots left.
    pub tries_left: u8,
}

/// What is known about the boot that this process lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booted {
    /// The slot that came up.
    pub slot: SlotName,
    /// Differs for every boot; stays when only the agent restarts.
    pub boot_id: String,
    /// Reading of [`crate::clock::uptime`] when the slot came up.
    pub powered_on_at: Duration,
}

impl Booted {
    /// Returns how long the device had been up at the clock reading `now`.
    pub fn uptime(&self, now: Duration) -> Duration {
        now.saturating_sub(self.powered_on_at)
    }
}

/// Says why booting could not be read, changed or done.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The record could not be read or saved.
    #[error("could not use the boot record")]
    Record(#[source] RecordError),
    /// There is no boot record.
    #[error("the device has no boot record; put its first image there with `tern-agent provision`")]
    NotProvisioned,
    /// There is a boot record already.
    #[error("the device is provisioned already; nothing was changed")]
    AlreadyProvisioned,
    /// There was one, by what else is there.
    #[error(
        "there is no boot record, but the label of slot {slot} vouches for release {rc}: this device ran before, and may \
         run from there now; write the record again (docs/device-integration.md), or, to begin anew, remove the labels in {}",
        dir.display()
    )]
    RecordLost {
        /// The slot.
        slot: SlotName,
        /// Its release.
        rc: u64,
        /// The folder of the labels.
        dir: std::path::PathBuf,
    },
    /// The image for the first slot has no bytes.
    #[error("the image is empty, and nothing could boot from it; nothing was changed")]
    EmptyImage,
    /// What was read back is not what was written.
    #[error("the boot record reads back differently from what was written; the medium is failing")]
    ReadBack,
    /// No slot may be booted.
    #[error("recovery needed: {0}")]
    NothingBootable(#[from] NothingBootable),
    /// The image for the first slot could not be put there.
    #[error("could not provision the first slot")]
    Slot(#[source] SlotError),
    /// The mark of the present boot could not be read or written.
    #[error("could not keep the mark of this boot")]
    Marker(#[source] RecordError),
    /// U-Boot and its environment.
    #[error("could not use U-Boot")]
    Uboot(#[from] uboot::UbootError),
    /// systemd-boot and its entries.
    #[error("could not use systemd-boot")]
    SystemdBoot(#[from] systemd_boot::SystemdBootError),
    /// The integrator's program.
    #[error("could not use the boot program")]
    Script(#[from] script::ScriptError),
    /// Slots and copies of the boot record meet.
    #[error(transparent)]
    NotApart(#[from] crate::backend::NotApart),
    /// The single slot of the device.
    #[error("could not fill the system slot")]
    Recovery(#[source] Box<crate::recovery::RecoveryError>),
    /// No random numbers for a boot id.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// The port to the boot loader.
pub trait Boot {
    /// Returns what is agreed for the next power-on.
    fn record(&self) -> Result<BootRecord, BootError>;

    /// Replaces the record: one atomic write, made durable, read back and compared.
    fn write(&mut self, record: &BootRecord) -> Result<(), BootError>;

    /// Has every copy of the record say the same, so that no loss of one brings an older decision back. Due before a
    /// slot is written that an older copy may still name.
    fn settle(&mut self) -> Result<(), BootError>;

    /// Makes sure that every copy of the record can be changed, for a device that could not go back without: writes them
    /// anew with what they say, where the loader keeps several.
    fn prove(&mut self) -> Result<(), BootError> {
        self.settle()
    }

    /// Returns the boot that this process lives in.
    fn booted(&self) -> Result<Booted, BootError>;

    /// Ends this boot. Where this returns, the caller ends its process image, or waits if the system goes down.
    fn reboot(&mut self) -> Result<(), BootError>;

    /// Tells whether a slot whose label says that it is bad is never booted.
    fn heeds_labels(&self) -> bool {
        false
    }

    /// Tells whether [`Self::reboot`] takes the whole system down, and does not only stand for it.
    fn goes_down(&self) -> bool {
        false
    }
}

/// Says that no slot may be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bytes of confirmed slot {active} do not match its label, and no trial is left to boot; write a signed image into it"
)]
pub struct NothingBootable {
    /// The confirmed slot.
    pub active: SlotName,
}

/// Plays the boot loader: returns the slot to boot and the record to save before booting it.
///
/// `usable` tells, in the order of [`SlotName::BOTH`], whether a slot's bytes match its label. The slot that is
/// neither active nor on trial is never chosen, usable or not: it may hold a release that nobody has approved yet.
pub fn choose(record: &BootRecord, usable: [bool; 2]) -> Result<(SlotName, BootRecord), NothingBootable> {
    let mut record = record.clone();
    if let Some(trial) = &mut record.trial {
        if usable[place(trial.slot)] && trial.tries_left > 0 {
            trial.tries_left -= 1;
            return Ok((trial.slot, record));
        }
        // A trial that once was passed over is over: it must not come back when a bad read heals.
        trial.tries_left = 0;
    }
    if usable[place(record.active)] {
        return Ok((record.active, record));
    }
    Err(NothingBootable { active: record.active })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_record() -> Vec<BootRecord> {
        let mut records = Vec::new();
        for active in SlotName::BOTH {
            records.push(BootRecord { active, trial: None });
            for slot in SlotName::BOTH {
                for tries_left in 0..=3 {
                    records.push(BootRecord { active, trial: Some(Trial { slot, rc: 9, tries_left }) });
                }
            }
        }
        records
    }

    fn every_case() -> impl Iterator<Item = (BootRecord, [bool; 2])> {
        let usable = [[false, false], [false, true], [true, false], [true, true]];
        every_record().into_iter().flat_map(move |record| usable.map(|usable| (record.clone(), usable)))
    }

    #[test]
    fn only_usable_slots_that_are_active_or_on_trial_boot() {
        for (record, usable) in every_case() {
            let Ok((slot, _)) = choose(&record, usable) else { continue };

            let on_trial =
                record.trial.as_ref().is_some_and(|trial| trial.slot == slot && trial.tries_left > 0);
            assert!(usable[place(slot)] && (slot == record.active || on_trial), "{record:?} {usable:?}");
        }
    }

    #[test]
    fn recovery_is_needed_exactly_when_neither_the_trial_nor_the_active_slot_can_boot() {
        for (record, usable) in every_case() {
            let trial = record.trial.as_ref().is_some_and(|t| t.tries_left > 0 && usable[place(t.slot)]);

            let chosen = choose(&record, usable);

            assert_eq!(chosen.is_ok(), trial || usable[place(record.active)], "{record:?} {usable:?}");
        }
    }

    #[test]
    fn a_trial_boots_its_slot_as_often_as_it_has_tries_and_then_the_active_one_for_ever() {
        let mut record = BootRecord {
            active: SlotName::A,
            trial: Some(Trial { slot: SlotName::B, rc: 9, tries_left: 2 }),
        };
        let mut booted = Vec::new();

        for _ in 0..5 {
            let (slot, next) = choose(&record, [true, true]).unwrap();
            booted.push(slot);
            record = next;
        }

        assert_eq!(booted, [SlotName::B, SlotName::B, SlotName::A, SlotName::A, SlotName::A]);
        assert_eq!(record.trial.map(|trial| trial.rc), Some(9), "the agent must be able to tell what failed");
    }

    #[test]
    fn a_confirmed_slot_is_never_worn_down() {
        for record in every_record().into_iter().filter(|record| record.trial.is_none()) {
            let (slot, next) = choose(&record, [true, true]).unwrap();

            assert_eq!((slot, next), (record.active, record));
        }
    }

    #[test]
    fn the_active_slot_is_never_changed_by_booting() {
        for (record, usable) in every_case() {
            if let Ok((_, next)) = choose(&record, usable) {
                assert_eq!(next.active, record.active);
            }
        }
    }

    #[test]
    fn a_trial_whose_bytes_are_wrong_is_over_even_if_they_heal() {
        let record = BootRecord {
            active: SlotName::A,
            trial: Some(Trial { slot: SlotName::B, rc: 9, tries_left: 2 }),
        };

        let (first, record) = choose(&record, [true, false]).unwrap();
        let (second, _) = choose(&record, [true, true]).unwrap();

        assert_eq!([first, second], [SlotName::A, SlotName::A]);
    }
}
