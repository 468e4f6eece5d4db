//! The gate before every path: whose token is it, may its role do that, and the ledger knows of it.
//!
//! ```text
//! request ─> path and method in the table? ─> Authorization: Bearer … ─> in force? ─> role? ─> use in the ledger ─> handler
//!             no: nothing behind it runs       none or wrong: 401, 429    401          403
//! ```
//! What no line of the table names is refused, whatever the router would do with it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{Failure, no_such_method, no_such_path};
use super::routes::Shared;
use super::throttle::{REFILL, Throttle};
use crate::clock;
use crate::core::access::secret::TEXT;
use crate::core::access::{Access, Holder, Role, Secret, SecretError, TokenName};
use crate::core::service::{Command, Reply};

/// Where tokens are made: the one path that may be open for the very first one.
pub(super) const TOKENS: &str = "/v1/tokens";
/// What a client is told that has no token.
const GET_ONE: &str = "give one with --token-file FILE or TERN_TOKEN_FILE; the service writes the first one into admin.token in its data \
                       folder, and `tern token create` makes more";

/// How the first admin token comes to its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstToken {
    /// The service writes it into its data folder, for its own user alone to read.
    #[default]
    File,
    /// Whoever asks first, from this machine: any local user can be that.
    Loopback,
}

/// What a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it is for whoever reaches it.
    Nothing,
    /// A token of this role or of one above it.
    Role(Role),
}

/// Stands before every path.
pub(super) struct Gate {
    needs: HashMap<(Method, &'static str), Need>,
    first: FirstToken,
    throttle: Mutex<Throttle>,
    refused: AtomicU64,
}

/// Who is behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// The holder of a token.
    Holder(TokenName),
    /// Somebody without one, who may make the very first and nothing else.
    First,
}

impl Caller {
    /// Runs a command in the caller's name: the only way from a path to one.
    pub(super) async fn command(&self, state: &Shared, command: Command) -> Result<Reply, Failure> {
        let by = match self {
            Self::Holder(name) => Some(name.clone()),
            Self::First => None,
        };
        Ok(state.api.engine.command_by(by, command).await??)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // Only the gate puts it there.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| no_token("nobody has looked at this request"))
    }
}

impl Gate {
    pub(super) fn new(needs: HashMap<(Method, &'static str), Need>, first: FirstToken) -> Self {
        Self { needs, first, throttle: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Returns how many requests were refused for want of a token or of a role.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Tells what a request takes; none when no line names it.
    fn need(&self, method: &Method, path: Option<&str>) -> Option<Need> {
        // The router answers HEAD with what GET does.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let path = path?;
        let line = self.needs.iter().find(|((its, at), _)| its == method && *at == path);
        line.map(|(_, need)| *need)
    }

    /// Tells whose token a request shows, and writes nothing down yet.
    fn holder(&self, headers: &HeaderMap, peer: SocketAddr, access: &Access) -> Result<Holder, Failure> {
        let secret = match shown(headers) {
            Ok(Some(secret)) => secret,
            Ok(None) => return Err(no_token("this takes a token")),
            Err(what) => return Err(self.wrong(peer, &what)),
        };
        access.check(&secret, clock::now()).map_err(|denied| self.wrong(peer, &denied.to_string()))
    }

    fn wrong(&self, peer: SocketAddr, what: &str) -> Failure {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if throttle.admits_failure(peer.ip(), clock::now()) {
            // The throttle bounds these lines.
            tracing::warn!(peer = %peer.ip(), "a request was refused: {what}");
            return no_token(what);
        }
        let hint = "mend the token; a right one is served at once";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from there", hint);
        failure.with(header::RETRY_AFTER, HeaderValue::from(REFILL / 1000))
    }

    /// Tells whether somebody without a token may make the very first one.
    fn opens_first(&self, request: &Request, peer: SocketAddr, access: &Access) -> bool {
        self.first == FirstToken::Loopback
            && !access.has_begun()
            && request.method() == Method::POST
            && request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == TOKENS)
            && !request.headers().contains_key(header::AUTHORIZATION)
            && is_from_here(peer, request.headers())
    }

    /// Tells who asks and whether they may, and writes nothing down yet.
    fn judge(&self, request: &Request, access: Option<&Access>) -> Result<Judged, Failure> {
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let need = self.need(request.method(), path);
        if need == Some(Need::Nothing) {
            return Ok(Judged::Open);
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
        let peer = peer.ok_or_else(|| no_token("nobody knows where this request comes from"))?;
        let access = access.ok_or(crate::engine::Stopped)?;
        if self.opens_first(request, peer, access) {
            return Ok(Judged::First);
        }
        let Holder { name, role } = self.holder(request.headers(), peer, access)?;
        // What is not there is told to whoever may come in at all.
        let Some(Need::Role(least)) = need else {
            return Ok(if path.is_some() { Judged::NoMethod } else { Judged::NoPath });
        };
        if role < least {
            let error = format!("token {name} is {}, and this takes {}", role.one(), least.one());
            let hint =
                format!("use one of that role; an admin makes it: tern token create NAME --role {least}");
            return Err(Failure::new(StatusCode::FORBIDDEN, error, hint));
        }
        let ip = peer.ip().to_canonical();
        let owes = access.owes_use(&name, ip, clock::now()).then_some(ip);
        Ok(Judged::Holder { name, owes })
    }
}

/// What the gate makes of a request that it does not refuse.
enum Judged {
    /// It takes no token.
    Open,
    /// It may make the very first token.
    First,
    /// It shows a token that is good for this; `owes` is the address that the ledger has yet to hear of.
    Holder { name: TokenName, owes: Option<IpAddr> },
    /// Nothing is there.
    NoPath,
    /// Nothing takes that method there.
    NoMethod,
}

/// Lets a request through, or says why not.
pub(super) async fn gate(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let access = state.api.engine.access();
    let judged = state.gate.judge(&request, access.as_deref());
    let caller = match judged {
        Ok(Judged::Open) => return next.run(request).await,
        Ok(Judged::NoPath) => return no_such_path().await.into_response(),
        Ok(Judged::NoMethod) => return no_such_method().await.into_response(),
        Ok(Judged::First) => Caller::First,
        Ok(Judged::Holder { name, owes }) => {
            if let Some(peer) = owes
                && let Err(failure) = note(&state, name.clone(), peer).await
            {
                return failure.into_response();
            }
            Caller::Holder(name)
        }
        Err(failure) => {
            if failure.is_refusal() {
                state.gate.refused.fetch_add(1, Ordering::Relaxed);
            }
            return failure.into_response();
        }
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Has the ledger know of a use before anything comes of it.
async fn note(state: &Shared, token: TokenName, peer: IpAddr) -> Result<(), Failure> {
    state.api.engine.command(Command::NoteUse { token, peer }).await??;
    Ok(())
}

/// Reads the token that a request shows. One header, one token: of two nobody knows which one the next reader takes.
fn shown(headers: &HeaderMap) -> Result<Option<Secret>, String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("the request has several Authorization headers".to_owned());
    }
    let text = value.to_str().unwrap_or_default();
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token.map(|(scheme, token)| (scheme, token.trim_matches(' '))) else {
        return Err("the Authorization header is not \"Bearer TOKEN\"".to_owned());
    };
    if token.len() > TEXT {
        return Err(SecretError::Mistyped.to_string());
    }
    token.parse().map(Some).map_err(|error: SecretError| error.to_string())
}

/// Tells whether a request comes from this machine and by no proxy that says so. A proxy that hides itself is not
/// seen; that is why the first token is a file unless somebody chooses otherwise.
pub(super) fn is_from_here(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let forwarded = |name: &str| {
        name.starts_with("x-forwarded")
            || matches!(
                name,
                "forwarded"
                    | "via"
                    | "x-real-ip"
                    | "x-client-ip"
                    | "x-cluster-client-ip"
                    | "true-client-ip"
                    | "cf-connecting-ip"
                    | "x-original-forwarded-for"
                    | "x-envoy-external-address"
            )
    };
    peer.ip().to_canonical().is_loopback() && !headers.keys().any(|name| forwarded(name.as_str()))
}

fn no_token(what: &str) -> Failure {
    let failure = Failure::new(StatusCode::UNAUTHORIZED, what, GET_ONE);
    failure.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tern\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_read_from_one_header_of_one_shape_alone() {
        let text = Secret::new([1; 6], [2; 32]).reveal().to_string();
        let one = |value: String| shown(&headers(&[("authorization", value)]));

        assert!(shown(&HeaderMap::new()).unwrap().is_none());
        for good in [format!("Bearer {text}"), format!("bearer  {text}"), format!("BEARER {text} ")] {
            assert!(one(good.clone()).unwrap().is_some(), "{good}");
        }
        let wrong = [
            text.clone(),
            format!("Basic {text}"),
            format!("Bearer\t{text}"),
            format!("Bearer{text}"),
            format!("Bearer {text} {text}"),
            format!("Bearer {text},{text}"),
            format!("Bearer \"{text}\""),
            format!("Bearer {}", text.to_uppercase()),
            format!("Bearer {}", "tern_".repeat(20_000)),
            "Bearer ".to_owned(),
            "Bearer".to_owned(),
            String::new(),
        ];
        for value in wrong {
            assert!(one(value.clone()).is_err(), "{value:.80}");
        }
        let twice =
            [("authorization", format!("Bearer {text}")), ("authorization", format!("Bearer {text}"))];
        assert!(shown(&headers(&twice)).is_err());
    }

    #[test]
    fn whoever_comes_by_a_proxy_is_not_from_here() {
        let here: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:9".parse().unwrap();
        let away: SocketAddr = "10.0.0.7:9".parse().unwrap();
        let none = HeaderMap::new();

        assert!(is_from_here(here, &none) && is_from_here(mapped, &none));
        assert!(!is_from_here(away, &none));
        for name in ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"] {
            assert!(!is_from_here(here, &headers(&[(name, "127.0.0.1".to_owned())])), "{name}");
        }
    }
}
