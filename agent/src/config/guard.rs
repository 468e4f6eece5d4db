//! The sections `[collect]` and `[watchdog]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::timing;
use crate::collect::CollectConfig;
use crate::watchdog::{During, WatchdogConfig};

/// Units that may be named: each is asked for by itself.
const SERVICES_MAX: usize = 16;
/// The least timeout: the agent feeds every third of it.
const TIMEOUT_MIN: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CollectFile {
    #[serde(default = "panics")]
    panics: PathBuf,
    #[serde(default = "watchdog")]
    watchdog: PathBuf,
    #[serde(default = "boot_id")]
    boot_id: PathBuf,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default = "systemctl")]
    systemctl: PathBuf,
    #[serde(default = "battery")]
    battery: PathBuf,
}

fn panics() -> PathBuf {
    "/sys/fs/pstore".into()
}

fn watchdog() -> PathBuf {
    "/sys/class/watchdog/watchdog0/bootstatus".into()
}

fn boot_id() -> PathBuf {
    "/proc/sys/kernel/random/boot_id".into()
}

fn systemctl() -> PathBuf {
    "/usr/bin/systemctl".into()
}

fn battery() -> PathBuf {
    "/sys/class/power_supply".into()
}

impl CollectFile {
    /// Checks what no single key can tell.
    pub(super) fn checked(self) -> Result<CollectConfig, String> {
        if self.services.len() > SERVICES_MAX {
            return Err(format!(
                "collect.services names more than {SERVICES_MAX} units; name those that matter"
            ));
        }
        if self.services.iter().any(String::is_empty) {
            return Err("collect.services names a unit without a name".into());
        }
        let unless_empty = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        Ok(CollectConfig {
            panics: unless_empty(self.panics),
            watchdog: unless_empty(self.watchdog),
            boot_id: self.boot_id,
            services: self.services,
            systemctl: self.systemctl,
            battery: unless_empty(self.battery),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchdogFile {
    #[serde(default = "device")]
    device: PathBuf,
    #[serde(default = "timeout", with = "timing::seconds")]
    timeout: Duration,
    #[serde(default = "during")]
    during: During,
}

fn device() -> PathBuf {
    "/dev/watchdog".into()
}

fn timeout() -> Duration {
    Duration::from_secs(60)
}

fn during() -> During {
    During::Trial
}

impl WatchdogFile {
    /// Checks what no single key can tell.
    pub(super) fn checked(self) -> Result<WatchdogConfig, String> {
        let Self { device, timeout, during } = self;
        if timeout < TIMEOUT_MIN {
            return Err(format!(
                "watchdog.timeout is {timeout:?}; below {TIMEOUT_MIN:?} a busy device is reset"
            ));
        }
        Ok(WatchdogConfig { device, timeout, during })
    }
}
