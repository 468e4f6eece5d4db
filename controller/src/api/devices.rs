//! Paths under `/v1/devices`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Bound;

use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tern_protocol::id::{DeviceId, ProductId};

use super::access::{Caller, is_from_here};
use super::answer::{Answer, Body, Failure, Query, good, name};
use super::routes::Shared;
use super::types::{AddDevices, AddedDevices, DeviceLine, DeviceView};
use super::views;
use crate::core::service::{Command, Reply};

/// Devices in one answer.
const PAGE: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    product: Option<ProductId>,
    after: Option<DeviceId>,
    limit: Option<usize>,
}

/// Lists devices in the order of their names, those that come after `after`.
pub(super) async fn list(State(state): State<Shared>, query: Query<Which>) -> Answer<Vec<DeviceLine>> {
    let Which { product, after, limit } = query.0;
    let limit = limit.unwrap_or(PAGE).min(PAGE);
    let lines = move |service: &mut crate::core::service::Service, _: &_| {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = |d: &crate::core::fleet::device::Device| {
            product.as_ref().is_none_or(|product| d.registry.product == *product)
        };
        let devices = service.fleet().devices.range((from, Bound::Unbounded));
        devices.filter(|(_, d)| wanted(d)).take(limit).map(|(id, d)| views::device_line(id, d)).collect()
    };
    good(state.api.engine.query(lines).await?)
}

/// Registers devices on nobody's word: the request must say so, and come from this machine.
pub(super) async fn add(
    State(state): State<Shared>,
    caller: Caller,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body<AddDevices>,
) -> Answer<AddedDevices> {
    let AddDevices { devices, unsigned } = body.0;
    if !unsigned {
        let hint = "send it signed to /v1/factory-lists, or say \"unsigned\": true";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "nobody has signed this list", hint));
    }
    if !is_from_here(peer, &headers) {
        let error = if peer.ip().to_canonical().is_loopback() {
            "a proxy passed this list on, so it may come from elsewhere, and nobody has signed it".to_owned()
        } else {
            format!("{} is not this machine, and nobody has signed this list", peer.ip())
        };
        let hint = "have a trusted factory sign it, or send it from the service's machine without a proxy";
        return Err(Failure::new(StatusCode::FORBIDDEN, error, hint));
    }
    let products: BTreeSet<ProductId> = devices.iter().map(|entry| entry.registry.product.clone()).collect();
    let unknown = move |service: &mut crate::core::service::Service, _: &_| {
        products.into_iter().find(|product| !service.fleet().products.contains_key(product))
    };
    // Such a device could never be offered anything, and a slip in the list would show only then.
    if let Some(product) = state.api.engine.query(unknown).await? {
        let error = format!("the list names product {product}, which this service does not have");
        let hint = "correct the list, or set the product up with `tern keys init` and restart the service";
        return Err(Failure::new(StatusCode::CONFLICT, error, hint));
    }
    let command = Command::AddUnsignedDevices { devices };
    match caller.command(&state, command).await? {
        Reply::Devices { added, renewed } => good(AddedDevices { added, renewed }),
        other => Err(Failure::internal(format!("the engine answered {other:?} to a list of devices"))),
    }
}

pub(super) async fn show(State(state): State<Shared>, Path(id): Path<String>) -> Answer<DeviceView> {
    let id: DeviceId = name(&id)?;
    let missing = format!("no device {id}");
    let view = move |service: &mut crate::core::service::Service, _: &_| {
        service.fleet().devices.get(&id).map(|device| views::device(&id, device))
    };
    let view = state.api.engine.query(view).await?;
    good(view.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, missing, "see `tern device list`"))?)
}
