//! The sections `[collect]` and `[watchdog]`.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use crate::collect::CollectConfig;
use crate::watchdog::{During, WatchdogConfig};

/// Every key of `[collect]`.
pub(super) const COLLECT_KEYS: [&str; 6] =
    ["panics", "watchdog", "boot_id", "services", "systemctl", "battery"];
/// Every key of `[watchdog]`.
pub(super) const WATCHDOG_KEYS: [&str; 3] = ["device", "timeout", "during"];
/// Units that may be named: each is asked for by itself.
const SERVICES_MAX: usize = 16;
/// What most drivers are set to.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The least timeout: the agent feeds every third of it.
const TIMEOUT_MIN: Duration = Duration::from_secs(3);

/// Reads `[collect]`.
pub(super) fn collect(section: Section) -> Result<CollectConfig, String> {
    let mut section = section.with_keys("collect", &COLLECT_KEYS)?;
    let services = section.list("services")?.unwrap_or_default();
    if services.len() > SERVICES_MAX {
        return Err(format!("collect.services names more than {SERVICES_MAX} units; name those that matter"));
    }
    if services.iter().any(String::is_empty) {
        return Err("collect.services names a unit without a name".into());
    }
    let unless_empty = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
    Ok(CollectConfig {
        panics: unless_empty(section.path("panics", "/sys/fs/pstore")?),
        watchdog: unless_empty(section.path("watchdog", "/sys/class/watchdog/watchdog0/bootstatus")?),
        boot_id: section.path("boot_id", "/proc/sys/kernel/random/boot_id")?,
        services,
        systemctl: section.path("systemctl", "/usr/bin/systemctl")?,
        battery: unless_empty(section.path("battery", "/sys/class/power_supply")?),
    })
}

/// Reads `[watchdog]`.
pub(super) fn watchdog(section: Section) -> Result<WatchdogConfig, String> {
    let mut section = section.with_keys("watchdog", &WATCHDOG_KEYS)?;
    let device = section.path("device", "/dev/watchdog")?;
    let timeout = section.duration("timeout", TIMEOUT)?;
    if timeout < TIMEOUT_MIN {
        return Err(format!("watchdog.timeout is {timeout:?}; below {TIMEOUT_MIN:?} a busy device is reset"));
    }
    let during = match section.text("during")?.as_deref() {
        None | Some("trial") => During::Trial,
        Some("always") => During::Always,
        Some(other) => return Err(format!("watchdog.during is {other:?}; write trial or always")),
    };
    Ok(WatchdogConfig { device, timeout, during })
}
