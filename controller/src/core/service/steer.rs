//! What operators do to a rollout that runs: pause, resume, promote, kill.

use tern_protocol::id::{DeviceId, RolloutId, TagId};
use tern_protocol::tuf::content::EntryKind;

use super::command::{Outcome, refuse};
use super::{Fact, Refusal, RefusalKind, Reply, Service};
use crate::core::rollout::record::{Rollout, Status};

/// Devices that one frame of the ledger names.
const TAGGED_MAX: usize = 1000;

impl Service {
    pub(super) fn pause(&mut self, id: &RolloutId) -> Outcome {
        let rollout = self.rollout(id)?;
        match rollout.status {
            Status::Paused => Ok(Reply::Done { what: format!("rollout {id} is paused already") }),
            Status::Running => {
                let because = format!("PAUSE: by {}", self.actor());
                self.record(Fact::Paused { rollout: id.clone(), because });
                Ok(Reply::Done { what: format!("rollout {id} paused") })
            }
            status => Err(ended(id, status)),
        }
    }

    pub(super) fn resume(&mut self, id: &RolloutId) -> Outcome {
        let rollout = self.rollout(id)?;
        match rollout.status {
            Status::Running => Ok(Reply::Done { what: format!("rollout {id} is running already") }),
            Status::Paused => {
                let because = format!("RESUME: by {}; a new series begins", self.actor());
                self.record(Fact::Resumed { rollout: id.clone(), because });
                Ok(Reply::Done { what: format!("rollout {id} resumed") })
            }
            status => Err(ended(id, status)),
        }
    }

    pub(super) fn promote(&mut self, id: &RolloutId, from_phase: usize, key: Option<String>) -> Outcome {
        let rollout = self.rollout(id)?.clone();
        let key = key.map(|key| format!("{key} {from_phase}"));
        if key.is_some() && rollout.promoted == key {
            return Ok(Reply::Done { what: format!("rollout {id} was promoted by this request already") });
        }
        if matches!(rollout.status, Status::Killed | Status::Completed) {
            return Err(ended(id, rollout.status));
        }
        if rollout.status != Status::Running {
            let hint = format!("resume it first with `tern rollout resume {id}`");
            let what = format!("rollout {id} is not running");
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        if rollout.phases.len() != from_phase {
            let (now, saw) = (rollout.phases.len(), from_phase);
            let what = format!("rollout {id} is in phase {now}, not in phase {saw} as you saw it");
            return Err(refuse(RefusalKind::Conflict, what, "look again with `tern rollout explain`"));
        }
        let last = from_phase >= rollout.plan.phases.len();
        let whole = rollout.phases.last().is_none_or(|phase| phase.is_open());
        if last && whole && rollout.held_from.is_none() {
            let what = format!("rollout {id} is in its last phase, and all of it is open");
            return Err(refuse(RefusalKind::Conflict, what, "nothing is left to promote to"));
        }
        if !last && rollout.awaits_approval(from_phase) {
            let what = format!("phase {} of rollout {id} needs a second person's word", from_phase + 1);
            let hint =
                format!("have somebody else say `tern rollout approve {id} --phase {}`", from_phase + 1);
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        if rollout.phases.is_empty() {
            self.advance(&rollout, key, format!("PROMOTED by {}, before its time", self.actor()));
            return Ok(Reply::Done { what: format!("rollout {id} started") });
        }
        let verdict = self.judge(&rollout);
        self.advance(&rollout, key, format!("PROMOTED by {}; it stood at: {verdict}", self.actor()));
        self.promoted_to(&rollout)
    }

    /// Says what a promotion has opened.
    fn promoted_to(&self, before: &Rollout) -> Outcome {
        let (id, now) = (&before.id, self.rollout(&before.id)?);
        let part = |rollout: &Rollout| rollout.phases.last().map(|phase| (phase.waves, phase.steps));
        let phase = now.phases.len();
        let what = if phase > before.phases.len() {
            format!("rollout {id} promoted to phase {phase}")
        } else if part(now) != part(before) {
            let (wave, step) = part(now).unwrap_or_default();
            let verb = if step == 0 { "opened" } else { "goes on" };
            format!("rollout {id}: wave {wave} of phase {phase} {verb}")
        } else if (now.held_from, now.let_go) != (before.held_from, before.let_go) {
            format!("rollout {id} offers its release to those it had held back")
        } else {
            let what = format!("no device more of rollout {id} has room under its cap");
            let hint = format!("nothing was changed; see whom it waits for with `tern rollout explain {id}`");
            return Err(refuse(RefusalKind::Conflict, what, hint));
        };
        Ok(Reply::Done { what })
    }

    /// A second person agrees that a phase, from 1, may open: when its time has come it does.
    pub(super) fn approve_phase(&mut self, id: &RolloutId, phase: usize) -> Outcome {
        let rollout = self.rollout(id)?.clone();
        if matches!(rollout.status, Status::Killed | Status::Completed) {
            return Err(ended(id, rollout.status));
        }
        let phases = rollout.plan.phases.len();
        let Some(index) = phase.checked_sub(1).filter(|index| *index < phases) else {
            let what = format!("rollout {id} has no phase {phase}");
            return Err(refuse(RefusalKind::Invalid, what, format!("it has phases 1 to {phases}")));
        };
        if !rollout.awaits_approval(index) {
            return Ok(Reply::Done {
                what: format!("phase {phase} of rollout {id} waits for nobody's word"),
            });
        }
        if self.acting.is_none() || self.acting == rollout.starter {
            let what = format!("whoever started rollout {id} cannot be the second person");
            return Err(refuse(RefusalKind::Denied, what, "have somebody with another token approve it"));
        }
        let because = format!("phase {phase} approved by {}", self.actor());
        self.record(Fact::PhaseApproved { rollout: id.clone(), phase: index, because });
        self.keep_hours();
        Ok(Reply::Done { what: format!("phase {phase} of rollout {id} is approved") })
    }

    /// Gives devices a label, or takes it from them.
    pub(super) fn tag(&mut self, devices: Vec<DeviceId>, tag: TagId, on: bool) -> Outcome {
        if let Some(unknown) = devices.iter().find(|id| !self.fleet.devices.contains_key(id)) {
            let what = format!("no device {unknown}");
            return Err(refuse(RefusalKind::NotFound, what, "nothing was changed; see `tern device list`"));
        }
        let count = devices.len();
        for chunk in devices.chunks(TAGGED_MAX) {
            self.record(Fact::Tagged { devices: chunk.to_vec(), tag: tag.clone(), on });
        }
        let verb = if on { "have" } else { "no longer have" };
        Ok(Reply::Done { what: format!("{count} devices {verb} the tag {tag}") })
    }

    pub(super) fn kill_by_hand(&mut self, id: &RolloutId, reason: &str) -> Outcome {
        let rollout = self.rollout(id)?;
        if rollout.status == Status::Killed {
            return Ok(Reply::Done { what: format!("rollout {id} is killed already") });
        }
        let rc = rollout.rc;
        if rollout.kind == EntryKind::Revert {
            let what = format!("rollout {id} takes devices back to release {rc}, which is an approved one");
            return Err(refuse(
                RefusalKind::Conflict,
                what,
                format!("stop it with `tern rollout pause {id}`"),
            ));
        }
        self.kill(id, format!("KILL: by {}: {reason}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} killed; release {rc} is dead for ever") })
    }
}

fn ended(id: &RolloutId, status: Status) -> Refusal {
    let word = if status == Status::Killed { "killed" } else { "completed" };
    let what = format!("rollout {id} is {word}");
    refuse(RefusalKind::Conflict, what, "that is final; start a new rollout of a new release")
}
