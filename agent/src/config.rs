//! The agent's configuration: one TOML file, read once into checked types. Unknown keys are refused by name.
//!
//! Every key stands with its default and its reason in `deploy/agent.toml`; a test keeps both in step.

mod areas;
mod boot;
mod component;
mod file;
mod guard;
mod probe;
mod section;
mod timing;
mod transfer;
mod when;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tern_protocol::claim::{ClaimError, Token};
use tern_protocol::id::{CarrierId, DeviceId, FleetId, ModelId, ProductId, RegionId};

use crate::boot::script::ScriptConfig;
use crate::boot::systemd_boot::SystemdBootConfig;
use crate::boot::uboot::UbootConfig;
use crate::collect::CollectConfig;
use crate::command::Program;
use crate::component::ComponentConfig;
use crate::core::agent::Transfer;
use crate::health::Probe;
use crate::hooks::Hook;
use crate::watchdog::WatchdogConfig;
use section::Section;
pub use timing::Timing;
pub use transfer::{WebConfig, WebPrefix};
pub use when::When;

/// Everything that the agent is told about its device and its fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The fleet.
    pub fleet: FleetId,
    /// This device.
    pub device: DeviceId,
    /// Its product.
    pub product: ProductId,
    /// Its hardware model.
    pub model: ModelId,
    /// Its carrier; `none` without one.
    pub carrier: CarrierId,
    /// Its region.
    pub region: RegionId,
    /// The component that the slots hold.
    pub component: String,
    /// Brokers, tried in order; at least one.
    pub brokers: Vec<BrokerAddress>,
    /// User name for brokers that want one.
    pub user: Option<String>,
    /// File with the password that goes with it.
    pub password_file: Option<PathBuf>,
    /// File with the claim token, for devices that no factory list names.
    pub claim_file: Option<PathBuf>,
    /// Keys and certificates for `mqtts://` brokers.
    pub tls: Option<TlsFiles>,
    /// Folder of all that must survive a power cut.
    pub data_dir: PathBuf,
    /// Folder of what must not survive one.
    pub runtime_dir: PathBuf,
    /// The root metadata file that the device trusts from its factory.
    pub root: PathBuf,
    /// Where releases are kept.
    pub slots: SlotsConfig,
    /// What it has beside them.
    pub components: Vec<ComponentConfig>,
    /// What boots the device.
    pub boot: BootConfig,
    /// Health probes, in order.
    pub probes: Vec<Probe>,
    /// Counts what went wrong since it was last asked.
    pub metrics: Option<Program>,
    /// What the agent counts by itself; nothing without it.
    pub collect: Option<CollectConfig>,
    /// The hardware watchdog, if the agent is to feed it.
    pub watchdog: Option<WatchdogConfig>,
    /// Hooks, in order.
    pub hooks: Vec<Hook>,
    /// When it may download and install.
    pub when: When,
    /// Folders of user data: no slot is inside one, and none inside a slot.
    pub data: Vec<PathBuf>,
    /// Every wait, already scaled.
    pub timing: Timing,
    /// How bytes are fetched.
    pub transfer: Transfer,
    /// Web servers that have the packs too.
    pub web: WebConfig,
}

/// A broker's address: `mqtt://host:port`, or `mqtts://host:port` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port; 1883, or 8883 with TLS, when the address names none.
    pub port: u16,
}

/// Files for TLS, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that brokers are checked against.
    pub ca: PathBuf,
    /// The device's certificate chain, for brokers that want one.
    pub cert: Option<PathBuf>,
    /// The key that goes with it.
    pub key: Option<PathBuf>,
}

/// Where releases are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotsConfig {
    /// Folder of the slots, or of their labels alone.
    pub dir: PathBuf,
    /// Bytes that one slot can hold.
    pub capacity: u64,
    /// Block devices or files of fixed size, where slots are not files of the folder.
    pub paths: Option<[PathBuf; 2]>,
    /// The single slot of a device that has one, which recovery fills from the packages in the folder.
    pub system: Option<PathBuf>,
}

/// What boots the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootConfig {
    /// The agent itself, over files.
    File,
    /// U-Boot.
    Uboot(UbootConfig),
    /// systemd-boot.
    SystemdBoot(SystemdBootConfig),
    /// A program of the integrator's stands for a boot loader.
    Script(ScriptConfig),
}

/// Says what is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("could not read configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be; the source names line, key and reason.
    #[error("configuration {} is not valid", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Each key is valid, but together they make no sense.
    #[error("configuration {}: {problem}", path.display())]
    Senseless {
        /// The file.
        path: PathBuf,
        /// What does not fit, and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::read(path, |section| {
            let config = file::file(section)?;
            file::check_links(&config)?;
            areas::check(&config)?;
            areas::check_components(&config)?;
            Ok(config)
        })
    }

    /// Reads only what a recovery system needs of the same file, and checks nothing else: it may be an older agent, built
    /// without TLS, on a system without a time zone database, and must not be kept from its work by that.
    pub fn load_for_recovery(path: &Path) -> Result<Self, ConfigError> {
        Self::read(path, |section| {
            let config = file::file(file::for_recovery(section))?;
            areas::check(&config).map(|()| config)
        })
    }

    fn read(path: &Path, check: fn(Section) -> Result<Self, String>) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        match toml::from_str::<Section>(&text) {
            Ok(section) => check(section).map_err(|problem| ConfigError::Senseless { path, problem }),
            Err(source) => Err(ConfigError::Parse { path, source: Box::new(source) }),
        }
    }
}

impl Config {
    /// Reads the claim's token, if one is configured. An enrolled device needs none any more: its file may be gone.
    pub fn claim(&self, enrolled: bool) -> Result<Option<Token>, ConfigError> {
        let Some(path) = &self.claim_file else { return Ok(None) };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if enrolled && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ConfigError::Read { path: path.clone(), source }),
        };
        let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o777);
        if !enrolled && mode & 0o077 != 0 {
            let problem = format!("others may read it (mode {mode:03o}): give it mode 600");
            return Err(ConfigError::Senseless { path: path.clone(), problem });
        }
        // The text itself is a secret, and stays out of the error.
        let token = text.trim().parse().map_err(|error: ClaimError| ConfigError::Senseless {
            path: path.clone(),
            problem: format!("{error}; put in it what `tern claim create` printed, and nothing else"),
        })?;
        Ok(Some(token))
    }
}

impl FromStr for BrokerAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("broker {text:?} {why}; write mqtt://host:port or mqtts://host:port");
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(wrong("has no scheme that we know")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(|| wrong("is malformed"))?)),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(wrong("has no valid port")),
            },
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong("has no valid host"));
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests;
