//! Which path does what, and who may: one table.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use axum::{Router, middleware};
use tokio::sync::Semaphore;

use super::access::{self, Gate, Need};
use super::answer::{Answer, Failure, good, keep_pages_out, no_such_method, no_such_path};
use super::types::ServiceStatus;
use super::{
    ApiState, admission, deltas, devices, images, keys, ledger, listen, metrics, recover, releases, rollouts,
    tokens, views,
};
use crate::core::access::Role;
use crate::core::service::Service;
use crate::files;

/// A body, apart from images and device lists.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// A list of devices: some 50,000 at once.
const DEVICES_MAX: usize = 16 * 1024 * 1024;
/// Images that may be on their way in at once.
const UPLOADS: usize = 2;

/// What every handler gets.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) api: ApiState,
    pub(super) uploads: Arc<Semaphore>,
    pub(super) gate: Arc<Gate>,
}

/// Returns everything that the service answers over HTTP.
pub fn router(api: ApiState) -> Router {
    let (router, state) = open(api);
    guarded(router, state)
}

/// The same, and a path that somebody forgot to put into the table.
#[cfg(test)]
pub(super) fn with_a_path_of_no_line(api: ApiState, path: &str) -> Router {
    let (router, state) = open(api);
    guarded(router.route(path, get(|| async { "open sesame" })), state)
}

fn open(api: ApiState) -> (Router<Shared>, Shared) {
    let lines = lines();
    let needs = lines.iter().map(|line| ((line.method.clone(), line.path), line.need)).collect();
    let gate = Arc::new(Gate::new(needs, api.first_token));
    let state = Shared { api, uploads: Arc::new(Semaphore::new(UPLOADS)), gate };
    let mut router = Router::new();
    for Line { path, does, .. } in lines {
        router = router.route(path, does);
    }
    (router, state)
}

/// Puts the gate before a router; what no line names stays shut.
fn guarded(router: Router<Shared>, state: Shared) -> Router {
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(state.clone(), access::gate))
        .layer(middleware::from_fn(listen::deadline))
        .layer(middleware::from_fn(keep_pages_out))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}

/// A path, a method, who may, and what it does: there is no other way to add one.
pub(super) struct Line {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) need: Need,
    does: MethodRouter<Shared>,
}

/// Every path. Looking takes a viewer. Stopping takes no more than an operator, like starting.
pub(super) fn lines() -> Vec<Line> {
    const ADMIN: Need = Need::Role(Role::Admin);
    const APPROVER: Need = Need::Role(Role::Approver);
    const OPERATOR: Need = Need::Role(Role::Operator);
    const VIEWER: Need = Need::Role(Role::Viewer);
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    let line = |method, path, need, does| Line { method, path, need, does };
    let large = DefaultBodyLimit::max(DEVICES_MAX);
    vec![
        line(GET, "/healthz", Need::Nothing, get(health)),
        line(GET, "/metrics", VIEWER, get(scrape)),
        line(GET, "/v1/status", VIEWER, get(status)),
        line(GET, "/v1/devices", VIEWER, get(devices::list)),
        line(GET, "/v1/devices/{device}", VIEWER, get(devices::show)),
        line(GET, "/v1/pending", VIEWER, get(admission::pending)),
        line(GET, "/v1/claims", VIEWER, get(admission::claims)),
        line(GET, "/v1/factories", VIEWER, get(admission::factories)),
        line(GET, "/v1/products", VIEWER, get(releases::products)),
        line(GET, "/v1/products/{product}/release-file", VIEWER, get(releases::file)),
        line(GET, "/v1/products/{product}/releases", VIEWER, get(releases::list)),
        line(GET, "/v1/products/{product}/releases/{rc}/deltas", VIEWER, get(deltas::list)),
        line(GET, "/v1/products/{product}/keys", VIEWER, get(keys::show)),
        line(GET, "/v1/rollouts", VIEWER, get(rollouts::list)),
        line(GET, "/v1/rollouts/{rollout}", VIEWER, get(rollouts::show)),
        // It works out and changes nothing.
        line(POST, "/v1/rollouts/preview", VIEWER, post(rollouts::preview)),
        line(GET, "/v1/ledger", VIEWER, get(ledger::head)),
        // Frames hold the hashes of claims, with which a claim can be used: for whoever may make claims anyway.
        line(GET, "/v1/ledger/frames", APPROVER, get(ledger::frames)),
        line(POST, "/v1/products/{product}/releases", OPERATOR, post(releases::publish)),
        line(Method::PUT, "/v1/images", OPERATOR, put(images::put).layer(DefaultBodyLimit::disable())),
        line(POST, "/v1/rollouts", OPERATOR, post(rollouts::start)),
        line(POST, "/v1/rollouts/{rollout}/pause", OPERATOR, post(rollouts::pause)),
        line(POST, "/v1/rollouts/{rollout}/resume", OPERATOR, post(rollouts::resume)),
        line(POST, "/v1/rollouts/{rollout}/promote", OPERATOR, post(rollouts::promote)),
        line(POST, "/v1/rollouts/{rollout}/kill", OPERATOR, post(rollouts::kill)),
        line(POST, "/v1/rollouts/{rollout}/approve", OPERATOR, post(rollouts::approve)),
        line(POST, "/v1/rollouts/{rollout}/revert", OPERATOR, post(rollouts::revert)),
        line(POST, "/v1/tags", OPERATOR, post(rollouts::tag)),
        // A factory vouches for what it names; without one it is whoever asks.
        line(POST, "/v1/factory-lists", OPERATOR, post(admission::signed_list).layer(large)),
        line(POST, "/v1/devices", APPROVER, post(devices::add).layer(large)),
        line(POST, "/v1/devices/{device}/{verb}", APPROVER, post(admission::decide)),
        line(POST, "/v1/claims", APPROVER, post(admission::create_claim)),
        line(POST, "/v1/claims/{claim}/revoke", APPROVER, post(admission::revoke_claim)),
        line(POST, "/v1/factories", APPROVER, post(admission::trust_factory)),
        line(POST, "/v1/factories/{factory}/revoke", APPROVER, post(admission::revoke_factory)),
        line(GET, "/v1/recover", VIEWER, get(recover::show)),
        line(POST, "/v1/recover", ADMIN, post(recover::begin)),
        line(POST, "/v1/recover/end", ADMIN, post(recover::end)),
        line(POST, "/v1/products/{product}/keys", ADMIN, post(keys::renew)),
        line(GET, access::TOKENS, ADMIN, get(tokens::list)),
        line(POST, access::TOKENS, ADMIN, post(tokens::create)),
        line(POST, "/v1/tokens/{token}/revoke", ADMIN, post(tokens::revoke)),
    ]
}

/// Healthy means that the engine answers, not only that the port is open, that its ledger can grow, and that a kill
/// would reach devices.
///
/// A service that compares itself with its devices is well: it does what it should, and kills reach devices.
async fn health(State(state): State<Shared>) -> Result<&'static str, Failure> {
    let look = |service: &mut Service, _: &_| (service.trouble().clone(), service.is_comparing());
    let (trouble, comparing) = state.api.engine.query(look).await?;
    if let Some((product, why)) = trouble.first_key_value() {
        let error = format!("nothing can be signed for product {product}: {why}");
        let hint =
            "mend keys, clock or expired files; until then no device learns of anything, kills included";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error, hint));
    }
    ledger_is_there(&state.api.data_dir.join("ledger"))?;
    Ok(if comparing {
        "ok, comparing with devices after a restore: see `tern keys recover --status`\n"
    } else {
        "ok\n"
    })
}

/// An open file survives the loss of its folder: the service would write on where nobody finds it.
fn ledger_is_there(folder: &Path) -> Result<(), Failure> {
    files::usable(folder).map_err(|error| {
        let error = format!("the ledger's folder {} cannot be used: {error}", folder.display());
        let hint = "put the data folder back as it was, writable for the service, then restart the service";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error, hint)
    })
}

async fn status(State(state): State<Shared>) -> Answer<ServiceStatus> {
    let edge = (state.api.extras)();
    let view = move |service: &mut _, ledger: &_| views::status(service, ledger, edge);
    good(state.api.engine.query(view).await?)
}

async fn scrape(State(state): State<Shared>) -> Result<impl IntoResponse, Failure> {
    let (edge, refused) = ((state.api.extras)(), state.gate.refused());
    let text =
        state.api.engine.query(move |service, ledger| metrics::text(service, ledger, &edge, refused)).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
