//! TLS of a listener: its certificate, and the client certificates that it believes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::ring::default_provider;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::TlsFiles;
use crate::policy::Client;

/// Says why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not PEM.
    #[error("could not read {path} as PEM")]
    File {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: PemError,
    },
    /// A file holds nothing of what it should.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Certificate and key do not fit, or the certificate is broken.
    #[error("certificate {certificate} and its key cannot be used")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("the authorities in {path} cannot be used")]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The TLS of one listener; made again when one of its files has changed, so that renewing a certificate
/// disconnects nobody.
#[derive(Debug)]
pub(crate) struct ListenerTls {
    files: TlsFiles,
    client_ca: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    changed: Vec<Option<SystemTime>>,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl ListenerTls {
    /// Reads the files; with `client_ca`, clients may show a certificate of these authorities.
    pub(crate) fn open(files: &TlsFiles, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let changed = changed(files, client_ca);
        let acceptor = acceptor(files, client_ca)?;
        let state = Mutex::new(State { changed, acceptor });
        Ok(Self { files: files.clone(), client_ca: client_ca.map(Path::to_owned), state })
    }

    /// Returns the acceptor that the files describe now, or the last that they described well.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = changed(&self.files, self.client_ca.as_deref());
        if now != state.changed {
            match acceptor(&self.files, self.client_ca.as_deref()) {
                Ok(acceptor) => *state = State { changed: now, acceptor },
                // Key and certificate change one after the other: in between they do not fit.
                Err(error) => {
                    tracing::warn!(%error, "changed certificates cannot be used; the old ones stay")
                }
            }
        }
        state.acceptor.clone()
    }
}

fn changed(files: &TlsFiles, client_ca: Option<&Path>) -> Vec<Option<SystemTime>> {
    [files.certificate.as_path(), files.key.as_path()]
        .into_iter()
        .chain(client_ca)
        .map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
        .collect()
}

/// Builds the acceptor of a listener; with `client_ca`, clients may show a certificate of these authorities.
///
/// One without a certificate may still be the service, which proves itself by password.
fn acceptor(files: &TlsFiles, client_ca: Option<&Path>) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::File { path: files.key.clone(), source })?;
    let provider = Arc::new(default_provider());
    let unusable = |source| TlsError::Unusable { certificate: files.certificate.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let broken = |source| TlsError::Authorities { path: path.to_owned(), source };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| broken(Box::new(e)))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| broken(Box::new(e)))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Builds what a client needs to trust a server of the authorities in `ca`, and to show a certificate of its own.
pub(crate) fn client_tls(ca: &Path, own: Option<&TlsFiles>) -> Result<Arc<ClientConfig>, TlsError> {
    let broken = |source| TlsError::Authorities { path: ca.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|e| broken(Box::new(e)))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| broken(Box::new(e)))?
        .with_root_certificates(roots);
    let Some(own) = own else { return Ok(Arc::new(config.with_no_client_auth())) };
    let key = PrivateKeyDer::from_pem_file(&own.key)
        .map_err(|source| TlsError::File { path: own.key.clone(), source })?;
    let config = config
        .with_client_auth_cert(certificates(&own.certificate)?, key)
        .map_err(|source| TlsError::Unusable { certificate: own.certificate.clone(), source })?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let broken = |source| TlsError::File { path: path.to_owned(), source };
    let list: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(broken)?.collect::<Result<_, _>>().map_err(broken)?;
    if list.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(list) }
}

/// Returns the client that a verified certificate names: CN is the id, OU `site` makes it a site.
pub(crate) fn client_of(certificate: &[u8]) -> Option<Client> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let mut names = subject.iter_common_name();
    let name = names.next()?.as_str().ok()?;
    // Two names: whoever signed this did not mean one client.
    if names.next().is_some() {
        return None;
    }
    let is_site = subject.iter_organizational_unit().any(|unit| unit.as_str() == Ok("site"));
    if is_site { name.parse().map(Client::Site).ok() } else { name.parse().map(Client::Device).ok() }
}

/// Completes a TLS handshake and tells which client its certificate names, if it showed one.
pub(crate) async fn accept<S>(
    acceptor: &TlsAcceptor,
    stream: S,
) -> io::Result<(tokio_rustls::server::TlsStream<S>, Option<Client>)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let stream = acceptor.accept(stream).await?;
    let client = stream.get_ref().1.peer_certificates().and_then(|chain| client_of(chain.first()?));
    Ok((stream, client))
}
