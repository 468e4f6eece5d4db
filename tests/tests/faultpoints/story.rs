//! The story in which the service dies, and what must be true at its end.

use std::path::Path;

use tern_controller::core::fact::{Fact, SignedFile};
use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_controller::ledger::verify;
use tern_protocol::bundle::{Bundle, Dictionary};
use tern_protocol::state::StateName;
use tern_protocol::tuf::Role;
use tern_tests::apart::service::Deaths;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const SEED: u64 = 90;
const DEVICES: usize = 6;

/// One good release, one that its devices' reports kill, one that an operator kills while devices are asking.
pub(crate) fn told(deaths: Deaths) -> Sim {
    let program = Path::new(env!("CARGO_BIN_EXE_service-at-points")).to_owned();
    let apart = Some((program, deaths));
    let mut sim = Sim::new(SEED, SimConfig { devices: DEVICES, image: 5000, apart, ..SimConfig::default() });
    let good = sim.publish(Trial::Healthy);
    let rollout = sim.start(good, plan(&[Reach::Devices(2), Reach::All], 60));
    sim.expect("the good one completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);

    let bad = sim.publish(Trial::Sick);
    let rollout = sim.start(bad, plan(&[Reach::Devices(5), Reach::All], 3600));
    // A service that is away when devices ask has them wait; then the evidence may do for a pause only.
    let stopped = |s: &Sim| matches!(s.status(&rollout), Some(Status::Killed | Status::Paused));
    sim.expect("the bad one is stopped", stopped, 12 * HOUR);
    sim.run_until(|s| s.status(&rollout) == Some(Status::Killed), HOUR);
    sim.expect("the service is up", |s| s.controller.is_up(), MINUTE);
    if sim.status(&rollout) == Some(Status::Paused) {
        sim.kill(&rollout);
    }
    sim.expect("everybody comes to rest", Sim::is_quiet, 6 * HOUR);

    let last = sim.publish(Trial::Healthy);
    let rollout = sim.start(last, plan(&[Reach::All], 3600));
    let asking =
        |s: &Sim| s.devices.iter().filter(|d| d.state() == Some(StateName::PreUpdating)).count() >= 2;
    sim.expect("some are about to ask", asking, HOUR);
    sim.kill(&rollout);
    sim.run_for(MINUTE);
    sim.expect("everybody comes to rest", |s| s.is_quiet() && s.controller.is_up(), 6 * HOUR);
    // Before a look at the service's memory: what counts is what devices were told.
    if let Some(what) = halted(&sim) {
        panic!("{what}\n{}", sim.tail(60));
    }
    sim.finish();
    sim
}

/// Compares the verdicts of a ledger with those of the undisturbed story: each of them once, and no other, but that the
/// bad one may be paused before it is killed, or not.
pub(crate) fn differs(found: &[String], undisturbed: &[String]) -> Option<String> {
    let twice = found.iter().enumerate().find(|(at, verdict)| found[..*at].contains(verdict));
    if let Some((_, verdict)) = twice {
        return Some(format!("the verdict {verdict:?} was taken twice"));
    }
    let firm = |verdicts: &[String]| -> Vec<String> {
        verdicts.iter().filter(|verdict| *verdict != "r2 paused").cloned().collect()
    };
    let (found, undisturbed) = (firm(found), firm(undisturbed));
    (found != undisturbed).then(|| format!("the verdicts are {found:?}, not {undisturbed:?}"))
}

/// Every verdict of a ledger, in order.
pub(crate) fn verdicts(sim: &Sim) -> Vec<String> {
    let word = |fact: &Fact| match fact {
        Fact::RolloutStarted { rollout, .. } => Some(format!("{rollout} started")),
        Fact::PhaseOpened { rollout, phase, .. } => Some(format!("{rollout} phase {phase}")),
        Fact::Paused { rollout, .. } => Some(format!("{rollout} paused")),
        Fact::Resumed { rollout, .. } => Some(format!("{rollout} resumed")),
        Fact::Killed { rollout, .. } => Some(format!("{rollout} killed")),
        Fact::Completed { rollout, .. } => Some(format!("{rollout} completed")),
        _ => None,
    };
    sim.controller.ledger.iter().filter_map(|entry| word(&entry.fact)).collect()
}

/// Says what is wrong at the end, beyond what the simulation has watched all the time.
pub(crate) fn wrong(sim: &Sim) -> Option<String> {
    let apart = sim.controller.apart.as_ref().expect("the service runs in its own process");
    if let Some(complaint) = apart.complaints.first() {
        return Some(complaint.clone());
    }
    let report = match verify(&apart.ledger()) {
        Ok(report) => report,
        Err(error) => return Some(format!("the ledger does not verify: {error}")),
    };
    let read = sim.controller.ledger.len() as u64;
    if (report.frames, report.torn.is_some()) != (read, false) {
        return Some(format!("the ledger has {} frames, and had {read}: {:?}", report.frames, report.torn));
    }
    published(sim)
}

/// Whoever was given a signed file must find it in the ledger: what the service has forgotten it would sign otherwise.
fn published(sim: &Sim) -> Option<String> {
    let recorded: Vec<&SignedFile> =
        sim.controller.ledger.iter().flat_map(|entry| files(&entry.fact)).collect();
    let text = |role| recorded.iter().find(|file| file.role == role).map(|file| file.text.as_bytes());
    let dictionary = Dictionary::unverified(text(Role::Root)?, text(Role::Targets)?).ok()?;
    let apart = sim.controller.apart.as_ref()?;
    for (topic, payload) in &apart.published {
        if !Bundle::looks_like(payload) {
            continue;
        }
        let bundle = match Bundle::unpack(payload, Some(&dictionary)) {
            Ok(bundle) => bundle,
            Err(error) => return Some(format!("a bundle on {topic:?} does not unpack: {error}")),
        };
        for file in bundle.files {
            if !recorded.iter().any(|known| known.role == file.role && known.text.as_bytes() == file.bytes) {
                return Some(format!("a {} file was published and is not in the ledger", file.role.name()));
            }
        }
    }
    None
}

fn files(fact: &Fact) -> &[SignedFile] {
    match fact {
        Fact::ProductAdded { files, .. } | Fact::Signed { files, .. } => files,
        _ => &[],
    }
}

fn halted(sim: &Sim) -> Option<String> {
    let fleet = sim.controller.fleet();
    let product = fleet.products.values().next()?;
    let signed = product.halt_content().halted;
    let killed = fleet.rollouts.values().filter(|rollout| rollout.status == Status::Killed);
    let missing = killed.map(|rollout| rollout.rc).find(|rc| !signed.contains(rc));
    missing.map(|rc| format!("no signed file halts release {rc}, which was killed"))
}
