//! `tern device`.

mod list;

use std::path::PathBuf;

use clap::Subcommand;
use tern_protocol::id::{DeviceId, ProductId};

use super::failure::{Exit, Failure};
use super::output::table;
use super::{Context, words};
use crate::api::types::{AddDevices, AddedDevices, DeviceLine, DeviceView};
use crate::plain;

/// Devices in one request.
const BATCH: usize = 5000;
/// Devices that one answer holds at most.
const PAGE: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Register the devices of a factory list
    #[command(after_help = "The file holds one JSON object a line, or one array of them:\n  \
                      {\"device\":\"cam-1\",\"identity\":\"04…\",\"product\":\"cam\",\"model\":\"b3\",\"carrier\":\"none\",\"region\":\"eu\"}\n\n\
                      Example:\n  tern device add --file factory.jsonl")]
    Add {
        /// Read the list from this file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// List devices
    #[command(after_help = "Example:\n  tern device list --product cam")]
    List {
        /// Show only devices of this product
        #[arg(long)]
        product: Option<ProductId>,
    },
    /// Tell the story of a device
    #[command(after_help = "Example:\n  tern device show cam-1")]
    Show {
        /// The device
        device: DeviceId,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Add { file } => add(&file, context),
        Verb::List { product } => {
            let devices = all(product.as_ref(), context)?;
            context.out.result(&devices, |devices| lines(devices));
            Ok(Exit::Done)
        }
        Verb::Show { device } => {
            let view: DeviceView = context.client.get(&format!("/v1/devices/{device}"))?;
            context.out.result(&view, story);
            Ok(Exit::Done)
        }
    }
}

fn add(file: &std::path::Path, context: &Context) -> Result<Exit, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::new(format!("could not read {shown}: {e}"), "check the path"))?;
    let devices = list::read(&text).map_err(|why| {
        Failure::new(format!("{shown}: {why}"), "correct the list; no device of it was registered")
    })?;
    let mut sum = AddedDevices { added: 0, renewed: 0 };
    let bar = context.out.bytes("devices", devices.len() as u64);
    for some in devices.chunks(BATCH) {
        let request = AddDevices { devices: some.to_vec() };
        let AddedDevices { added, renewed } = context.client.post("/v1/devices", &request)?;
        sum.added += added;
        sum.renewed += renewed;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    context.out.result(&sum, |sum| {
        format!("{} added, {} renewed", words::count(sum.added as u64, "device"), sum.renewed)
    });
    Ok(Exit::Done)
}

fn all(product: Option<&ProductId>, context: &Context) -> Result<Vec<DeviceLine>, Failure> {
    let filter = product.map(|product| format!("&product={product}")).unwrap_or_default();
    let mut devices: Vec<DeviceLine> = Vec::new();
    loop {
        let after = devices.last().map(|last| format!("&after={}", last.device)).unwrap_or_default();
        let page: Vec<DeviceLine> =
            context.client.get(&format!("/v1/devices?limit={PAGE}{filter}{after}"))?;
        let full = page.len() == PAGE;
        devices.extend(page);
        if !full {
            return Ok(devices);
        }
    }
}

fn lines(devices: &[DeviceLine]) -> String {
    let rows = devices.iter().map(|line| {
        let registry = &line.registry;
        [
            line.device.to_string(),
            registry.product.to_string(),
            registry.model.to_string(),
            registry.region.to_string(),
            registry.carrier.to_string(),
            line.running.to_string(),
            line.state.map_or_else(|| "-".to_owned(), |state| state.to_string()),
            if line.enrolled { "yes" } else { "no" }.to_owned(),
            words::maybe(line.seen_at),
        ]
    });
    let heading = ["device", "product", "model", "region", "carrier", "rc", "state", "enrolled", "seen"];
    table(heading, rows)
}

fn story(view: &DeviceView) -> String {
    let (line, registry) = (&view.line, &view.line.registry);
    let mut text = format!(
        "{}: {} {} in {} on {}\nruns release {}, floor {}, epoch {}, agent {}\nlast report {}{}\n",
        line.device,
        registry.product,
        registry.model,
        registry.region,
        registry.carrier,
        line.running,
        view.floor,
        view.epoch,
        if view.agent.is_empty() { "unknown".to_owned() } else { plain::line(&view.agent) },
        words::maybe(line.seen_at),
        if line.enrolled { "" } else { "; not enrolled yet" },
    );
    let mut attempts: Vec<_> = view.attempts.iter().collect();
    attempts.sort_by_key(|(_, attempt)| attempt.started_at);
    if !attempts.is_empty() {
        let rows = attempts.into_iter().map(|(rollout, attempt)| {
            let outcome = attempt.outcome.map_or_else(|| "open".to_owned(), |outcome| outcome.to_string());
            let halted = match (attempt.halted_at, attempt.halted_in) {
                (Some(at), Some(state)) => format!("{} in {state}", words::moment(at)),
                (Some(at), None) => words::moment(at),
                _ => "-".to_owned(),
            };
            [
                rollout.to_string(),
                attempt.attempt.to_string(),
                attempt.phase.to_string(),
                words::maybe(attempt.started_at),
                attempt.state.to_string(),
                outcome,
                halted,
                attempt.reason.clone().unwrap_or_default(),
            ]
        });
        let heading = ["rollout", "attempt", "phase", "started", "state", "outcome", "halted", "reason"];
        text.push_str(&format!("\n{}\n", table(heading, rows)));
    }
    if !view.anomalies.is_empty() {
        text.push_str("\nreports that did not fit:\n");
        for anomaly in &view.anomalies {
            text.push_str(&format!("  {}  {}\n", words::moment(anomaly.at), plain::line(&anomaly.what)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_sent_cannot_write_lines_of_its_own() {
        let view: DeviceView = serde_json::from_value(serde_json::json!({
            "device": "cam-1", "product": "cam", "model": "b3", "carrier": "none", "region": "eu",
            "running": 1, "enrolled": true, "seen_at": null, "state": null, "epoch": 1, "floor": 0,
            "agent": "1.0\nruns release 9",
            "attempts": {"cam-7-1": {
                "attempt": 1, "phase": 1, "started_at": 1, "state": "failed", "outcome": "failed",
                "reason": "probe: \u{1b}[2J\ncam-8-1", "halted_at": null, "halted_in": null,
            }},
            "anomalies": [{"at": 1, "n": 1, "what": "said \u{9b}31m\nnothing"}],
        }))
        .unwrap();

        let text = story(&view);

        let quiet = text.chars().all(|character| character == '\n' || !character.is_control());
        assert!(quiet, "{text:?}");
        assert!(
            text.lines().all(|line| !line.starts_with("cam-8-1") && !line.starts_with("nothing")),
            "{text}"
        );
        assert!(text.contains(r"probe: \u{1b}[2J\ncam-8-1"), "{text}");
    }
}
