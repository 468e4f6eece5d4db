//! Paths under `/v1/products/{product}/keys`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;

use super::access::Caller;
use super::answer::{Answer, Body, Failure, good, name};
use super::routes::Shared;
use super::types::{DoneBody, KeysView, RenewOffline};
use crate::ceremony::Document;
use crate::core::fact::SignedFile;
use crate::core::service::{Command, Reply};
use crate::keys;

pub(super) async fn show(State(state): State<Shared>, Path(product): Path<String>) -> Answer<KeysView> {
    let product: ProductId = name(&product)?;
    let files = files_of(&state, &product).await?;
    let data = state.api.data_dir.clone();
    let listed = tokio::task::spawn_blocking(move || keys::online_keys(&data, &product)).await;
    // A key file that does not read is a matter for the log of the next start, not a reason to hide the files.
    let online = listed.map_err(Failure::internal)?.unwrap_or_default();
    good(KeysView { files, online })
}

/// Takes in files that people signed. The keys that they name are read from the data folder first; nothing is
/// signed with them unless the files are accepted.
pub(super) async fn renew(
    State(state): State<Shared>,
    caller: Caller,
    Path(product): Path<String>,
    body: Body<RenewOffline>,
) -> Answer<DoneBody> {
    let product: ProductId = name(&product)?;
    let bad = |error: String, hint: String| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error, hint);
    let mut files = Vec::new();
    for text in body.0.files {
        let document =
            Document::read("the file", text.as_bytes()).map_err(|e| bad(e.to_string(), e.hint()))?;
        files.push((document.version, SignedFile { role: document.role, text }));
    }
    files.sort_by_key(|(version, file)| (file.role, *version));
    let files: Vec<SignedFile> = files.into_iter().map(|(_, file)| file).collect();
    let mut present = files_of(&state, &product).await?;
    let (id, given) = (product.clone(), files.clone());
    let conflict = state.api.engine.query(move |service, _| service.offline_conflict(&id, &given)).await?;
    if let Some(refusal) = conflict {
        return Err(refusal.into());
    }
    for file in &files {
        present.insert(file.role, file.text.clone());
    }
    let (data, id) = (state.api.data_dir.clone(), product.clone());
    let load = move || {
        let text = |role| present.get(&role).cloned().unwrap_or_default();
        keys::load_online_for(&data, &id, &text(Role::Root), &text(Role::Targets), keys::Unnamed::Refused)
    };
    let keys = tokio::task::spawn_blocking(load).await.map_err(Failure::internal)?;
    let keys = keys.map_err(|e| bad(e.to_string(), e.hint()))?;
    let id = product.clone();
    state.api.engine.query(move |service, _| service.stage_keys(id, keys)).await?;
    let command = Command::RenewOffline { product: product.clone(), files: files.clone() };
    let Reply::Done { what } = caller.command(&state, command).await? else {
        return Err(Failure::internal("the engine answered something else to new files"));
    };
    if let Some(deltas) = &state.api.deltas {
        deltas.keys_changed();
    }
    let data = state.api.data_dir.clone();
    let kept = tokio::task::spawn_blocking(move || keys::keep_offline(&data, &product, &files)).await;
    // The ledger has them; the folder is for people, and for devices that are provisioned from now on.
    if let Err(error) = kept.map_err(Failure::internal)? {
        tracing::warn!("the new files could not be put into the data folder: {error}");
    }
    good(DoneBody { done: what })
}

async fn files_of(
    state: &Shared,
    product: &ProductId,
) -> Result<std::collections::BTreeMap<Role, String>, Failure> {
    let (id, missing) = (product.clone(), format!("no product {product}"));
    let found = state
        .api
        .engine
        .query(move |service, _| service.fleet().products.get(&id).map(|product| product.files.clone()));
    let hint = "set it up with `tern keys init`, then start the service again";
    found.await?.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, missing, hint))
}
