//! Devices whose owners say "not now": the rollout waits with them, and nobody holds that against the release.

use tern_agent::core::conditions::Conditions;
use tern_agent::core::hook::HookStep;
use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_protocol::state::StateName;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Faults, Sim, SimConfig, Trial};

const DAY: u64 = 24 * HOUR;
/// Every step that a device takes by itself.
const STEPS: [HookStep; 8] = [
    HookStep::Check,
    HookStep::Download,
    HookStep::PreUpdate,
    HookStep::Snapshot,
    HookStep::Migrate,
    HookStep::Arm,
    HookStep::PostBoot,
    HookStep::Confirmed,
];

fn asks_for_consent(devices: usize) -> SimConfig {
    let conditions = Conditions { consent: true, ..Conditions::default() };
    SimConfig { devices, image: 5000, conditions, hooks: STEPS.into(), ..SimConfig::default() }
}

#[test]
fn a_release_that_nobody_consents_to_for_days_is_a_success_afterwards_and_never_a_failure() {
    let mut sim = Sim::new(60, asks_for_consent(6));
    sim.no_consent_until = sim.now() + 3 * DAY;
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::Devices(3), Reach::All], 1800));

    sim.run_for(3 * DAY - HOUR);

    let waits = |s: &Sim| s.devices.iter().filter(|d| d.state() == Some(StateName::Verifying)).count();
    assert_eq!((waits(&sim), sim.settled_on(rc)), (3, 0), "{}", sim.tail(40));
    let total = sim.rollout(&rollout).total();
    assert_eq!((total.started, total.deferred, total.confirmed_bad()), (0, 0, 0));
    assert_eq!(sim.status(&rollout), Some(Status::Running));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 2 * DAY);

    let total = sim.rollout(&rollout).total();
    assert_eq!((total.good, total.confirmed_bad(), sim.settled_on(rc)), (6, 0, 6));
    sim.finish();
}

#[test]
fn a_kill_while_they_wait_reaches_everybody_and_nobody_installs_it_when_consent_comes() {
    let mut sim = Sim::new(61, asks_for_consent(4));
    sim.no_consent_until = sim.now() + DAY;
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    sim.run_for(6 * HOUR);

    sim.kill(&rollout);
    sim.run_for(HOUR);

    assert!((0..4).all(|d| sim.is_at_rest(d)), "{}", sim.tail(40));
    sim.run_for(DAY);
    assert_eq!(sim.settled_on(0), 4);
    sim.finish();
}

#[test]
fn power_cuts_while_devices_wait_and_at_every_hook_change_nothing() {
    for seed in 62..66 {
        let mut config = asks_for_consent(4);
        config.faults = Faults {
            until: 10 * HOUR,
            power_cut: Some(90 * MINUTE),
            agent_restart: Some(50 * MINUTE),
            disconnect: Some(30 * MINUTE),
            service_restart: Some(2 * HOUR),
        };
        let mut sim = Sim::new(seed, config);
        sim.no_consent_until = sim.now() + 8 * HOUR;
        let rc = sim.publish(Trial::Healthy);
        let rollout = sim.start(rc, plan(&[Reach::All], 1800));

        sim.run_for(7 * HOUR);
        assert_eq!(sim.rollout(&rollout).total().started, 0, "{seed}");
        sim.run_for(3 * HOUR);
        sim.expect("everybody comes to rest", Sim::is_quiet, DAY);

        let owes =
            |s: &Sim| s.devices.iter().any(|d| d.agent().is_some_and(|a| a.durable().hooks.tell.is_some()));
        assert!(!owes(&sim), "{seed}");
        sim.finish();
    }
}
