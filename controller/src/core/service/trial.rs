//! How many devices of a rollout are on trial, or may begin at any moment, and how many more its plan has room for.

use tern_protocol::position::Shuffle;
use tern_protocol::state::Outcome;
use tern_protocol::tuf::content::EntryKind;

use super::Service;
use crate::core::fact::Millis;
use crate::core::fleet::device::{AttemptRecord, Device};
use crate::core::rollout::record::{Rollout, Status};

/// Looking at every device is dear; what it gave stands this long.
const LOOK_AGAIN: Millis = 10_000;

/// What a look at every device gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    at: Millis,
    /// Devices that were included and that had started by then, to see whether anything has changed.
    seen: (u64, u64),
    waiting: u64,
}

impl Service {
    /// Returns how many devices count as on trial; nobody caps them: `None`.
    pub fn on_trial(&self, rollout: &Rollout) -> Option<u64> {
        let observed = self.fleet.reception.observed(self.now);
        rollout.is_capped().then(|| rollout.on_trial(self.not_begun(rollout), observed))
    }

    /// Returns why a rollout that may widen cannot: no device more has room. `None` if one has.
    pub fn lacks_room(&self, rollout: &Rollout) -> Option<String> {
        let capped = rollout.is_capped() && rollout.status == Status::Running;
        let observed = self.fleet.reception.observed(self.now);
        capped.then(|| rollout.no_room(self.not_begun(rollout), observed)).flatten()
    }

    /// Returns how many of `wanted` devices may be included now.
    pub(super) fn granted(&mut self, rollout: &Rollout, wanted: u64) -> u64 {
        self.room(rollout, wanted).map_or(wanted, |room| room.min(wanted))
    }

    /// Returns how many devices there is room for, at least for a look at `wanted`; nobody caps them: `None`.
    pub(super) fn room(&mut self, rollout: &Rollout, wanted: u64) -> Option<u64> {
        if !rollout.is_capped() {
            return None;
        }
        let observed = self.fleet.reception.observed(self.now);
        // Whoever cannot start, or runs the release already, waits for nothing; counters do not know of them.
        let at_most = rollout.waiting_at_most();
        let room = rollout.room(at_most, observed)?;
        if room >= wanted {
            return Some(room);
        }
        let seen = (rollout.phases.iter().map(|phase| phase.included).sum(), rollout.total().started);
        let known = self.looked.get(&rollout.id).copied();
        let fresh = |looked: &Looked| looked.seen == seen && self.now.saturating_sub(looked.at) < LOOK_AGAIN;
        let waiting = match known.filter(fresh) {
            Some(looked) => looked.waiting,
            None => {
                let waiting = self.not_begun(rollout);
                self.looked.insert(rollout.id.clone(), Looked { at: self.now, seen, waiting });
                waiting
            }
        };
        rollout.room(waiting.min(at_most), observed)
    }

    /// Counts the devices that are included and have neither begun nor come to an end.
    fn not_begun(&self, rollout: &Rollout) -> u64 {
        let shuffle = Shuffle::new(rollout.salt);
        let waits = |attempt: Option<&AttemptRecord>, device: &Device| match attempt {
            Some(attempt) => {
                let ended = attempt.outcome.is_some_and(|outcome| outcome != Outcome::Deferred);
                !ended && !attempt.is_silent() && !attempt.tale.sum().begun && attempt.beside.is_none()
            }
            None if rollout.kind == EntryKind::Revert => rollout.concerns(device.running),
            None => device.running < rollout.rc,
        };
        let waits = |(id, device): &(&_, &Device)| {
            device.is_active()
                && device.registry.product == rollout.product
                && waits(device.attempts.get(&rollout.id).as_ref(), device)
                && rollout.phase_of(id, &device.registry, shuffle.position(id)).is_some()
        };
        self.fleet.devices.iter().filter(waits).count() as u64
    }
}
