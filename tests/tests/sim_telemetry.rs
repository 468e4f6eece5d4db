//! The service's telemetry key is replaced while a rollout runs: no report is lost or counted twice, whoever was away
//! comes back, and a thief of the old key is shut out.

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_protocol::message::{Attempt, ReportKind};
use tern_protocol::state::Outcome;
use tern_tests::sim::broker::Network;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Faults, Sim, SimConfig, Trial};

const PHASES: [Reach; 3] = [Reach::Devices(3), Reach::Percent(50.0), Reach::All];

fn newest_keys(sim: &Sim) -> Vec<u32> {
    let newest = |agent: &tern_agent::core::agent::Agent| {
        agent.trust().telemetry_keys().into_keys().next_back().unwrap_or(0)
    };
    sim.devices.iter().map(|device| device.agent().map_or(0, newest)).collect()
}

#[test]
fn a_rollout_goes_on_under_a_new_telemetry_key_on_any_network() {
    let faults = Faults {
        until: 24 * HOUR,
        power_cut: Some(8 * HOUR),
        agent_restart: Some(6 * HOUR),
        disconnect: Some(3 * HOUR),
        service_restart: Some(5 * HOUR),
    };
    for (seed, network, faults) in [
        (121, Network::default(), Faults::default()),
        (122, Network::bad(), Faults::default()),
        (123, Network::bad(), faults),
    ] {
        let mut sim = Sim::new(seed, SimConfig { network, faults, ..SimConfig::default() });
        let rc = sim.publish(Trial::Healthy);
        let rollout = sim.start(rc, plan(&PHASES, 1800));
        sim.run_for(20 * MINUTE);
        sim.expect("the service is up", |s| s.controller.is_up(), MINUTE);

        sim.add_telemetry_key();

        sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 72 * HOUR);
        assert_eq!((sim.settled_on(rc), newest_keys(&sim)), (20, vec![2; 20]));
        sim.expect("the service is up", |s| s.controller.is_up(), MINUTE);
        sim.remove_telemetry_key(1);
        let rc = sim.publish(Trial::Healthy);
        let rollout = sim.start(rc, plan(&PHASES, 1800));
        sim.expect("the next completes", |s| s.status(&rollout) == Some(Status::Completed), 72 * HOUR);
        // Every report that devices made was counted once, and no other.
        sim.finish();
    }
}

#[test]
fn devices_that_were_away_for_both_steps_come_back_and_are_counted() {
    let mut sim = Sim::new(124, SimConfig { image: 5000, ..SimConfig::default() });
    sim.run_for(10 * MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    sim.expect("trials run", |s| s.devices.iter().any(|d| d.running_rc() == rc), 6 * HOUR);
    // Some are cut off with reports in their outboxes, sealed by nobody yet.
    (0..6).for_each(|d| sim.set_offline(d, true));
    sim.add_telemetry_key();
    sim.run_for(2 * HOUR);
    sim.remove_telemetry_key(1);
    sim.run_for(24 * HOUR);
    let keys = newest_keys(&sim);
    assert_eq!((&keys[..6], &keys[6..]), (&[1; 6][..], &[2; 14][..]));

    (0..6).for_each(|d| sim.set_offline(d, false));

    sim.expect("everybody is heard out", |s| s.is_quiet() && newest_keys(s) == [2; 20], 24 * HOUR);
    let ended = (0..20).filter(|d| sim.outcome(*d, &rollout).is_some()).count();
    assert_eq!(ended, 20, "{}", sim.tail(60));
    sim.finish();
}

#[test]
fn who_stole_the_old_key_is_believed_until_it_is_taken_away_and_not_after() {
    let mut sim = Sim::new(125, SimConfig { devices: 3, image: 5000, ..SimConfig::default() });
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    sim.run_for(20 * MINUTE);
    let attempt = Attempt { rc, rollout, attempt: 1 };
    let lie = || ReportKind::Outcome { attempt: attempt.clone(), outcome: Outcome::Failed, reason: None };

    sim.add_telemetry_key();
    sim.run_for(HOUR);
    assert!(sim.forge_report(0, 1, lie()), "the old key is still good for who has not heard of the new one");

    sim.remove_telemetry_key(1);
    let forged = sim.controller.counters().map(|counters| counters.forged);

    assert!(!sim.forge_report(1, 1, lie()));
    assert_eq!(sim.controller.counters().map(|counters| counters.forged), forged.map(|forged| forged + 1));
}
