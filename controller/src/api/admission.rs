//! Paths of who may become a device: `/v1/pending`, `/v1/claims`, `/v1/factories`, `/v1/factory-lists`, and the
//! decisions under `/v1/devices/{device}`.

use axum::extract::{Path, State};
use tern_protocol::id::{ClaimId, DeviceId, FactoryId};

use super::access::Caller;
use super::answer::{Answer, Body, Failure, good, name};
use super::routes::Shared;
use super::types::{
    AddedDevices, Because, ClaimLine, CreatedClaim, DoneBody, FactoryLine, NewClaim, PendingLine, SignedList,
    TrustFactory,
};
use crate::clock;
use crate::core::fleet::Fleet;
use crate::core::service::{Admission, Command, Reply, Service};

async fn done(state: &Shared, caller: &Caller, command: Command) -> Answer<DoneBody> {
    match caller.command(state, command).await? {
        Reply::Done { what } => good(DoneBody { done: what }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a decision"))),
    }
}

async fn look<T: Send + 'static>(
    state: &Shared,
    at: impl FnOnce(&Fleet) -> T + Send + 'static,
) -> Result<T, Failure> {
    Ok(state.api.engine.query(|service: &mut Service, _: &_| at(service.fleet())).await?)
}

/// Registers the devices of a signed list.
pub(super) async fn signed_list(
    State(state): State<Shared>,
    caller: Caller,
    body: Body<SignedList>,
) -> Answer<AddedDevices> {
    let SignedList { list, signature } = body.0;
    match caller.command(&state, Command::AddDevices { list, signature }).await? {
        Reply::Devices { added, renewed } => good(AddedDevices { added, renewed }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a list of devices"))),
    }
}

/// Decides about one device.
pub(super) async fn decide(
    State(state): State<Shared>,
    caller: Caller,
    Path((device, verb)): Path<(String, String)>,
    body: Body<Because>,
) -> Answer<DoneBody> {
    let device: DeviceId = name(&device)?;
    let admission = serde_json::from_value::<Admission>(verb.as_str().into());
    let Ok(admission) = admission else { return Err(super::answer::no_such_path().await) };
    done(&state, &caller, Command::Admit { device, admission, reason: body.0.reason }).await
}

/// Lists the devices that wait, the one that waits longest first.
pub(super) async fn pending(State(state): State<Shared>) -> Answer<Vec<PendingLine>> {
    let lines = |fleet: &Fleet| {
        let line = |(id, waits): (&DeviceId, &crate::core::enrolment::claim::Applicant)| PendingLine {
            device: id.clone(),
            registry: waits.registry.clone(),
            claim: waits.claim.clone(),
            identity: waits.identity.clone(),
            since: waits.at,
            replaces: fleet.devices.contains_key(id),
        };
        let mut lines: Vec<PendingLine> = fleet.pending.iter().map(line).collect();
        lines.sort_by(|a, b| (a.since, &a.device).cmp(&(b.since, &b.device)));
        lines
    };
    good(look(&state, lines).await?)
}

/// Lists claims, the newest first.
pub(super) async fn claims(State(state): State<Shared>) -> Answer<Vec<ClaimLine>> {
    let now = clock::now();
    let lines = move |fleet: &Fleet| {
        let line = |(id, claim): (&ClaimId, &crate::core::enrolment::claim::Claim)| ClaimLine {
            claim: id.clone(),
            terms: claim.terms.clone(),
            used: claim.used,
            waiting: fleet.pending.values().filter(|waits| waits.claim == *id).count() as u64,
            created_at: claim.created_at,
            status: claim.status(now).to_owned(),
        };
        let mut lines: Vec<ClaimLine> = fleet.claims.iter().map(line).collect();
        lines.sort_by(|a, b| (b.created_at, &a.claim).cmp(&(a.created_at, &b.claim)));
        lines
    };
    good(look(&state, lines).await?)
}

/// Makes a claim; the answer is the only place where its token is ever seen.
pub(super) async fn create_claim(
    State(state): State<Shared>,
    caller: Caller,
    body: Body<NewClaim>,
) -> Answer<CreatedClaim> {
    match caller.command(&state, Command::CreateClaim(body.0)).await? {
        Reply::Claim { claim, token } => good(CreatedClaim { claim, token }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a claim"))),
    }
}

pub(super) async fn revoke_claim(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<DoneBody> {
    done(&state, &caller, Command::RevokeClaim(name::<ClaimId>(&id)?)).await
}

pub(super) async fn factories(State(state): State<Shared>) -> Answer<Vec<FactoryLine>> {
    let lines = |fleet: &Fleet| {
        let line = |(id, factory): (&FactoryId, &crate::core::enrolment::factory::Factory)| FactoryLine {
            factory: id.clone(),
            key: factory.key.clone(),
            added_at: factory.added_at,
            revoked: factory.revoked,
        };
        fleet.factories.iter().map(line).collect()
    };
    good(look(&state, lines).await?)
}

pub(super) async fn trust_factory(
    State(state): State<Shared>,
    caller: Caller,
    body: Body<TrustFactory>,
) -> Answer<DoneBody> {
    let TrustFactory { factory, key } = body.0;
    done(&state, &caller, Command::TrustFactory { factory, key }).await
}

pub(super) async fn revoke_factory(
    State(state): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<DoneBody> {
    done(&state, &caller, Command::RevokeFactory(name::<FactoryId>(&id)?)).await
}
