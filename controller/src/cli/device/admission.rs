//! `tern device pending`, and what an operator decides about devices.

use tern_protocol::id::{ClaimId, DeviceId};

use crate::api::types::{Because, DoneBody, PendingLine};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::table;
use crate::cli::{Context, words};

/// Devices, and why.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct About {
    /// The devices
    #[arg(required = true)]
    devices: Vec<DeviceId>,
    /// Write this into the ledger
    #[arg(long, default_value = "")]
    reason: String,
}

impl About {
    pub(super) fn decide(&self, verb: &str, context: &Context) -> Result<Exit, Failure> {
        decide(&self.devices, verb, &self.reason, context)
    }
}

/// Decides about devices one by one; the first refusal ends it and names its device.
pub(super) fn decide(
    devices: &[DeviceId],
    verb: &str,
    reason: &str,
    context: &Context,
) -> Result<Exit, Failure> {
    for device in devices {
        let body = Because { reason: reason.to_owned() };
        let done: DoneBody = context.client.post(&format!("/v1/devices/{device}/{verb}"), &body)?;
        context.out.result(&done, |done| done.done.clone());
    }
    Ok(Exit::Done)
}

pub(super) fn approve(
    devices: Vec<DeviceId>,
    claim: Option<ClaimId>,
    context: &Context,
) -> Result<Exit, Failure> {
    let devices = match claim {
        None => devices,
        Some(claim) => {
            let waiting: Vec<PendingLine> = context.client.get("/v1/pending")?;
            waiting.into_iter().filter(|line| line.claim == claim).map(|line| line.device).collect()
        }
    };
    if devices.is_empty() {
        context.out.note("nobody waits by that claim");
    }
    decide(&devices, "approve", "", context)
}

pub(super) fn pending(context: &Context) -> Result<Exit, Failure> {
    let waiting: Vec<PendingLine> = context.client.get("/v1/pending")?;
    context.out.result(&waiting, |waiting| {
        if waiting.is_empty() {
            return "no device waits for approval".to_owned();
        }
        let rows = waiting.iter().map(|line| {
            let registry = &line.registry;
            [
                line.device.to_string(),
                registry.product.to_string(),
                registry.model.to_string(),
                registry.region.to_string(),
                registry.carrier.to_string(),
                line.claim.to_string(),
                words::moment(line.since),
                if line.replaces { "takes the place of a reset device" } else { "" }.to_owned(),
                line.identity.clone(),
            ]
        });
        table(["device", "product", "model", "region", "carrier", "claim", "since", "note", "identity"], rows)
    });
    Ok(Exit::Done)
}
