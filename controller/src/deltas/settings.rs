//! The section `[deltas]` of the configuration.

use std::time::Duration;

use serde::Deserialize;
use tern_protocol::delta::Profile;

/// How deltas are made; every key has a default. `deploy/tern.toml` says why.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Deltas are made at all.
    pub enabled: bool,
    /// From how many of the images that devices run, for each new one: the most frequent first.
    pub from: usize,
    /// The whole image is coded too, for devices that run something else.
    pub whole: bool,
    /// For what kinds of devices.
    pub profiles: Vec<ProfileName>,
    /// Threads of the encoder.
    pub threads: usize,
    /// Memory of the encoder; what would take more is refused.
    pub memory_mib: u64,
    /// Minutes that one delta may take.
    pub minutes: u64,
}

/// A profile by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProfileName(Profile);

impl TryFrom<String> for ProfileName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = || Profile::ALL.map(Profile::name).join(", ");
        let found = Profile::named(&name).map(Self);
        found.ok_or_else(|| format!("there is no delta profile {name:?}; give some of {}", names()))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            from: 4,
            whole: true,
            profiles: vec![ProfileName(Profile::Linux)],
            threads: 1,
            memory_mib: 2560,
            minutes: 120,
        }
    }
}

impl Settings {
    /// Checks what no type does; says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.from > 32 {
            return Err("deltas.from must be at most 32".to_owned());
        }
        if !(1..=256).contains(&self.threads) {
            return Err("deltas.threads must be 1 to 256".to_owned());
        }
        if !(1..=1 << 20).contains(&self.memory_mib) {
            return Err("deltas.memory_mib must be 1 to 1048576 MiB".to_owned());
        }
        if !(1..=10_080).contains(&self.minutes) {
            return Err("deltas.minutes must be 1 to 10080".to_owned());
        }
        Ok(())
    }

    pub(super) fn profiles(&self) -> Vec<Profile> {
        self.profiles.iter().map(|name| name.0).collect()
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory_mib << 20
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.minutes * 60)
    }
}
