//! What a device owes to the comparison of a release with a control.
//!
//! A device that is held back says `control-start` when it passes the check that the others pass before they download,
//! and then its health, so that its silence can be told from that of a brick. Both arms report health once in each
//! window from then on.
//!
//! Windows begin when a held-back device joins and when the release is confirmed on the others: what either arm did before says
//! nothing about it. The shell's counters are read once at that time, for what they hold is older.
//!
//! | health is due after | who |
//! |---|---|
//! | half the early deadline, then every early deadline | held back: whoever starts later is compared too |
//! | a window (a day), with figures | both |
//!
//! A window is a day of the clock, however often the device is switched off in it or boots by itself: whoever told of a bad
//! day before it is over would be compared with devices whose day goes on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tern_protocol::limits::{METRIC_NAME_MAX, METRICS_MAX};
use tern_protocol::message::{Attempt, ReportKind};
use tern_protocol::offer::{Offer, Selection};
use tern_protocol::tuf::content::Schedule;

use super::agent::{Agent, Output};
use super::state::{Event, State};
use super::timing::{Now, Stamp};

/// A shell that does not say how the device fares is asked again after this long, ms.
const COLLECT_PAUSE: u64 = 60_000;
/// The comparison that a device takes part in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Of which attempt.
    pub attempt: Attempt,
    /// It is held back.
    pub control: bool,
    /// When health is due.
    pub schedule: Schedule,
    /// The last health, or the beginning; the last boot, if that was later.
    pub since: Stamp,
    /// The same of the last health with figures.
    pub counted: Stamp,
    /// Nothing more is said of it since then: a rollout that is paused has devices on trial still.
    #[serde(default)]
    pub over: Option<Stamp>,
    /// It has said so before.
    pub told: bool,
    /// Its windows have begun: the shell's counters are at zero.
    #[serde(default)]
    pub begun: bool,
    /// What the clock showed at `counted`, Unix seconds; 0: journals of before did not say.
    #[serde(default)]
    pub day: u64,
    /// Boots since the last figures.
    pub boots: u64,
}

impl Compared {
    fn new(offer: &Offer, control: bool, schedule: Schedule, since: Stamp) -> Self {
        let attempt = offer.attempt.clone();
        Self {
            attempt,
            control,
            schedule,
            since,
            counted: since,
            over: None,
            told: false,
            begun: false,
            day: 0,
            boots: 0,
        }
    }

    /// Returns how long after `since` a held-back device says that it is there, ms.
    fn wait(&self) -> Option<u64> {
        let seconds = if self.told { self.schedule.early } else { self.schedule.early / 2 };
        self.control.then(|| u64::from(seconds.max(1)) * 1000)
    }

    /// Tells whether there is something to compare: under way or given up the outcome says it.
    fn fares(&self, state: &State, running: Option<u64>) -> bool {
        self.control || (matches!(state, State::Idle { .. }) && running == Some(self.attempt.rc))
    }

    /// Tells whether figures are due: the clock, Unix seconds, says that a window is over.
    fn tells(&self, at: Stamp, clock: u64) -> bool {
        self.begun && self.left(at, clock) == 0
    }

    /// Returns how long it is until figures are due, ms. A clock may stand still while the device is off; uptime knows
    /// better in a boot that lasts.
    fn left(&self, at: Stamp, clock: u64) -> u64 {
        let window = u64::from(self.schedule.window.max(1)) * 1000;
        let by_clock = clock.saturating_sub(self.day).saturating_mul(1000);
        let by_uptime =
            if at.epoch == self.counted.epoch { at.uptime.saturating_sub(self.counted.uptime) } else { 0 };
        window.saturating_sub(by_clock.max(by_uptime))
    }

    /// Another window begins.
    fn begin(&mut self, at: Stamp, clock: u64) {
        (self.begun, self.counted, self.day, self.boots) = (true, at, clock, 0);
    }
}

impl Agent {
    /// Joins the comparison of an offer that this device is held back from, and leaves one that is over.
    pub(super) fn consider_control(&mut self, selection: &Selection, now: Now) {
        let offer = match selection {
            Selection::Offer(offer) | Selection::Control(offer) => Some(offer),
            Selection::Nothing(_) => None,
        };
        let held_back = matches!(selection, Selection::Control(_));
        let same = |of: &Compared, offer: &Offer| {
            of.attempt == offer.attempt && of.control == held_back && offer.schedule.is_some()
        };
        let at = self.stamp(now);
        let goes_on = |of: &Compared| offer.is_some_and(|offer| same(of, offer));
        if let Some(compared) = &mut self.durable.compared {
            let over = if goes_on(compared) { None } else { Some(compared.over.unwrap_or(at)) };
            let linger = u64::from(compared.schedule.last) * 1000;
            let other = offer.is_some_and(|offer| offer.attempt != compared.attempt || !held_back);
            let halted = self.durable.halted.contains(&compared.attempt.rc);
            if compared.over != over {
                compared.over = over;
                self.saved = false;
            }
            if over.is_some_and(|since| other || halted || since.passed(linger, at)) {
                self.durable.compared = None;
                self.saved = false;
            }
        }
        let (Selection::Control(offer), None, Some(boot)) = (selection, &self.durable.compared, self.boot())
        else {
            return;
        };
        let wants = super::trust::wants(offer, boot.running)
            && !self.durable.halted.contains(&offer.attempt.rc)
            && !self.is_stale(now);
        let (true, Some(schedule), State::Idle { .. } | State::Failed { .. }) =
            (wants, offer.schedule, &self.durable.state)
        else {
            return;
        };
        // Who would not have begun with it is no control for those who do.
        if !matches!(self.eligible(offer), Some(Event::Eligible { .. })) {
            return;
        }
        self.durable.compared = Some(Compared::new(offer, true, schedule, self.stamp(now)));
        self.durable.outbox.push(ReportKind::ControlStart { attempt: offer.attempt.clone() });
        self.saved = false;
    }

    /// The device begins with a release that others are held back from.
    pub(super) fn compare_from(&mut self, offer: &Offer, now: Now) {
        let Some(schedule) = offer.schedule else { return };
        let known = self.durable.compared.as_ref();
        if known.is_some_and(|known| known.attempt == offer.attempt && !known.control) {
            return;
        }
        self.durable.compared = Some(Compared::new(offer, false, schedule, self.stamp(now)));
        self.saved = false;
    }

    /// A boot ends every wait that was counted in uptime.
    pub(super) fn compared_boot(&mut self, now: Now) {
        let boot = Stamp { uptime: 0, ..self.stamp(now) };
        if let Some(compared) = &mut self.durable.compared {
            compared.boots += 1;
            compared.since = boot;
        }
    }

    /// Says how the device fares when that is due.
    pub(super) fn attend_comparison(&mut self, now: Now) {
        let (at, clock) = (self.stamp(now), self.clock.now(now));
        let running = self.boot.as_ref().map(|boot| boot.running);
        let Some(compared) = &mut self.durable.compared else { return };
        let linger = u64::from(compared.schedule.last) * 1000;
        if compared.over.is_some_and(|since| since.passed(linger, at)) {
            self.durable.compared = None;
            self.saved = false;
            return;
        }
        if !compared.fares(&self.durable.state, running) {
            if compared.tells(at, clock) {
                compared.begin(at, clock);
                self.saved = false;
            }
            return;
        }
        let collects = !compared.begun || compared.tells(at, clock);
        if collects && now.uptime >= self.collect_at {
            self.collect_at = now.uptime + COLLECT_PAUSE;
            self.out.push(Output::Collect);
        }
        // Not even figures that nobody comes up with may make it silent.
        if compared.wait().is_some_and(|wait| compared.since.passed(wait, at)) {
            self.tell_health(BTreeMap::new(), now);
        }
    }

    /// Takes what the shell counted since the last time.
    pub(super) fn collected(&mut self, mut metrics: BTreeMap<String, u64>, now: Now) {
        let (at, clock) = (self.stamp(now), self.clock.now(now));
        let running = self.boot.as_ref().map(|boot| boot.running);
        let Some(compared) = &mut self.durable.compared else { return };
        // What was asked for another comparison, or before the release ran, says nothing.
        if !compared.fares(&self.durable.state, running) {
            return;
        }
        if !compared.begun {
            compared.begin(at, clock);
            self.collect_at = 0;
            self.saved = false;
            return;
        }
        if !compared.tells(at, clock) {
            return;
        }
        metrics.retain(|name, _| name.len() <= METRIC_NAME_MAX);
        while metrics.len() >= METRICS_MAX {
            metrics.pop_last();
        }
        metrics.insert("boots".to_owned(), compared.boots);
        compared.begin(at, clock);
        self.collect_at = 0;
        self.tell_health(metrics, now);
    }

    fn tell_health(&mut self, metrics: BTreeMap<String, u64>, now: Now) {
        let at = self.stamp(now);
        let rc = self.boot().map_or(0, |boot| boot.running);
        let Some(compared) = &mut self.durable.compared else { return };
        (compared.since, compared.told) = (at, true);
        self.durable.outbox.push(ReportKind::Health { rc, metrics });
        self.saved = false;
    }

    /// Returns the uptime at which health is due.
    pub(super) fn comparison_due(&self, now: Now) -> u64 {
        let Some(compared) = &self.durable.compared else { return u64::MAX };
        let due = |since: Stamp, wait: u64| {
            if since.epoch == self.durable.epoch { since.uptime.saturating_add(wait) } else { now.uptime }
        };
        let running = self.boot.as_ref().map(|boot| boot.running);
        let figures = if compared.begun {
            now.uptime.saturating_add(compared.left(self.stamp(now), self.clock.now(now)))
        } else if compared.fares(&self.durable.state, running) {
            now.uptime
        } else {
            u64::MAX
        };
        let figures = figures.max(self.collect_at);
        compared.wait().map_or(figures, |wait| figures.min(due(compared.since, wait)))
    }
}
