//! What operators do to a rollout that runs: pause, resume, promote, kill.

use tern_protocol::id::RolloutId;

use super::command::{Outcome, refuse};
use super::{Fact, Refusal, RefusalKind, Reply, Service};
use crate::core::rollout::record::Status;

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

    pub(super) fn promote(&mut self, id: &RolloutId, from_phase: usize) -> Outcome {
        let rollout = self.rollout(id)?.clone();
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
        if rollout.phases.len() >= rollout.plan.phases.len() && rollout.held_from.is_none() {
            let what = format!("rollout {id} is in its last phase");
            return Err(refuse(RefusalKind::Conflict, what, "nothing is left to promote to"));
        }
        let verdict = self.judge(&rollout);
        self.advance(&rollout, format!("PROMOTED by {}; it stood at: {verdict}", self.actor()));
        let what = if from_phase < rollout.plan.phases.len() {
            format!("rollout {id} promoted to phase {}", from_phase + 1)
        } else {
            format!("rollout {id} offers its release to those it had held back")
        };
        Ok(Reply::Done { what })
    }

    pub(super) fn kill_by_hand(&mut self, id: &RolloutId, reason: &str) -> Outcome {
        let rollout = self.rollout(id)?;
        if rollout.status == Status::Killed {
            return Ok(Reply::Done { what: format!("rollout {id} is killed already") });
        }
        let rc = rollout.rc;
        self.kill(id, format!("KILL: by {}: {reason}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} killed; release {rc} is dead for ever") })
    }
}

fn ended(id: &RolloutId, status: Status) -> Refusal {
    let word = if status == Status::Killed { "killed" } else { "completed" };
    let what = format!("rollout {id} is {word}");
    refuse(RefusalKind::Conflict, what, "that is final; start a new rollout of a new release")
}
