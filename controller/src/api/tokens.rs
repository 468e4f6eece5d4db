//! Paths under `/v1/tokens`.

use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;

use super::access::Caller;
use super::answer::{Answer, Body, Failure, good, name};
use super::routes::Shared;
use super::types::{CreatedToken, DoneBody, NewToken, OneTimeToken, TokenLine};
use crate::core::access::{Made, TokenName};
use crate::core::service::{Command, MintToken, Reply};
use crate::{clock, token_file};

/// Lists tokens, the newest first. What is told of them helps nobody to use them.
pub(super) async fn list(State(state): State<Shared>) -> Answer<Vec<TokenLine>> {
    let access = state.api.engine.access().ok_or(crate::engine::Stopped)?;
    let now = clock::now();
    let line = |(name, token): (&TokenName, &crate::core::access::Token)| TokenLine {
        token: name.clone(),
        role: token.role,
        status: token.status(now).to_owned(),
        made_at: token.made_at,
        expires: token.expires,
        revoked_at: token.revoked_at,
        used_at: token.used_at,
        used_from: token.used_from,
    };
    let mut lines: Vec<TokenLine> = access.tokens().iter().map(line).collect();
    lines.sort_by(|a, b| (b.made_at, &a.token).cmp(&(a.made_at, &b.token)));
    good(lines)
}

/// Makes a token; the answer is the only place where it is ever seen.
pub(super) async fn create(
    State(state): State<Shared>,
    caller: Caller,
    body: Body<NewToken>,
) -> Result<impl IntoResponse, Failure> {
    let NewToken { token, role, expires } = body.0;
    let secret = token_file::draw().map_err(Failure::internal)?;
    let made = if caller == Caller::First { Made::Loopback } else { Made::Token };
    let (id, hash) = (secret.id(), secret.hash());
    let new = MintToken { token: token.clone(), role, expires, id, hash, made };
    let Reply::Done { .. } = caller.command(&state, Command::CreateToken(new)).await? else {
        return Err(Failure::internal("the engine answered something else to a new token"));
    };
    let secret = OneTimeToken(secret.reveal().to_string());
    Ok(([(CACHE_CONTROL, "no-store")], axum::Json(CreatedToken { token, role, expires, secret })))
}

pub(super) async fn revoke(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<DoneBody> {
    match caller.command(&state, Command::RevokeToken(name::<TokenName>(&id)?)).await? {
        Reply::Done { what } => good(DoneBody { done: what }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a revocation"))),
    }
}
