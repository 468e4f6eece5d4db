//! When hooks run, which of them are to be undone, and what is still to be told: the device owner's programs, as far as
//! the core knows them.
//!
//! ```text
//! Checking     check, download                          75: Idle, looks again; else Failed
//! PreUpdating  pre-update, snapshot, migrate, arm       75: undo, Retry; else undo, Failed
//! VerifyPost   post-boot                                anything but 0: Rollback, undo
//! then         confirmed, or undo and rolled-back       cannot fail
//! ```
//! `arm` comes before the start is announced: nothing may lie between the controller's answer and the boot record.
//! Which steps have begun is saved before the first program of each, so what may have run is undone, also after a power
//! cut, and after an attempt that was dropped on the way. A step that was begun five times for one attempt and never ended
//! has failed: its programs take the device, or the agent, down with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tern_protocol::message::Attempt;
use tern_protocol::state::Outcome;

use super::agent::{Agent, Done, Job};
use super::state::{Event, RollbackStep, State, Then, UpdatingStep, Work};
use super::timing::Now;
use super::undo::UndoTries;

/// When a hook runs, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookStep {
    /// Before anything is done for a release that this device may run.
    Check,
    /// Before the first byte is asked for.
    Download,
    /// After the slot was written and read back: stop services.
    PreUpdate,
    /// Then: copy user data.
    Snapshot,
    /// Then: bring user data up to the new release.
    Migrate,
    /// Then: the last before the boot record.
    Arm,
    /// On trial, before the probes.
    PostBoot,
    /// After the release was confirmed.
    Confirmed,
    /// After the previous release is back and everything is undone.
    RolledBack,
    /// After the attempt was given up, or the previous release is back.
    Undo,
}

/// How often a step is begun for one attempt that never ends.
const BEGUN: u32 = 5;

/// The steps of [`State::PreUpdating`].
pub(super) const BEFORE: [HookStep; 4] =
    [HookStep::PreUpdate, HookStep::Snapshot, HookStep::Migrate, HookStep::Arm];

impl HookStep {
    /// Every step.
    pub const ALL: [Self; 10] = [
        Self::Check,
        Self::Download,
        Self::PreUpdate,
        Self::Snapshot,
        Self::Migrate,
        Self::Arm,
        Self::PostBoot,
        Self::Confirmed,
        Self::RolledBack,
        Self::Undo,
    ];

    /// The steps that can be undone, in order.
    pub const ORDER: [Self; 6] =
        [Self::Download, Self::PreUpdate, Self::Snapshot, Self::Migrate, Self::Arm, Self::PostBoot];

    /// Returns the step as hooks see it in `TERN_STEP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Download => "download",
            Self::PreUpdate => "pre-update",
            Self::Snapshot => "snapshot",
            Self::Migrate => "migrate",
            Self::Arm => "arm",
            Self::PostBoot => "post-boot",
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled-back",
            Self::Undo => "undo",
        }
    }

    /// Tells whether what a hook of this step did can be taken back: a check only asks, and after the end there is nothing
    /// to go back to.
    pub fn can_be_undone(self) -> bool {
        Self::ORDER.contains(&self)
    }
}

/// What the journal keeps about hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hooked {
    /// The last step whose hooks may have begun and were not undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<HookStep>,
    /// A step after the end that is still to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell: Option<HookStep>,
    /// The attempt that both are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Why it was rolled back; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Undos that were begun and have not ended well, since the last one that did.
    #[serde(default)]
    pub undo: UndoTries,
    /// Which hook could not be undone in the end, and why; until hooks run again, or an undo ends well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub not_undone: String,
    /// The step whose hooks have begun and have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// Components that could not be taken back, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, String>,
}

/// A step that has begun; counted before its first program runs, and forgotten when the last one has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Which.
    pub step: HookStep,
    /// For which attempt.
    pub attempt: Option<Attempt>,
    /// How often.
    pub times: u32,
}

/// What hooks are told about an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The release.
    pub rc: u64,
    /// Its version.
    pub version: String,
    /// The version that ran before.
    pub from: String,
    /// The attempt, for reports after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

impl Agent {
    /// Returns the first configured step of these that is still to run in this state.
    fn next_hooks(&self, of: &[HookStep]) -> Option<HookStep> {
        let due = |step: &&HookStep| {
            self.settings.hooks.contains(step) && self.hold.passed.is_none_or(|passed| passed < **step)
        };
        of.iter().find(due).copied()
    }

    /// Starts the next hooks of these, if there are any.
    pub(super) fn attend_hooks(&mut self, of: &[HookStep], now: Now) -> bool {
        let Some(step) = self.next_hooks(of) else { return false };
        if let Some(work) = self.durable.state.work().cloned() {
            self.about(&work);
        }
        if step.can_be_undone() && self.durable.hooks.through.is_none_or(|through| through < step) {
            if self.durable.hooks.through.replace(step).is_none() {
                self.durable.hooks.not_undone.clear();
            }
            self.saved = false;
        }
        self.start(Job::RunHooks(step), now);
        true
    }

    /// Counts a step that begins.
    pub(super) fn hooks_begin(&mut self, step: HookStep) {
        let times = self.begun(step) + 1;
        let attempt = self.durable.hooks.about.as_ref().and_then(|about| about.attempt.clone());
        self.durable.hooks.begun = Some(Begun { step, attempt, times });
        self.saved = false;
    }

    /// Returns how often a step has begun for this attempt, and never ended.
    fn begun(&self, step: HookStep) -> u32 {
        let Hooked { begun, about, .. } = &self.durable.hooks;
        let attempt = about.as_ref().and_then(|about| about.attempt.as_ref());
        let begun = begun.as_ref().filter(|begun| begun.step == step && begun.attempt.as_ref() == attempt);
        begun.map_or(0, |begun| begun.times)
    }

    /// Concludes that the next of these steps has failed, where it was begun too often.
    pub(super) fn hooks_never_end(&mut self, of: &[HookStep]) -> Option<Event> {
        let step = self.next_hooks(of)?;
        let is_running = matches!(self.job, Some((_, Job::RunHooks(running))) if running == step);
        if is_running || self.begun(step) < BEGUN {
            return None;
        }
        let why = format!(
            "the hooks of step {} were begun {BEGUN} times, and never ended: device or agent go down with them",
            step.as_str()
        );
        self.hooks_ended(step, Done::Failed(why))
    }

    /// The same for what is told after the end: it is left, and that is said.
    pub(super) fn telling_never_ends(&mut self) {
        let Some(step) = self.durable.hooks.tell else { return };
        let is_running = matches!(self.job, Some((_, Job::RunHooks(_))));
        if !is_running && self.begun(step) >= BEGUN {
            let why =
                format!("the hooks of step {} were begun {BEGUN} times, and never ended", step.as_str());
            self.say_of_hooks(why);
            self.hooks_ended(step, Done::Ok);
        }
    }

    /// Returns what a state concludes that has run all its hooks.
    pub(super) fn hooks_are_done(&self) -> Option<Event> {
        let before = matches!(self.durable.state, State::PreUpdating { undo: None, .. });
        (before && self.next_hooks(&BEFORE).is_none()).then_some(Event::HooksDone)
    }

    /// Starts what is owed to hooks when nothing else is.
    pub(super) fn attend_before(&mut self, now: Now) {
        self.attend_hooks(&BEFORE, now);
    }

    /// Takes the end of a step's hooks.
    pub(super) fn hooks_ended(&mut self, step: HookStep, result: Done) -> Option<Event> {
        self.hold.passed = Some(step);
        if self.durable.hooks.begun.take().is_some() {
            self.saved = false;
        }
        match (step, result) {
            (HookStep::Confirmed | HookStep::RolledBack | HookStep::Undo, _) => {
                self.durable.hooks.tell = None;
                self.saved = false;
                None
            }
            (_, Done::Ok) => None,
            (HookStep::PostBoot, Done::NotNow(reason) | Done::Failed(reason)) => {
                // A trial has no later: it is well now, or it goes back.
                Some(Event::ProbeFailed(reason))
            }
            (HookStep::Check | HookStep::Download, Done::NotNow(reason)) => {
                Some(self.postponed_by_hook(reason))
            }
            (HookStep::Check | HookStep::Download, Done::Failed(reason)) => Some(Event::Ineligible(reason)),
            (_, Done::NotNow(reason)) => Some(Event::HooksPostponed(reason)),
            (_, Done::Failed(reason)) => Some(Event::HooksFailed(reason)),
            _ => None,
        }
    }

    /// Returns what an ended attempt still owes to its hooks.
    pub(super) fn hooks_owed(&self) -> Option<Job> {
        if !matches!(self.durable.state, State::Idle { .. } | State::Failed { .. }) {
            return None;
        }
        let Hooked { through, tell, .. } = &self.durable.hooks;
        through.map(|_| Job::UndoHooks).or(tell.map(Job::RunHooks))
    }

    /// Notes how an attempt ended, for the hooks that are told.
    pub(super) fn note_end(&mut self, before: &State, after: &State) {
        let told = match (before, after) {
            (State::Success { work }, State::Idle { .. }) => {
                // What has run is for good now.
                self.durable.hooks.through = None;
                Some((work.clone(), HookStep::Confirmed, String::new()))
            }
            (State::Rollback { work, .. }, State::Failed { .. })
                if self.boot.as_ref().is_some_and(|boot| boot.slot == work.slot) =>
            {
                // It did not go back: what runs has its data as it made them.
                self.durable.hooks.through = None;
                self.saved = false;
                None
            }
            (State::Rollback { work, reason, .. }, State::Failed { .. }) => {
                Some((work.clone(), HookStep::RolledBack, reason.clone()))
            }
            _ => None,
        };
        if let Some((work, step, reason)) = told.filter(|(_, step, _)| self.settings.hooks.contains(step)) {
            self.about(&work);
            self.durable.hooks.tell = Some(step);
            self.durable.hooks.reason = reason;
            self.saved = false;
        }
    }

    fn about(&mut self, work: &Work) {
        let (rc, version) = (work.offer.attempt.rc, work.offer.version.clone());
        if self.durable.hooks.about.as_ref().is_some_and(|about| about.rc == rc) {
            // On trial another version runs than before.
            return self.about_again(work);
        }
        let running = self.durable.components.get(&self.settings.component);
        let from = running.cloned().unwrap_or_default();
        let attempt = Some(work.offer.attempt.clone());
        self.durable.hooks.about = Some(About { rc, version, from, attempt });
        self.saved = false;
    }

    fn about_again(&mut self, work: &Work) {
        let attempt = Some(&work.offer.attempt);
        if let Some(about) =
            self.durable.hooks.about.as_mut().filter(|about| about.attempt.as_ref() != attempt)
        {
            about.attempt = attempt.cloned();
            self.saved = false;
        }
    }

    /// Returns why hooks are undone, as they see it in `TERN_REASON`.
    pub fn undo_reason(&self) -> String {
        let then = match &self.durable.state {
            State::PreUpdating { undo: Some(then), .. }
            | State::Updating { step: UpdatingStep::Undo(then) | UpdatingStep::Disarm(then), .. } => then,
            State::Rollback { reason, step: RollbackStep::Undo, .. } | State::Failed { reason, .. } => {
                return reason.clone();
            }
            _ => return "dropped before it was installed".to_owned(),
        };
        match then {
            Then::Retry => "a hook said not now".to_owned(),
            Then::Fail(reason) => reason.clone(),
            Then::Recall => Outcome::Recalled.to_string(),
            Then::Defer => Outcome::Deferred.to_string(),
        }
    }
}
