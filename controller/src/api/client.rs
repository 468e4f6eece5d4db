//! The API from the command line's side.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use p256::elliptic_curve::zeroize::Zeroizing;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::tls::{RootCerts, TlsConfig};

use super::types::{ErrorBody, StoredImage};
use crate::core::access::Secret;

/// An answer of the service.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
/// A service on loopback either answers soon or hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// An image of 4 GiB has to be hashed and written after it was sent.
const UPLOAD: Duration = Duration::from_secs(3600);

/// Talks to one service.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    /// `Bearer` and the token; never printed.
    authorization: Option<Zeroizing<String>>,
    /// Why there is no token, though one was wanted: what is wrong, and what to do.
    trouble: Option<(String, String)>,
}

/// Says why the service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("could not reach the service at {base}")]
    Unreachable {
        /// Where.
        base: String,
        /// Why.
        #[source]
        source: ureq::Error,
    },
    /// The service said no.
    #[error("{}", .0.error)]
    Refused(ErrorBody, u16),
    /// The answer is not one of this version.
    #[error("the service at {base} answered what this version does not understand")]
    Answer {
        /// Where.
        base: String,
        /// Why.
        #[source]
        source: ureq::Error,
    },
    /// The token to show cannot be had, or may not go there.
    #[error("{what}")]
    Token {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file could not be sent.
    #[error("could not read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ClientError {
    /// Returns what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreachable { source, .. } if is_of_tls(source) => {
                "if its certificate is of an authority of your own, name that authority with --ca or TERN_CA"
                    .to_owned()
            }
            Self::Unreachable { .. } => {
                "start it with `tern serve`, or name another one with --api or TERN_API".to_owned()
            }
            Self::Token { hint, .. } => hint.clone(),
            Self::Refused(body, _) => body.hint.clone(),
            Self::Answer { .. } => "use the same version of `tern` for both".to_owned(),
            Self::File { .. } => "check the path".to_owned(),
        }
    }
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    /// Talks to the service at `base`, such as `http://127.0.0.1:7880`.
    pub fn new(base: &str) -> Self {
        Self::believing(base, RootCerts::Specific(Arc::default()))
    }

    /// Talks to the service at `base`; if that is `https://`, to whom one of these authorities vouches for.
    pub fn believing(base: &str, authorities: RootCerts) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(authorities)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = ureq::Agent::config_builder()
            // An error's body says what to do next.
            .http_status_as_error(false)
            // A proxy of the environment is no way to loopback.
            .proxy(None)
            .tls_config(tls.build())
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(PATIENCE))
            // The token is for this service and not for where it would point.
            .max_redirects(0)
            .user_agent(concat!("tern/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.new_agent(),
            base: base.trim_end_matches('/').to_owned(),
            authorization: None,
            trouble: None,
        }
    }

    /// Shows this token with every request from now on.
    pub fn with_token(mut self, token: &Secret) -> Self {
        self.authorization = Some(Zeroizing::new(format!("Bearer {}", token.reveal().as_str())));
        self
    }

    /// Fails every request from now on, before it is sent, for this reason.
    pub fn with_trouble(mut self, what: impl Into<String>, hint: impl Into<String>) -> Self {
        self.trouble = Some((what.into(), hint.into()));
        self
    }

    /// Returns why there is no token, though one was wanted.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.as_ref().map(|(what, _)| what.clone())
    }

    /// Tells whether there is a token to show.
    pub fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// Returns where the service is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads a path.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.read(self.authorized(self.agent.get(self.url(path)))?.call())
    }

    /// Sends a value to a path.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.read(self.authorized(self.agent.post(self.url(path)))?.send_json(body))
    }

    /// Sends an image; `progress` hears how many bytes more are on their way.
    pub fn put_image(&self, path: &Path, progress: impl Fn(u64) + 'static) -> Answer<StoredImage> {
        let failed = |source| ClientError::File { path: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let body = ureq::SendBody::from_owned_reader(Counted { file, progress });
        let request = self
            .authorized(self.agent.put(self.url("/v1/images")))?
            .config()
            .timeout_global(Some(UPLOAD))
            .build()
            .header("content-length", length.to_string())
            // A refusal that needs no look at the bytes comes before they are sent, and is read.
            .header("expect", "100-continue")
            .content_type("application/octet-stream");
        self.read(request.send(body))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> Answer<ureq::RequestBuilder<B>> {
        if let Some((what, hint)) = &self.trouble {
            return Err(ClientError::Token { what: what.clone(), hint: hint.clone() });
        }
        Ok(match &self.authorization {
            Some(bearer) => request.header("authorization", bearer.as_str()),
            None => request,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn read<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Answer<T> {
        let base = || self.base.clone();
        let mut response = response.map_err(|source| ClientError::Unreachable { base: base(), source })?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_MAX);
        if status.is_success() {
            return body.read_json().map_err(|source| ClientError::Answer { base: base(), source });
        }
        match body.read_json::<ErrorBody>() {
            Ok(body) => Err(ClientError::Refused(body, status.as_u16())),
            Err(source) => Err(ClientError::Answer { base: base(), source }),
        }
    }
}

/// Tells whether it was TLS that did not come about: it reaches us inside an error of the connection.
fn is_of_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

/// A file that tells how much of it was read.
struct Counted<F> {
    file: File,
    progress: F,
}

impl<F: Fn(u64)> Read for Counted<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}
