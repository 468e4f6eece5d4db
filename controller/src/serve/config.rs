//! How the service is to run, read once into a checked type.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use tern_bridge::{Auth, FrontLimits, ListenerConfig};

use crate::api::access::FirstToken;
use crate::cli::serve::ServeArgs;
use crate::core::service::Lives;
use crate::deltas::Settings;
use crate::retention::DAYS_MAX;

/// How the service is to run; every key has a default. `deploy/tern.toml` shows them all.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Data folder.
    pub data: PathBuf,
    /// Address of the API.
    pub listen_api: SocketAddr,
    /// How the first admin token comes to its holder.
    pub first_token: FirstToken,
    /// The API may listen on other than loopback addresses, where its tokens travel in the clear.
    pub insecure_api_without_tls: bool,
    /// Listeners of the embedded broker.
    pub listeners: Vec<ListenerConfig>,
    /// Ceilings of the embedded broker's front.
    pub limits: FrontLimits,
    /// An external broker instead of the embedded one.
    pub broker: Option<ExternalBroker>,
    /// Seconds between heartbeats, 1 to 86400.
    pub heartbeat: u64,
    /// Days for which frames of the ledger are kept; none: for ever.
    pub ledger_days: Option<u64>,
    /// How deltas are made.
    pub deltas: Settings,
}

/// An external broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalBroker {
    /// `mqtt://host:port`.
    pub url: String,
    /// User name of the service there.
    #[serde(default = "service_user")]
    pub user: String,
    /// File with its password.
    pub password_file: Option<PathBuf>,
}

pub(super) fn service_user() -> String {
    "service".to_owned()
}

impl Default for ServeConfig {
    fn default() -> Self {
        let mqtt = SocketAddr::from(([127, 0, 0, 1], 1883));
        Self {
            data: PathBuf::from("tern-data"),
            listen_api: SocketAddr::from(([127, 0, 0, 1], 7880)),
            first_token: FirstToken::default(),
            insecure_api_without_tls: false,
            listeners: vec![ListenerConfig { listen: mqtt, auth: Auth::Open {} }],
            limits: FrontLimits::default(),
            broker: None,
            heartbeat: Lives::default().heartbeat,
            ledger_days: None,
            deltas: Settings::default(),
        }
    }
}

impl ServeConfig {
    /// Makes a configuration of a file, if one is named, and of what the command line says beside it.
    pub(super) fn from_args(args: ServeArgs) -> anyhow::Result<Self> {
        let mut config = match &args.config {
            Some(path) => Self::load(path)?,
            None => Self::default(),
        };
        if let Some(data) = args.data {
            config.data = data;
        }
        if let Some(listen) = args.listen_api {
            config.listen_api = listen;
        }
        config.insecure_api_without_tls |= args.insecure_api_without_tls;
        if let Some(listen) = args.listen_mqtt {
            config.listeners = vec![ListenerConfig { listen, auth: Auth::Open {} }];
        }
        if let Some(url) = args.broker {
            let user = args.broker_user.unwrap_or_else(service_user);
            config.broker = Some(ExternalBroker { url, user, password_file: args.broker_password_file });
        }
        Ok(config)
    }

    /// Reads a configuration file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read configuration {}", path.display()))?;
        let config: Self = toml::from_str(&text)
            .with_context(|| format!("configuration {} is not valid", path.display()))?;
        anyhow::ensure!((1..=86_400).contains(&config.heartbeat), "heartbeat must be 1 to 86400 seconds");
        anyhow::ensure!(
            config.ledger_days.is_none_or(|days| (1..=DAYS_MAX).contains(&days)),
            "ledger_days must be 1 to {DAYS_MAX} days; leave it out to keep everything"
        );
        config.deltas.check().map_err(anyhow::Error::msg)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_configuration_loads_and_shows_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tern.toml");

        let sample = ServeConfig::load(&path).unwrap();

        let defaults = ServeConfig::default();
        assert_eq!(sample.listen_api, defaults.listen_api);
        assert_eq!(sample.heartbeat, defaults.heartbeat);
        assert_eq!(sample.ledger_days, defaults.ledger_days);
        assert_eq!(sample.first_token, defaults.first_token);
        assert_eq!(sample.insecure_api_without_tls, defaults.insecure_api_without_tls);
        assert_eq!(sample.limits, defaults.limits);
        assert_eq!(sample.deltas, defaults.deltas);
        assert_eq!(sample.listeners[0].listen, defaults.listeners[0].listen);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<ServeConfig>("heartbeet = 5").unwrap_err();
        assert!(error.to_string().contains("heartbeet"), "{error}");
    }
}
