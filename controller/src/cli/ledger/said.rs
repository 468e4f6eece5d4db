//! Facts as people read them.

use crate::cli::words;
use crate::core::access::Made;
use crate::core::enrolment::claim::Approval;
use crate::core::enrolment::factory::Vouched;
use crate::core::fact::Fact;

/// Says a fact in one line.
pub(super) fn said(fact: &Fact) -> String {
    match fact {
        Fact::ServiceStarted { version, .. } => format!("service {version} started"),
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
        Fact::WaveOpened { rollout, wave, step, devices, because, .. } => {
            let devices = words::count(*devices, "device");
            let verb = if *step == 0 { "opened" } else { "goes on" };
            format!("rollout {rollout} wave {wave} {verb} for {devices}: {because}")
        }
        Fact::HoldBackEnded { rollout, devices, because, .. } => {
            let devices = words::count(*devices, "device");
            format!("rollout {rollout} lets its control of {devices} go: {because}")
        }
        Fact::Paused { rollout, because } => format!("rollout {rollout} paused: {because}"),
        Fact::Resumed { rollout, because } => format!("rollout {rollout} resumed: {because}"),
        Fact::RevertRefused { rollout, because } => {
            format!("rollout {rollout}: devices that run its release are not taken back: {because}")
        }
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
