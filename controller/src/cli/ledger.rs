//! `tern ledger`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::failure::{Exit, Failure};
use super::{Context, words};
use crate::api::types::{LedgerFrame, LedgerPage};
use crate::core::access::Made;
use crate::core::enrolment::claim::Approval;
use crate::core::enrolment::factory::Vouched;
use crate::core::fact::{Entry, Fact};
use crate::core::replay::{Found, Replay};
use crate::ledger::{Frame, Frames, verify};
use crate::plain;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check every frame and how they are chained
    #[command(
        after_help = "Reads the folder and changes nothing; made for a copy. Compare the hash with one that was \
                      written down elsewhere.\n\nExample:\n  mkdir -p /tmp/copy && cp -r ./tern-data/ledger /tmp/copy/ && tern ledger verify --data /tmp/copy"
    )]
    Verify {
        /// Check the ledger in this data folder
        #[arg(long, value_name = "DIR", default_value = "./tern-data")]
        data: PathBuf,
    },
    /// Work every verdict out again from the frames before it, and compare
    #[command(
        after_help = "Reads the folder and changes nothing; made for a copy. Exit code 1 if a verdict is another.\n\n\
                      Example:\n  tern ledger replay --data /tmp/copy"
    )]
    Replay {
        /// Replay the ledger in this data folder
        #[arg(long, value_name = "DIR", default_value = "./tern-data")]
        data: PathBuf,
    },
    /// Print frames, the service's or those of a folder
    #[command(after_help = "Example:\n  tern ledger show --from 100 --limit 20")]
    Show {
        /// Begin with this frame
        #[arg(long, value_name = "N", default_value_t = 0)]
        from: u64,
        /// Print at most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
        /// Read this data folder instead of asking the service
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Verify { data } => check(&data, context),
        Verb::Replay { data } => replay(&data, context),
        Verb::Show { from, limit, data: Some(data) } => {
            let folder = folder(&data)?;
            let frames = Frames::new(&folder, from, verify(&folder)?.frames)?;
            for frame in frames.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
                print(context, &read(frame?)?);
            }
            Ok(Exit::Done)
        }
        Verb::Show { from, limit, data: None } => {
            let (mut next, mut left) = (Some(from), limit);
            while let Some(from) = next.filter(|_| left > 0) {
                let path = format!("/v1/ledger/frames?from={from}&limit={}", left.min(1000));
                let page: LedgerPage = context.client.get(&path)?;
                page.frames.iter().for_each(|frame| print(context, frame));
                left = left.saturating_sub(page.frames.len() as u64);
                next = page.next;
            }
            Ok(Exit::Done)
        }
    }
}

fn folder(data: &Path) -> Result<PathBuf, Failure> {
    let folder = data.join("ledger");
    if folder.is_dir() {
        return Ok(folder);
    }
    let error = format!("there is no ledger in {}", data.display());
    Err(Failure::new(error, "name the data folder with --data: the one that has the folder `ledger`"))
}

fn check(data: &Path, context: &Context) -> Result<Exit, Failure> {
    let folder = folder(data)?;
    let report = verify(&folder)?;
    // Whole frames that say nothing would be as bad as broken ones.
    for frame in Frames::new(&folder, 0, report.frames)? {
        read(frame?)?;
    }
    let torn = report.torn.as_ref().map(|cut| json!({"file": cut.file, "at": cut.at, "bytes": cut.bytes}));
    let value = json!({"frames": report.frames, "head": report.head_hash, "torn": torn});
    context.out.result(&value, |_| {
        let whole = format!("{} frames are whole and chained\nhead {}", report.frames, report.head_hash);
        match &report.torn {
            None => whole,
            Some(cut) => format!(
                "{whole}\n{} B after byte {} of {} are not whole; nothing in them was acknowledged",
                cut.bytes,
                cut.at,
                cut.file.display()
            ),
        }
    });
    Ok(Exit::Done)
}

/// One line for each verdict as it is found, then the sums.
fn replay(data: &Path, context: &Context) -> Result<Exit, Failure> {
    let folder = folder(data)?;
    let frames = verify(&folder)?.frames;
    let mut replay = Replay::new();
    let (mut same, mut by_hand, mut differ) = (0u64, 0u64, 0u64);
    for frame in Frames::new(&folder, 0, frames)? {
        let frame = read(frame?)?;
        let (seq, at) = (frame.seq, frame.entry.at);
        match replay.take(&frame.entry) {
            Found::NoVerdict => {}
            Found::ByHand => by_hand += 1,
            Found::Same { rollout, verdict } => {
                same += 1;
                let value =
                    json!({"seq": seq, "at": at, "rollout": rollout, "same": true, "verdict": verdict});
                context.out.result(&value, |_| format!("{seq:>8}  {rollout}: {verdict}"));
            }
            Found::Differs { rollout, ledger, replay } => {
                differ += 1;
                let value = json!({
                    "seq": seq, "at": at, "rollout": rollout, "same": false, "verdict": ledger, "replay": replay
                });
                let said =
                    |_: &_| format!("{seq:>8}  {rollout}: DIFFERS\n  ledger: {ledger}\n  replay: {replay}");
                context.out.result(&value, said);
            }
        }
    }
    let value = json!({"frames": frames, "same": same, "by_hand": by_hand, "differ": differ});
    context.out.result(&value, |_| {
        let verdicts = words::count(same, "verdict");
        format!("{frames} frames: {verdicts} came out the same, {differ} did not, {by_hand} by hand")
    });
    Ok(if differ == 0 { Exit::Done } else { Exit::Failed })
}

fn read(frame: Frame) -> Result<LedgerFrame, Failure> {
    let entry: Entry = serde_json::from_slice(&frame.payload).map_err(|e| {
        let error = format!("frame {} is not a fact that this version knows: {e}", frame.sequence);
        Failure::new(error, "use the version of `tern` that wrote it, or a newer one")
    })?;
    Ok(LedgerFrame { seq: frame.sequence, hash: frame.hash, entry })
}

fn print(context: &Context, frame: &LedgerFrame) {
    context.out.result(frame, |frame| {
        let hash = frame.hash.to_string();
        let mut said = plain::line(&said(&frame.entry.fact));
        if let Some(actor) = &frame.entry.actor {
            said.push_str(&format!(" [{actor}]"));
        }
        format!("{:>8}  {}  {}  {said}", frame.seq, &hash[..12], words::moment(frame.entry.at))
    });
}

fn said(fact: &Fact) -> String {
    match fact {
        Fact::ServiceStarted { version } => format!("service {version} started"),
        Fact::ReceptionBegan => "messages of devices arrive".to_owned(),
        Fact::ReceptionEnded => "messages of devices do not arrive any more".to_owned(),
        Fact::Receiving => "messages of devices arrive still".to_owned(),
        Fact::DeadlinePassed { rollout, deadline, heard, silent } => {
            let due = words::count((heard.len() + silent.len()) as u64, "device");
            let mut said = format!(
                "rollout {rollout}: the {} deadline has passed for {due}, {} silent",
                deadline.word(),
                silent.len()
            );
            if !silent.is_empty() {
                let names: Vec<&str> = silent.iter().take(5).map(|id| id.as_str()).collect();
                let more = if silent.len() > names.len() { ", …" } else { "" };
                said.push_str(&format!(" ({}{more})", names.join(", ")));
            }
            said
        }
        Fact::OutageSeen { rollout, away, others } => {
            format!("rollout {rollout}: {away} of {others} devices outside it went away too")
        }
        Fact::ProductAdded { product, .. } => format!("product {product} set up"),
        Fact::DevicesAdded { devices, by } => {
            let by = match by {
                Some(Vouched::ByFactory { factory, list }) => {
                    format!(", vouched for by factory {factory} in list {}", &list.to_string()[..12])
                }
                Some(Vouched::Unsigned) => ", UNSIGNED".to_owned(),
                None => String::new(),
            };
            format!("{} registered{by}", words::count(devices.len() as u64, "device"))
        }
        Fact::FactoryAdded { factory, .. } => format!("factory {factory} trusted"),
        Fact::FactoryRevoked { factory } => format!("factory {factory} revoked"),
        Fact::ClaimCreated { claim, terms, .. } => {
            format!("claim {claim} made for {} devices of product {}", terms.count, terms.product)
        }
        Fact::ClaimRevoked { claim } => format!("claim {claim} revoked"),
        Fact::Applied { device, claim, .. } => format!("device {device} applied by claim {claim}"),
        Fact::Approved { device, by: Approval::Hand } => format!("device {device} approved by an operator"),
        Fact::Approved { device, by: Approval::Auto } => format!("device {device} approved by its claim"),
        Fact::Rejected { device } => format!("device {device} rejected"),
        Fact::StandingChanged { device, standing, because } => {
            format!("device {device} is {}: {because}", standing.word())
        }
        Fact::IdentityReplaced { device, .. } => format!("device {device} has replaced its keys"),
        Fact::Enrolled { device, .. } => format!("device {device} enrolled"),
        Fact::TokenCreated { token, role, made, .. } => {
            let how = match made {
                Made::Token => "",
                Made::File => " by the service, into its data folder",
                Made::Loopback => " from loopback without a token",
            };
            format!("token {token} made{how}: {role}")
        }
        Fact::TokenRevoked { token } => format!("token {token} revoked"),
        Fact::TokenUsed { token, role, peer } => format!("token {token} ({role}) used from {peer}"),
        Fact::Granted { device, epoch, .. } => format!("device {device} was granted epoch {epoch}"),
        Fact::Reported { device, n, report, .. } => match report.attempt() {
            Some(attempt) => format!("device {device} report {n}: {} {}", attempt.rollout, detail(report)),
            None => format!("device {device} report {n}: {}", report.word()),
        },
        Fact::ReleasePublished { product, rc, version } => {
            format!("product {product} release {rc} ({version}) published")
        }
        Fact::Signed { product, files } => {
            let roles: Vec<String> = files.iter().map(|file| file.role.to_string()).collect();
            format!("product {product} signed {}", roles.join(", "))
        }
        Fact::RolloutStarted { rollout, rc, .. } => format!("rollout {rollout} of release {rc} started"),
        Fact::PhaseOpened { rollout, phase, devices, because, .. } => {
            let devices = words::count(*devices, "device");
            format!("rollout {rollout} phase {} opened for {devices}: {because}", phase + 1)
        }
        Fact::PhaseApproved { rollout, because, .. } => format!("rollout {rollout}: {because}"),
        Fact::Tagged { devices, tag, on } => {
            let devices = words::count(devices.len() as u64, "device");
            format!("{devices} {} the tag {tag}", if *on { "got" } else { "lost" })
        }
        Fact::WaveOpened { rollout, wave, devices, because, .. } => {
            let devices = words::count(*devices, "device");
            format!("rollout {rollout} wave {wave} opened for {devices}: {because}")
        }
        Fact::HoldBackEnded { rollout, devices, because } => {
            let devices = words::count(*devices, "device");
            format!("rollout {rollout} lets its control of {devices} go: {because}")
        }
        Fact::Paused { rollout, because } => format!("rollout {rollout} paused: {because}"),
        Fact::Resumed { rollout, because } => format!("rollout {rollout} resumed: {because}"),
        Fact::Killed { rollout, because } => format!("rollout {rollout} killed: {because}"),
        Fact::Completed { rollout, because } => format!("rollout {rollout} completed: {because}"),
        Fact::ComparisonBegan { because, .. } => {
            format!("the service compares itself with its devices: {because}")
        }
        Fact::FilesPresented { product, device, files } => {
            let by = device.as_ref().map_or("the operator".to_owned(), |id| format!("device {id}"));
            let roles: Vec<&str> = files.iter().map(|file| file.role.name()).collect();
            format!("product {product}: {by} presented {}", roles.join(", "))
        }
        Fact::ComparisonEnded { because, .. } => format!("the comparison is over, {because}"),
    }
}

fn detail(report: &tern_protocol::message::ReportKind) -> String {
    use tern_protocol::message::ReportKind;
    match report {
        ReportKind::Transition { from, to, .. } => format!("{from} to {to}"),
        ReportKind::Outcome { outcome, .. } => outcome.to_string(),
        ReportKind::Halted { state, .. } => format!("halted in {state}"),
        other => other.word().to_owned(),
    }
}
