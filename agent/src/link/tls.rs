//! TLS for the link: rustls on ring, the fleet's own authorities, and a client certificate if there is one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::LinkError;
use crate::config::TlsFiles;

/// A client's side of TLS.
pub type Tls = Arc<ClientConfig>;

/// Returns what the configuration asks for.
pub(super) fn wanted(files: Option<&TlsFiles>, time_floor: u64) -> Result<Option<Tls>, LinkError> {
    files.map(|files| load(files, time_floor, crate::clock::wall)).transpose()
}

/// Reads `files` and builds a client's side of TLS 1.2 and 1.3 from them. `wall` is the device's clock and `time_floor`
/// the latest time that it was shown, both in Unix seconds.
pub(super) fn load(files: &TlsFiles, time_floor: u64, wall: fn() -> u64) -> Result<Tls, LinkError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots.add(authority).map_err(LinkError::Tls)?;
    }
    // Named here rather than installed for the process: a library must not decide for its program.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time { floor: time_floor, wall }))
        .with_safe_default_protocol_versions()
        .map_err(LinkError::Tls)?
        .with_root_certificates(roots);
    let config = match (&files.cert, &files.key) {
        (Some(chain), Some(key)) => {
            builder.with_client_auth_cert(certificates(chain)?, private_key(key)?).map_err(LinkError::Tls)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Returns what these authorities vouch for, for who shows no certificate of its own.
#[cfg(feature = "http-source")]
pub(crate) fn authorities(ca: &Path, time_floor: u64) -> Result<Option<Tls>, LinkError> {
    wanted(Some(&TlsFiles { ca: ca.to_owned(), cert: None, key: None }), time_floor)
}

/// Encrypts a connection to `host`.
#[cfg(feature = "http-source")]
pub(crate) async fn encrypted(
    tls: &Tls,
    host: &str,
    stream: tokio::net::TcpStream,
) -> Result<Box<dyn crate::web::Stream>, String> {
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let encrypted = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    Ok(Box::new(encrypted.map_err(|error| crate::device::chain(&error))?))
}

/// Judges validity of certificates. A device without a battery wakes up in 1970, where no broker's certificate is
/// valid yet, and only the broker could tell it the time; so what it once knew counts.
#[derive(Debug)]
struct Time {
    floor: u64,
    wall: fn() -> u64,
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        // The later of the two: a broker's certificate protects the way, and what a device installs does not rest on it.
        let now = (self.wall)().max(self.floor);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let what = "certificate";
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refusal(path, what, error))?;
    if found.is_empty() {
        return Err(LinkError::Pem { path: path.to_owned(), what, source: None });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LinkError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| refusal(path, "private key", error))
}

fn refusal(path: &Path, what: &'static str, error: Error) -> LinkError {
    let path = path.to_owned();
    match error {
        Error::Io(source) => LinkError::Read { path, source },
        other => LinkError::Pem { path, what, source: Some(other) },
    }
}
