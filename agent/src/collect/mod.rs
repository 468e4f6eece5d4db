//! Collectors: what went wrong on the device since it was asked last, as counts by name.
//!
//! | name | what | from |
//! |---|---|---|
//! | `panics` | kernel panics | new files of the kernel's crash store ([`panics`]) |
//! | `watchdog-resets` | boots because the hardware watchdog had reset the device | the driver's boot status ([`boots`]) |
//! | `unexpected-reboots` | boots that the agent had not asked for | the kernel's boot id ([`boots`]) |
//! | `crashes` | automatic restarts of services | systemd ([`services`]) |
//! | `drain` | tenths of a percent of the battery a day, while it discharges | the power supply ([`battery`]) |
//!
//! The integrator's program adds its own, and has the last word where both have a name ([`program`]). What cannot be
//! read counts nothing, and is in no figure: nothing here may be worse than no figures at all.
//!
//! What was counted already is kept in the record `collect` of the data folder. A record that is lost begins anew with
//! what is there then, so that no old crash is counted a second time.

pub mod battery;
pub mod boots;
pub mod panics;
pub mod program;
pub mod services;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crate::clock;
use crate::command::{Context, Program};
use crate::core::state::State;
use crate::health::{aside, begin};
use crate::record::{RecordError, RecordFile};
use battery::Battery;

/// How long files and services together may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where the collectors look; what is `None` or empty is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectConfig {
    /// Folder of the kernel's crash store.
    pub panics: Option<PathBuf>,
    /// Where the watchdog's driver says why the device booted.
    pub watchdog: Option<PathBuf>,
    /// What the kernel calls this boot.
    pub boot_id: PathBuf,
    /// Units whose restarts are counted.
    pub services: Vec<String>,
    /// The program that knows about them.
    pub systemctl: PathBuf,
    /// Folder of the power supplies.
    pub battery: Option<PathBuf>,
}

/// What was counted already: the record. Flat, because a structure's reader of its own would weigh more than all that
/// reads it; each collector has keys of its own.
type Counted = BTreeMap<String, u64>;

/// The collectors of one device.
#[derive(Clone)]
pub struct Collectors {
    /// Nothing is collected at all.
    config: Option<Arc<CollectConfig>>,
    program: Option<Program>,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    record: Option<RecordFile<Counted>>,
    counted: Counted,
    battery: Battery,
}

impl Collectors {
    /// Takes up what was counted before, and looks what boot this is. `state` is the journal's, from before this start.
    pub fn open(
        config: Option<CollectConfig>,
        program: Option<Program>,
        data_dir: &Path,
        state: &State,
    ) -> Self {
        let mut inner = Inner { record: None, counted: Counted::new(), battery: Battery::default() };
        if let Some(config) = &config {
            let begun = inner.load(data_dir, config);
            if boots::came_up(&mut inner.counted, config, boots::asked_for(state)) || begun {
                inner.save();
            }
        }
        Self { config: config.map(Arc::new), program, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Looks at the battery, now and then: at most every ten minutes of `now`, which is an uptime. Does not block.
    pub fn sample(&self, now: Duration) {
        let Some(folder) = self.config.as_ref().and_then(|config| config.battery.clone()) else { return };
        let Some(inner) = self.try_inner() else { return };
        if inner.battery.is_due(now) {
            drop(inner);
            let this = self.clone();
            begin(Box::new(move || {
                if let Some(mut inner) = this.try_inner() {
                    inner.battery.sample(&folder, now);
                }
            }));
        }
    }

    /// Counts what went wrong since the last time. Ends by itself, by the deadlines of all that it asks.
    pub async fn collect(&self, context: &Context) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        if let Some(config) = self.config.clone() {
            let restarts = services::ask(&config, context);
            let restarts = tokio::time::timeout(DEADLINE, restarts).await.unwrap_or_default();
            let this = self.clone();
            let counted = aside(move || this.count(&config, &restarts));
            match tokio::time::timeout(DEADLINE, counted).await {
                Ok(counted) => counts = counted,
                Err(_) => {
                    tracing::warn!("figures of health did not come in time; is a file system or driver hung?")
                }
            }
        }
        if let Some(program) = &self.program {
            counts.extend(program::ask(program, context).await);
        }
        counts
    }

    fn count(&self, config: &CollectConfig, restarts: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        // One that hangs holds it; whoever waited for it would hang too.
        let Some(mut inner) = self.try_inner() else { return BTreeMap::new() };
        let now = clock::uptime();
        let mut counts = BTreeMap::new();
        let mut count = |name: &str, found: Option<u64>| {
            counts.extend(found.map(|found| (name.to_owned(), found)));
        };
        if let Some(folder) = &config.panics {
            count("panics", panics::count(&mut inner.counted, folder));
        }
        count("crashes", services::count(&mut inner.counted, restarts, boots::id(config)));
        for (name, found) in boots::take(&mut inner.counted, config) {
            count(name, found);
        }
        if let Some(folder) = &config.battery {
            inner.battery.sample(folder, now);
            count("drain", inner.battery.take());
        }
        inner.save();
        counts
    }

    fn try_inner(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Inner {
    /// Tells whether the record has to be saved: counting begins with what is there.
    fn load(&mut self, data_dir: &Path, config: &CollectConfig) -> bool {
        let load = || {
            let record = RecordFile::open(data_dir, "collect")?;
            let counted = match record.load() {
                Err(RecordError::Corrupt(_) | RecordError::Content { .. }) => None,
                other => other?,
            };
            Ok::<_, RecordError>((record, counted))
        };
        match load() {
            Ok((record, counted)) => {
                self.record = Some(record);
                self.counted = counted.unwrap_or_default();
            }
            Err(error) => {
                trouble("what was counted before is not known; counting begins anew", &error);
            }
        }
        // What is there when counting begins happened before.
        services::keep(&mut self.counted, &config.services);
        config.panics.as_deref().is_some_and(|folder| panics::begin(&mut self.counted, folder))
    }

    fn save(&self) {
        if let Some(record) = &self.record
            && let Err(error) = record.renew(&self.counted)
        {
            trouble("could not save what was counted; some may be counted again", &error);
        }
    }
}

fn trouble(what: &str, error: &RecordError) {
    tracing::warn!(error = error as &dyn std::error::Error, "{what}");
}

#[cfg(test)]
mod tests;
