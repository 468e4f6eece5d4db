//! `GET /v1/products/{product}/releases/{rc}/deltas`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use tern_protocol::id::ProductId;

use super::answer::{Answer, Failure, good, name};
use super::routes::Shared;
use super::types::DeltaView;
use crate::deltas::Line;

pub(super) async fn list(
    State(state): State<Shared>,
    Path((product, rc)): Path<(String, String)>,
) -> Answer<Vec<DeltaView>> {
    let product: ProductId = name(&product)?;
    let rc: u64 = name(&rc)?;
    let id = product.clone();
    let known = move |service: &mut crate::core::service::Service, _: &_| {
        service.fleet().products.get(&id).is_some_and(|product| product.releases().contains_key(&rc))
    };
    if !state.api.engine.query(known).await? {
        let hint = format!("see `tern release list --product {product}`");
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("product {product} has no release {rc}"),
            hint,
        ));
    }
    let Some(deltas) = &state.api.deltas else { return good(Vec::new()) };
    good(deltas.of(&product, rc).await?.into_iter().map(view).collect())
}

fn view(line: Line) -> DeltaView {
    DeltaView {
        component: line.pair.component,
        from: line.pair.from,
        old: line.pair.old.map(|old| old.root),
        new: line.pair.new.root,
        profile: line.profile.name().to_owned(),
        devices: line.pair.devices,
        full: line.pair.new.length,
        state: line.state,
    }
}

/// Says what an operator should know about the deltas of a release that is about to start.
pub(super) fn warning(state: &Shared, product: &ProductId, rc: u64) -> Option<String> {
    let (unfinished, all) = state.api.deltas.as_ref()?.unfinished(product, rc);
    (unfinished > 0).then(|| {
        format!(
            "{unfinished} of {all} deltas of release {rc} are still being made: devices that start before take more \
             bytes; see `tern release deltas --product {product} --rc {rc}`"
        )
    })
}
