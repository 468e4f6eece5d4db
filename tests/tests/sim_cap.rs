//! A cap on how many devices are on trial at once holds with real devices, and nobody who is away holds it for ever.

use std::collections::BTreeSet;

use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::plan::{Plan, Reach};
use tern_controller::core::rollout::record::Status;
use tern_controller::core::rollout::wave::Waves;
use tern_protocol::id::DeviceId;
use tern_protocol::message::ReportKind;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const DEVICES: usize = 40;
const CAP: u64 = 5;

/// The most devices that had begun and not ended at any moment, as the ledger tells it.
fn most_on_trial(sim: &Sim) -> usize {
    let (mut on_trial, mut most): (BTreeSet<DeviceId>, usize) = (BTreeSet::new(), 0);
    for entry in &sim.controller.ledger {
        let Fact::Reported { device, report, .. } = &entry.fact else { continue };
        match report {
            ReportKind::Started { .. } => on_trial.insert(device.clone()),
            ReportKind::Outcome { .. } => on_trial.remove(device),
            _ => continue,
        };
        most = most.max(on_trial.len());
    }
    most
}

#[test]
fn no_more_devices_are_on_trial_at_once_than_the_plan_allows_and_all_come_to_their_turn() {
    let config =
        SimConfig { devices: DEVICES, models: vec!["B3", "C1"], image: 5000, ..SimConfig::default() };
    let mut sim = Sim::new(611, config);
    sim.run_for(MINUTE);
    sim.set_offline(7, true);
    let rc = sim.publish(Trial::Healthy);
    let capped = Plan { waves: Waves::default(), concurrency: Some(CAP), ..plan(&[Reach::All], 60) };

    let rollout = sim.start(rc, capped);
    sim.expect("all but one have it", |s| s.settled_on(rc) == DEVICES - 1, 200 * HOUR);
    assert_eq!(most_on_trial(&sim), usize::try_from(CAP).unwrap(), "{}", sim.tail(40));
    sim.set_offline(7, false);
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 200 * HOUR);

    assert_eq!(sim.settled_on(rc), DEVICES);
    sim.finish();
}
