//! Which path does what.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use tokio::sync::Semaphore;

use super::answer::{Answer, Failure, good, keep_pages_out, no_such_method, no_such_path};
use super::types::ServiceStatus;
use super::{
    ApiState, admission, devices, images, keys, ledger, metrics, recover, releases, rollouts, views,
};
use crate::core::service::Service;
use crate::files;

/// A body, apart from images and device lists.
const BODY_MAX: usize = 256 * 1024;
/// A list of devices: some 50,000 at once.
const DEVICES_MAX: usize = 16 * 1024 * 1024;
/// Images that may be on their way in at once.
const UPLOADS: usize = 2;

/// What every handler gets.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) api: ApiState,
    pub(super) uploads: Arc<Semaphore>,
}

/// Returns everything that the service answers over HTTP.
pub fn router(api: ApiState) -> Router {
    let state = Shared { api, uploads: Arc::new(Semaphore::new(UPLOADS)) };
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(scrape))
        .route("/v1/status", get(status))
        .route("/v1/devices", get(devices::list).post(devices::add).layer(DefaultBodyLimit::max(DEVICES_MAX)))
        .route("/v1/devices/{device}", get(devices::show))
        .route("/v1/devices/{device}/{verb}", post(admission::decide))
        .route("/v1/pending", get(admission::pending))
        .route("/v1/claims", get(admission::claims).post(admission::create_claim))
        .route("/v1/claims/{claim}/revoke", post(admission::revoke_claim))
        .route("/v1/factories", get(admission::factories).post(admission::trust_factory))
        .route("/v1/factories/{factory}/revoke", post(admission::revoke_factory))
        .route("/v1/factory-lists", post(admission::signed_list).layer(DefaultBodyLimit::max(DEVICES_MAX)))
        .route("/v1/products", get(releases::products))
        .route("/v1/products/{product}/release-file", get(releases::file))
        .route("/v1/products/{product}/keys", get(keys::show).post(keys::renew))
        .route("/v1/products/{product}/releases", get(releases::list).post(releases::publish))
        .route("/v1/images", put(images::put).layer(DefaultBodyLimit::disable()))
        .route("/v1/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/v1/rollouts/preview", post(rollouts::preview))
        .route("/v1/rollouts/{rollout}", get(rollouts::show))
        .route("/v1/rollouts/{rollout}/pause", post(rollouts::pause))
        .route("/v1/rollouts/{rollout}/resume", post(rollouts::resume))
        .route("/v1/rollouts/{rollout}/promote", post(rollouts::promote))
        .route("/v1/rollouts/{rollout}/kill", post(rollouts::kill))
        .route("/v1/recover", get(recover::show).post(recover::begin))
        .route("/v1/recover/end", post(recover::end))
        .route("/v1/ledger", get(ledger::head))
        .route("/v1/ledger/frames", get(ledger::frames))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(keep_pages_out))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
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
    let edge = (state.api.extras)();
    let text = state.api.engine.query(move |service, ledger| metrics::text(service, ledger, &edge)).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
