//! What time it is, on a device that may have no clock.
//!
//! ```text
//!   built in, or what a plausible system clock showed ──> own ─────┐
//!   issue times of accepted timestamps ─────────────────> learned ─┴─> floor = the later one, + uptime since
//!                                                                              │
//!   system clock: counts from the floor up to 30 days after what was signed, ──┴─> now: are files expired?
//!                 or within a day of what an answer confirms
//!   answers to nonces, for an hour each ──────────────────────────────────────────> what is too old, what too new
//! ```
//! Nothing here ever goes back, with one exception: what was learned from a key is dropped when people replace
//! that key ([`Clock::forget_learned`]). Each rule bounds what one liar can do:
//!
//! | who lies | how far |
//! |---|---|
//! | the system clock | 30 days past the latest time that somebody signed |
//! | who answers nonces (service, stolen telemetry or time key) | not at all: an answer moves no clock. For an hour it may hold installs up, and have timestamps refused |
//! | who signs timestamps | a day past a plausible system clock; refused past a day after what an answer showed within the hour; else up to the end of root, and a new root makes it good |

use serde::{Deserialize, Serialize};

use super::timing::Now;

const DAY: u64 = 24 * 3600;
/// How far a system clock may be ahead of the latest signed time before somebody has to confirm it.
const AHEAD_MAX: u64 = 30 * DAY;
/// How far what timestamps say may be ahead of a clock that is known.
const KNOWN_SLACK: u64 = DAY;
/// A system clock this little behind is still one that somebody set: a lie may just have moved us past it by a day.
const SET_SLACK: u64 = 2 * DAY;
/// How long, in seconds of uptime, an answer tells what is too late. Not longer: whoever answered may have been wrong.
const KNOWN_FOR: u64 = 3600;
/// How close a system clock must be to what an answer showed, to be confirmed by it.
const CONFIRMED_WITHIN: u64 = DAY;
/// The clock is saved when it has gone this far.
const SAVE_EVERY: u64 = 3600;
/// Unix time before which no agent of this kind was built. Who packages it may say the day: `TERN_BUILT_AT`.
pub const BUILT: u64 = built(option_env!("TERN_BUILT_AT"));

const fn built(said: Option<&str>) -> u64 {
    let base = 1_767_225_600;
    let Some(text) = said else { return base };
    let (bytes, mut at, mut value) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_digit(), "TERN_BUILT_AT is not a number of Unix seconds");
        value = value * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    if value > base { value } else { base }
}

/// The latest time that a device is sure to be past, by where it has it from; Unix seconds, 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeFloor {
    /// From the device's own clock, and the day on which it was built.
    pub own: u64,
    /// From keys that are online: timestamps and answers.
    pub learned: u64,
}

impl TimeFloor {
    /// Returns the later of both.
    pub fn latest(self) -> u64 {
        self.own.max(self.learned)
    }

    fn after(self, seconds: u64) -> Self {
        let later = |time: u64| if time == 0 { 0 } else { time.saturating_add(seconds) };
        Self { own: later(self.own), learned: later(self.learned) }
    }
}

/// A device's clock while its agent runs.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    floor: TimeFloor,
    /// Uptime, ms, at which `floor` held; none before the agent is up.
    at: Option<u64>,
    /// Where the clock stood when it was saved last.
    saved: u64,
    /// What an answer to a nonce of this boot showed, and the uptime then.
    answered: Option<(u64, u64)>,
}

impl Clock {
    /// Starts from what was saved. How long the device was off nobody knows, so no time has passed.
    pub fn new(saved: TimeFloor) -> Self {
        let floor = TimeFloor { own: saved.own.max(BUILT), ..saved };
        Self { floor, at: None, saved: saved.latest(), answered: None }
    }

    /// Begins to count, at the first call: the agent is up.
    pub fn start(&mut self, now: Now) {
        self.at.get_or_insert(now.uptime);
    }

    /// Returns the time by which files expire, Unix seconds.
    pub fn now(&self, now: Now) -> u64 {
        let floor = self.floor_at(now);
        if self.accepts(now) { now.wall } else { floor.latest() }
    }

    /// Returns what time it is by an answer of the last hour: only then is an unexpired timestamp a fresh one.
    pub fn shown(&self, now: Now) -> Option<u64> {
        let (time, at) = self.answered?;
        let passed = now.uptime.saturating_sub(at) / 1000;
        (passed <= KNOWN_FOR).then(|| time.saturating_add(passed))
    }

    /// Returns the time for what only this device's owner cares about, such as a maintenance window: `None` while the
    /// system's clock is not taken for right and nobody has shown the time within the hour.
    pub fn known(&self, now: Now) -> Option<u64> {
        self.shown(now).or_else(|| self.accepts(now).then_some(now.wall))
    }

    /// Tells whether a file that expires then is over.
    pub fn is_over(&self, expires: u64, now: Now) -> bool {
        self.now(now).max(self.shown(now).unwrap_or(0)) >= expires
    }

    /// Returns the latest time at which a timestamp may claim to have been issued.
    pub fn latest_issue(&self, now: Now) -> u64 {
        self.shown(now).map_or(u64::MAX, |time| time.saturating_add(KNOWN_SLACK))
    }

    /// Takes the issue time of a timestamp that was accepted.
    pub fn issued(&mut self, time: u64, now: Now) {
        let floor = self.floor_at(now);
        let is_set = now.wall >= BUILT && now.wall.saturating_add(SET_SLACK) >= floor.latest();
        let time = if is_set { time.min(now.wall.saturating_add(KNOWN_SLACK)) } else { time };
        self.floor = TimeFloor { learned: floor.learned.max(time), ..floor };
        self.at = Some(now.uptime);
    }

    /// Takes the time of an answer to a nonce of this boot. It moves nothing for good: whoever holds the key that
    /// answers could have every later file taken for expired, the next kill included.
    pub fn answer(&mut self, time: u64, now: Now) {
        self.answered = Some((time, now.uptime));
    }

    /// Drops what was learned from keys that are not believed any more.
    pub fn forget_learned(&mut self, now: Now) {
        self.floor = TimeFloor { learned: 0, ..self.floor_at(now) };
        self.at = Some(now.uptime);
        self.answered = None;
        // So that the loss itself is saved.
        self.saved = 0;
    }

    /// Returns what is to be saved, if the clock has gone far enough since it was last.
    pub fn to_save(&mut self, now: Now) -> Option<TimeFloor> {
        let (time, mut floor) = (self.now(now), self.floor_at(now));
        if time < self.saved.saturating_add(SAVE_EVERY) {
            return None;
        }
        if self.accepts(now) {
            floor.own = floor.own.max(now.wall);
        }
        self.saved = time;
        Some(floor)
    }

    fn floor_at(&self, now: Now) -> TimeFloor {
        let at = self.at.unwrap_or(now.uptime);
        self.floor.after(now.uptime.saturating_sub(at) / 1000)
    }

    /// Tells whether the system's clock is taken for right.
    fn accepts(&self, now: Now) -> bool {
        let floor = self.floor_at(now);
        // Measured from what was signed: a clock that was believed once must not vouch for its next leap.
        let signed = floor.learned.max(BUILT).saturating_add(AHEAD_MAX);
        let confirmed = || self.shown(now).is_some_and(|time| time.abs_diff(now.wall) <= CONFIRMED_WITHIN);
        now.wall > floor.latest() && (now.wall <= signed || confirmed())
    }
}

#[cfg(test)]
mod tests;
