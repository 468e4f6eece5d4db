//! The rollout key is rotated while a rollout runs: everybody follows, whenever they hear of it.

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_protocol::id::RolloutId;
use tern_tests::sim::broker::Network;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const PHASES: [Reach; 3] = [Reach::Devices(3), Reach::Percent(50.0), Reach::All];

fn targets_held(sim: &Sim) -> Vec<u32> {
    let held = |agent: &tern_agent::core::agent::Agent| agent.trust().versions().targets;
    sim.devices.iter().map(|device| device.agent().map_or(0, held)).collect()
}

/// Starts a rollout, rotates in its first phase, and returns it.
fn rotated(sim: &mut Sim, rc: u64) -> RolloutId {
    let rollout = sim.start(rc, plan(&PHASES, 1800));
    sim.run_for(5 * MINUTE);
    assert_eq!(sim.dictionaries(), [(1, 1), (1, 0)]);
    sim.rotate_rollout_key();
    assert_eq!(sim.dictionaries(), [(1, 2), (1, 0)], "head must be readable for everybody");
    rollout
}

#[test]
fn a_rollout_goes_on_under_a_new_key_on_any_network() {
    for (seed, network) in [(21, Network::default()), (22, Network::bad())] {
        let mut sim = Sim::new(seed, SimConfig { network, ..SimConfig::default() });
        let rc = sim.publish(Trial::Healthy);
        let rollout = rotated(&mut sim, rc);

        sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);

        assert_eq!(sim.settled_on(rc), 20);
        assert_eq!(targets_held(&sim), [2; 20]);
        sim.finish();
    }
}

#[test]
fn devices_that_were_away_during_the_rotation_come_back_to_it() {
    let mut sim = Sim::new(23, SimConfig::default());
    sim.run_for(MINUTE);
    (0..8).for_each(|d| sim.set_offline(d, true));
    let rc = sim.publish(Trial::Healthy);
    let rollout = rotated(&mut sim, rc);
    sim.run_for(12 * HOUR);
    assert_eq!(targets_held(&sim)[..9], [1, 1, 1, 1, 1, 1, 1, 1, 2]);

    (0..8).for_each(|d| sim.set_offline(d, false));

    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
    assert_eq!(sim.settled_on(rc), 20);
    sim.finish();
}

#[test]
fn without_head_a_device_behind_asks_and_is_answered_in_a_dictionary_that_it_has() {
    let mut sim = Sim::new(24, SimConfig::default());
    sim.run_for(MINUTE);
    (0..8).for_each(|d| sim.set_offline(d, true));
    let rc = sim.publish(Trial::Healthy);
    rotated(&mut sim, rc);
    sim.broker_forgets_head();

    (0..8).for_each(|d| sim.set_offline(d, false));

    // Without an open attempt it asks within half a heartbeat.
    sim.expect("everybody holds the new targets", |s| targets_held(s) == [2; 20], 4 * HOUR);
}

#[test]
fn a_kill_reaches_devices_that_missed_the_rotation_at_once() {
    let mut sim = Sim::new(25, SimConfig::default());
    sim.run_for(MINUTE);
    (0..8).for_each(|d| sim.set_offline(d, true));
    let rc = sim.publish(Trial::Healthy);
    let rollout = rotated(&mut sim, rc);
    sim.kill(&rollout);

    (0..8).for_each(|d| sim.set_offline(d, false));

    sim.run_for(2 * MINUTE);
    let halted = sim.devices.iter().filter(|d| d.agent().is_some_and(|a| a.durable().halted.contains(&rc)));
    assert_eq!(halted.count(), 20);
    sim.finish();
}
