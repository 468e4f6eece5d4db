//! `tern-agent`: keeps one device on the release that its fleet has approved.

#[cfg(no_unwind_tables)]
mod no_backtrace;

mod arguments;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use arguments::Asked;
use serde_json::{Value, json};
use tern_agent::backend;
use tern_agent::component;
use tern_agent::config::Config;
use tern_agent::core::SlotName;
use tern_agent::core::durable::Durable;
use tern_agent::identity::FileIdentity;
use tern_agent::record::RecordFile;
use tern_agent::recovery::{self, Recovered, RecoveryError, Remedy};
use tern_agent::slot::Image;
use tern_protocol::chunk::{RootHasher, root};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[cfg(all(no_unwind_tables, not(panic = "abort")))]
compile_error!("a build for size leaves the unwind tables out (build.rs), so it must abort on a panic");

/// Exit code of a command line that cannot be understood.
const WRONG_USAGE: u8 = 2;
/// Exit codes of `recover`, for the init that called it: nothing that recovery could do is left; try again until it is done.
const PERSON: u8 = 3;
const WAIT: u8 = 75;

fn main() -> ExitCode {
    // TERN_LOG is a level, or targets with levels: "debug", "info,tern_agent=debug".
    let asked = std::env::var("TERN_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let log = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(log.with_filter(filter)).init();
    let asked = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(asked) => asked,
        Err(said) => {
            let _nobody_reads = std::io::stderr().write_all(said.as_bytes());
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let result = match asked {
        Asked::Text(text) => print(text.trim_end()),
        Asked::Run(config) => tern_agent::process::run_until_stopped(&config),
        Asked::Status { config, json } => status(&config, json),
        Asked::Recover { config, json } => recover(&config, json),
        Asked::Rotate(config) => rotate(&config),
        Asked::Exchange { one, other } => exchange(&one, &other),
        Asked::Identity(config) => identity(&config),
        Asked::Provision { config, image, rc, version } => provision(&config, &image, rc, version),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            match error.downcast_ref::<RecoveryError>().map(RecoveryError::remedy) {
                Some(Remedy::Person) => ExitCode::from(PERSON),
                Some(Remedy::Wait) => ExitCode::from(WAIT),
                Some(Remedy::Again) | None => ExitCode::FAILURE,
            }
        }
    }
}

fn identity(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("could not make {}", config.data_dir.display()))?;
    let line = FileIdentity::open(&config.data_dir)?.factory_line(&config.device);
    let mut line: Value = serde_json::from_str(&line)?;
    line["product"] = json!(config.product);
    line["model"] = json!(config.model);
    line["carrier"] = json!(config.carrier);
    line["region"] = json!(config.region);
    print(&line.to_string())
}

/// One step, so that a power cut leaves either of them under its old name or its new one.
fn exchange(one: &Path, other: &Path) -> anyhow::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .with_context(|| format!("could not exchange {} and {}", one.display(), other.display()))
}

fn rotate(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let durable = RecordFile::<Durable>::open(&config.data_dir, "journal")?.load()?.unwrap_or_default();
    anyhow::ensure!(
        durable.enrolled,
        "the service has never answered this device, so its keys can vouch for no others; enrol it first"
    );
    let old = FileIdentity::open(&config.data_dir)?;
    let new = FileIdentity::rotate(&config.data_dir)?;
    let short = |keys: &FileIdentity| hex::encode(&tern_agent::core::agent::Keys::identity(keys)[1..9]);
    print(&format!("identity {}… is to replace {}…; restart the agent", short(&new), short(&old)))
}

/// The recovery system's work. Whoever calls it reboots: where nothing can be done a reboot would only come back here.
fn recover(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let config = Config::load_for_recovery(path)?;
    let mut shown = 0;
    let mut progress = |done: u64, all: u64| {
        let percent = done * 100 / all.max(1);
        if percent >= shown + 10 || done == all {
            shown = percent;
            tracing::info!(percent, done, all, "recovering");
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let disk = tern_agent::storage::system();
    let recovered = runtime.block_on(recovery::recover_or_fetch(&disk, &config, &mut progress))?;
    let (slot, was_written) = (recovered.slot(), matches!(recovered, Recovered::Applied(_)));
    let is_unrecorded = matches!(recovered, Recovered::Unrecorded(_));
    if as_json {
        let mut said = json!({"slot": slot, "written": was_written});
        if is_unrecorded {
            said["unrecorded"] = json!(true);
        }
        return print(&said.to_string());
    }
    print(&match was_written {
        true => format!("package {slot} is in the system slot; reboot"),
        false if is_unrecorded => {
            format!(
                "the boot record cannot be changed; the confirmed package {slot} is in the system slot; reboot"
            )
        }
        false => format!("package {slot} was in the system slot already; reboot"),
    })
}

fn provision(path: &Path, image: &Path, rc: u64, version: String) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let described = describe(image, rc, version)?;
    std::fs::create_dir_all(&config.slots.dir)
        .with_context(|| format!("could not make {}", config.slots.dir.display()))?;
    backend::provision(&config, image, described)?;
    print(&format!("slot a holds release {rc}"))
}

/// Hashes an image as its label needs it.
fn describe(path: &Path, rc: u64, version: String) -> anyhow::Result<Image> {
    use sha2::{Digest as _, Sha256};
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let (mut sha256, mut leaves, mut length) = (Sha256::new(), RootHasher::default(), 0u64);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("could not read {}", path.display()))?;
        if read == 0 {
            break;
        }
        sha256.update(&buffer[..read]);
        leaves.update(&buffer[..read]);
        length += read as u64;
    }
    let sha256 = tern_protocol::digest::Digest(sha256.finalize().into());
    Ok(Image { rc, version, length, sha256, root: root(&leaves.finish()) })
}

fn status(path: &Path, as_json: bool) -> anyhow::Result<()> {
    use tern_agent::slot::SlotLabel;
    let config = Config::load(path)?;
    // Labels of slots, wherever those are.
    let record = if config.slots.dir.is_dir() { backend::record(&config)? } else { None };
    let Some(record) = record else {
        anyhow::bail!(
            "this device has no boot record, so it was never provisioned: tern-agent provision --config {} --image FILE \
             --rc NUMBER --version TEXT",
            path.display()
        );
    };
    let durable = match config.data_dir.is_dir() {
        true => RecordFile::<Durable>::open(&config.data_dir, "journal")?.load()?.unwrap_or_default(),
        false => Durable::default(),
    };
    let disk = tern_agent::storage::system();
    let slots = backend::slots(&config, &disk, record.active)?;
    let slot = |name| match slots.label(name) {
        Ok(SlotLabel::Holds(image)) => {
            json!({"holds": image.rc, "version": image.version, "sha256": image.sha256, "bytes": image.length})
        }
        Ok(SlotLabel::Bad) => json!({"holds": null, "label": "bad"}),
        Ok(SlotLabel::Empty) => json!({"holds": null, "label": "empty"}),
        Err(error) => json!({"holds": null, "label": error.to_string()}),
    };
    let components: serde_json::Map<String, Value> =
        component::look_at_all(&disk, &config.components, &config.data_dir, &config.device)
            .into_iter()
            .map(|(name, known)| match known {
                Ok(facts) => (name, json!({"version": facts.version, "tried": facts.unsettled})),
                Err(error) => (name, json!({"error": error.to_string()})),
            })
            .collect();
    let (state, waiting) = (&durable.state, durable.waiting.as_ref());
    let report = json!({
        "device": config.device,
        "state": state.name(),
        "rc": state.work().map(|w| w.offer.attempt.rc).or(waiting.map(|w| w.attempt.rc)),
        "waits_for": waiting.map(|waiting| waiting.reason.clone()),
        "rollout": state.work().map(|w| &w.offer.attempt).or(waiting.map(|w| &w.attempt)).map(|a| a.rollout.clone()),
        "active": record.active,
        "trial": record.trial,
        "slots": {"a": slot(SlotName::A), "b": slot(SlotName::B)},
        "components": components,
        "not_undone": Some(durable.hooks.all_not_undone()).filter(|why| !why.is_empty()),
        "floor": durable.floor,
        "halted": durable.halted,
        "epoch": durable.epoch,
        "reports_waiting": durable.outbox.pending().count(),
        "enrolled": durable.enrolled,
    });
    if as_json {
        return print(&report.to_string());
    }
    let text = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    for key in [
        "device",
        "state",
        "waits_for",
        "rc",
        "rollout",
        "active",
        "trial",
        "not_undone",
        "floor",
        "halted",
        "epoch",
        "reports_waiting",
        "enrolled",
    ] {
        out.push_str(&format!("{key:16} {}\n", text(&report[key])));
    }
    for name in ["a", "b"] {
        let slot = &report["slots"][name];
        let holds = match slot["holds"].as_u64() {
            Some(rc) => format!("release {rc} ({})", text(&slot["version"])),
            None => text(&slot["label"]),
        };
        out.push_str(&format!("{:16} {holds}\n", format!("slot {name}")));
    }
    for (name, component) in &components {
        let version =
            component["version"].as_str().filter(|version| !version.is_empty()).unwrap_or("unknown");
        let tried = component["tried"].as_u64().map(|rc| format!(", tried with release {rc}"));
        let line = match component["error"].as_str() {
            Some(error) => error.to_owned(),
            None => format!("{version}{}", tried.unwrap_or_default()),
        };
        out.push_str(&format!("{:16} {line}\n", format!("component {name}")));
    }
    print(out.trim_end())
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever read it has seen enough: `head`, or a person who left a pager.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("could not write to standard output"),
    }
}
