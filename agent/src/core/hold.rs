//! What holds an attempt back for a while: the owner's conditions, and hooks that say "not now".
//!
//! ```text
//! Checking ── look ── met ──► goes on                   Verifying, hashed ── look ── met ──► ask ── answered ──► PreUpdating
//!     ▲        └─ not met ──► Idle, says why once            ▲  └─ not met: stays, says why once         │
//!     └────────── a quarter of an hour later ──┘             └── then, or when a window opens ───────────┘ judged once more
//! ```
//! It is no failure: no try is used up, and the controller hears of it once, not with every look. Nobody is asked whether
//! the release is still wanted while it waits; that comes afterwards, for an answer counts two minutes.

use serde::{Deserialize, Serialize};
use tern_protocol::message::{Attempt, ReportKind};
use tern_protocol::offer::Offer;
use tern_protocol::state::StateName;

use super::agent::{Agent, Job};
use super::conditions::{Awaited, Stage, Surroundings, Wait, judge};
use super::hook::HookStep;
use super::state::{Event, State};
use super::timing::Now;

/// How long what was measured counts, ms: an ask follows within it.
const FRESH: u64 = 60_000;

/// What the device waits for; kept in the journal, so that it is said once, and for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The attempt that waits.
    pub attempt: Attempt,
    /// What for.
    pub awaited: Awaited,
    /// The same for a person.
    pub reason: String,
}

/// What is known of the surroundings while a state lasts.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Measured last, and when; uptime.
    looked: Option<(u64, Surroundings)>,
    /// An ask went out on it: the next one is preceded by another look.
    used: bool,
    /// Uptime before which it does not look again.
    look_at: u64,
    /// Nothing more is asked for: the link has become a dear one, or the window has closed.
    pub(super) download: bool,
    /// The deferral that is about to be said: whether its check began unsaid, and whether the same was said before.
    postponed: (bool, bool),
    /// The last step whose hooks have run in this state.
    pub(super) passed: Option<HookStep>,
}

impl Agent {
    /// Judges the open check: eligibility, then conditions, then hooks. `None` while one of them is still looked at.
    pub(super) fn check(&mut self, now: Now) -> Option<Event> {
        let State::Checking { work } = &self.durable.state else { return None };
        let offer = work.offer.clone();
        let event = self.eligible(&offer)?;
        let present = match event {
            Event::Eligible { present } => present,
            Event::Postponed(reason) => {
                let wait = Wait { awaited: Awaited::Component, reason, until: None };
                return Some(self.postponed(&wait, &offer));
            }
            other => return Some(other),
        };
        if !present && let Some(stage) = self.download_stage(&offer) {
            let Some((_, around)) = self.hold.looked.clone() else {
                self.start(Job::Look(stage), now);
                return None;
            };
            let mut judged = self.judged(stage, &around, &offer, now);
            if judged.is_err() && around.metered {
                // Chunks as they are cost more than there is for it. A delta may not.
                let bytes = self.quoted(&offer, now)?;
                judged = self.judged(Stage::Download(bytes), &around, &offer, now);
            }
            if let Err(wait) = judged {
                return Some(self.postponed(&wait, &offer));
            }
        }
        let hooks: &[_] = if present { &[HookStep::Check] } else { &[HookStep::Check, HookStep::Download] };
        if let Some(event) = self.hooks_never_end(hooks) {
            return Some(event);
        }
        if self.attend_hooks(hooks, now) {
            return None;
        }
        Some(Event::Eligible { present })
    }

    fn download_stage(&self, offer: &Offer) -> Option<Stage> {
        // What the one that is fetched costs by its way; nobody has asked about the others yet.
        let bytes = offer.artifacts.iter().enumerate().map(|(number, artifact)| match &self.durable.state {
            State::Downloading { at, way, .. } if *at == number => way.bytes(artifact.length),
            _ => artifact.length,
        });
        let stage = Stage::Download(bytes.sum());
        self.settings.conditions.apply(stage).then_some(stage)
    }

    fn judged(&self, stage: Stage, around: &Surroundings, offer: &Offer, now: Now) -> Result<(), Wait> {
        judge(&self.settings.conditions, stage, around, self.clock.known(now), offer.urgency)
    }

    /// Takes what was measured.
    pub(super) fn looked(&mut self, around: Surroundings, now: Now) {
        self.hold.looked = Some((now.uptime, around));
        self.hold.used = false;
        match &self.durable.state {
            State::Downloading { work, .. } => {
                let offer = work.offer.clone();
                self.judge_download(&offer, now);
            }
            _ => _ = self.allows_install(now),
        }
    }

    /// A link may become a dear one while a download goes on: it pauses, and keeps what it has.
    fn judge_download(&mut self, offer: &Offer, now: Now) {
        let (Some(stage), Some((_, around))) = (self.download_stage(offer), self.hold.looked.clone()) else {
            return;
        };
        let judged = self.judged(stage, &around, offer, now);
        self.hold.download = judged.is_err();
        self.hold.look_at = now.uptime + self.settings.timing.deferral;
        match judged {
            Ok(()) => self.saved &= self.durable.waiting.take().is_none(),
            Err(wait) => {
                self.hold.look_at = now.uptime + self.pause(&wait, now);
                self.say_waiting(&wait, offer, StateName::Downloading);
            }
        }
    }

    /// Judges an install that is about to be asked for, or begun, with what was measured last. Asked anew when the answer is
    /// here: it may have shown that the clock was wrong.
    pub(super) fn allows_install(&mut self, now: Now) -> bool {
        let State::Verifying { work, hashed: true, .. } = &self.durable.state else { return true };
        if !self.settings.conditions.apply(Stage::Install) {
            return true;
        }
        let offer = work.offer.clone();
        let Some((_, around)) = self.hold.looked.clone() else { return false };
        match self.judged(Stage::Install, &around, &offer, now) {
            Ok(()) => {
                self.saved &= self.durable.waiting.take().is_none();
                true
            }
            Err(wait) => {
                self.hold.looked = None;
                self.hold.look_at = now.uptime + self.pause(&wait, now);
                self.exchange.forget_nonces();
                self.say_waiting(&wait, &offer, StateName::Verifying);
                false
            }
        }
    }

    /// Tells whether nobody is asked for the install yet: what holds it back has to be looked at first.
    pub(super) fn holds_ask(&self, now: Now) -> bool {
        let State::Verifying { hashed: true, .. } = &self.durable.state else { return false };
        let fresh = |(at, _): &(u64, Surroundings)| now.uptime.saturating_sub(*at) <= FRESH;
        self.settings.conditions.apply(Stage::Install)
            && (self.hold.used || !self.hold.looked.as_ref().is_some_and(fresh))
    }

    /// An ask went out.
    pub(super) fn asked(&mut self) {
        self.hold.used = true;
    }

    /// The link is another one, perhaps.
    pub(super) fn look_again(&mut self) {
        self.hold.look_at = 0;
    }

    /// Starts to look where an install or a download waits for that; tells whether it does.
    pub(super) fn attend_look(&mut self, now: Now) -> bool {
        let Some(stage) = self.to_look(now) else { return false };
        let looks = now.uptime >= self.hold.look_at;
        if looks {
            self.start(Job::Look(stage), now);
        }
        looks
    }

    fn to_look(&self, now: Now) -> Option<Stage> {
        match &self.durable.state {
            State::Verifying { .. } => {
                let asks = self.exchange.waits_to_ask() || self.goes_on_unasked(now);
                (self.holds_ask(now) && asks).then_some(Stage::Install)
            }
            State::Downloading { work, marked: true, .. } if self.exchange.is_up() => {
                self.download_stage(&work.offer)
            }
            _ => None,
        }
    }

    /// Returns when to look again.
    pub(super) fn look_due(&self, now: Now) -> u64 {
        let waits = self.job.is_none() && self.to_look(now).is_some();
        if waits { self.hold.look_at.max(self.job_not_before) } else { u64::MAX }
    }

    fn pause(&self, wait: &Wait, now: Now) -> u64 {
        let left = wait.until.zip(self.clock.known(now)).map(|(until, now)| until.saturating_sub(now));
        let most = self.settings.timing.deferral;
        left.map_or(most, |seconds| seconds.saturating_mul(1000).clamp(most.min(1000), most))
    }

    /// Notes what is waited for; tells whether the controller has heard that before.
    fn waits(&mut self, wait: &Wait, offer: &Offer) -> bool {
        let (attempt, awaited) = (offer.attempt.clone(), wait.awaited);
        let said =
            self.durable.waiting.as_ref().is_some_and(|w| w.attempt == attempt && w.awaited == awaited);
        let waiting = Some(Waiting { attempt, awaited, reason: wait.reason.clone() });
        if self.durable.waiting != waiting {
            self.durable.waiting = waiting;
            self.saved = false;
        }
        said
    }

    fn say_waiting(&mut self, wait: &Wait, offer: &Offer, state: StateName) {
        if !self.waits(wait, offer) {
            let (attempt, reason) = (offer.attempt.clone(), Some(said(wait)));
            self.durable.outbox.push(ReportKind::Transition { attempt, from: state, to: state, reason });
        }
    }

    fn postponed(&mut self, wait: &Wait, offer: &Offer) -> Event {
        let unsaid = self.durable.waiting.is_some();
        self.hold.postponed = (unsaid, self.waits(wait, offer));
        Event::Postponed(said(wait))
    }

    pub(super) fn postponed_by_hook(&mut self, reason: String) -> Event {
        let wait = Wait { awaited: Awaited::Hook, reason, until: None };
        match self.durable.state.work().map(|work| work.offer.clone()) {
            Some(offer) => self.postponed(&wait, &offer),
            None => Event::Postponed(said(&wait)),
        }
    }

    /// Leaves out what was said before: a device that waits for days looks every quarter of an hour, and is checked each time.
    /// What is left still leads from state to state.
    pub(super) fn told(
        &mut self,
        before: &State,
        after: &State,
        event: &Event,
        mut reports: Vec<ReportKind>,
    ) -> Vec<ReportKind> {
        if before.name() == after.name() {
            return reports;
        }
        let began = |attempt: &Attempt| ReportKind::Transition {
            attempt: attempt.clone(),
            from: StateName::Idle,
            to: StateName::Checking,
            reason: None,
        };
        match (before, after, event) {
            (State::Idle { .. }, State::Checking { work }, _)
                if self.durable.waiting.as_ref().is_some_and(|w| w.attempt == work.offer.attempt) =>
            {
                return Vec::new();
            }
            (State::Checking { work }, State::Idle { .. }, Event::Postponed(_)) => {
                let (unsaid, said) = std::mem::take(&mut self.hold.postponed);
                if unsaid && said {
                    return Vec::new();
                }
                if unsaid {
                    reports.insert(0, began(&work.offer.attempt));
                }
                return reports;
            }
            (State::Checking { work }, ..) if self.durable.waiting.is_some() => {
                reports.insert(0, began(&work.offer.attempt));
            }
            _ => {}
        }
        self.durable.waiting = None;
        reports
    }

    /// Begins anew in another state. What was just measured for a download still counts in it.
    pub(super) fn enter(&mut self, after: &State, now: Now) {
        self.hold = Hold::default();
        if !matches!(after, State::Downloading { .. }) {
            self.quote = None;
        } else {
            self.hold.look_at = now.uptime + self.settings.timing.deferral;
        }
    }

    /// Nothing is offered any more that could be waited for.
    pub(super) fn waits_for_nothing(&mut self) {
        if matches!(self.durable.state, State::Idle { .. }) && self.durable.waiting.take().is_some() {
            self.saved = false;
        }
    }
}

fn said(wait: &Wait) -> String {
    format!("waits for {}", wait.reason)
}
