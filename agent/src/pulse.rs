//! The agent's pulse: what the loop says on every turn to those who would restart it if it hung.
//!
//! | who | hears | what a silence does |
//! |---|---|---|
//! | the service manager ([`notify`](crate::notify)) | the state; that the loop turns | the agent is started again |
//! | the hardware watchdog ([`watchdog`](crate::watchdog)) | that the loop turns | the device is reset |
//! | the guard of a trial (`deploy/tern-trial-guard.timer`) | when the loop turned last: the file `alive` in `runtime_dir` | the device reboots, and the trial has used up a try |
//!
//! The guard hears nothing before something was taken in and saved. An agent that ends again and again on trial is not fed
//! for any more by its own starts ([`starts`](crate::starts)).
//!
//! Only the loop itself beats, between two inputs: a program, a hash or a collection that takes long runs beside it and
//! does not count, a loop that hangs is silent.

use std::path::PathBuf;
use std::time::Duration;

use crate::boot::Booted;
use crate::config::Config;
use crate::core::durable::Durable;
use crate::core::state::State;
use crate::notify::Notify;
use crate::slot::SlotName;
use crate::starts::Starts;
use crate::watchdog::Watchdog;

/// The file in `runtime_dir` that says at which uptime, in seconds, the loop turned last; `over` outside a trial.
const ALIVE: &str = "alive";
/// How often that is said anew. The guard is patient for ten times that.
const ALIVE_EVERY: Duration = Duration::from_secs(60);
/// What the service manager did not hear is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// Why the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The agent is stopped.
    Stopped,
    /// The system goes down, and comes up again.
    Rebooting,
    /// The agent's process image is replaced by a new one.
    Replaced,
}

/// Everybody who listens.
pub struct Pulse {
    alive: PathBuf,
    /// What was said to the guard last: on trial, and when.
    told_guard: Option<(bool, Duration)>,
    /// It has been up, and saved.
    is_ready: bool,
    starts: Starts,
    notify: Option<Notify>,
    watchdog: Option<Watchdog>,
    running: SlotName,
    on_trial: bool,
    said: String,
    /// Uptime at which the service manager is to hear of the loop again.
    next: Duration,
}

impl Pulse {
    /// Starts to beat. On trial the watchdog runs from here on, so it also covers what follows.
    pub fn start(config: &Config, booted: &Booted, durable: &Durable, now: Duration) -> Self {
        let running = booted.slot;
        let starts = Starts::count(&config.runtime_dir, &booted.boot_id);
        let watchdog = config.watchdog.clone().map(Watchdog::new);
        let notify = Notify::from_environment();
        let on_trial = on_trial(&durable.state, running);
        let (alive, said, next) = (config.runtime_dir.join(ALIVE), String::new(), Duration::ZERO);
        let (told_guard, is_ready) = (None, false);
        let mut pulse =
            Self { alive, told_guard, is_ready, starts, notify, watchdog, running, on_trial, said, next };
        pulse.feed(now);
        pulse
    }

    /// The agent is up: what has to be read to judge a release was read, and what it comes to was saved.
    pub fn ready(&mut self, now: Duration) {
        self.is_ready = true;
        self.tell_guard(now);
        if let Some(notify) = &self.notify {
            notify.ready();
        }
    }

    /// Tells whether this is a trial in which the agent has ended by itself too often.
    pub fn is_worn_out(&self) -> bool {
        self.on_trial && self.starts.are_too_many()
    }

    fn tell_guard(&mut self, now: Duration) {
        let is_due = self
            .told_guard
            .is_none_or(|(on_trial, at)| on_trial != self.on_trial || on_trial && now >= at + ALIVE_EVERY);
        if !self.is_ready || !is_due {
            return;
        }
        let text = if self.on_trial { now.as_secs().to_string() } else { "over".to_owned() };
        // Beside and renamed: the guard reads it at any time. Not durable, and in memory: it goes with the boot.
        let beside = self.alive.with_extension("new");
        match std::fs::write(&beside, text + "\n").and_then(|()| std::fs::rename(&beside, &self.alive)) {
            Ok(()) => self.told_guard = Some((self.on_trial, now)),
            Err(error) => {
                let file = self.alive.display();
                tracing::warn!(%file, %error, "could not tell that the agent is up; a trial guard will reboot the device");
            }
        }
    }

    fn feed(&mut self, now: Duration) {
        let is_worn_out = self.is_worn_out();
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| !is_worn_out) {
            watchdog.attend(self.on_trial, now);
        }
    }

    /// Beats. To be called on every turn of the loop, and by nobody else.
    pub fn beat(&mut self, durable: &Durable, now: Duration) {
        self.on_trial = on_trial(&durable.state, self.running);
        self.feed(now);
        self.tell_guard(now);
        let Some(notify) = &self.notify else { return };
        let status = status(&durable.state);
        if status != self.said {
            notify.say(&format!("STATUS={status}"));
            self.said = status;
        }
        self.tell_manager(now);
    }

    /// Beats for the service manager alone: the system goes down, and a watchdog that is not fed any more makes sure
    /// that it does.
    pub fn tell_manager(&mut self, now: Duration) {
        if let Some(notify) = &self.notify
            && let Some(every) = notify.every()
            && now >= self.next
        {
            let heard = notify.say("WATCHDOG=1");
            self.next = now + if heard { every } else { every.min(SAY_AGAIN) };
        }
    }

    /// Returns how long the loop may wait.
    pub fn wait(&self, now: Duration) -> Duration {
        let manager = self.notify.as_ref().and_then(Notify::every).map_or(Duration::MAX, |_| self.next);
        let watchdog = self.watchdog.as_ref().map_or(Duration::MAX, |dog| dog.due(self.on_trial));
        manager.min(watchdog).saturating_sub(now)
    }

    /// Ends. An agent that is stopped in a trial, or waits for a boot, leaves the watchdog running: a trial that nobody
    /// looks after, and a shutdown that hangs, are resets.
    pub fn end(&mut self, end: End) {
        if end == End::Stopped {
            self.starts.take_back();
        }
        match (&self.notify, end) {
            (Some(notify), End::Stopped) => {
                notify.say("STOPPING=1");
            }
            (Some(notify), End::Replaced) => notify.replaced(),
            // Told that it stops, the manager would kill it before the system is down.
            (Some(_), End::Rebooting) | (None, _) => {}
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            if end == End::Replaced || (end == End::Stopped && !self.on_trial) {
                watchdog.disarm();
            } else {
                watchdog.leave_running();
            }
        }
    }
}

/// Tells whether what runs is on trial, or is to be left: the slot of an open attempt runs in no other case.
fn on_trial(state: &State, running: SlotName) -> bool {
    // One that could not be left has ended: it stays, and nobody is to reset the device for it.
    let is_over = matches!(state, State::Failed { .. });
    !is_over && state.work().is_some_and(|work| work.slot == running)
}

/// Without the release's version: its line breaks would be words to the service manager.
fn status(state: &State) -> String {
    match state.work() {
        Some(work) => format!("{} of release {}", state.name(), work.offer.attempt.rc),
        None => state.name().to_string(),
    }
}

#[cfg(test)]
mod tests;
