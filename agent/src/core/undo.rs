//! Undoing hooks: tried again while it fails, and given up in the end, so that a hook which cannot be undone does not hold the
//! device where it is. What was not undone is told.
//!
//! ```text
//! undone                          ──►  goes on
//! a hook fails, or says not now   ──►  all of them once more, after a pause that grows
//! for the fifth time              ──►  goes on; the report of the end says which hook, and why
//! begun for the twentieth time    ──►  the same: an undo takes the device down with it
//! ```

use serde::{Deserialize, Serialize};
use tern_protocol::limits::REASON_MAX;
use tern_protocol::message::ReportKind;
use tern_protocol::state::StateName;

use super::agent::{Agent, Job};
use super::hook::Hooked;
use super::state::{Event, RollbackStep, State, Then, UpdatingStep};

/// Undos that fail before they are given up; with the usual pauses that is after eight minutes.
const FAILED: u32 = 5;
/// Undos that are begun, whatever became of them.
const BEGUN: u32 = 20;
/// Bytes of a reason that say what was not undone: the rest says what was wrong with the release.
const TOLD: usize = 240;

/// How often it was tried; kept over restarts and power cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UndoTries {
    /// Begun. Counted before the first program runs.
    #[serde(default)]
    pub begun: u32,
    /// Ended badly.
    #[serde(default)]
    pub failed: u32,
}

impl Hooked {
    /// Returns what was not undone, or taken back, in one line; empty if all was.
    pub fn all_not_undone(&self) -> String {
        let components = self.components.iter().map(|(name, why)| format!("component {name}: {why}"));
        let mut all: Vec<_> = components.collect();
        if !self.not_undone.is_empty() {
            all.push(self.not_undone.clone());
        }
        let mut all = all.join("; ");
        all.truncate(all.floor_char_boundary(TOLD));
        all
    }
}

impl Agent {
    /// Counts an undo that begins, where there is something to undo.
    pub(super) fn undo_begins(&mut self) {
        let hooks = &mut self.durable.hooks;
        if hooks.through.is_some() || self.settings.hooks.contains(&super::hook::HookStep::Undo) {
            hooks.undo.begun += 1;
            self.saved = false;
        }
    }

    /// Everything was undone.
    pub(super) fn hooks_undone(&mut self) {
        let hooks = &mut self.durable.hooks;
        let before =
            (hooks.through.take(), std::mem::take(&mut hooks.undo), std::mem::take(&mut hooks.not_undone));
        if before != Default::default() {
            self.saved = false;
        }
    }

    /// Counts an undo that has failed; tells whether there is to be another one.
    pub(super) fn undo_is_tried_again(&mut self) -> bool {
        let undo = &mut self.durable.hooks.undo;
        undo.failed += 1;
        self.saved = false;
        undo.failed < FAILED && undo.begun < BEGUN
    }

    /// Goes on without an undo, and has that told.
    pub(super) fn give_up_undo(&mut self, why: &str) {
        self.hooks_undone();
        let mut why = why.to_owned();
        why.truncate(why.floor_char_boundary(TOLD));
        match &mut self.durable.state {
            State::PreUpdating { undo: Some(Then::Fail(reason)), .. }
            | State::Updating { step: UpdatingStep::Undo(Then::Fail(reason)), .. }
            | State::Rollback { reason, step: RollbackStep::Undo, .. }
            | State::Failed { reason, .. } => *reason = and_not_undone(reason, &why),
            _ => {}
        }
        // The end was told before the hooks were undone: what was dropped, and what a hook of the check has refused.
        if matches!(self.durable.state.name(), StateName::Idle | StateName::Failed) {
            self.say_of_hooks(and_not_undone("", &why));
        }
        self.durable.hooks.not_undone = why;
        self.saved = false;
    }

    /// Reports something about the hooks of an attempt whose end was told before.
    pub(super) fn say_of_hooks(&mut self, what: String) {
        let about = self.durable.hooks.about.as_ref().and_then(|about| about.attempt.clone());
        let name = self.durable.state.name();
        if let Some(attempt) = about {
            let reason = Some(what);
            self.durable.outbox.push(ReportKind::Transition { attempt, from: name, to: name, reason });
            self.saved = false;
        }
    }

    /// Concludes what is not begun once more: it was begun too often, and never ended.
    pub(super) fn undo_is_over(&mut self) -> Option<Event> {
        let is_running = matches!(self.job, Some((_, Job::UndoHooks)));
        if is_running || self.durable.hooks.undo.begun < BEGUN {
            return None;
        }
        self.give_up_undo(&format!("the undo of hooks was begun {BEGUN} times, and did not end"));
        Some(Event::Undone)
    }

    /// Adds what was not undone to the reports of the end, where their reason does not say so already.
    pub(super) fn telling_what_was_not_undone(
        &self,
        event: &Event,
        mut said: Vec<ReportKind>,
    ) -> Vec<ReportKind> {
        let why = &self.durable.hooks.all_not_undone();
        if *event != Event::Undone || why.is_empty() {
            return said;
        }
        let has_outcome = said.iter().any(|kind| matches!(kind, ReportKind::Outcome { .. }));
        for kind in &mut said {
            let reason = match kind {
                ReportKind::Outcome { reason, .. } => reason,
                ReportKind::Transition { reason, .. } if !has_outcome => reason,
                _ => continue,
            };
            let before = reason.take().unwrap_or_default();
            let is_said = self.durable.hooks.components.is_empty() && before.ends_with(why.as_str());
            *reason = Some(if is_said { before } else { and_not_undone(&before, why) });
        }
        said
    }
}

/// Puts both into one reason, whose end is kept.
fn and_not_undone(reason: &str, why: &str) -> String {
    let end = format!("not undone: {why}");
    if reason.is_empty() {
        return end;
    }
    let room = REASON_MAX.saturating_sub(end.len() + 2);
    format!("{}; {end}", &reason[..reason.floor_char_boundary(room)])
}
