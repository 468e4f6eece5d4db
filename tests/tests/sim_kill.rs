//! A bad release is taken back, wherever a device stands when it learns of it.

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_controller::core::service::{Command, RefusalKind};
use tern_protocol::state::{Outcome, StateName};
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

fn one_device(seed: u64) -> SimConfig {
    let image = if seed.is_multiple_of(2) { 5000 } else { 400_000 };
    SimConfig { devices: 1, image, ..SimConfig::default() }
}

/// Brings one device into a state and cuts it off there.
fn cut_off_in(seed: u64, state: StateName) -> (Sim, tern_protocol::id::RolloutId, u64) {
    let mut sim = Sim::new(seed, one_device(seed));
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    sim.expect("the device gets there", |s| s.devices[0].state() == Some(state), 6 * HOUR);
    sim.set_offline(0, true);
    (sim, rollout, rc)
}

#[test]
fn a_bad_release_is_killed_by_the_canary_and_strands_nobody() {
    for trial in [Trial::Sick, Trial::Looping] {
        let mut sim = Sim::new(20, SimConfig { devices: 40, image: 5000, ..SimConfig::default() });
        let rc = sim.publish(trial);
        let rollout = sim.start(rc, plan(&[Reach::Devices(8), Reach::All], 3600));

        sim.expect("the rollout is killed", |s| s.status(&rollout) == Some(Status::Killed), 12 * HOUR);

        sim.expect("everybody comes to rest", Sim::is_quiet, 6 * HOUR);
        assert_eq!(sim.settled_on(0), 40, "somebody is stranded on a release that nobody confirmed");
        let touched = sim.devices.iter().filter(|d| d.state() == Some(StateName::Failed)).count();
        assert!((3..=8).contains(&touched), "{touched} devices were touched");
        assert_eq!(sim.rollout(&rollout).phases.len(), 1);
        sim.finish();
    }
}

#[test]
fn a_device_that_was_never_offered_the_release_writes_nothing() {
    let mut sim = Sim::new(21, SimConfig { devices: 20, image: 5000, ..SimConfig::default() });
    let rc = sim.publish(Trial::Sick);
    let rollout = sim.start(rc, plan(&[Reach::Devices(6), Reach::All], 3600));

    sim.expect("the rollout is killed", |s| s.status(&rollout) == Some(Status::Killed), 12 * HOUR);

    sim.run_for(2 * HOUR);
    let spare = |d: &tern_tests::sim::device::Device| d.disk.slot(d.running().other()).read().len();
    let written = sim.devices.iter().filter(|d| spare(d) > 0).count();
    assert_eq!(written, 6);
    sim.finish();
}

#[test]
fn a_killed_release_is_followed_by_a_good_one_on_every_device() {
    let mut sim = Sim::new(22, SimConfig { devices: 20, image: 5000, ..SimConfig::default() });
    let bad = sim.publish(Trial::Sick);
    let rollout = sim.start(bad, plan(&[Reach::Devices(6), Reach::All], 3600));
    sim.expect("the rollout is killed", |s| s.status(&rollout) == Some(Status::Killed), 12 * HOUR);
    sim.expect("everybody comes to rest", Sim::is_quiet, 6 * HOUR);

    let good = sim.publish(Trial::Healthy);
    let rollout = sim.start(good, plan(&[Reach::Devices(6), Reach::All], 1800));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    assert_eq!(sim.settled_on(good), 20);
    sim.finish();
}

#[test]
fn a_device_that_was_away_before_it_armed_comes_back_after_the_kill_and_installs_nothing() {
    for (seed, state) in
        [(23, StateName::Downloading), (24, StateName::Verifying), (26, StateName::PreUpdating)]
    {
        let (mut sim, rollout, _) = cut_off_in(seed, state);
        sim.run_for(MINUTE);
        sim.kill(&rollout);
        sim.run_for(HOUR);
        assert_eq!(sim.settled_on(0), 1, "{state}: it moved while it was away");

        sim.set_offline(0, false);

        sim.expect("it comes to rest", Sim::is_quiet, 2 * HOUR);
        sim.run_for(12 * HOUR);
        assert_eq!((sim.settled_on(0), sim.devices[0].is_armed()), (1, false), "{state}");
        assert!(!sim.log.iter().any(|line| line.contains("boots slot b")), "{state}");
        sim.finish();
    }
}

/// Brings one device between the boot record and the boot, cut off.
fn armed_and_cut_off(seed: u64) -> (Sim, tern_protocol::id::RolloutId, u64) {
    let mut sim = Sim::new(seed, one_device(seed));
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    sim.hold_reboots = true;
    sim.expect("the device arms", |s| s.devices[0].is_armed(), 6 * HOUR);
    sim.set_offline(0, true);
    (sim, rollout, rc)
}

#[test]
fn an_armed_device_that_learns_of_the_kill_disarms_in_time() {
    let (mut sim, rollout, rc) = armed_and_cut_off(28);
    sim.kill(&rollout);
    sim.run_for(HOUR);

    sim.set_offline(0, false);

    sim.expect("it disarms", |s| !s.devices[0].is_armed(), 10 * MINUTE);
    sim.hold_reboots = false;
    sim.expect("it comes to rest", Sim::is_quiet, 2 * HOUR);
    assert_eq!(sim.settled_on(0), 1);
    assert_eq!(sim.outcome(0, &rollout), Some(Outcome::Recalled));
    sim.power_cut(0);
    sim.run_for(HOUR);
    assert_eq!(sim.devices[0].running_rc(), 0, "release {rc} came back from the dead");
    sim.finish();
}

#[test]
fn an_armed_device_that_loses_power_instead_cannot_confirm_and_goes_back_as_recalled() {
    let (mut sim, rollout, rc) = armed_and_cut_off(29);
    sim.kill(&rollout);
    sim.run_for(MINUTE);

    sim.hold_reboots = false;
    sim.power_cut(0);

    sim.expect("the trial boots", |s| s.devices[0].running_rc() == rc, 10 * MINUTE);
    sim.set_offline(0, false);
    sim.expect("it comes to rest", Sim::is_quiet, 2 * HOUR);
    assert_eq!(sim.settled_on(0), 1);
    assert_eq!(sim.outcome(0, &rollout), Some(Outcome::Recalled));
    sim.finish();
}

#[test]
fn a_trial_that_reaches_nobody_goes_back_as_unreachable() {
    let mut sim = Sim::new(30, one_device(30));
    let rc = sim.publish(Trial::Mute);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));

    sim.expect("it is heard", |s| s.outcome(0, &rollout) == Some(Outcome::Unreachable), 6 * HOUR);

    assert_eq!(sim.settled_on(0), 1);
    sim.finish();
}

#[test]
fn a_partition_of_everybody_during_their_trials_confirms_nobody() {
    let mut sim = Sim::new(31, SimConfig { devices: 12, image: 5000, ..SimConfig::default() });
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    let on_trial = |s: &Sim| s.devices.iter().filter(|d| d.running_rc() == rc).count() == 12;
    sim.expect("all run on trial", on_trial, HOUR);
    sim.partition_all(true);
    sim.kill(&rollout);
    sim.run_for(3 * HOUR);
    assert_eq!(sim.settled_on(rc), 0, "a trial was confirmed without an answer");

    sim.partition_all(false);

    sim.expect("everybody comes to rest", Sim::is_quiet, 6 * HOUR);
    assert_eq!(sim.settled_on(0), 12);
    sim.finish();
}

#[test]
fn a_broker_that_forgot_everything_does_not_bring_a_dead_release_back() {
    let (mut sim, rollout, _) = cut_off_in(32, StateName::Verifying);
    sim.kill(&rollout);
    sim.broker_forgets();

    sim.set_offline(0, false);

    sim.run_for(12 * HOUR);
    sim.assert_sound();
    assert_eq!((sim.settled_on(0), sim.devices[0].is_armed()), (1, false));
    sim.finish();
}

#[test]
fn nobody_is_answered_between_a_kill_and_its_signature() {
    let mut sim = Sim::new(33, SimConfig { devices: 8, image: 5000, ..SimConfig::default() });
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    let announcing = |s: &Sim| s.devices.iter().any(|d| d.state() == Some(StateName::PreUpdating));
    sim.expect("hooks run", announcing, HOUR);

    sim.controller.pull_halt_token(true);
    let kill = Command::Kill { rollout, reason: "test".into() };
    let refusal = sim.command(kill).expect_err("a kill that cannot be signed is not called done");
    assert_eq!(refusal.kind, RefusalKind::Unsigned, "{refusal}");
    sim.run_for(HOUR);

    assert_eq!(sim.settled_on(0), 8, "{}", sim.tail(60));
    sim.controller.pull_halt_token(false);
    sim.expect("everybody comes to rest", Sim::is_quiet, 6 * HOUR);
    assert_eq!(sim.settled_on(0), 8);
    sim.finish();
}

#[test]
fn a_device_that_gave_up_on_a_bad_release_begins_the_next_one_without_an_anomaly() {
    let mut sim = Sim::new(34, one_device(34));
    let bad = sim.publish(Trial::Sick);
    let rollout = sim.start(bad, plan(&[Reach::All], 1800));
    sim.expect("the device gives up", |s| s.devices[0].state() == Some(StateName::Failed), 6 * HOUR);
    sim.kill(&rollout);

    let good = sim.publish(Trial::Healthy);
    sim.start(good, plan(&[Reach::All], 1800));

    sim.expect("it runs the next", |s| s.settled_on(good) == 1 && s.is_quiet(), 6 * HOUR);
    let device = &sim.controller.fleet().devices[&sim.devices[0].id];
    assert_eq!(device.anomalies, []);
    sim.finish();
}
