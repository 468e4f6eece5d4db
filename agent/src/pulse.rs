//! The agent's pulse: what the loop says on every turn to those who would restart it if it hung.
//!
//! | who | hears | what a silence does |
//! |---|---|---|
//! | the service manager ([`notify`](crate::notify)) | the state; that the loop turns | the agent is started again |
//! | the hardware watchdog ([`watchdog`](crate::watchdog)) | that the loop turns | the device is reset |
//! | the guard of a trial (`deploy/tern-trial-guard.timer`) | once, that the agent is up: the file `alive` in `runtime_dir` | the device reboots, and the trial has used up a try |
//!
//! Only the loop itself beats, between two inputs: a program, a hash or a collection that takes long runs beside it and
//! does not count, a loop that hangs is silent.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::core::durable::Durable;
use crate::core::state::State;
use crate::notify::Notify;
use crate::slot::SlotName;
use crate::watchdog::Watchdog;

/// The file in `runtime_dir` that says that an agent was up in this boot.
const ALIVE: &str = "alive";
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
    pub fn start(config: &Config, running: SlotName, durable: &Durable, now: Duration) -> Self {
        let watchdog = config.watchdog.clone().map(Watchdog::new);
        let notify = Notify::from_environment();
        let on_trial = on_trial(&durable.state, running);
        let (alive, said, next) = (config.runtime_dir.join(ALIVE), String::new(), Duration::ZERO);
        let mut pulse = Self { alive, notify, watchdog, running, on_trial, said, next };
        if let Some(watchdog) = &mut pulse.watchdog {
            watchdog.attend(on_trial, now);
        }
        pulse
    }

    /// The agent is up: what has to be read to judge a release was read.
    pub fn ready(&self) {
        // Not durable, and in memory: it goes with the boot.
        if let Err(error) = std::fs::write(&self.alive, "") {
            let file = self.alive.display();
            tracing::warn!(%file, %error, "could not tell that the agent is up; a trial guard will reboot the device");
        }
        if let Some(notify) = &self.notify {
            notify.ready();
        }
    }

    /// Beats. To be called on every turn of the loop, and by nobody else.
    pub fn beat(&mut self, durable: &Durable, now: Duration) {
        self.on_trial = on_trial(&durable.state, self.running);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.attend(self.on_trial, now);
        }
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
    state.work().is_some_and(|work| work.slot == running)
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
