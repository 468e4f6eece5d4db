//! Power, processes and networks fail at random, and everywhere once.

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_protocol::state::StateName;
use tern_tests::sim::broker::Network;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Faults, Sim, SimConfig, Trial};

const PHASES: [Reach; 3] = [Reach::Devices(2), Reach::Percent(50.0), Reach::All];

#[test]
fn a_restart_of_the_service_in_the_middle_loses_nothing() {
    let mut sim = Sim::new(40, SimConfig { image: 5000, ..SimConfig::default() });
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&PHASES, 1800));

    for _ in 0..20 {
        sim.run_for(7 * MINUTE);
        sim.service_dies_before_sending();
    }

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    sim.finish();
    assert_eq!(sim.rollout(&rollout).total().good, 20);
}

fn battlefield(seed: u64) -> Sim {
    let mut config = SimConfig { devices: 4, image: 70_000, ..SimConfig::default() };
    config.network = Network::bad();
    config.faults = Faults {
        until: 2 * HOUR,
        power_cut: Some(40 * MINUTE),
        agent_restart: Some(30 * MINUTE),
        disconnect: Some(15 * MINUTE),
        service_restart: Some(20 * MINUTE),
    };
    Sim::new(seed, config)
}

fn under_fire(seed: u64, trial: Trial) -> Sim {
    let mut sim = battlefield(seed);
    let rc = sim.publish(trial);
    sim.start(rc, plan(&PHASES, 1200));
    sim.run_for(2 * HOUR);
    sim.expect("everybody comes to rest", Sim::is_quiet, 24 * HOUR);
    sim
}

fn converges_under_fire(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut sim = under_fire(seed, Trial::Healthy);
        sim.finish();
    }
}

// In two halves, because tests run side by side.
#[test]
fn whatever_fails_the_devices_converge_and_every_promise_holds() {
    converges_under_fire(1000..1012);
}

#[test]
fn whatever_fails_the_devices_converge_and_every_promise_holds_once_more() {
    converges_under_fire(1012..1024);
}

#[test]
fn whatever_fails_a_bad_release_strands_nobody() {
    for seed in 0..14 {
        let mut sim = under_fire(2000 + seed, Trial::Sick);
        assert_eq!(sim.settled_on(0), 4, "seed {}\n{}", 2000 + seed, sim.tail(40));
        sim.finish();
    }
}

#[test]
fn a_device_that_lost_its_journal_is_heard_again_and_takes_the_next_release() {
    let mut sim = Sim::new(51, SimConfig { devices: 1, image: 5000, ..SimConfig::default() });
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));
    let verifying = |s: &Sim| s.devices[0].state() == Some(StateName::Verifying);
    sim.expect("the device verifies", verifying, HOUR);
    sim.kill(&rollout);
    sim.expect("it comes to rest", Sim::is_quiet, HOUR);
    // Still in its first epoch, and so in the very one that the controller expects of it afterwards.
    sim.lose_journal(0);
    sim.run_for(10 * MINUTE);

    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));

    sim.expect("the next completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    sim.finish();
}

#[test]
fn reports_that_waited_through_two_unheard_boots_are_counted_after_the_challenge() {
    let mut sim = Sim::new(52, SimConfig { devices: 1, image: 400_000, ..SimConfig::default() });
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));
    let on_trial = |s: &Sim| s.devices[0].running_rc() == rc;
    sim.expect("the trial boots", on_trial, HOUR);
    sim.set_offline(0, true);
    for _ in 0..2 {
        sim.power_cut(0);
        sim.run_for(MINUTE);
    }
    // The second boot used up the trial: what waits now says that the device went back.
    sim.set_offline(0, false);

    sim.expect("it comes to rest", Sim::is_quiet, 2 * HOUR);

    assert!(sim.log.iter().any(|line| line.contains("granted")), "{}", sim.tail(60));
    assert_eq!(sim.rollout(&rollout).total().bad, 1);
    sim.finish();
}

#[test]
fn an_agent_that_restarts_between_arming_and_booting_costs_nothing() {
    let mut sim = Sim::new(53, SimConfig { devices: 1, image: 5000, ..SimConfig::default() });
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));
    sim.hold_reboots = true;
    sim.expect("the device arms", |s| s.devices[0].is_armed(), HOUR);

    sim.agent_restart(0);
    sim.hold_reboots = false;

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    sim.finish();
    assert_eq!(sim.rollout(&rollout).total().good, 1);
}

fn a_kill_reaches_everybody(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut sim = battlefield(seed);
        let rc = sim.publish(Trial::Healthy);
        let rollout = sim.start(rc, plan(&[Reach::All], 1200));
        // From the first downloads to the last soaks.
        sim.run_for((seed % 14) * 90_000 + 20_000);
        sim.expect("the service is up", |s| s.controller.is_up(), MINUTE);
        sim.kill(&rollout);
        sim.run_for(2 * HOUR);

        sim.expect("everybody comes to rest", Sim::is_quiet, 24 * HOUR);

        let trials = sim.devices.iter().filter(|d| d.is_armed()).count();
        assert_eq!((trials, sim.settled_on(0) + sim.settled_on(rc)), (0, 4), "seed {seed}");
        sim.finish();
    }
}

#[test]
fn whatever_fails_a_kill_at_any_moment_reaches_everybody() {
    a_kill_reaches_everybody(3000..3014);
}

#[test]
#[ignore = "minutes of simulation; run it after a change of a core, with --ignored"]
fn a_long_campaign_finds_nothing() {
    converges_under_fire(10_000..10_100);
    a_kill_reaches_everybody(20_000..20_070);
}

/// Runs one update of one device with the power cut at one effect; returns how many effects there were.
fn update_with_a_cut_at(cut_at: Option<u64>) -> u64 {
    let mut sim = Sim::new(50, SimConfig { devices: 1, image: 70_000, cut_at, ..SimConfig::default() });
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));
    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    sim.expect("it comes to rest", Sim::is_quiet, HOUR);
    assert_eq!(sim.settled_on(rc), 1, "cut at {cut_at:?}\n{}", sim.tail(60));
    sim.finish();
    sim.effects
}

#[test]
fn a_power_cut_anywhere_never_strands_the_device() {
    let effects = update_with_a_cut_at(None);
    assert!(effects > 40, "{effects}");
    for cut in 1..=effects {
        update_with_a_cut_at(Some(cut));
    }
}
