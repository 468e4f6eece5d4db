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
    /// Devices that were included, starts, and starts that were taken back by then: who was included or took a start back
    /// since waits too, and who has started since does not.
    seen: (u64, u64, u64),
    waiting: u64,
}

impl Service {
    /// Returns how many devices count as on trial; nobody caps them: `None`.
    pub fn on_trial(&self, rollout: &Rollout) -> Option<u64> {
        let observed = self.fleet.reception.observed(self.now);
        rollout
            .is_capped()
            .then(|| rollout.on_trial(self.not_begun(rollout, &Shuffle::new(rollout.salt), observed)))
    }

    /// Returns why a rollout that may widen cannot: no device more has room. `None` if one has.
    pub fn lacks_room(&self, rollout: &Rollout) -> Option<String> {
        let capped = rollout.is_capped() && rollout.status == Status::Running;
        let observed = self.fleet.reception.observed(self.now);
        capped
            .then(|| {
                rollout.no_room(self.not_begun(rollout, &Shuffle::new(rollout.salt), observed), observed)
            })
            .flatten()
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
        let total = rollout.total();
        let included = rollout.phases.iter().map(|phase| phase.included).sum();
        let known = self.looked.get(&rollout.id).copied();
        let waiting = match known.filter(|looked| self.now.saturating_sub(looked.at) < LOOK_AGAIN) {
            Some(looked) => looked.since((included, total.started, total.deferred)),
            None => {
                let shuffle = self.fleet.shuffles.of(&rollout.id, rollout.salt).clone();
                let waiting = self.not_begun(rollout, &shuffle, observed);
                let seen = (included, total.started, total.deferred);
                self.looked.insert(rollout.id.clone(), Looked { at: self.now, seen, waiting });
                waiting
            }
        };
        rollout.room(waiting.min(at_most), observed)
    }

    /// Counts the devices that were included lately, or have spoken about it lately, and have neither begun nor come to an
    /// end.
    fn not_begun(&self, rollout: &Rollout, shuffle: &Shuffle, observed: Millis) -> u64 {
        let patience = rollout.plan.waves.patience(&rollout.plan.policy);
        let oldest = self.now.saturating_sub(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        let waited_for = rollout.waited_for(observed);
        let waits = |attempt: Option<&AttemptRecord>, device: &Device| match attempt {
            Some(attempt) => {
                let ended = attempt.outcome.is_some_and(|outcome| outcome != Outcome::Deferred);
                !ended && !attempt.is_silent() && !attempt.tale.sum().begun && attempt.beside.is_none()
            }
            None if rollout.kind == EntryKind::Revert => rollout.concerns(device.running),
            None => device.running < rollout.rc,
        };
        let (mut spoke, mut quiet) = (0, 0);
        for (id, device) in self.fleet.devices.iter() {
            if !device.is_active() || device.registry.product != rollout.product {
                continue;
            }
            let attempt = device.attempts.get(&rollout.id);
            let position = shuffle.position(id);
            if !waits(attempt.as_ref(), device) || rollout.phase_of(id, &device.registry, position).is_none()
            {
                continue;
            }
            // Who took a start back will begin again, however long ago it was included.
            if attempt.is_some_and(|attempt| attempt.changed_at >= oldest) {
                spoke += 1;
            } else if !waited_for(id, &device.registry, position) {
                quiet += 1;
            }
        }
        spoke + u64::min(quiet, rollout.openings.within(patience, observed))
    }
}

impl Looked {
    /// Returns when it was.
    #[cfg(test)]
    pub(super) fn at(&self) -> Millis {
        self.at
    }

    /// Returns how many wait by now, from devices included, starts, and starts taken back.
    fn since(&self, (included, started, deferred): (u64, u64, u64)) -> u64 {
        let more = included.saturating_sub(self.seen.0) + deferred.saturating_sub(self.seen.2);
        (self.waiting + more).saturating_sub(started.saturating_sub(self.seen.1))
    }
}
