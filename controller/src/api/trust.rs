//! Which authorities the command line believes when a service, or the proxy before it, speaks TLS.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// Authorities in one file.
const FILE_MAX: u64 = 1024 * 1024;

/// Says why there are no authorities.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("could not read the authorities in {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds none.
    #[error("{} holds no certificate in PEM (BEGIN CERTIFICATE)", .0.display())]
    None(PathBuf),
    /// This machine has none.
    #[error("this machine has no store of authorities")]
    NoStore,
}

impl TrustError {
    /// Returns what to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::None(_) => "name a file of certificates in PEM with --ca or TERN_CA",
            Self::NoStore => "install the package ca-certificates, or name a file with --ca or TERN_CA",
        }
    }
}

/// Returns the authorities in this file, or else those of this machine.
pub fn authorities(file: Option<&Path>) -> Result<RootCerts, TrustError> {
    let Some(path) = file else {
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            return Err(TrustError::NoStore);
        }
        return Ok(found.iter().map(|one| Certificate::from_der(one).to_owned()).collect::<Vec<_>>().into());
    };
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let mut pem = Vec::new();
    fs::File::open(path).map_err(failed)?.take(FILE_MAX).read_to_end(&mut pem).map_err(failed)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(TrustError::None(path.to_owned())) } else { Ok(found.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_none() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("ca.pem");
        assert!(matches!(authorities(Some(&path)), Err(TrustError::Read { .. })));
        for text in ["", "-----BEGIN CERTIFICATE-----\n", "no PEM at all"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(authorities(Some(&path)), Err(TrustError::None(_))), "{text:?}");
        }
    }
}
