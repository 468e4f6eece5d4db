//! The hardware watchdog: a timer in the chip that resets the device when nobody feeds it.
//!
//! ```text
//!              on trial, or always        every third of the timeout
//!   closed ────────────────────────► open ──────────────────────────► fed
//!     ▲         (opening starts it)    │
//!     └──────── confirmed: 'V' ────────┤ a hang, a crash, a boot that does not come: nobody feeds it ──► reset
//! ```
//! A reset in a trial is a boot like any other and uses up a try, so a release that hangs is rolled back. The driver's own
//! timeout holds: setting another one takes a call that safe Rust does not offer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where drivers say how they are set.
const CLASS: &str = "/sys/class/watchdog";
/// A device that cannot be opened is tried again after this long: its driver may be loaded late.
const RETRY: Duration = Duration::from_secs(10);

/// When the watchdog runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// While a release is on trial.
    Trial,
    /// As long as the agent runs.
    Always,
}

/// Which watchdog, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// Its device.
    pub device: PathBuf,
    /// What its driver is set to: silence after which it resets the device. A shorter one that the driver tells holds.
    pub timeout: Duration,
    /// When it runs.
    pub during: During,
}

/// A watchdog.
#[derive(Debug)]
pub struct Watchdog {
    config: WatchdogConfig,
    open: Option<File>,
    every: Duration,
    next: Duration,
    /// It is on record that the device cannot be opened.
    missing: bool,
}

impl Watchdog {
    /// Names a watchdog; nothing is opened yet.
    pub fn new(config: WatchdogConfig) -> Self {
        let told = told_timeout(Path::new(CLASS), &config.device);
        if let Some(told) = told.filter(|told| *told != config.timeout) {
            tracing::warn!(?told, configured = ?config.timeout, "the watchdog's driver has another timeout");
        }
        let every = told.map_or(config.timeout, |told| told.min(config.timeout)) / 3;
        Self { config, open: None, every, next: Duration::ZERO, missing: false }
    }

    /// Returns the uptime at which it is to be fed or tried again.
    pub fn due(&self, on_trial: bool) -> Duration {
        if self.open.is_some() || self.wanted(on_trial) { self.next } else { Duration::MAX }
    }

    /// Opens, feeds or closes it, as the time and the trial say.
    pub fn attend(&mut self, on_trial: bool, now: Duration) {
        match (self.wanted(on_trial), &mut self.open) {
            (false, None) => {}
            (false, Some(_)) => self.disarm(),
            (true, None) if now < self.next => {}
            (true, None) => {
                self.next = now + RETRY;
                match OpenOptions::new().write(true).open(&self.config.device) {
                    Ok(file) => {
                        self.open = Some(file);
                        self.log("the watchdog runs", None);
                        self.feed(now);
                    }
                    Err(error) if !self.missing => {
                        self.missing = true;
                        self.log("no watchdog: a hang will not be noticed by it", Some(&error));
                    }
                    Err(_) => {}
                }
            }
            (true, Some(_)) if now >= self.next => self.feed(now),
            (true, Some(_)) => {}
        }
    }

    /// Stops it: nobody will feed it any more, and that is no hang. A driver that is built not to stop goes on.
    pub fn disarm(&mut self) {
        let Some(mut file) = self.open.take() else { return };
        match file.write_all(b"V") {
            Ok(()) => tracing::info!("the watchdog is stopped"),
            Err(error) => {
                tracing::warn!(%error, "the watchdog could not be stopped; it may reset the device")
            }
        }
    }

    /// Lets it run on unfed: what is to come must come before its timeout.
    pub fn leave_running(mut self) {
        // Closed without the letter, it does not stop.
        self.open = None;
    }

    fn wanted(&self, on_trial: bool) -> bool {
        on_trial || self.config.during == During::Always
    }

    fn log(&self, what: &str, error: Option<&io::Error>) {
        let device = self.config.device.display();
        match error {
            None => tracing::info!(%device, "{what}"),
            Some(error) => tracing::warn!(%device, %error, "{what}"),
        }
    }

    fn feed(&mut self, now: Duration) {
        let Some(file) = &mut self.open else { return };
        self.next = now + self.every;
        // Any byte but a V. A device that is gone is opened anew.
        if let Err(error) = file.write_all(b".") {
            self.open = None;
            self.log("the watchdog could not be fed", Some(&error));
        }
    }
}

/// Returns what a driver says that its timeout is.
fn told_timeout(class: &Path, device: &Path) -> Option<Duration> {
    let name = match device.file_name()?.to_str()? {
        "watchdog" => "watchdog0",
        name => name,
    };
    let text = read_small(&class.join(name).join("timeout")).ok()?;
    text.trim().parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(File::open(path)?, 64), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A watchdog whose device is a file, and what was written to it.
    fn scene(during: During) -> (tempfile::TempDir, Watchdog) {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("watchdog");
        std::fs::write(&device, "").unwrap();
        (folder, Watchdog::new(WatchdogConfig { device, timeout: TIMEOUT, during }))
    }

    fn written(folder: &tempfile::TempDir) -> String {
        std::fs::read_to_string(folder.path().join("watchdog")).unwrap()
    }

    #[test]
    fn a_trial_opens_feeds_and_after_confirmation_stops_it() {
        let (folder, mut watchdog) = scene(During::Trial);
        watchdog.attend(false, second(1));
        assert_eq!((written(&folder).as_str(), watchdog.due(false)), ("", Duration::MAX));

        watchdog.attend(true, second(2));
        assert_eq!((written(&folder).as_str(), watchdog.due(true)), (".", second(22)));
        watchdog.attend(true, second(21));
        assert_eq!(written(&folder), ".");
        watchdog.attend(true, second(22));
        assert_eq!(written(&folder), "..");
        watchdog.attend(false, second(23));

        assert_eq!((written(&folder).as_str(), watchdog.due(false)), ("..V", Duration::MAX));
    }

    #[test]
    fn one_that_always_runs_is_not_stopped_by_a_confirmation() {
        let (folder, mut watchdog) = scene(During::Always);

        for (second_of, on_trial) in [(0, true), (20, false), (40, false)] {
            watchdog.attend(on_trial, second(second_of));
        }

        assert_eq!(written(&folder), "...");
    }

    #[test]
    fn one_that_is_left_running_is_neither_fed_nor_stopped() {
        let (folder, mut watchdog) = scene(During::Trial);
        watchdog.attend(true, second(0));

        watchdog.leave_running();

        assert_eq!(written(&folder), ".");
    }

    #[test]
    fn a_device_that_comes_late_is_opened_when_it_is_there() {
        let (folder, mut watchdog) = scene(During::Always);
        let device = folder.path().join("watchdog");
        std::fs::remove_file(&device).unwrap();
        watchdog.attend(true, second(0));
        std::fs::write(&device, "").unwrap();

        watchdog.attend(true, second(9));
        assert_eq!(written(&folder), "");
        watchdog.attend(true, watchdog.due(true));

        assert_eq!(written(&folder), ".");
    }

    #[test]
    fn one_that_cannot_be_fed_is_opened_anew() {
        let config = WatchdogConfig { device: "/dev/full".into(), timeout: TIMEOUT, during: During::Always };
        let mut watchdog = Watchdog::new(config);

        watchdog.attend(false, second(0));

        assert!(watchdog.open.is_none());
        assert_eq!(watchdog.due(false), second(20));
    }

    #[test]
    fn the_shorter_of_the_configured_and_the_drivers_own_timeout_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let driver = folder.path().join("watchdog0");
        std::fs::create_dir(&driver).unwrap();
        let told = |text: &str| {
            std::fs::write(driver.join("timeout"), text).unwrap();
            ["/dev/watchdog", "/dev/watchdog0"].map(|device| told_timeout(folder.path(), device.as_ref()))
        };

        assert_eq!(told("10\n"), [Some(second(10)); 2]);
        assert_eq!(told("0\n"), [None; 2]);
        assert_eq!(told("soon\n"), [None; 2]);
        assert_eq!(told_timeout(folder.path(), "/dev/watchdog1".as_ref()), None);
    }
}
