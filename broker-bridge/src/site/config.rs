//! What a bridge must be told to be a site's edge: `[upstream]`.

use std::path::PathBuf;

use serde::Deserialize;
use tern_protocol::id::SiteId;

use crate::config::TlsFiles;

/// Where a site finds the fleet's broker, who it is there, and what it may keep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Its id: user name, client id, and where it asks. No device may have the same.
    pub site: SiteId,
    /// Brokers as `host:port`, tried in order.
    pub brokers: Vec<String>,
    /// File whose first line is the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Certificate of the site: CN is its id, OU `site`.
    #[serde(default)]
    pub certificate: Option<TlsFiles>,
    /// Authorities of the brokers' certificates, PEM; without, the connection is plain.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Folder of cache, queue and mirror.
    pub dir: PathBuf,
    /// Bytes that the cache may take.
    #[serde(default = "cache_bytes")]
    pub cache_bytes: u64,
    /// Bytes of reports that may wait for the uplink; the oldest go first.
    #[serde(default = "queue_bytes")]
    pub queue_bytes: u64,
    /// Packs that are on their way from upstream at once.
    #[serde(default = "window")]
    pub window: u16,
}

fn cache_bytes() -> u64 {
    4 << 30
}

fn queue_bytes() -> u64 {
    64 << 20
}

fn window() -> u16 {
    64
}

/// Says what is wrong with `[upstream]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No broker.
    #[error("upstream.brokers is empty: name at least one as host:port")]
    NoBroker,
    /// An address that is none.
    #[error("upstream.brokers: {0:?} is not host:port")]
    Address(String),
    /// Nothing by which the site proves itself.
    #[error(
        "upstream has neither password_file nor certificate: make one with `tern-bridge passwd set site`"
    )]
    NoProof,
    /// A certificate needs TLS.
    #[error("upstream.certificate needs upstream.ca: a certificate is shown over TLS alone")]
    NoAuthorities,
    /// Too little room.
    #[error("upstream.{0} is too small: at least {1}")]
    TooSmall(&'static str, u64),
}

impl UpstreamConfig {
    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), UpstreamError> {
        if self.brokers.is_empty() {
            return Err(UpstreamError::NoBroker);
        }
        for broker in &self.brokers {
            address(broker).ok_or_else(|| UpstreamError::Address(broker.clone()))?;
        }
        match (&self.password_file, &self.certificate, &self.ca) {
            (None, None, _) => return Err(UpstreamError::NoProof),
            (_, Some(_), None) => return Err(UpstreamError::NoAuthorities),
            _ => {}
        }
        for (name, value, least) in [
            ("cache_bytes", self.cache_bytes, 1 << 20),
            ("queue_bytes", self.queue_bytes, 64 << 10),
            ("window", self.window.into(), 1),
        ] {
            if value < least {
                return Err(UpstreamError::TooSmall(name, least));
            }
        }
        Ok(())
    }
}

/// Reads `host:port`.
pub(crate) fn address(broker: &str) -> Option<(&str, u16)> {
    let (host, port) = broker.rsplit_once(':')?;
    // A scheme would be looked up as a part of the name, again and again.
    if host.is_empty() || host.contains('/') {
        return None;
    }
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}
