//! The update machine.
//!
//! ```text
//! Idle → Checking → Downloading → Verifying → PreUpdating → Updating → VerifyPost → Success → Idle
//!            ↘ Idle      ↕  ↘         ↓  ↘          ↕  ↘        │  ↘          ↘        ↘
//!            ↘ Failed   Retry  Idle   Retry  Idle  Retry Failed  │   Verifying  Rollback  (old slot up)
//!                                                        Idle    ↓                 ↓      Rollback
//!                                                             Rollback ─────────→ Failed
//! ```
//! Hooks that said "not now" are retried by way of Verifying: the slot is read back and the release asked for again.
//! [`State::after`] is the whole of it: facts in, the next state out, no I/O, no clock. [`State::owes`] says what
//! the state still owes; the shell saves a state before it acts on it, so a restart only asks again.
//!
//! What a kill does in each state:
//!
//! | state | a kill learned here |
//! |---|---|
//! | Idle, Checking, Retry, Failed | forget |
//! | Downloading, Verifying | drop; the slot stays bad or unarmed |
//! | PreUpdating | undo hooks, `recalled` |
//! | Updating, unarmed | undo hooks, `recalled` |
//! | Updating, armed | disarm in one boot-record write, undo hooks, `recalled` |
//! | VerifyPost | roll back, `recalled` |
//! | Success | nothing; a revert is a rollout of its own |
//! | Rollback | goes on |

use tern_protocol::chunk::ChunkSet;
use tern_protocol::limits::REASON_MAX;
use tern_protocol::message::{Attempt, ReportKind};
use tern_protocol::state::Outcome;

use super::SlotName;
use super::reconcile::reconcile;
use super::state::{Effect, Event, RetryTo, RollbackStep, State, Then, UpdatingStep, Work};
use super::timing::{Stamp, Timing};
use super::way::{Way, fetching};

/// Trials of one attempt in which nobody is reached. An outage passes; a release that breaks the network does not.
const UNREACHABLE_TRIES: u32 = 3;

/// Installs of components that come to nothing, for one attempt: each wears the flash of a modem.
pub(super) const INSTALL_TRIES: u32 = 3;
/// How often a boot is asked for that does not come.
pub(super) const REBOOT_TRIES: u32 = 3;

const IDLE: State = State::Idle { not_before: None };

impl State {
    /// Returns the state after `event`. A stale or repeated event changes nothing.
    pub fn after(self, event: &Event, now: Stamp, timing: &Timing) -> Self {
        use Event as E;
        match (self, event) {
            // A wait may have ended while the device was off; everything else that a boot decides is one table.
            (Self::Retry { work, to, since, wait }, E::Booted { seen, rebooted })
                if since.passed(wait, now) =>
            {
                reconcile(retried(work, to), seen, *rebooted, now)
            }
            (state, E::Booted { seen, rebooted }) => reconcile(state, seen, *rebooted, now),

            // A device that is idle, or gave up on something older, looks at what is offered.
            (Self::Idle { not_before }, E::Offered { offer, slot })
                if not_before.is_none_or(|since| since.passed(timing.deferral, now)) =>
            {
                let tries = super::state::Tries::default();
                Self::Checking { work: Work { offer: offer.clone(), slot: *slot, tries } }
            }
            (Self::Failed { work, .. }, E::Offered { offer, slot }) if supersedes(&offer.attempt, &work) => {
                let tries = super::state::Tries::default();
                Self::Checking { work: Work { offer: offer.clone(), slot: *slot, tries } }
            }

            (Self::Failed { work, again: Some(since), .. }, E::Offered { offer, slot })
                if offer.attempt == work.offer.attempt && since.passed(timing.deferral, now) =>
            {
                let unreachable = work.tries.unreachable;
                let tries = super::state::Tries { unreachable, ..Default::default() };
                Self::Checking { work: Work { offer: offer.clone(), slot: *slot, tries } }
            }

            (Self::Checking { work }, E::Eligible { present: true }) => verify(work),
            (Self::Checking { work }, E::Eligible { present: false }) => download(work),
            (Self::Checking { work }, E::Ineligible(reason)) => failed(work, reason.clone()),
            (Self::Checking { .. }, E::Postponed(_)) => Self::Idle { not_before: Some(now) },
            (Self::Checking { .. }, E::Halted | E::Withdrawn) => IDLE,

            (Self::Downloading { work, at, way, have, .. }, E::SlotMarked) => {
                Self::Downloading { work, at, marked: true, way, have }
            }
            (Self::Downloading { work, at, marked: false, .. }, E::Held) => fetched(work, at),
            (Self::Downloading { work, .. }, E::WriteFailed(reason)) => {
                retry(work, RetryTo::Downloading, now, timing, reason)
            }
            (Self::Downloading { .. }, E::Halted | E::Withdrawn) => IDLE,
            (Self::Downloading { work, at, marked: true, way, have }, event) => {
                fetching(work, at, way, have, event)
            }

            (Self::Verifying { work, at, hashed: false }, E::Hashed { matches: true }) => hashed(work, at),
            // Most of it is right, as a rule: what a delta moved from another base, a sector. Once it is mended where it is.
            (Self::Verifying { mut work, at, hashed: false }, E::Hashed { matches: false })
                if work.tries.download == 0 && timing.retry_tries > 1 =>
            {
                work.tries.download += 1;
                fetch(work, at, Way::Mend)
            }
            (Self::Verifying { work, hashed: false, .. }, E::Hashed { matches: false }) => {
                retry(work, RetryTo::Downloading, now, timing, "the slot does not hold what was written")
            }
            (Self::Verifying { work, hashed: true, .. }, E::Answered) => {
                Self::PreUpdating { work, undo: None }
            }
            (Self::Verifying { .. }, E::Halted | E::Withdrawn) => IDLE,

            (Self::PreUpdating { work, undo: None }, E::HooksDone) => announce(work, now),
            (Self::PreUpdating { work, undo: None }, E::HooksPostponed(_)) => {
                Self::PreUpdating { work, undo: Some(Then::Retry) }
            }
            (Self::PreUpdating { work, undo: None }, E::HooksFailed(reason)) => {
                Self::PreUpdating { work, undo: Some(Then::Fail(reason.clone())) }
            }
            (Self::PreUpdating { work, .. }, E::Halted) => {
                Self::PreUpdating { work, undo: Some(Then::Recall) }
            }
            (Self::PreUpdating { work, undo: None }, E::Withdrawn) => {
                Self::PreUpdating { work, undo: Some(Then::Defer) }
            }
            (Self::PreUpdating { work, undo: Some(then) }, E::Undone) => undone(work, then, now, timing),

            (Self::Updating { work, step }, event) => updating(work, step, event, now, timing),

            (Self::VerifyPost { work, since, heard, .. }, E::ProbesPassed) => {
                Self::VerifyPost { work, since, probed: true, heard }
            }
            (Self::VerifyPost { work, .. }, E::ProbeFailed(reason)) => {
                roll_back(work, Outcome::RolledBack, reason, RollbackStep::Record)
            }
            (Self::VerifyPost { work, since, probed, .. }, E::Answered) => {
                if probed && since.passed(timing.soak, now) {
                    Self::Success { work }
                } else {
                    Self::VerifyPost { work, since, probed, heard: true }
                }
            }
            (Self::VerifyPost { work, .. }, E::Halted) => {
                roll_back(work, Outcome::Recalled, "halted during the trial", RollbackStep::Record)
            }
            (Self::VerifyPost { work, since, heard, .. }, E::Time)
                if since.passed(timing.last_answer(heard), now) =>
            {
                let reason = match heard {
                    false => "nobody answered during the trial",
                    true => "nobody answered any more when the trial was over",
                };
                roll_back(work, Outcome::Unreachable, reason, RollbackStep::Record)
            }

            (Self::Success { .. }, E::Confirmed) => IDLE,
            (Self::Success { work }, E::ConfirmFailed(why)) => {
                // Its boots run out, whatever is wished. Better to go back now, and to say why.
                let reason = format!("well, but it could not be confirmed: {why}");
                roll_back(work, Outcome::RolledBack, &reason, RollbackStep::Record)
            }

            (Self::Retry { work, to, since, wait }, E::Time) if since.passed(wait, now) => retried(work, to),
            (Self::Retry { .. }, E::Halted | E::Withdrawn) => IDLE,

            (Self::Rollback { work, outcome, reason, step }, event) => {
                rollback(work, outcome, reason, step, event, now)
            }

            (unchanged, _) => unchanged,
        }
    }

    /// Returns the work that this state still owes. Ask again after every restart.
    pub fn owes(&self, at: Stamp, timing: &Timing) -> Option<Effect> {
        match self {
            Self::Idle { .. } | Self::Retry { .. } | Self::Failed { .. } => None,
            Self::Checking { .. } => Some(Effect::Check),
            Self::Downloading { marked: false, .. } => Some(Effect::MarkBad),
            Self::Downloading { .. } => Some(Effect::Fetch),
            Self::Verifying { hashed: false, .. } => Some(Effect::Hash),
            Self::Verifying { .. } => Some(Effect::Ask),
            Self::PreUpdating { undo: None, .. } => Some(Effect::RunHooks),
            Self::PreUpdating { .. } => Some(Effect::UndoHooks),
            Self::Updating { step, .. } => Some(match step {
                UpdatingStep::Announce { .. } => Effect::Announce,
                UpdatingStep::Install => Effect::Install,
                UpdatingStep::Reask { .. } => Effect::Ask,
                UpdatingStep::Arm => Effect::Arm,
                UpdatingStep::Reboot => Effect::Reboot,
                UpdatingStep::Disarm(_) => Effect::Disarm,
                UpdatingStep::Undo(_) => Effect::UndoHooks,
            }),
            Self::VerifyPost { probed: false, .. } => Some(Effect::Probe),
            Self::VerifyPost { heard: false, .. } => Some(Effect::Ask),
            Self::VerifyPost { since, .. } if !since.passed(timing.soak, at) => Some(Effect::Soak),
            Self::VerifyPost { .. } => Some(Effect::Ask),
            Self::Success { .. } => Some(Effect::Confirm),
            Self::Rollback { step, .. } => Some(match step {
                RollbackStep::Record => Effect::Disarm,
                RollbackStep::Reboot => Effect::Reboot,
                RollbackStep::Undo => Effect::UndoHooks,
            }),
        }
    }
}

fn updating(work: Work, step: UpdatingStep, event: &Event, at: Stamp, timing: &Timing) -> State {
    use Event as E;
    use UpdatingStep as S;
    let unarmed = matches!(step, S::Announce { .. } | S::Install | S::Reask { .. });
    let next = match (step, event) {
        (S::Announce { .. }, E::Answered) if work.offer.artifacts.len() > 1 => S::Install,
        // Nothing lies between the answer and the boot record; what took its time is followed by another answer.
        (S::Announce { .. } | S::Reask { .. }, E::Answered) => S::Arm,
        (S::Announce { since }, E::Time) if since.passed(timing.started_timeout, at) => S::Undo(Then::Defer),
        (S::Reask { since }, E::Time) if since.passed(timing.started_timeout, at) => {
            return broken_off(work, "nobody answered once the components were in");
        }
        (S::Announce { .. } | S::Install | S::Reask { .. }, E::Withdrawn) => S::Undo(Then::Defer),
        (S::Install, E::Installed) => S::Reask { since: at },
        (S::Install, E::InstallPostponed(_)) => S::Undo(Then::Retry),
        (S::Install, E::InstallFailed(reason)) => S::Undo(Then::Fail(reason.clone())),
        (_, E::Halted) if unarmed => S::Undo(Then::Recall),
        (S::Arm, E::Armed) => S::Reboot,
        (S::Arm | S::Reboot, E::ArmFailed(reason)) => S::Disarm(Then::Fail(reason.clone())),
        (S::Arm | S::Reboot, E::Halted) => S::Disarm(Then::Recall),
        (S::Disarm(Then::Fail(_) | Then::Retry | Then::Defer), E::Halted) => S::Disarm(Then::Recall),
        (S::Undo(Then::Fail(_) | Then::Retry | Then::Defer), E::Halted) => S::Undo(Then::Recall),
        (S::Disarm(then), E::Disarmed { .. }) => S::Undo(then),
        (S::Undo(then), E::Undone) => return undone(work, then, at, timing),
        (step, _) => step,
    };
    State::Updating { work, step: next }
}

/// An install of components came to nothing: all is taken back, and begun anew a few times.
pub(super) fn broken_off(mut work: Work, why: &str) -> State {
    work.tries.installs += 1;
    let then = match work.tries.installs < INSTALL_TRIES {
        true => Then::Defer,
        false => Then::Fail(format!("{why}, {INSTALL_TRIES} times")),
    };
    State::Updating { work, step: UpdatingStep::Undo(then) }
}

fn rollback(
    mut work: Work,
    outcome: Outcome,
    mut reason: String,
    step: RollbackStep,
    event: &Event,
    at: Stamp,
) -> State {
    use RollbackStep as S;
    let running_trial = |slot: SlotName| slot == work.slot;
    let next = match (step, event) {
        // The trial has few boots left: when they are used up the boot loader goes back by itself, whatever the record says.
        (S::Record, Event::DisarmFailed { running, reason: why }) => {
            reason = and(reason, &format!("then {why}"));
            if running_trial(*running) { S::Reboot } else { S::Undo }
        }
        (S::Record | S::Reboot, Event::NoWayBack) => {
            return failed(work, and(reason, "there is nothing to go back to"));
        }
        (S::Record, Event::Disarmed { running }) if running_trial(*running) => S::Reboot,
        (S::Record, Event::Disarmed { .. }) => S::Undo,
        (S::Undo, Event::Undone) if outcome == Outcome::Unreachable => {
            work.tries.unreachable += 1;
            let again = (work.tries.unreachable < UNREACHABLE_TRIES).then_some(at);
            return State::Failed { work, reason, again };
        }
        (S::Undo, Event::Undone) => return failed(work, reason),
        (step, _) => step,
    };
    State::Rollback { work, outcome, reason, step: next }
}

/// Adds to a reason.
fn and(mut reason: String, more: &str) -> String {
    if !reason.ends_with(more) {
        reason = format!("{reason}; {more}");
    }
    reason.truncate(reason.floor_char_boundary(REASON_MAX));
    reason
}

fn failed(work: Work, reason: String) -> State {
    State::Failed { work, reason, again: None }
}

fn download(work: Work) -> State {
    fetch(work, 0, Way::Open)
}

fn fetch(work: Work, at: usize, way: Way) -> State {
    State::Downloading { work, at, marked: false, way, have: ChunkSet::default() }
}

/// One artifact is here: the next, or all are read back.
pub(super) fn fetched(work: Work, at: usize) -> State {
    if at + 1 < work.offer.artifacts.len() { fetch(work, at + 1, Way::Open) } else { verify(work) }
}

fn verify(work: Work) -> State {
    State::Verifying { work, at: 0, hashed: false }
}

/// One artifact was read back: the next, or all were.
fn hashed(work: Work, at: usize) -> State {
    match at + 1 < work.offer.artifacts.len() {
        true => State::Verifying { work, at: at + 1, hashed: false },
        false => State::Verifying { work, at: 0, hashed: true },
    }
}

fn announce(work: Work, at: Stamp) -> State {
    State::Updating { work, step: UpdatingStep::Announce { since: at } }
}

fn retried(work: Work, to: RetryTo) -> State {
    match to {
        RetryTo::Downloading => download(work),
        RetryTo::PreUpdating => verify(work),
    }
}

fn roll_back(work: Work, outcome: Outcome, reason: &str, step: RollbackStep) -> State {
    State::Rollback { work, outcome, reason: reason.to_owned(), step }
}

fn retry(mut work: Work, to: RetryTo, at: Stamp, timing: &Timing, reason: &str) -> State {
    let tries = match to {
        RetryTo::Downloading => &mut work.tries.download,
        RetryTo::PreUpdating => &mut work.tries.hooks,
    };
    *tries += 1;
    // A hook that says "not now" has not failed, and asks for another time as often as it has to.
    if *tries >= timing.retry_tries && to == RetryTo::Downloading {
        let reason = format!("{reason}, {} times", *tries);
        return failed(work, reason);
    }
    let doubled = timing.retry_first.saturating_mul(1 << (*tries - 1).min(20));
    State::Retry { work, to, since: at, wait: doubled.min(timing.retry_most) }
}

fn undone(work: Work, then: Then, at: Stamp, timing: &Timing) -> State {
    match then {
        Then::Retry => retry(work, RetryTo::PreUpdating, at, timing, "a hook said not now"),
        Then::Fail(reason) => failed(work, reason),
        Then::Recall => IDLE,
        Then::Defer => verify(work),
    }
}

/// A failed attempt gives way only to a higher attempt or rc.
fn supersedes(new: &Attempt, old: &Work) -> bool {
    let old = &old.offer.attempt;
    new.rc > old.rc
        || (new.rc == old.rc && new.attempt > old.attempt)
        || new.rollout != old.rollout && new.rc != old.rc
}

/// Returns what the controller must hear about a step of the machine: saved together with the new state, so
/// that each is said exactly once.
pub fn reports(before: &State, after: &State, event: &Event) -> Vec<ReportKind> {
    let mut reports = Vec::new();
    let Some(work) = before.work().or(after.work()) else { return reports };
    let subject = after.work().unwrap_or(work);
    let attempt = subject.offer.attempt.clone();
    if *event == Event::Halted && before.open().is_some() && before != after {
        reports.push(ReportKind::Halted { attempt: attempt.clone(), state: before.name() });
    }
    if before.name() != after.name() {
        let reason = transition_reason(after, event);
        reports.push(ReportKind::Transition {
            attempt: attempt.clone(),
            from: before.name(),
            to: after.name(),
            reason,
        });
    }
    if let Some((outcome, reason)) = outcome(before, after, event) {
        reports.push(ReportKind::Outcome { attempt, outcome, reason });
    }
    reports
}

fn transition_reason(after: &State, event: &Event) -> Option<String> {
    match (after, event) {
        (State::Idle { .. }, Event::Postponed(reason)) => Some(reason.clone()),
        (State::Idle { .. }, Event::Withdrawn) => Some("no longer offered".to_owned()),
        (State::Retry { .. }, Event::WriteFailed(reason)) => Some(reason.clone()),
        (State::Retry { .. } | State::Downloading { .. }, Event::Hashed { .. }) => {
            Some("bad bytes in the slot".to_owned())
        }
        (State::Rollback { reason, .. }, _) => Some(reason.clone()),
        _ => None,
    }
}

fn outcome(before: &State, after: &State, event: &Event) -> Option<(Outcome, Option<String>)> {
    match (before, after) {
        // It did not go back.
        (State::Rollback { .. }, State::Failed { reason, .. }) if *event == Event::NoWayBack => {
            Some((Outcome::Failed, Some(reason.clone())))
        }
        (State::Success { .. }, State::Idle { .. }) => Some((Outcome::Success, None)),
        (State::Rollback { outcome, reason, .. }, State::Failed { .. }) => {
            Some((*outcome, Some(reason.clone())))
        }
        (before, State::Failed { reason, .. }) if !matches!(before, State::Failed { .. }) => {
            Some((Outcome::Failed, Some(reason.clone())))
        }
        (State::PreUpdating { undo: Some(Then::Recall), .. }, State::Idle { .. })
        | (State::Updating { step: UpdatingStep::Undo(Then::Recall), .. }, State::Idle { .. }) => {
            Some((Outcome::Recalled, None))
        }
        (State::Updating { step: UpdatingStep::Undo(Then::Defer), .. }, State::Verifying { .. }) => {
            Some((Outcome::Deferred, Some("no answer to the start, or no longer offered".to_owned())))
        }
        (State::Updating { .. }, State::Retry { .. }) => Some((Outcome::Deferred, None)),
        _ => None,
    }
}
