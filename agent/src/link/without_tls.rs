//! Stands in for TLS in an agent that is built without it: there is no value of it.

use super::LinkError;
use crate::config::TlsFiles;

/// Nothing: the configuration refuses every broker that would want it.
#[derive(Debug, Clone)]
pub enum Tls {}

/// Returns nothing, whatever files there are.
pub(super) fn wanted(_: Option<&TlsFiles>, _: u64) -> Result<Option<Tls>, LinkError> {
    Ok(None)
}
