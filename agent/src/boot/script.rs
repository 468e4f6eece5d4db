//! A program of the integrator's as the port to a boot loader that we do not know.
//!
//! | verb, its last argument | what it does |
//! |---|---|
//! | `get` | prints the boot record as JSON, `{"active":"a","trial":{"slot":"b","rc":7,"tries_left":2}}`; nothing at all before there is one |
//! | `set` | takes the record on standard input, and in `TERN_ACTIVE`, `TERN_TRIAL`, `TERN_TRIES`, `TERN_TRIAL_RC` (empty without a trial). One atomic, durable step; ends only when nothing that the loader could still believe says anything older |
//! | `running` | prints the slot that runs, `a` or `b` |
//!
//! Exit code 0 is success, anything else a failure that changed nothing. It may be called twice with the same record. The
//! loader's part (taking a try before the slot on trial runs, and only of a trial) is what [`super::choose`] does.

mod program;

use std::path::PathBuf;
use std::time::Duration;

pub use self::program::Failure;
use super::kernel::{self, KernelError};
use super::{Boot, BootError, BootRecord, Booted};
use crate::slot::SlotName;
use crate::storage::{Disk, Storage};

/// What the agent is told about the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptConfig {
    /// Executable and arguments; the verb is put behind them. No shell in between.
    pub command: Vec<String>,
    /// How long it may take for one verb: the agent waits for it, and does nothing else.
    pub deadline: Duration,
    /// What the kernel calls this boot.
    pub boot_id: PathBuf,
    /// Program and arguments that reboot the device.
    pub reboot: Vec<String>,
}

/// Says why the program's part in booting could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It failed.
    #[error("{command:?} {verb} failed; run it by hand as the agent's user, with the same environment")]
    Program {
        /// Executable and arguments.
        command: Vec<String>,
        /// What it was to do.
        verb: &'static str,
        /// How it ended, and what it said.
        #[source]
        source: Failure,
    },
    /// It printed something else than a record.
    #[error("{command:?} get printed no boot record; it must print JSON, or nothing before there is one")]
    Record {
        /// Executable and arguments.
        command: Vec<String>,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It printed something else than a slot.
    #[error("{command:?} running printed {printed:?}; it must print a or b")]
    Running {
        /// Executable and arguments.
        command: Vec<String>,
        /// What it printed.
        printed: String,
    },
    /// What the kernel tells, and rebooting.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A program as the boot loader.
#[derive(Debug)]
pub struct ScriptBoot {
    config: ScriptConfig,
    booted: Booted,
}

impl ScriptBoot {
    /// Has slot a boot on a device that has never run.
    pub fn provision(config: &ScriptConfig) -> Result<(), BootError> {
        if Self::read(config)?.is_some() {
            return Err(BootError::AlreadyProvisioned);
        }
        write(config, &BootRecord { active: SlotName::A, trial: None })
    }

    /// Reads the boot record; none before the device is provisioned.
    pub fn read(config: &ScriptConfig) -> Result<Option<BootRecord>, BootError> {
        let printed = run(config, "get", &[], &[])?;
        let printed = printed.trim_ascii();
        if printed.is_empty() {
            return Ok(None);
        }
        let wrong = |source| ScriptError::Record { command: config.command.clone(), source };
        Ok(Some(serde_json::from_slice(printed).map_err(wrong)?))
    }

    /// Joins the present boot; of the disk only what the kernel tells is read.
    pub fn on(disk: &Disk, config: &ScriptConfig) -> Result<Self, BootError> {
        Self::read(config)?.ok_or(BootError::NotProvisioned)?;
        let slot = running(config)?;
        let disk: &dyn Storage = &**disk;
        let booted = kernel::booted(disk, slot, &config.boot_id).map_err(ScriptError::from)?;
        Ok(Self { config: config.clone(), booted })
    }
}

impl Boot for ScriptBoot {
    fn record(&self) -> Result<BootRecord, BootError> {
        Self::read(&self.config)?.ok_or(BootError::NotProvisioned)
    }

    fn write(&mut self, record: &BootRecord) -> Result<(), BootError> {
        write(&self.config, record)
    }

    fn settle(&mut self) -> Result<(), BootError> {
        // Whether an older copy is left is the program's to know.
        write(&self.config, &self.record()?)
    }

    fn booted(&self) -> Result<Booted, BootError> {
        Ok(self.booted.clone())
    }

    fn reboot(&mut self) -> Result<(), BootError> {
        Ok(kernel::reboot(&self.config.reboot).map_err(ScriptError::from)?)
    }

    fn goes_down(&self) -> bool {
        true
    }
}

fn write(config: &ScriptConfig, record: &BootRecord) -> Result<(), BootError> {
    let json = serde_json::to_vec(record).expect("a boot record is plain data");
    let trial = record.trial.as_ref();
    let text = |value: Option<String>| value.unwrap_or_default();
    let words = [
        ("TERN_ACTIVE", record.active.to_string()),
        ("TERN_TRIAL", text(trial.map(|trial| trial.slot.to_string()))),
        ("TERN_TRIES", text(trial.map(|trial| trial.tries_left.to_string()))),
        ("TERN_TRIAL_RC", text(trial.map(|trial| trial.rc.to_string()))),
    ];
    run(config, "set", &json, &words)?;
    if ScriptBoot::read(config)?.as_ref() == Some(record) { Ok(()) } else { Err(BootError::ReadBack) }
}

fn running(config: &ScriptConfig) -> Result<SlotName, ScriptError> {
    let printed = run(config, "running", &[], &[])?;
    let printed = String::from_utf8_lossy(printed.trim_ascii()).into_owned();
    kernel::named(&printed).ok_or_else(|| ScriptError::Running {
        command: config.command.clone(),
        printed: printed.chars().take(80).collect(),
    })
}

fn run(
    config: &ScriptConfig,
    verb: &'static str,
    input: &[u8],
    words: &[(&str, String)],
) -> Result<Vec<u8>, ScriptError> {
    program::run(&config.command, verb, input, words, config.deadline)
        .map_err(|source| ScriptError::Program { command: config.command.clone(), verb, source })
}

#[cfg(test)]
mod tests;
