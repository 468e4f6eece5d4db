//! Silence: which deadlines have passed, and what they found. What is found is a fact like a report; what follows from
//! it is decided where everything is decided.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{DeviceId, RolloutId};
use tern_protocol::state::Outcome;

use super::{Fact, Service};
use crate::core::fact::Millis;
use crate::core::fleet::Fleet;
use crate::core::fleet::device::AttemptRecord;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::silence::Deadline;

/// Devices that one frame of the ledger names.
const FRAME: usize = 500;

/// Deadlines that are open, by the time on the clock of reception. Worked out from the fleet; a deadline that has
/// become moot is found out when it passes.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    open: BTreeSet<(Millis, Awaited)>,
    /// Each once, whatever a device that starts and defers again and again says.
    known: BTreeSet<Awaited>,
}

/// Whose deadline, in which rollout.
type Awaited = (RolloutId, DeviceId, Deadline);

impl Deadlines {
    /// Looks at every device that has begun.
    pub(super) fn of(fleet: &Fleet) -> Self {
        let mut deadlines = Self::default();
        for (id, device) in fleet.devices.iter() {
            for rollout in device.attempts.keys() {
                deadlines.add(fleet, id, rollout);
            }
        }
        deadlines
    }

    /// Adds what is open of one device; what is there already is not there twice.
    fn add(&mut self, fleet: &Fleet, id: &DeviceId, rollout: &RolloutId) {
        let (Some(device), Some(record)) = (fleet.devices.get(id), fleet.rollouts.get(rollout)) else {
            return;
        };
        let Some(attempt) = device.attempts.get(rollout).filter(|_| is_active(record)) else { return };
        for deadline in Deadline::ALL {
            let Some(due) = due(&attempt, record, deadline, fleet.reception.gaps()) else { continue };
            let awaited = (rollout.clone(), id.clone(), deadline);
            // One that is there is due earlier, and is looked at again when it is.
            if self.known.insert(awaited.clone()) {
                self.open.insert((due, awaited));
            }
        }
    }
}

/// What a rollout's deadline found: devices that were heard, and silent ones.
type Found = (Vec<DeviceId>, Vec<DeviceId>);

impl Service {
    /// Returns since when a device is watched in a rollout.
    pub(super) fn watched(&self, id: &DeviceId, rollout: &RolloutId) -> Option<Millis> {
        let attempt = self.fleet.devices.get(id)?.attempts.get(rollout)?;
        attempt.beside.map(|beside| beside.early.since).or(attempt.watch.map(|watch| watch.since))
    }

    /// A device has said that it started.
    pub(super) fn watch(&mut self, id: &DeviceId, rollout: &RolloutId) {
        self.deadlines.add(&self.fleet, id, rollout);
    }

    /// Records what the deadlines found that have passed by now. Reports of the same step come first.
    pub(super) fn pass_deadlines(&mut self) {
        // After a restore a report that ended a start may be lost: nobody is silent for that.
        if !self.fleet.reception.is_on() || self.is_comparing() {
            return;
        }
        let gaps = self.fleet.reception.gaps();
        let now = self.fleet.reception.observed(self.now);
        let mut found: BTreeMap<(RolloutId, Deadline), Found> = BTreeMap::new();
        let mut again = Vec::new();
        while self.deadlines.open.first().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, awaited)) = self.deadlines.open.pop_first() else { break };
            self.deadlines.known.remove(&awaited);
            let (rollout, id, deadline) = awaited;
            let (Some(device), Some(record)) =
                (self.fleet.devices.get(&id), self.fleet.rollouts.get(&rollout))
            else {
                continue;
            };
            let Some(attempt) = device.attempts.get(&rollout).filter(|_| is_active(record)) else { continue };
            let Some(due) = due(&attempt, record, deadline, gaps) else { continue };
            if due > now {
                // There was a gap since, or it took its start back and began again.
                let awaited = (rollout, id, deadline);
                self.deadlines.known.insert(awaited.clone());
                self.deadlines.open.insert((due, awaited));
                continue;
            }
            // Whoever said how it ended is not silent, though it never booted: it could not arm.
            let ended = attempt.tale.sum().outcome.is_some();
            let silent = match (&attempt.beside, deadline) {
                (Some(beside), _) => {
                    again.push((rollout.clone(), id.clone()));
                    !beside.span(deadline).heard
                }
                (None, Deadline::Early) => !ended && attempt.watch.is_some_and(|watch| !watch.heard),
                (None, Deadline::Last) => !ended,
            };
            let (heard, mute) = found.entry((rollout, deadline)).or_default();
            if silent { mute.push(id) } else { heard.push(id) }
        }
        for ((rollout, deadline), (mut heard, mut silent)) in found {
            while !heard.is_empty() || !silent.is_empty() {
                let now_silent = silent.split_off(silent.len().saturating_sub(FRAME));
                let now_heard = heard.split_off(heard.len().saturating_sub(FRAME - now_silent.len()));
                let rollout = rollout.clone();
                self.record(Fact::DeadlinePassed { rollout, deadline, heard: now_heard, silent: now_silent });
            }
        }
        // Held-back devices are waited for again.
        for (rollout, id) in again {
            self.deadlines.add(&self.fleet, &id, &rollout);
        }
    }

    /// While anything is under way the ledger says now and then that messages arrive still: that is what its clock is
    /// made of, and all that would be lost of it if the service ended here.
    pub(super) fn say_that_we_receive(&mut self) {
        if self.fleet.reception.is_due(self.now) && self.fleet.rollouts.values().any(is_active) {
            self.record(Fact::Receiving);
        }
    }
}

fn is_active(rollout: &Rollout) -> bool {
    matches!(rollout.status, Status::Running | Status::Paused) && !rollout.phases.is_empty()
}

/// Returns when a deadline of a device is to be judged, on the clock of reception: its start stands, and nothing has
/// ended it that is neither good nor bad. Held-back devices have one after the other.
fn due(attempt: &AttemptRecord, rollout: &Rollout, deadline: Deadline, gaps: u64) -> Option<Millis> {
    let policy = &rollout.plan.policy;
    if let Some(beside) = &attempt.beside {
        return rollout.held_from.and_then(|_| beside.due(deadline, policy, gaps));
    }
    let sum = attempt.tale.sum();
    let neutral = matches!(sum.outcome, Some(Outcome::Recalled | Outcome::Deferred));
    let watch = attempt.watch.filter(|watch| watch.found(deadline).is_none())?;
    (sum.begun && !neutral && !attempt.withdrawn).then(|| watch.due(deadline, policy, gaps))
}
