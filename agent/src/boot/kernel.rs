//! What the kernel tells about the boot that this process lives in, and having it end: the same behind every boot loader.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Booted;
use crate::slot::SlotName;
use crate::storage::{self, Storage};

/// Ceiling on what is read of a file of the kernel's.
const FILE_MAX: usize = 64 * 1024;
/// The boot loader's word on the kernel's command line.
pub(super) const SLOT: &str = "tern.slot=";
/// How long a command may take to say that the device goes down.
const REBOOT_PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between two looks at it: from the first to the longest, each twice the one before.
const REBOOT_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// Says why the present boot is not known, or does not end.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Nothing tells one boot from another.
    #[error("{} is empty, so no boot can be told from another; name the kernel's own in boot.boot_id", .0.display())]
    NoBootId(PathBuf),
    /// A file of the kernel's.
    #[error("could not read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The boot loader has not said what it chose.
    #[error(
        "{} names no slot; have the boot loader put {SLOT}a or {SLOT}b, U-Boot's script {SLOT}${{tern_slot}} on the \
         kernel's command line", .0.display()
    )]
    NoSlot(PathBuf),
    /// The device does not go down.
    #[error("could not reboot by {command:?}: {problem}")]
    Reboot {
        /// Program and arguments.
        command: Vec<String>,
        /// What happened.
        problem: String,
    },
}

/// Returns the boot of `slot` that the kernel calls by the text of `boot_id`.
pub(super) fn booted(disk: &dyn Storage, slot: SlotName, boot_id: &Path) -> Result<Booted, KernelError> {
    let id = text(disk, boot_id)?;
    if id.trim().is_empty() {
        // Each boot would be the one before.
        return Err(KernelError::NoBootId(boot_id.to_owned()));
    }
    // The kernel's clock began with this boot.
    Ok(Booted { slot, boot_id: id, powered_on_at: Duration::ZERO })
}

/// Reads which slot the boot loader has put on the kernel's command line.
pub(super) fn slot(disk: &dyn Storage, cmdline: &Path) -> Result<SlotName, KernelError> {
    slot_in(&text(disk, cmdline)?).ok_or_else(|| KernelError::NoSlot(cmdline.to_owned()))
}

/// Finds the slot among the words of a command line.
pub(super) fn slot_in(words: &str) -> Option<SlotName> {
    // Of several the last counts, as for the kernel's own parameters.
    words.split_whitespace().rev().find_map(|word| word.strip_prefix(SLOT)).and_then(named)
}

/// Reads a slot's name as it stands in a variable or on the kernel's command line.
pub(super) fn named(text: &str) -> Option<SlotName> {
    SlotName::BOTH.into_iter().find(|slot| slot.to_string() == text)
}

fn text(disk: &dyn Storage, path: &Path) -> Result<String, KernelError> {
    let bytes = storage::read(disk, path, FILE_MAX)
        .map_err(|source| KernelError::File { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Runs the command that takes the device down; returns once it has said that it does, or a minute later.
pub(super) fn reboot(words: &[String]) -> Result<(), KernelError> {
    let failed = |problem| KernelError::Reboot { command: words.to_vec(), problem };
    let Some((program, arguments)) = words.split_first() else {
        return Err(failed("no program is named".into()));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let mut waited = Duration::ZERO;
    let [mut pause, longest] = REBOOT_PAUSES;
    while waited < REBOOT_PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(status.to_string())),
            Ok(None) => {
                std::thread::sleep(pause);
                waited += pause;
                pause = longest.min(pause * 2);
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    // Some only come back when the system is down; it may be on its way.
    Ok(())
}
