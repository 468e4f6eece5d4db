//! The boot record as variables of the environment, which `deploy/u-boot/boot.cmd` reads.
//!
//! | variable | holds |
//! |---|---|
//! | `tern_active` | the confirmed slot, `a` or `b` |
//! | `tern_trial` | the slot on trial; not there without one |
//! | `tern_tries` | boots that the trial has left, hexadecimal as all numbers in U-Boot |
//! | `tern_trial_rc` | release counter of the trial, decimal; the boot script does not look at it |
//! | `tern_installed` | devices with a single slot: the package in it, `a` or `b`; not there while it is being written |

use super::environment::Environment;
use crate::boot::kernel::named as slot;
use crate::boot::{BootRecord, Trial};
use crate::slot::SlotName;

/// The variables, all of them.
pub const NAMES: [&str; 5] = [ACTIVE, TRIAL, TRIES, TRIAL_RC, INSTALLED];

const ACTIVE: &str = "tern_active";
const TRIAL: &str = "tern_trial";
const TRIES: &str = "tern_tries";
const TRIAL_RC: &str = "tern_trial_rc";
const INSTALLED: &str = "tern_installed";

/// Says which variable makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the U-Boot variable {name} is {value:?} where {expected} was expected; correct it with `fw_setenv {name} VALUE`"
)]
pub struct VariableError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

/// Reads the record; there is none before the device is provisioned.
pub fn record(environment: &Environment) -> Result<Option<BootRecord>, VariableError> {
    let Some(active) = read(environment, ACTIVE, "a or b", slot)? else { return Ok(None) };
    let trial = match read(environment, TRIAL, "a or b", slot)? {
        None => None,
        Some(slot) => {
            let tries = |text: &str| u8::from_str_radix(text, 16).ok();
            // Not there is none left: so does the boot script.
            let tries_left = read(environment, TRIES, "a hexadecimal number up to ff", tries)?.unwrap_or(0);
            let rc = read(environment, TRIAL_RC, "a release counter", |text| text.parse().ok())?.unwrap_or(0);
            Some(Trial { slot, rc, tries_left })
        }
    };
    Ok(Some(BootRecord { active, trial }))
}

/// Puts the record into the environment.
pub fn put(environment: &mut Environment, record: &BootRecord) {
    environment.set(ACTIVE, Some(&record.active.to_string()));
    let trial = record.trial.as_ref();
    environment.set(TRIAL, trial.map(|trial| trial.slot.to_string()).as_deref());
    environment.set(TRIES, trial.map(|trial| format!("{:x}", trial.tries_left)).as_deref());
    environment.set(TRIAL_RC, trial.map(|trial| trial.rc.to_string()).as_deref());
}

/// Reads which package is in the system slot of a device with a single one.
pub fn installed(environment: &Environment) -> Result<Option<SlotName>, VariableError> {
    read(environment, INSTALLED, "a or b", slot)
}

/// Puts down which package is in the system slot; none while it is being written.
pub fn put_installed(environment: &mut Environment, installed: Option<SlotName>) {
    environment.set(INSTALLED, installed.map(|slot| slot.to_string()).as_deref());
}

/// Reads one variable; an empty one is none, as `test -n` has it in the boot script.
fn read<T>(
    environment: &Environment,
    name: &'static str,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, VariableError> {
    let Some(value) = environment.value(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let value = String::from_utf8_lossy(value);
    match parse(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(VariableError { name, value: value.into_owned(), expected }),
    }
}
