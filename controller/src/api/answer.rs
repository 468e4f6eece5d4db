//! Reading requests and writing errors: whatever goes wrong, the answer is an [`ErrorBody`].

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::ErrorBody;
use crate::core::service::{Refusal, RefusalKind};
use crate::engine::Stopped;

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: ErrorBody,
    /// Boxed, for few have one.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

pub(super) type Answer<T> = Result<axum::Json<T>, Failure>;

/// Wraps a value that went well.
pub(super) fn good<T: Serialize>(value: T) -> Answer<T> {
    Ok(axum::Json(value))
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), hint: hint.into() }, header: None }
    }

    /// Adds a header to the answer.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// Tells whether it refuses whoever asks, and not what is asked.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
        )
    }

    pub(super) fn internal(error: impl Display) -> Self {
        let hint = "look at the service's log; its disk may be full or failing";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), hint)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Denied => StatusCode::FORBIDDEN,
            RefusalKind::Unsigned => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.what, refusal.hint)
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string(), "try again once it is back")
    }
}

/// Reads a name out of the path.
pub(super) fn name<T: FromStr<Err: Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e: T::Err| {
        Failure::new(StatusCode::NOT_FOUND, e.to_string(), "check the name; nothing can be called that")
    })
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        parse(&read_bytes(request, state).await?).map(Self)
    }
}

/// A JSON body that may be left out.
pub(super) struct MaybeBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for MaybeBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        read_bytes(request, state)
            .await
            .and_then(|bytes| if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&bytes).map(Self) })
    }
}

async fn read_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    Bytes::from_request(request, state)
        .await
        .map_err(|e| Failure::new(e.status(), e.body_text(), "send less at once"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        let error = format!("the body is not what this path takes: {e}");
        let hint = "send JSON as docs/operating.md shows it under \"The API\"";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error, hint)
    })
}

/// The part after the question mark.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|e| {
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, e.body_text(), "correct what follows the '?'")
        })
    }
}

/// Answers a path that nobody serves.
pub(super) async fn no_such_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "no such path", "see docs/operating.md for the paths under /v1")
}

/// Answers a method that a path does not take.
pub(super) async fn no_such_method() -> Failure {
    let hint = "see docs/operating.md for the paths under /v1";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method", hint)
}

/// Keeps web pages out: an operator's browser could otherwise be talked into a kill, for loopback is no secret to
/// it. A page's request carries an `Origin`, or, after its name was made to point here, that name as `Host`.
pub(super) async fn keep_pages_out(request: Request, next: Next) -> Response {
    if from_a_page(request.headers()) {
        let hint = "use `tern`, or a client that is no browser, with an address or `localhost` as host";
        let error = "requests of web pages are not served";
        return Failure::new(StatusCode::FORBIDDEN, error, hint).into_response();
    }
    next.run(request).await
}

fn from_a_page(headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) {
        return true;
    }
    let Some(host) = headers.get(header::HOST) else { return false };
    let Ok(host) = host.to_str() else { return true };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare != "localhost" && bare.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_page_cannot_speak_for_the_operator() {
        let with = |name: header::HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, header::HeaderValue::from_static(value));
            from_a_page(&headers)
        };
        assert!(with(header::ORIGIN, "http://evil.example"));
        assert!(with(header::HOST, "rebound.example:7880"));
        for host in ["127.0.0.1:7880", "localhost:7880", "[::1]:7880", "10.0.0.7"] {
            assert!(!with(header::HOST, host), "{host}");
        }
    }
}
