//! Paths under `/v1/rollouts`.

use axum::extract::{Path, State};
use tern_protocol::id::RolloutId;

use super::access::Caller;
use super::answer::{Answer, Body, Failure, MaybeBody, good, name};
use super::routes::Shared;
use super::types::{
    ApprovePhase, DoneBody, Kill, Preview, Promote, Revert, RolloutLine, RolloutView, StartRollout,
    TagDevices,
};
use super::{deltas, preview as previews, views};
use crate::core::service::{Command, Refusal, RefusalKind, Reply};
use crate::plain;

/// Characters of a reason.
const REASON_MAX: usize = 500;
/// Characters of the key of a request.
const KEY_MAX: usize = 64;

pub(super) async fn list(State(state): State<Shared>) -> Answer<Vec<RolloutLine>> {
    good(state.api.engine.query(|service, _| views::rollout_lines(service.fleet())).await?)
}

pub(super) async fn show(State(state): State<Shared>, Path(id): Path<String>) -> Answer<RolloutView> {
    let id: RolloutId = name(&id)?;
    good(state.api.engine.query(move |service, _| views::rollout(service, &id)).await??)
}

pub(super) async fn preview(State(state): State<Shared>, body: Body<StartRollout>) -> Answer<Preview> {
    let delta = deltas::warning(&state, &body.0.product, body.0.rc);
    let preview = state.api.engine.query(move |service, _| previews::preview(service, &body.0)).await??;
    good(Preview { warnings: preview.warnings.into_iter().chain(delta).collect(), ..preview })
}

/// Answers with the name, which the request may have left to us.
pub(super) async fn start(
    State(state): State<Shared>,
    caller: Caller,
    body: Body<StartRollout>,
) -> Answer<DoneBody> {
    let rollout = body.0.name().map_err(|e| {
        let hint = "give a shorter one with --name".to_owned();
        Refusal { kind: RefusalKind::Invalid, what: e.to_string(), hint }
    })?;
    let StartRollout { product, rc, attempt, plan, .. } = body.0;
    let started = Command::Start { rollout, product: product.clone(), rc, attempt, plan };
    let done = run(&state, &caller, started).await?;
    // Devices may run something else by now than when it was published.
    if let Some(deltas) = &state.api.deltas {
        deltas.plan(&product, rc).await?;
    }
    Ok(done)
}

pub(super) async fn pause(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<DoneBody> {
    run(&state, &caller, Command::Pause(name(&id)?)).await
}

pub(super) async fn resume(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<DoneBody> {
    run(&state, &caller, Command::Resume(name(&id)?)).await
}

pub(super) async fn promote(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body<Promote>,
) -> Answer<DoneBody> {
    let Promote { from_phase, key } = body.0;
    // A key that was cut short would be another request's too.
    if let Some(found) = key.as_ref().map(|key| key.chars().count()).filter(|found| *found > KEY_MAX) {
        let what = format!("the key of a request has at most {KEY_MAX} characters, this one has {found}");
        let hint = "choose a shorter one, such as a UUID".to_owned();
        return Err(Refusal { kind: RefusalKind::Invalid, what, hint }.into());
    }
    run(&state, &caller, Command::Promote { rollout: name(&id)?, from_phase, key }).await
}

pub(super) async fn approve(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body<ApprovePhase>,
) -> Answer<DoneBody> {
    run(&state, &caller, Command::ApprovePhase { rollout: name(&id)?, phase: body.0.phase }).await
}

pub(super) async fn revert(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    body: MaybeBody<Revert>,
) -> Answer<DoneBody> {
    let Revert { name: called, to, plan } = body.0;
    run(&state, &caller, Command::Revert { rollout: name(&id)?, name: called, to, plan }).await
}

pub(super) async fn tag(
    State(state): State<Shared>,
    caller: Caller,
    body: Body<TagDevices>,
) -> Answer<DoneBody> {
    let TagDevices { devices, tag, on } = body.0;
    run(&state, &caller, Command::Tag { devices, tag, on }).await
}

pub(super) async fn kill(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    body: MaybeBody<Kill>,
) -> Answer<DoneBody> {
    run(&state, &caller, Command::Kill { rollout: name(&id)?, reason: mended(&body.0.reason) }).await
}

/// A reason is printed on many screens: it is short, and commands no terminal. It is mended and not refused, for
/// nothing may hold up a kill.
fn mended(reason: &str) -> String {
    let mut reason = plain::line(reason);
    if let Some((end, _)) = reason.char_indices().nth(REASON_MAX) {
        reason.truncate(end);
        reason.push('…');
    }
    if reason.is_empty() { "no reason given".to_owned() } else { reason }
}

async fn run(state: &Shared, caller: &Caller, command: Command) -> Answer<DoneBody> {
    match caller.command(state, command).await? {
        Reply::Done { what } => good(DoneBody { done: what }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a command on a rollout"))),
    }
}
