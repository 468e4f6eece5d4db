//! `tern device`.

mod admission;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use tern_protocol::id::{ClaimId, DeviceId, ProductId, TagId};

use super::failure::{Exit, Failure};
use super::output::table;
use super::{Context, words};
use crate::api::types::{AddDevices, AddedDevices, DeviceLine, DeviceView, DoneBody, SignedList, TagDevices};
use crate::core::enrolment::list;
use crate::core::fleet::device::Standing;
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
                      Without a signature whoever can change the file chooses which devices you trust. --unsigned says that you know,\n\
                      and works only on the service's own machine.\n\n\
                      Examples:\n  tern device add --file factory.jsonl --signature factory.jsonl.sig\n  tern device add --file bench.jsonl --unsigned")]
    Add {
        /// Read the list from this file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Read the signature of a trusted factory from this file
        #[arg(long, value_name = "FILE", required_unless_present = "unsigned")]
        signature: Option<PathBuf>,
        /// Trust the list though nobody has signed it
        #[arg(long, conflicts_with = "signature")]
        unsigned: bool,
    },
    /// List devices
    #[command(
        after_help = "Examples:\n  tern device list --product cam\n  tern device list --standing revoked --json"
    )]
    List {
        /// Show only devices of this product
        #[arg(long)]
        product: Option<ProductId>,
        /// Show only devices of this standing
        #[arg(long, value_parser = ["active", "quarantined", "revoked", "reset"])]
        standing: Option<String>,
    },
    /// List the devices that wait for approval
    #[command(after_help = "Example:\n  tern device pending")]
    Pending,
    /// Let waiting devices in
    #[command(
        after_help = "Compare the identity in `tern device pending` with the device's own (`tern-agent identity`) first.\n\n\
                      Examples:\n  tern device approve cam-1 cam-2\n  tern device approve --claim cam-claim-1"
    )]
    Approve {
        /// The devices
        #[arg(required_unless_present = "claim")]
        devices: Vec<DeviceId>,
        /// All that wait by this claim
        #[arg(long, conflicts_with = "devices")]
        claim: Option<ClaimId>,
    },
    /// Turn waiting devices away
    #[command(
        after_help = "The same key cannot apply again by the same claim.\n\nExample:\n  tern device reject cam-9"
    )]
    Reject {
        /// The devices
        #[arg(required = true)]
        devices: Vec<DeviceId>,
    },
    /// Give devices a label, by which a phase may include them
    #[command(
        after_help = "Examples:\n  tern device tag bench cam-1 cam-2\n  tern device tag bench cam-2 --remove"
    )]
    Tag {
        /// The label
        tag: TagId,
        /// The devices
        #[arg(required = true)]
        devices: Vec<DeviceId>,
        /// Take it from them
        #[arg(long)]
        remove: bool,
    },
    /// Hear a device and count nothing of it
    #[command(
        after_help = "It starts no release any more and ends what it has begun. What it said before stays counted; a start\n\
                      without an end is taken out of the counts.\n\nExample:\n  tern device quarantine cam-7 --reason 'reports nonsense'"
    )]
    Quarantine(admission::About),
    /// End a device's quarantine
    #[command(after_help = "Example:\n  tern device readmit cam-7 --reason 'power supply replaced'")]
    Readmit(admission::About),
    /// Neither hear nor answer a device any more
    #[command(
        after_help = "Take its password or certificate at the broker away as well.\n\nExample:\n  tern device revoke cam-7 --reason stolen"
    )]
    Revoke(admission::About),
    /// Let a device that lost its keys enrol again, by a claim or a list
    #[command(after_help = "Until then it is neither heard nor answered. The lost keys never come back.\n\n\
                      Example:\n  tern device reset cam-7 --reason 'flash replaced'")]
    Reset(admission::About),
    /// Tell the story of a device
    #[command(after_help = "Example:\n  tern device show cam-1")]
    Show {
        /// The device
        device: DeviceId,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Add { file, signature: Some(signature), .. } => add_signed(&file, &signature, context),
        Verb::Add { file, signature: None, .. } => add_unsigned(&file, context),
        Verb::Tag { tag, devices, remove } => {
            let done: DoneBody =
                context.client.post("/v1/tags", &TagDevices { devices, tag, on: !remove })?;
            context.out.result(&done, |done| done.done.clone());
            Ok(Exit::Done)
        }
        Verb::Pending => admission::pending(context),
        Verb::Approve { devices, claim } => admission::approve(devices, claim, context),
        Verb::Reject { devices } => admission::decide(&devices, "reject", "", context),
        Verb::Quarantine(about) => about.decide("quarantine", context),
        Verb::Readmit(about) => about.decide("readmit", context),
        Verb::Revoke(about) => about.decide("revoke", context),
        Verb::Reset(about) => about.decide("reset", context),
        Verb::List { product, standing } => {
            let mut devices = all(product.as_ref(), context)?;
            devices.retain(|line| standing.as_ref().is_none_or(|word| word == line.standing.word()));
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

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|e| Failure::new(format!("could not read {}: {e}", file.display()), "check the path"))
}

fn add_signed(file: &Path, signature: &Path, context: &Context) -> Result<Exit, Failure> {
    let list = read(file)?;
    let signature = std::fs::read(signature).map_err(|e| {
        Failure::new(format!("could not read {}: {e}", signature.display()), "check the path")
    })?;
    let request = SignedList { list, signature: hex::encode(signature) };
    let added: AddedDevices = context.client.post("/v1/factory-lists", &request)?;
    context.out.result(&added, count);
    Ok(Exit::Done)
}

fn count(sum: &AddedDevices) -> String {
    format!("{} devices added, {} renewed", sum.added, sum.renewed)
}

fn add_unsigned(file: &Path, context: &Context) -> Result<Exit, Failure> {
    let (shown, text) = (file.display(), read(file)?);
    let devices = list::read(&text).map_err(|why| {
        Failure::new(format!("{shown}: {why}"), "correct the list; no device of it was registered")
    })?;
    let mut sum = AddedDevices { added: 0, renewed: 0 };
    let bar = context.out.bytes("devices", devices.len() as u64);
    for some in devices.chunks(BATCH) {
        let request = AddDevices { devices: some.to_vec(), unsigned: true };
        let AddedDevices { added, renewed } = context.client.post("/v1/devices", &request)?;
        sum.added += added;
        sum.renewed += renewed;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    context.out.result(&sum, count);
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
            line.standing.word().to_owned(),
            line.running.to_string(),
            line.state.map_or_else(|| "-".to_owned(), |state| state.to_string()),
            if line.enrolled { "yes" } else { "no" }.to_owned(),
            words::maybe(line.seen_at),
        ]
    });
    let heading =
        ["device", "product", "model", "region", "carrier", "standing", "rc", "state", "enrolled", "seen"];
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
    if !view.components.is_empty() {
        let components = view.components.iter().map(|(name, version)| format!("{name} {version}"));
        text.push_str(&format!("components: {}\n", plain::line(&components.collect::<Vec<_>>().join(", "))));
    }
    let standing = match line.standing {
        Standing::Active => None,
        Standing::Quarantined => Some("it is heard and not counted, and starts nothing new"),
        Standing::Revoked => Some("it is neither heard nor answered"),
        Standing::Reset => Some("it may enrol with new keys by a claim or a list"),
    };
    if let Some(means) = standing {
        text.push_str(&format!("{}: {}; {means}\n", line.standing.word(), view.because));
    }
    let mut attempts: Vec<_> = view.attempts.iter().collect();
    // What has not started yet comes after all that has.
    attempts.sort_by_key(|(_, attempt)| (attempt.started_at.is_none(), attempt.started_at));
    if !attempts.is_empty() {
        let rows = attempts.into_iter().map(|(rollout, attempt)| {
            let outcome = match attempt.outcome {
                Some(outcome) => outcome.to_string(),
                None if attempt.silent => "silent".to_owned(),
                None => "open".to_owned(),
            };
            let halted = match (attempt.halted_at, attempt.halted_in) {
                (Some(at), Some(state)) => format!("{} in {state}", words::moment(at)),
                (Some(at), None) => words::moment(at),
                _ => "-".to_owned(),
            };
            [
                rollout.to_string(),
                attempt.attempt.to_string(),
                if attempt.held_back { "-".to_owned() } else { attempt.phase.to_string() },
                words::maybe(attempt.started_at),
                if attempt.held_back { "held back".to_owned() } else { attempt.state.to_string() },
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

    fn view(attempt: serde_json::Value) -> DeviceView {
        serde_json::from_value(serde_json::json!({
            "device": "cam-1", "product": "cam", "model": "b3", "carrier": "none", "region": "eu",
            "standing": "active", "identity": "04", "because": "", "running": 1, "enrolled": true, "seen_at": null,
            "state": null, "epoch": 1, "floor": 0, "agent": "1.0", "attempts": {"cam-7-1": attempt}, "anomalies": [],
        }))
        .unwrap()
    }

    #[test]
    fn a_device_that_is_held_back_is_in_no_phase_and_one_that_fell_silent_is_said_to_have() {
        let attempt = |held_back: bool| {
            serde_json::json!({
                "attempt": 1, "phase": 1, "started_at": null, "state": "idle", "outcome": null, "reason": null,
                "halted_at": null, "halted_in": null, "held_back": held_back, "silent": true,
            })
        };
        let cells = |held_back: bool| -> Vec<String> {
            let text = story(&view(attempt(held_back)));
            let line = text.lines().find(|line| line.trim_start().starts_with("cam-7-1")).unwrap();
            line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };

        assert_eq!(cells(true), ["cam-7-1", "1", "-", "-", "held back", "silent", "-"]);
        assert_eq!(cells(false), ["cam-7-1", "1", "1", "-", "idle", "silent", "-"]);
    }

    #[test]
    fn attempts_are_told_as_they_began_and_those_that_have_not_last() {
        let attempt = |started_at: Option<u64>| {
            serde_json::json!({
                "attempt": 1, "phase": 1, "started_at": started_at, "state": "idle", "outcome": null, "reason": null,
                "halted_at": null, "halted_in": null, "held_back": false, "silent": false,
            })
        };
        let mut view = view(attempt(None));
        let parsed = |started_at| serde_json::from_value(attempt(started_at)).unwrap();
        view.attempts =
            [("cam-6-1", None), ("cam-7-1", Some(2000)), ("cam-8-1", Some(1000)), ("cam-9-1", None)]
                .map(|(rollout, started_at)| (rollout.parse().unwrap(), parsed(started_at)))
                .into();

        let text = story(&view);

        let told: Vec<&str> = text.lines().filter_map(|line| line.trim_start().split(' ').next()).collect();
        let told: Vec<&str> =
            told.into_iter().filter(|word| word.starts_with("cam-") && word.ends_with("-1")).collect();
        assert_eq!(told, ["cam-8-1", "cam-7-1", "cam-6-1", "cam-9-1"], "{text}");
    }

    #[test]
    fn what_a_device_sent_cannot_write_lines_of_its_own() {
        let view: DeviceView = serde_json::from_value(serde_json::json!({
            "device": "cam-1", "product": "cam", "model": "b3", "carrier": "none", "region": "eu",
            "standing": "active", "identity": "04", "because": "listed\nby nobody", "running": 1, "enrolled": true, "seen_at": null, "state": null, "epoch": 1, "floor": 0,
            "agent": "1.0\nruns release 9", "components": {"modem": "4.2\nnothing is wrong"},
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
        assert!(text.contains(r"components: modem 4.2\nnothing"), "{text}");
    }
}
