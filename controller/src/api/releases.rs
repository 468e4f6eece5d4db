//! Paths under `/v1/products`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;

use super::access::Caller;
use super::answer::{Answer, Body, Failure, good, name};
use super::routes::Shared;
use super::types::{PublishRelease, Published, ReleaseFile, ReleaseView};
use super::{Images, views};
use crate::core::fleet::product::{Product, Release, releases_in};
use crate::core::service::{Command, Reply, Service};

pub(super) async fn products(State(state): State<Shared>) -> Answer<Vec<ProductId>> {
    good(state.api.engine.query(|service, _| service.fleet().products.keys().cloned().collect()).await?)
}

pub(super) async fn file(State(state): State<Shared>, Path(product): Path<String>) -> Answer<ReleaseFile> {
    let read = |p: &Product| p.files.get(&Role::Release).cloned();
    let release = of_product(&state, &product, read).await?;
    let missing = || {
        let hint = "set the product up with `tern keys init`";
        Failure::new(StatusCode::NOT_FOUND, format!("product {product} has no release file"), hint)
    };
    good(ReleaseFile { release: release.ok_or_else(missing)? })
}

pub(super) async fn list(
    State(state): State<Shared>,
    Path(product): Path<String>,
) -> Answer<Vec<ReleaseView>> {
    let (releases, halted) = of_product(&state, &product, |p| (p.releases(), p.halted.clone())).await?;
    let images = state.api.images.clone();
    let view = move || {
        let view = |release: &Release| {
            views::release(release, halted.contains(&release.rc), |root| images.has(root))
        };
        releases.values().map(view).collect()
    };
    good(tokio::task::spawn_blocking(view).await.map_err(Failure::internal)?)
}

pub(super) async fn publish(
    State(state): State<Shared>,
    caller: Caller,
    Path(product): Path<String>,
    body: Body<PublishRelease>,
) -> Answer<Published> {
    let product: ProductId = name(&product)?;
    let PublishRelease { file, deltas } = body.0;
    let (releases, images) = (releases_in(&file), state.api.images.clone());
    let id = product.clone();
    let before = move |service: &mut Service, _: &_| -> BTreeMap<u64, Release> {
        service.fleet().products.get(&id).map(Product::releases).unwrap_or_default()
    };
    let before = state.api.engine.query(before).await?;
    let fresh: Vec<u64> = releases.keys().filter(|rc| !before.contains_key(rc)).copied().collect();
    let check = tokio::task::spawn_blocking(move || all_stored(&releases, &images)).await;
    check.map_err(Failure::internal)??;
    match caller.command(&state, Command::PublishRelease { product: product.clone(), file }).await? {
        Reply::Published { releases } => {
            for (rc, made) in fresh.into_iter().zip(state.api.deltas.iter().cycle()) {
                match deltas {
                    true => made.plan(&product, rc).await?,
                    false => made.leave_out(&product, rc),
                }
            }
            good(Published { releases })
        }
        other => Err(Failure::internal(format!("the engine answered {other:?} to a release"))),
    }
}

/// A release whose bytes are not here would send every device after something that nobody has.
fn all_stored(releases: &BTreeMap<u64, Release>, images: &Arc<dyn Images>) -> Result<(), Failure> {
    for release in releases.values() {
        for (named, content) in &release.artifacts {
            if !images.has(&content.root) {
                let error = format!("the image of {} is not stored here", named.path);
                let hint = "give its file to `tern release publish` with --image";
                return Err(Failure::new(StatusCode::CONFLICT, error, hint));
            }
        }
    }
    Ok(())
}

async fn of_product<T: Send + 'static>(
    state: &Shared,
    product: &str,
    read: impl FnOnce(&Product) -> T + Send + 'static,
) -> Result<T, Failure> {
    let id: ProductId = name(product)?;
    let missing = format!("no product {id}");
    let found = state.api.engine.query(move |service, _| service.fleet().products.get(&id).map(read)).await?;
    let hint = "see `tern release list` without --product, or set it up with `tern keys init`";
    found.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, missing, hint))
}
