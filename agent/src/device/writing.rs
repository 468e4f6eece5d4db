//! What is written to slots and components, and what must never be.

use std::sync::Arc;

use crate::boot::BootRecord;
use crate::component::{Component, ComponentError};
use crate::core::SlotName;
use crate::core::agent::{Done, Target};

use super::{Device, Place, chain, done};

impl Device {
    /// Writes verified bytes; a failure is told by the next sync.
    pub fn write(&mut self, target: impl Into<Target>, offset: u64, bytes: &[u8]) {
        if self.write_failed.is_some() {
            return;
        }
        let result = match target.into() {
            // A process that goes on with a slot that an earlier one marked bad has not looked at the boot record yet.
            Target::Slot(slot) => {
                self.clear(slot).and_then(|()| self.slots().write(slot, offset, bytes).map_err(|e| chain(&e)))
            }
            Target::Component(name) => self.at(&name, |component| component.write(offset, bytes)),
        };
        self.write_failed = result.err();
    }

    /// Marks it bad.
    pub fn mark_bad(&mut self, target: impl Into<Target>) -> Done {
        (self.write_failed, self.cleared) = (None, None);
        let marked = match target.into() {
            Target::Slot(slot) => {
                self.clear(slot).and_then(|()| self.slots().mark_bad(slot).map_err(|error| chain(&error)))
            }
            Target::Component(name) => self.at(&name, Component::mark_bad),
        };
        marked.map_or_else(Done::Failed, |()| Done::Ok)
    }

    /// Makes sure that nothing will boot from a slot while it is written, whichever copy of the boot record is lost.
    ///
    /// The slots refuse the one that runs. That is another than the confirmed one between a rollback's disarming and
    /// its reboot, on trial, and where a person chose at the boot loader; the device has to come back from there.
    fn clear(&mut self, slot: SlotName) -> Result<(), String> {
        if self.cleared == Some(slot) {
            return Ok(());
        }
        self.unwanted(slot)?;
        self.boot.settle().map_err(|error| chain(&error))?;
        self.cleared = Some(slot);
        Ok(())
    }

    /// Refuses a slot that the boot record names.
    pub(super) fn unwanted(&self, slot: SlotName) -> Result<BootRecord, String> {
        let record = self.boot.record().map_err(|error| chain(&error))?;
        if record.active == slot {
            return Err(format!("slot {slot} is the confirmed one, though another runs; reboot"));
        }
        if record.trial.as_ref().is_some_and(|trial| trial.slot == slot) {
            return Err(format!("slot {slot} is on trial in the boot record; it has to be disarmed first"));
        }
        Ok(record)
    }

    /// Syncs what was written.
    pub fn sync(&mut self, target: impl Into<Target>) -> Done {
        if let Some(reason) = self.write_failed.take() {
            return Done::Failed(reason);
        }
        match target.into() {
            Target::Slot(slot) => done(self.slots().sync(slot)),
            Target::Component(name) => {
                self.at(&name, Component::sync).map_or_else(Done::Failed, |()| Done::Ok)
            }
        }
    }

    /// Returns where a target is written, if it may be.
    pub(super) fn place(&mut self, target: &Target) -> Result<Place, String> {
        match target {
            Target::Slot(slot) => {
                self.clear(*slot)?;
                Ok(Place::Slot(Arc::clone(&self.slots), *slot))
            }
            Target::Component(name) => {
                let component = self.components.get(name);
                let component = component.ok_or_else(|| format!("there is no component {name}"))?;
                let (slots, free) = component.free().map_err(|error| chain(&error))?;
                Ok(Place::Component(Box::new(slots), free))
            }
        }
    }

    /// Returns a component.
    pub fn component(&self, name: &str) -> Option<Component> {
        self.components.get(name).cloned()
    }

    fn at(
        &self,
        name: &str,
        work: impl FnOnce(&Component) -> Result<(), ComponentError>,
    ) -> Result<(), String> {
        let component = self.components.get(name).ok_or_else(|| format!("there is no component {name}"))?;
        work(component).map_err(|error| chain(&error))
    }
}
