//! Paths under `/v1/recover`: the comparison with the devices after a restore.

use axum::extract::State;

use super::answer::{Answer, Body, Failure, good};
use super::routes::Shared;
use super::types::{Because, DoneBody, LackingFile, RecoverView};
use crate::core::service::{Command, Reply, Service};

/// Devices that are named in one view.
const NAMED_MAX: usize = 100;

pub(super) async fn show(State(state): State<Shared>) -> Answer<RecoverView> {
    good(state.api.engine.query(|service: &mut Service, _: &_| view(service)).await?)
}

pub(super) async fn begin(State(state): State<Shared>, body: Body<Because>) -> Answer<DoneBody> {
    let reason = body.0.reason;
    let because = if reason.is_empty() { "an operator says so".to_owned() } else { reason };
    done(&state, Command::Recover { because }).await
}

pub(super) async fn end(State(state): State<Shared>) -> Answer<DoneBody> {
    done(&state, Command::EndRecovery).await
}

async fn done(state: &Shared, command: Command) -> Answer<DoneBody> {
    match state.api.engine.command(command).await?? {
        Reply::Done { what } => good(DoneBody { done: what }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a recovery"))),
    }
}

pub(super) fn view(service: &Service) -> RecoverView {
    let (Some(comparison), Some(progress)) = (&service.fleet().comparison, service.progress()) else {
        return RecoverView::default();
    };
    let lacking = progress.lacking.into_iter();
    RecoverView {
        comparing: true,
        because: comparison.because.clone(),
        since: comparison.since,
        until: progress.until,
        devices: progress.devices,
        heard: comparison.heard.len() as u64,
        compared: progress.compared,
        files: comparison.files,
        waiting: progress.waiting.into_iter().take(NAMED_MAX).collect(),
        unproved: progress.unproved.into_iter().take(NAMED_MAX).collect(),
        lacking: lacking.map(|(product, role, version)| LackingFile { product, role, version }).collect(),
    }
}
