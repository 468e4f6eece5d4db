//! Which slot boots: the record is changed in one write, and says so.

use crate::boot::{BootRecord, Trial};
use crate::core::SlotName;
use crate::core::agent::Done;
use crate::slot::SlotLabel;

use super::{Device, chain, done};

/// Boots that a trial gets: one power cycle inside the soak does not roll back.
const TRIES: u8 = 2;

impl Device {
    /// Arms a trial: one write of the boot record. Only of a slot whose label says that it holds the release.
    pub fn arm(&mut self, slot: SlotName, rc: u64) -> Done {
        let record = match self.boot.record() {
            Ok(record) if record.active == slot => {
                return Done::Failed(format!("slot {slot} is the confirmed one, and cannot be on trial"));
            }
            Ok(record) => record,
            Err(error) => return Done::Failed(chain(&error)),
        };
        match self.slots().label(slot) {
            Ok(SlotLabel::Holds(image)) if image.rc == rc => {}
            Ok(_) => return Done::Failed(format!("slot {slot} does not hold release {rc} any more")),
            Err(error) => return Done::Failed(chain(&error)),
        }
        if self.is_single
            && let Err(error) = self.boot.prove()
        {
            // With two slots a copy that died costs the next trial. Here recovery would have to write it, and could not.
            let reason =
                format!("not armed: a single slot needs both copies of its boot record: {}", chain(&error));
            return Done::Failed(reason);
        }
        let trial = Some(Trial { slot, rc, tries_left: TRIES });
        // The confirmed slot is what the record says, not what runs: somebody may have chosen that at the boot loader.
        done(self.boot.write(&BootRecord { active: record.active, trial }))
    }

    /// Takes a trial out of the boot record; the confirmed slot stays what it was.
    pub fn disarm(&mut self) -> Done {
        let record = match self.boot.record() {
            Ok(record) => record,
            Err(error) => return Done::Failed(chain(&error)),
        };
        if record.trial.is_none() {
            return Done::Ok;
        }
        done(self.boot.write(&BootRecord { active: record.active, trial: None }))
    }

    /// Makes a slot the confirmed one.
    pub fn confirm(&mut self, slot: SlotName) -> Done {
        if let Err(error) = self.boot.write(&BootRecord { active: slot, trial: None }) {
            return Done::Failed(chain(&error));
        }
        // The older copy still has the trial in it, and would bring it back should the newer one be lost.
        if let Err(error) = self.boot.settle() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the older copy of the boot record still names the former slot");
        }
        // Where the copy that was just written is not read any more, the older one counts again.
        match self.boot.record() {
            Ok(record) if record.active != slot || record.trial.is_some() => {
                return Done::Failed(
                    "the boot record still names the former slot; the medium is failing".to_owned(),
                );
            }
            Ok(_) => {}
            Err(error) => return Done::Failed(chain(&error)),
        }
        Done::Ok
    }

    /// Ends this boot.
    pub fn reboot(&mut self) -> Done {
        done(self.boot.reboot())
    }

    /// Tells whether the system goes down by [`Self::reboot`], and this process with it.
    pub fn goes_down(&self) -> bool {
        self.boot.goes_down()
    }
}
