//! Stands in for TLS in an agent that is built without it: there is no value of it.

use super::LinkError;
use crate::config::TlsFiles;

/// Nothing: the configuration refuses every broker that would want it.
#[derive(Debug, Clone)]
pub enum Tls {}

/// Nobody is vouched for.
#[cfg(feature = "http-source")]
pub(crate) fn authorities(_: &std::path::Path, _: u64) -> Result<Option<Tls>, LinkError> {
    Ok(None)
}

#[cfg(feature = "http-source")]
pub(crate) async fn encrypted(
    tls: &Tls,
    _: &str,
    _: tokio::net::TcpStream,
) -> Result<Box<dyn crate::web::Stream>, String> {
    match *tls {}
}

/// Returns nothing, whatever files there are.
pub(super) fn wanted(_: Option<&TlsFiles>, _: u64) -> Result<Option<Tls>, LinkError> {
    Ok(None)
}
