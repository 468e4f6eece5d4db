//! Configuration, read once into a checked type. `deploy/bridge.toml` shows every key.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use tern_protocol::id::FleetId;

use crate::site::{UpstreamConfig, UpstreamError};

/// Everything that a bridge needs to know before it starts.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// The fleet; topics of any other are refused.
    pub fleet: FleetId,
    /// Where clients connect.
    pub listeners: Vec<ListenerConfig>,
    /// Password of user `service`, on every listener. At a site's edge it may be left out: nobody is the service there.
    #[serde(default)]
    pub service_password: String,
    /// Folder of the chunk store.
    pub chunk_dir: PathBuf,
    /// Ceilings.
    #[serde(default)]
    pub limits: FrontLimits,
    /// The fleet's broker, if this is a site's edge.
    #[serde(default)]
    pub upstream: Option<UpstreamConfig>,
}

/// One listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How clients prove who they are.
    pub auth: Auth,
}

/// How clients prove who they are. User `service` uses its password in every mode.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Auth {
    /// Not at all: any client id is believed. Only on a loopback address.
    Open {},
    /// By user and password; the user is the device or site id. Without TLS only on a loopback address.
    Password {
        /// File of users, kept by `tern-bridge passwd`.
        file: PathBuf,
        /// The server's own certificate.
        #[serde(default)]
        tls: Option<TlsFiles>,
    },
    /// By TLS client certificate: CN is the id, OU `site` makes it a site.
    Certificate {
        /// The server's own certificate.
        tls: TlsFiles,
        /// Authorities whose client certificates are believed, PEM.
        client_ca: PathBuf,
    },
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, PEM, own certificate first.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// Ceilings of the front. Sizes of messages are the protocol's own and cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FrontLimits {
    /// Devices and sites connected at once. The embedded broker is made for about a thousand.
    pub connections: u32,
    /// Connections that have not yet said who they are.
    pub handshakes: u32,
    /// Seconds for TLS and CONNECT together.
    pub handshake_seconds: u16,
    /// Longest keepalive in seconds; a client that asks for more, or for none, is held to it.
    pub keep_alive_seconds: u16,
    /// Seconds without progress after which a write to a client is given up.
    pub write_stall_seconds: u16,
    /// Bytes that may wait for one device, a sixteenth of what may for a site; over it the connection is closed.
    pub queue_bytes: u32,
    /// Bytes that may wait for a service.
    pub service_queue_bytes: u32,
    /// Packets a second from one device, steady; ten times that in a burst.
    pub packets_each_second: u32,
    /// Bytes a second from one device, steady; four times that in a burst. A site has a hundred times both.
    pub bytes_each_second: u32,
    /// Distinct `p/…` filters that one device may bring in while the bridge runs: the broker never frees one.
    pub filters_each_device: u16,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            connections: 2000,
            handshakes: 512,
            handshake_seconds: 10,
            keep_alive_seconds: 1200,
            write_stall_seconds: 60,
            queue_bytes: 1024 * 1024,
            service_queue_bytes: 64 * 1024 * 1024,
            packets_each_second: 50,
            bytes_each_second: 128 * 1024,
            filters_each_device: 64,
        }
    }
}

/// Says what is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML of this shape.
    #[error("the configuration is malformed")]
    Malformed(#[from] toml::de::Error),
    /// No listener.
    #[error("the configuration names no listener: add a [[listeners]] block")]
    NoListener,
    /// `open` where others can reach it.
    #[error(
        "listener {0} has auth mode \"open\", which is for loopback addresses only: use 127.0.0.1, or mode \"password\" or \"certificate\""
    )]
    OpenToOthers(SocketAddr),
    /// Passwords in clear where others can read them.
    #[error(
        "listener {0} would take passwords without TLS: add auth.tls, or listen on 127.0.0.1 behind a TLS proxy"
    )]
    PlainPasswords(SocketAddr),
    /// No password for the service.
    #[error("service_password is shorter than 12 characters: whoever has it speaks for the controller")]
    ServicePassword,
    /// The upstream of a site.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A ceiling of zero, or one that the protocol does not fit through.
    #[error("limits.{0} is too small")]
    Limit(&'static str),
}

impl BridgeConfig {
    /// Reads and checks TOML text.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.listeners.is_empty() {
            return Err(ConfigError::NoListener);
        }
        for listener in &self.listeners {
            let loopback = listener.listen.ip().is_loopback();
            match &listener.auth {
                Auth::Open {} if !loopback => return Err(ConfigError::OpenToOthers(listener.listen)),
                Auth::Password { tls: None, .. } if !loopback => {
                    return Err(ConfigError::PlainPasswords(listener.listen));
                }
                _ => {}
            }
        }
        if let Some(upstream) = &self.upstream {
            upstream.check()?;
        }
        let nobody = self.upstream.is_some() && self.service_password.is_empty();
        if self.service_password.len() < 12 && !nobody {
            return Err(ConfigError::ServicePassword);
        }
        let packet = u32::try_from(tern_protocol::limits::MQTT_PACKET_MAX).unwrap_or(u32::MAX);
        let limits = &self.limits;
        for (name, value, least) in [
            ("connections", limits.connections, 1),
            ("handshakes", limits.handshakes, 1),
            ("handshake_seconds", limits.handshake_seconds.into(), 1),
            ("keep_alive_seconds", limits.keep_alive_seconds.into(), 1),
            ("write_stall_seconds", limits.write_stall_seconds.into(), 1),
            ("queue_bytes", limits.queue_bytes, 2 * packet),
            ("service_queue_bytes", limits.service_queue_bytes, 2 * packet),
            ("packets_each_second", limits.packets_each_second, 1),
            ("bytes_each_second", limits.bytes_each_second, 1024),
            ("filters_each_device", limits.filters_each_device.into(), 4),
        ] {
            if value < least {
                return Err(ConfigError::Limit(name));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for BridgeConfig {
    /// Shows everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeConfig")
            .field("fleet", &self.fleet)
            .field("listeners", &self.listeners)
            .field("chunk_dir", &self.chunk_dir)
            .field("limits", &self.limits)
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "fleet = \"acme\"\nservice_password = \"a-long-password\"\nchunk_dir = \"/tmp/c\"\n";

    fn with(rest: &str) -> Result<BridgeConfig, ConfigError> {
        BridgeConfig::from_toml(&format!("{BASE}{rest}"))
    }

    #[test]
    fn an_open_listener_is_refused_where_others_can_reach_it() {
        let open = |listen| with(&format!("[[listeners]]\nlisten = \"{listen}\"\nauth.mode = \"open\""));

        assert!(open("127.0.0.1:1883").is_ok());
        assert!(open("[::1]:1883").is_ok());
        assert!(matches!(open("0.0.0.0:1883"), Err(ConfigError::OpenToOthers(_))));
        assert!(matches!(open("192.0.2.1:1883"), Err(ConfigError::OpenToOthers(_))));
    }

    #[test]
    fn passwords_in_clear_are_refused_where_others_can_read_them() {
        let auth = "auth = { mode = \"password\", file = \"users\" }";
        let plain = |listen| with(&format!("[[listeners]]\nlisten = \"{listen}\"\n{auth}"));

        assert!(plain("127.0.0.1:1883").is_ok());
        assert!(matches!(plain("0.0.0.0:1883"), Err(ConfigError::PlainPasswords(_))));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in [
            "[[listeners]]\nlisten = \"127.0.0.1:1\"\nauth.mode = \"open\"\ncolour = 1",
            "[[listeners]]\nlisten = \"127.0.0.1:1\"\nauth.mode = \"open\"\nauth.colour = 1",
            "[limits]\ncolour = 1",
        ] {
            let error = with(text).unwrap_err();
            let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(text.contains("colour"), "{text}");
        }
    }

    #[test]
    fn a_bridge_without_a_listener_or_with_a_weak_service_password_is_refused() {
        assert!(matches!(with("listeners = []"), Err(ConfigError::NoListener)));
        let weak = BASE.replace("a-long-password", "short");
        let text = format!("{weak}[[listeners]]\nlisten = \"127.0.0.1:1\"\nauth.mode = \"open\"");
        assert!(matches!(BridgeConfig::from_toml(&text), Err(ConfigError::ServicePassword)));
    }
}
