//! The plot: a fleet, a good release that reaches everybody, a bad one that is taken back.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tern_protocol::state::Outcome;

use super::fleet::{DemoDevice, Setting, describe};
use super::payload::Images;
use super::service::ServiceProcess;
use super::stop::Stop;
use super::tell::Teller;
use crate::api::client::Client;
use crate::api::types::{
    AddDevices, AddedDevices, DeviceView, DoneBody, LedgerView, Preview, Promote, PublishRelease,
    RolloutView, ServiceStatus, StartRollout,
};
use crate::cli::demo::DemoArgs;
use crate::clock;
use crate::core::fact::DeviceEntry;
use crate::core::rollout::hold_back::HoldBack;
use crate::core::rollout::plan::{Phase, Plan, Reach};
use crate::core::rollout::policy::PhaseRule;
use crate::core::rollout::record::Status;
use crate::core::rollout::verdict::{HoldReason, Verdict};
use crate::core::rollout::wave::Waves;
use crate::keys;
use crate::release;
use crate::token_file;

const PRODUCT: &str = "router";
const MODEL: &str = "tr-100";
/// How often the story looks at the service.
const LOOK: Duration = Duration::from_millis(150);
/// Seconds for which a release file is good.
const RELEASE_LIFE: u64 = 180 * 24 * 3600;
/// The longest that any part of the story may take.
const PATIENCE: u64 = 300_000;

/// What the story ends with; the last line with `--json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    pub(super) devices: u32,
    pub(super) good: Good,
    pub(super) bad: Bad,
    pub(super) stranded: u64,
    pub(super) bytes_payload: u64,
    pub(super) bytes_wire: u64,
    pub(super) ledger: LedgerSummary,
}

/// Release 2.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Good {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) seconds: f64,
}

/// Release 3.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bad {
    pub(super) verdict: String,
    pub(super) started: u64,
    pub(super) bad: u64,
    pub(super) rolled_back: u64,
    pub(super) recalled: u64,
    pub(super) never_offered: u64,
    pub(super) kill_ms_p50: u64,
    pub(super) kill_ms_p99: u64,
}

/// The ledger, verified from its files.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LedgerSummary {
    pub(super) frames: u64,
    pub(super) verified: bool,
}

/// Tells it.
pub(super) fn tell(args: &DemoArgs, folder: &Path, stop: &Stop) -> anyhow::Result<Summary> {
    let teller = Teller::new(args.json);
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    teller.title("Tern demo", &format!("{} devices, one day passes in {} s", args.devices, args.day));

    let data = folder.join("service");
    let offline = folder.join("offline-keys");
    // Nothing of value hangs on these keys, and nobody is there to type a passphrase.
    keys::init(&keys::InitOptions::unencrypted(
        "demo".parse()?,
        PRODUCT.parse()?,
        data.clone(),
        offline.clone(),
        clock::now() / 1000,
    ))?;
    teller.say("keys", "root, targets and release keys stay offline; the service holds the online ones");
    let mut service = ServiceProcess::start(&data, stop)?;
    let token = token_file::read(&data.join(token_file::ADMIN))?;
    let client = Client::new(&format!("http://{}", service.addresses.api)).with_token(&token);
    teller
        .say("service", &format!("up on {}, broker on {}", service.addresses.api, service.addresses.mqtt[0]));

    let images = Images::make(folder, args.image.as_ref(), args.bad_rate, args.seed)?;
    let mut devices = make_devices(args, folder, &data, &images, &mut service, &client, &teller)?;
    for device in &mut devices {
        device.start()?;
    }
    let all = u64::from(args.devices);
    let enrolled = |status: &ServiceStatus| status.enrolled >= all;
    wait_for(&client, &mut service, &mut devices, "the agents to enrol", enrolled)?;
    teller.say("fleet", &format!("{} agents are up and enrolled, each a process of its own", args.devices));

    let started = clock::now();
    publish(&client, folder, &offline, 2, "2.0.0", &images.new, &teller)?;
    let good = roll_out(&client, &mut service, 2, plan(args), &teller)?;
    let seconds = (clock::now() - started) as f64 / 1000.0;
    anyhow::ensure!(good.status == Status::Completed, "release 2 was not completed: {}", good.because);

    publish(&client, folder, &offline, 3, "3.0.0", &images.bad, &teller)?;
    let bad = roll_out(&client, &mut service, 3, plan(args), &teller)?;
    let bad = settle(&client, &mut service, &bad, &teller)?;

    let status: ServiceStatus = client.get("/v1/status")?;
    let bad = tell_bad(&client, &devices, &bad)?;
    let stranded = stranded(&client, &mut devices)?;
    devices.iter_mut().for_each(DemoDevice::stop);
    let ledger: LedgerView = client.get("/v1/ledger")?;
    service.stop();
    let verified = crate::ledger::verify(&data.join("ledger"))?;
    let summary = Summary {
        devices: args.devices,
        good: Good { succeeded: good.total.good, failed: good.total.confirmed_bad(), seconds },
        bad,
        stranded,
        bytes_payload: status.wire.packs,
        bytes_wire: status.wire.down + status.wire.up,
        ledger: LedgerSummary { frames: verified.frames, verified: verified.frames >= ledger.frames },
    };
    teller.end(&summary)?;
    Ok(summary)
}

/// The plan of the demo: 34 devices with a gate at 10 %, twice 64 with a gate at 5 %, then the rest under the
/// kill tests alone. A smaller fleet takes what it has, and the rules for tiny fleets.
fn plan(args: &DemoArgs) -> Plan {
    let soak = Duration::from_secs_f64(args.day.max(1.0).round());
    let step = |devices, gate| Phase::new(Reach::Devices(devices), PhaseRule { gate: Some(gate), soak });
    let last = Phase::new(Reach::All, PhaseRule { gate: None, soak });
    let phases = match args.devices {
        200.. => vec![step(34, 0.10), step(64, 0.05), step(64, 0.05), last],
        98..200 => vec![step(34, 0.10), step(64, 0.05), last],
        33..98 => vec![step(32, 0.10), last],
        // Too few devices to prove anything: the gate stays unproven, and an operator takes it upon themselves.
        _ => vec![step(u64::from(args.devices.div_ceil(4)), 0.05), last],
    };
    Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() }
}

fn make_devices(
    args: &DemoArgs,
    folder: &Path,
    data: &Path,
    images: &Images,
    service: &mut ServiceProcess,
    client: &Client,
    teller: &Teller,
) -> anyhow::Result<Vec<DemoDevice>> {
    let label = describe(&images.old, 1, "1.0.0")?;
    let largest =
        [&images.old, &images.new, &images.bad].into_iter().map(|p| std::fs::metadata(p).map(|m| m.len()));
    let largest = largest.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let root = data.join("products").join(PRODUCT).join("root.json");
    let broker = format!("mqtt://{}", service.addresses.mqtt[0]);
    let setting = Setting {
        folder,
        product: PRODUCT,
        model: MODEL,
        broker: &broker,
        root: &root,
        capacity: largest.next_multiple_of(1024 * 1024),
        day: args.day,
    };
    let progress = teller.progress("factory", u64::from(args.devices));
    let mut devices = Vec::new();
    let mut entries: Vec<DeviceEntry> = Vec::new();
    for index in 1..=args.devices {
        service.check()?;
        let (device, entry) = DemoDevice::make(&setting, index, &images.old, &label)?;
        devices.push(device);
        entries.push(entry);
        progress.set(u64::from(index), "");
    }
    progress.end(&format!("{} devices made, release 1 in slot a", args.devices));
    let added: AddedDevices = client.post("/v1/devices", &AddDevices { devices: entries, unsigned: true })?;
    anyhow::ensure!(added.added == devices.len(), "the service registered {} devices", added.added);
    Ok(devices)
}

fn publish(
    client: &Client,
    folder: &Path,
    offline: &Path,
    rc: u64,
    version: &str,
    image: &Path,
    teller: &Teller,
) -> anyhow::Result<()> {
    let previous: crate::api::types::ReleaseFile =
        client.get(&format!("/v1/products/{PRODUCT}/release-file"))?;
    let previous = release::ReleaseDocument::read("the present release file", previous.release.as_bytes())?;
    let new = release::NewRelease {
        product: PRODUCT.parse()?,
        rc,
        version: version.to_owned(),
        min_from: 0,
        floor: 0,
        artifacts: vec![release::NewArtifact::new(
            "rootfs",
            vec![MODEL.parse()?],
            release::measure(image, |_| {})?,
        )],
        expires: clock::now() / 1000 + RELEASE_LIFE,
    };
    let (draft, _) = release::draft(&previous, &new)?;
    let signer = keys::load_signer(&offline.join("release.pem"))?;
    let signed = String::from_utf8(release::sign(&draft, &signer)?)?;
    std::fs::write(folder.join(format!("release-{rc}.json")), &signed)?;
    client.put_image(image, |_| {})?;
    let path = format!("/v1/products/{PRODUCT}/releases");
    let _views: serde_json::Value = client.post(&path, &PublishRelease { file: signed, deltas: true })?;
    let bytes = std::fs::metadata(image)?.len();
    teller.say(
        "release",
        &format!("{rc} ({version}) signed offline and published, {:.1} MB", bytes as f64 / 1e6),
    );
    Ok(())
}

fn roll_out(
    client: &Client,
    service: &mut ServiceProcess,
    rc: u64,
    plan: Plan,
    teller: &Teller,
) -> anyhow::Result<RolloutView> {
    let start = StartRollout {
        rollout: Some(format!("release-{rc}").parse()?),
        product: PRODUCT.parse()?,
        rc,
        attempt: 1,
        plan,
    };
    let preview: Preview = client.post("/v1/rollouts/preview", &start)?;
    // The plan is the same for both releases: say once what an operator should know of it.
    if rc == 2 {
        preview.warnings.iter().for_each(|warning| teller.say("plan", warning));
    }
    let _done: serde_json::Value = client.post("/v1/rollouts", &start)?;
    teller.say("rollout", &format!("of release {rc} starts, {} phases", preview.phases.len()));
    let began = clock::now();
    let mut shown = 0;
    let mut progress = teller.progress("phase 1", preview.phases[0].devices);
    loop {
        service.check()?;
        let view: RolloutView = client.get(&format!("/v1/rollouts/release-{rc}"))?;
        for phase in view.phases.iter().filter(|p| p.open) {
            if phase.phase <= shown {
                continue;
            }
            if phase.phase > 1 {
                progress.end(&view.because);
                progress = teller.progress(&format!("phase {}", phase.phase), phase.devices);
            }
            shown = phase.phase;
        }
        if let Some(phase) = view.phases.get(view.phase.saturating_sub(1)) {
            let counts = &phase.counts;
            let text =
                format!("{} started, {} good, {} bad", counts.started, counts.good, counts.confirmed_bad());
            progress.set(counts.good + counts.confirmed_bad() + counts.recalled, &text);
        }
        match view.status {
            Status::Running => {
                let phase = view.phases.get(view.phase.saturating_sub(1));
                let whole = phase.is_some_and(|p| p.devices > 0 && p.counts.good == p.devices);
                if whole && matches!(view.verdict, Some(Verdict::Hold(HoldReason::Unproven { .. }))) {
                    teller.say("verdict", &view.explanation);
                    let promote = Promote { from_phase: view.phase, key: None };
                    let done: DoneBody =
                        client.post(&format!("/v1/rollouts/release-{rc}/promote"), &promote)?;
                    teller.say("operator", &done.done);
                }
            }
            // A tiny fleet pauses at its first bad device. The demo plays the operator who has seen enough.
            Status::Paused => {
                progress.end(&view.because);
                let kill = crate::api::types::Kill { reason: "the first device to try it failed".to_owned() };
                let done: DoneBody = client.post(&format!("/v1/rollouts/release-{rc}/kill"), &kill)?;
                teller.say("operator", &done.done);
                progress = teller.progress("kill", 1);
            }
            Status::Killed | Status::Completed => {
                progress.end(&view.because);
                return Ok(view);
            }
        }
        anyhow::ensure!(clock::now() - began < PATIENCE, "release {rc} took too long: {}", view.explanation);
        std::thread::sleep(LOOK);
    }
}

/// Waits until every device that had the bad release in hand has come to an end.
fn settle(
    client: &Client,
    service: &mut ServiceProcess,
    killed: &RolloutView,
    teller: &Teller,
) -> anyhow::Result<RolloutView> {
    let began = clock::now();
    let progress = teller.progress("rollback", killed.total.started);
    loop {
        service.check()?;
        let view: RolloutView = client.get(&format!("/v1/rollouts/{}", killed.rollout))?;
        let total = &view.total;
        let ended = total.good + total.confirmed_bad() + total.recalled + total.deferred;
        let open: u64 = view
            .states
            .iter()
            .filter(|(state, _)| !matches!(state.to_string().as_str(), "idle" | "failed" | "success"))
            .map(|(_, count)| count)
            .sum();
        progress.set(
            ended,
            &format!(
                "{} rolled back, {} recalled",
                view.outcomes.get(&Outcome::RolledBack).unwrap_or(&0),
                total.recalled
            ),
        );
        if total.pending() == 0 && open == 0 {
            progress.end(&format!(
                "all {} devices that tried release {} have come to an end",
                total.started, view.rc
            ));
            return Ok(view);
        }
        anyhow::ensure!(clock::now() - began < PATIENCE, "devices did not come back: {:?}", view.states);
        std::thread::sleep(LOOK);
    }
}

fn tell_bad(client: &Client, devices: &[DemoDevice], view: &RolloutView) -> anyhow::Result<Bad> {
    let mut never_offered = 0;
    for device in devices {
        let known: DeviceView = client.get(&format!("/v1/devices/{}", device.name))?;
        never_offered += u64::from(!known.attempts.contains_key(&view.rollout));
    }
    let mut latencies = view.kill_ms.clone();
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last * percent).div_ceil(100)).copied().unwrap_or(0)
    };
    let outcome = |outcome| view.outcomes.get(&outcome).copied().unwrap_or(0);
    Ok(Bad {
        verdict: if view.status == Status::Killed {
            "kill".to_owned()
        } else {
            format!("{:?}", view.status).to_lowercase()
        },
        started: view.total.started,
        bad: view.total.bad,
        rolled_back: outcome(Outcome::RolledBack),
        recalled: outcome(Outcome::Recalled),
        never_offered,
        kill_ms_p50: percentile(50),
        kill_ms_p99: percentile(99),
    })
}

/// Counts the devices whose confirmed slot does not hold, whole, release 2, or release 3 where it was confirmed
/// before the kill; and those whose agent is gone.
fn stranded(client: &Client, devices: &mut [DemoDevice]) -> anyhow::Result<u64> {
    let mut stranded = 0;
    for device in devices {
        let known: DeviceView = client.get(&format!("/v1/devices/{}", device.name))?;
        let confirmed_bad = known
            .attempts
            .iter()
            .any(|(id, a)| id.as_str() == "release-3" && a.outcome == Some(Outcome::Success));
        let expected = if confirmed_bad { 3 } else { 2 };
        let held = device.confirmed()?;
        stranded += u64::from(held != Some(expected) || !device.alive());
    }
    Ok(stranded)
}

fn wait_for(
    client: &Client,
    service: &mut ServiceProcess,
    devices: &mut [DemoDevice],
    what: &str,
    ready: impl Fn(&ServiceStatus) -> bool,
) -> anyhow::Result<()> {
    let began = clock::now();
    loop {
        service.check()?;
        devices.iter_mut().try_for_each(DemoDevice::check)?;
        let status: ServiceStatus = client.get("/v1/status")?;
        if ready(&status) {
            return Ok(());
        }
        anyhow::ensure!(clock::now() - began < PATIENCE, "waited too long for {what}");
        std::thread::sleep(LOOK);
    }
}
