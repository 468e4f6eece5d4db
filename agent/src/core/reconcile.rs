//! What a boot has brought up, held against what the journal remembers: one table for every combination.
//!
//! After a power cut, or on a medium that has lost a copy of something, journal, boot record, running slot and the bytes
//! in the slots need not agree. What is so decides, not what was intended:
//!
//! * a slot that runs and is confirmed is the outcome, whatever the journal thought of it before;
//! * a slot that runs on trial is believed only if the journal knows that trial, and the label its bytes;
//! * a trial that nobody remembers is taken out of the boot record, and left if it runs, unless there is nothing else to
//!   boot;
//! * nothing but probes and an answer make a success of an attempt, and nothing makes one of a rollback.
//!
//! `docs/reconciliation.md` prints the table; the tests run every row of it to its end, with power cuts in between.

use tern_protocol::chunk::ChunkSet;
use tern_protocol::state::Outcome;

use super::SlotName;
use super::machine::{INSTALL_TRIES, REBOOT_TRIES, broken_off, fetched};
use super::port::Held;
use super::state::{RollbackStep, State, Then, UpdatingStep, Work};
use super::timing::Stamp;
use super::way::Way;

/// What boot loader and slots tell about a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The slot that runs.
    pub slot: SlotName,
    /// The confirmed slot, by the boot record.
    pub active: SlotName,
    /// The slot on trial, by the boot record.
    pub trial: Option<SlotName>,
    /// What the slots hold, in the order of [`SlotName::BOTH`].
    pub contents: [Content; 2],
}

/// What a slot holds, by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing was ever written there by us; a factory may have.
    Unknown,
    /// It was being written, or given up; of a slot that is confirmed or runs only said where the boot loader goes by it.
    Bad,
    /// This image, read back and hashed.
    Whole(Held),
}

/// What is wrong with the boot record as it was found, and mended before anything else is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// It holds a trial that nobody remembers: take it out.
    Disarm,
    /// The same, and it runs: take it out and go back to the confirmed slot.
    Leave,
    /// Another slot is named as confirmed than the one to come back to, which runs: confirm that.
    Adopt,
}

impl Seen {
    /// Returns what a slot holds.
    pub fn content(&self, slot: SlotName) -> Content {
        self.contents[slot as usize]
    }

    /// Tells whether the slot of an attempt holds the image of the attempt.
    fn holds(&self, work: &Work) -> bool {
        let wanted = work.offer.artifacts.first().map(|artifact| Content::Whole(Held::of(artifact)));
        wanted == Some(self.content(work.slot))
    }
}

/// Returns the state after a boot, or after a new start of the agent in the same boot.
pub fn reconcile(state: State, seen: &Seen, rebooted: bool, at: Stamp) -> State {
    let Some(work) = state.work().cloned() else { return state };
    let runs = seen.slot == work.slot;
    match (runs, seen.active == work.slot) {
        (true, true) => runs_confirmed(state, work, seen, at),
        (true, false) if seen.trial == Some(work.slot) => runs_on_trial(state, work, seen, at),
        (true, false) => runs_unasked(state, work, seen),
        (false, true) => left_though_confirmed(state, work),
        (false, false) => does_not_run(state, work, seen, rebooted, at),
    }
}

/// The attempt's slot is confirmed and runs: for want of another, or because the journal is older than that.
fn runs_confirmed(state: State, work: Work, seen: &Seen, at: Stamp) -> State {
    match state {
        State::Failed { .. } | State::Success { .. } => state,
        // Whether it is well has not been found out yet, or is found out once more.
        State::VerifyPost { .. } | State::Updating { .. } | State::Rollback { .. } => {
            runs_on_trial(state, work, seen, at)
        }
        _ if seen.holds(&work) => State::Success { work },
        // An old journal, about a slot that has become the confirmed one since: nothing of it can be done any more.
        _ => State::Idle { not_before: None },
    }
}

fn runs_on_trial(state: State, work: Work, seen: &Seen, at: Stamp) -> State {
    let is_past_arming = !matches!(
        state,
        State::Checking { .. }
            | State::Downloading { .. }
            | State::Verifying { .. }
            | State::PreUpdating { .. }
            | State::Retry { .. }
            | State::Failed { .. }
            | State::Idle { .. }
    );
    if is_past_arming && !seen.holds(&work) && !matches!(state, State::Rollback { .. }) {
        let reason = "the trial slot does not hold what was verified";
        return roll_back(work, Outcome::RolledBack, reason);
    }
    match state {
        State::Updating {
            step: UpdatingStep::Disarm(Then::Recall) | UpdatingStep::Undo(Then::Recall),
            ..
        } => roll_back(work, Outcome::Recalled, "halted before the trial came up"),
        State::Updating { .. } => trial(work, at),
        // A power cycle inside the soak starts the soak again; an agent restart does not.
        State::VerifyPost { since, .. } if since.epoch != at.epoch => trial(work, at),
        State::Rollback { outcome, reason, .. } => {
            State::Rollback { work, outcome, reason, step: RollbackStep::Record }
        }
        State::Failed { .. } | State::Success { .. } => state,
        // The journal is older than the trial, which is all there is: it is kept, and judged.
        _ if !is_past_arming && seen.holds(&work) && seen.content(seen.active) == Content::Bad => {
            trial(work, at)
        }
        // Earlier states know of no trial: it is mended away, and they go on.
        other => other,
    }
}

/// The attempt's slot runs, neither confirmed nor on trial: between a rollback's record and its reboot, or by hand.
fn runs_unasked(state: State, work: Work, seen: &Seen) -> State {
    match state {
        State::Updating {
            step: UpdatingStep::Disarm(Then::Recall) | UpdatingStep::Undo(Then::Recall),
            ..
        } => roll_back(work, Outcome::Recalled, "halted before the trial came up"),
        State::Updating { .. } | State::VerifyPost { .. } => {
            roll_back(work, Outcome::RolledBack, "the slot runs without being on trial")
        }
        State::Rollback { outcome, reason, .. } => {
            State::Rollback { work, outcome, reason, step: RollbackStep::Record }
        }
        State::Success { .. } if !seen.holds(&work) => {
            roll_back(work, Outcome::RolledBack, "the slot does not hold what was verified")
        }
        // The decision was saved, and its write is still owed.
        other => other,
    }
}

/// The attempt's slot is confirmed, and the other one runs: a copy of the boot record has come and gone, or a person
/// chose. What runs is the outcome, and is made to stay ([`mend`]).
fn left_though_confirmed(state: State, work: Work) -> State {
    match state {
        State::Rollback { outcome, reason, .. } => {
            State::Rollback { work, outcome, reason, step: RollbackStep::Undo }
        }
        State::Updating {
            step: UpdatingStep::Disarm(Then::Recall) | UpdatingStep::Undo(Then::Recall),
            ..
        } => back(work, Outcome::Recalled, "halted before the trial came up"),
        State::Updating { .. } | State::VerifyPost { .. } | State::Success { .. } => {
            let reason = "the previous slot was booted, though the boot record names the new one";
            back(work, Outcome::RolledBack, reason)
        }
        other => other,
    }
}

fn does_not_run(state: State, work: Work, seen: &Seen, rebooted: bool, at: Stamp) -> State {
    use UpdatingStep as S;
    let armed = seen.trial == Some(work.slot);
    let holds = seen.holds(&work);
    match state {
        State::Updating { step: S::Arm, .. } if armed && !rebooted => {
            // Only the agent's process is new: the boot is still to come.
            State::Updating { work, step: S::Reboot }
        }
        State::Updating { step: S::Reboot, .. } if armed && !rebooted => {
            let mut again = work;
            again.tries.reboots += 1;
            let step = match again.tries.reboots < REBOOT_TRIES {
                true => S::Reboot,
                false => S::Disarm(Then::Fail(format!(
                    "the device did not go down though it was asked {REBOOT_TRIES} times; look at boot.reboot"
                ))),
            };
            State::Updating { work: again, step }
        }
        // Not armed and not tried: the power went before the record was written. The answer is stale by now.
        State::Updating { step: step @ (S::Arm | S::Reboot), .. } => {
            if !armed && (step == S::Arm || !rebooted) {
                announce_again(work, holds, at)
            } else {
                roll_back(work, Outcome::RolledBack, "the boot loader did not bring up the trial slot")
            }
        }
        State::Updating { step: S::Announce { since }, .. } if since.epoch != at.epoch || !holds => {
            announce_again(work, holds, at)
        }
        // Whatever of the components is in: it is taken back, and all of it begun anew.
        State::Updating { step: S::Install | S::Reask { .. }, .. } if rebooted || !holds => {
            broken_off(work, "the device went down while its components were installed")
        }
        // Only the agent's process is new, but for how long it was away nobody knows: nothing goes on on an old answer. An
        // install that takes the agent down with it would be begun for ever.
        State::Updating { step: S::Install, .. } => {
            let mut again = work.clone();
            again.tries.installs += 1;
            match again.tries.installs < INSTALL_TRIES {
                true => announce_again(again, holds, at),
                false => broken_off(work, "the agent ended while components were installed"),
            }
        }
        State::Updating { step: S::Reask { .. }, .. } => announce_again(work, holds, at),
        State::VerifyPost { .. } => {
            let reason = "the boot loader went back to the previous slot during the trial";
            roll_back(work, Outcome::RolledBack, reason)
        }
        State::Success { .. } => {
            roll_back(work, Outcome::RolledBack, "power was lost before the slot was confirmed")
        }
        State::Rollback { outcome, reason, step: RollbackStep::Reboot, .. } => {
            State::Rollback { work, outcome, reason, step: RollbackStep::Undo }
        }
        // What was written before the slot was marked is not in it any more. Of components nothing is said here: a place that
        // is not marked takes no byte, and the attempt begins anew.
        State::Downloading { at: 0, marked: true, .. } if holds => fetched(work, 0),
        State::Downloading { at: 0, marked: true, .. } if seen.content(work.slot) != Content::Bad => {
            State::Downloading { work, at: 0, marked: false, way: Way::Open, have: ChunkSet::default() }
        }
        State::Verifying { hashed: true, .. } if !holds => State::Verifying { work, at: 0, hashed: false },
        State::PreUpdating { undo: None, .. } if !holds => {
            State::PreUpdating { work, undo: Some(Then::Defer) }
        }
        other => other,
    }
}

fn announce_again(work: Work, holds: bool, at: Stamp) -> State {
    let step = match holds {
        true => UpdatingStep::Announce { since: at },
        false => UpdatingStep::Undo(Then::Defer),
    };
    State::Updating { work, step }
}

fn trial(work: Work, at: Stamp) -> State {
    State::VerifyPost { work, since: at, probed: false, heard: false }
}

fn roll_back(work: Work, outcome: Outcome, reason: &str) -> State {
    State::Rollback { work, outcome, reason: reason.to_owned(), step: RollbackStep::Record }
}

/// The previous slot runs already.
fn back(work: Work, outcome: Outcome, reason: &str) -> State {
    State::Rollback { work, outcome, reason: reason.to_owned(), step: RollbackStep::Undo }
}

/// Tells whether a rollback is owed that has nowhere to go.
pub fn has_no_way_back(state: &State, seen: &Seen) -> bool {
    let State::Rollback { work, step: RollbackStep::Record | RollbackStep::Reboot, .. } = state else {
        return false;
    };
    let is_all = match seen.active == work.slot {
        true => seen.trial.is_none(),
        false => seen.content(seen.active) == Content::Bad,
    };
    seen.slot == work.slot && is_all
}

/// Returns what has to be mended, now that the machine is in `state`.
pub fn mend(state: &State, seen: &Seen) -> Option<Mend> {
    // What was left must not come back with the next boot.
    if let State::Rollback { work, step: RollbackStep::Undo, .. } = state
        && seen.slot != work.slot
        && seen.active == work.slot
        && seen.content(seen.slot) != Content::Bad
    {
        return Some(Mend::Adopt);
    }
    let trial = seen.trial?;
    // A slot cannot be both, and what is confirmed stays so.
    let runs = trial == seen.slot && trial != seen.active;
    if runs && seen.content(seen.active) == Content::Bad {
        // Whatever runs is more than a slot that will not boot, and its own boots run out. Whether it is well is another
        // question, and asked all the same.
        return Some(Mend::Adopt);
    }
    match runs {
        _ if trial_of(state) == Some(trial) => None,
        true => Some(Mend::Leave),
        false => Some(Mend::Disarm),
    }
}

/// Returns the slot whose trial the state is about, and takes care of.
fn trial_of(state: &State) -> Option<SlotName> {
    use UpdatingStep as S;
    match state {
        State::Updating { work, step: S::Arm | S::Reboot | S::Disarm(_) }
        | State::VerifyPost { work, .. }
        | State::Success { work }
        | State::Rollback { work, step: RollbackStep::Record | RollbackStep::Reboot, .. } => Some(work.slot),
        _ => None,
    }
}
