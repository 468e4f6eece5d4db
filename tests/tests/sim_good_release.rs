//! A good release reaches everybody, in phases, on any network.

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const PHASES: [Reach; 3] = [Reach::Devices(3), Reach::Percent(50.0), Reach::All];

fn a_good_release_reaches(config: SimConfig, seed: u64) -> Sim {
    let devices = config.devices;
    let mut sim = Sim::new(seed, config);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&PHASES, 1800));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);

    assert_eq!(sim.settled_on(rc), devices);
    assert_eq!(sim.rollout(&rollout).phases.len(), 3);
    sim.finish();
    assert_eq!(sim.rollout(&rollout).total().good, devices as u64);
    sim
}

#[test]
fn twenty_devices_take_a_good_release_phase_by_phase() {
    a_good_release_reaches(SimConfig::default(), 1);
}

#[test]
fn two_hundred_devices_take_a_good_release_phase_by_phase() {
    a_good_release_reaches(SimConfig { devices: 200, image: 5000, ..SimConfig::default() }, 2);
}

#[test]
fn an_image_of_three_hundred_chunks_needs_both_levels_of_the_tree() {
    let image = 299 * 65536 + 1234;
    let mut sim = Sim::new(3, SimConfig { devices: 1, image: 4000, ..SimConfig::default() });
    let rc = sim.publish_image(Trial::Healthy, image, 0);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);

    sim.finish();
}

#[test]
fn a_confirmed_release_raises_the_floor_to_what_it_names_and_never_to_its_own_counter() {
    let mut sim = Sim::new(4, SimConfig { devices: 2, image: 4000, ..SimConfig::default() });
    let first = sim.publish(Trial::Healthy);
    let rollout = sim.start(first, plan(&[Reach::All], 600));
    sim.expect("the first completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    let second = sim.publish_image(Trial::Healthy, 4000, first);
    let rollout = sim.start(second, plan(&[Reach::All], 600));

    sim.expect("the second completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);

    sim.run_for(MINUTE);
    let floors: Vec<u64> =
        sim.devices.iter().map(|d| d.agent().map_or(0, |agent| agent.durable().floor)).collect();
    assert_eq!(floors, [first, first]);
    sim.finish();
}

#[test]
fn a_paused_rollout_takes_nobody_further_and_a_resumed_one_ends_as_if_nothing_had_been() {
    let mut sim = Sim::new(5, SimConfig::default());
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&PHASES, 1800));
    sim.expect("the canary is through", |s| s.settled_on(rc) == 3, 2 * HOUR);
    sim.must(tern_controller::core::service::Command::Pause(rollout.clone()));
    sim.run_for(6 * HOUR);
    assert_eq!(sim.settled_on(rc), 3, "a paused rollout widened");

    sim.must(tern_controller::core::service::Command::Resume(rollout.clone()));
    sim.must(tern_controller::core::service::Command::Promote {
        rollout: rollout.clone(),
        from_phase: 1,
        key: None,
    });

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    assert_eq!(sim.settled_on(rc), 20);
    sim.finish();
}

#[test]
fn a_pause_in_the_middle_of_a_download_lets_the_device_go_and_the_resume_takes_it_again() {
    use tern_protocol::state::StateName;
    let mut sim = Sim::new(6, SimConfig { devices: 3, image: 500_000, ..SimConfig::default() });
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::Devices(2), Reach::All], 1800));
    let loading = |s: &Sim| s.devices.iter().any(|d| d.state() == Some(StateName::Downloading));
    sim.expect("a device downloads", loading, HOUR);
    sim.must(tern_controller::core::service::Command::Pause(rollout.clone()));
    sim.run_for(HOUR);
    assert!((0..3).all(|d| sim.is_at_rest(d)), "{}", sim.tail(40));
    assert_eq!(sim.settled_on(0), 3);

    sim.must(tern_controller::core::service::Command::Resume(rollout.clone()));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    sim.finish();
}

#[test]
fn poisoned_chunks_are_never_written_and_only_cost_time() {
    let mut config = SimConfig { devices: 4, image: 500_000, ..SimConfig::default() };
    config.network.poison = 0.4;
    a_good_release_reaches(config, 7);
}

#[test]
fn hooks_that_say_not_now_are_undone_and_asked_again() {
    let mut sim = Sim::new(8, SimConfig { devices: 1, image: 4000, ..SimConfig::default() });
    sim.hook_refusals = 2;
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);

    sim.finish();
}

#[test]
fn a_worn_slot_is_read_back_found_bad_and_written_again() {
    use tern_protocol::state::StateName;
    let mut sim = Sim::new(9, SimConfig { devices: 1, ..SimConfig::default() });
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));
    let verifying = |s: &Sim| s.devices[0].state() == Some(StateName::Verifying);
    sim.expect("the device verifies", verifying, HOUR);

    sim.rot(0, 70_000);

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);
    assert!(sim.log.iter().any(|line| line.contains("verifying -> downloading")), "{}", sim.tail(80));
    sim.finish();
}

#[test]
fn a_report_that_is_lost_while_nothing_else_waits_is_sent_again() {
    use tern_protocol::state::StateName;
    let mut sim = Sim::new(10, SimConfig { devices: 1, image: 4000, ..SimConfig::default() });
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    sim.start(rc, plan(&[Reach::All], 600));
    let on_trial = |s: &Sim| s.devices[0].state() == Some(StateName::VerifyPost);
    sim.expect("the trial runs", on_trial, HOUR);
    sim.expect("its reports arrive", Sim::is_drained, HOUR);
    let soaked = |s: &Sim| s.devices[0].state() == Some(StateName::Success);
    sim.expect("the trial succeeds", soaked, HOUR);

    sim.config.network.drop = 1.0;
    sim.run_for(5000);
    sim.config.network.drop = 0.0;

    // Well before anything else would have opened a new connection.
    sim.expect("the reports arrive", Sim::is_drained, 2 * MINUTE);
    sim.finish();
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_another() {
    let story = |seed| {
        let mut config = SimConfig { devices: 6, image: 5000, ..SimConfig::default() };
        config.network = tern_tests::sim::broker::Network::bad();
        let mut sim = Sim::new(seed, config);
        let rc = sim.publish(Trial::Healthy);
        sim.start(rc, plan(&PHASES, 1800));
        sim.run_for(2 * HOUR);
        sim.log
    };

    let (first, again, other) = (story(11), story(11), story(12));

    assert!(first.len() > 100);
    assert_eq!(first, again);
    assert_ne!(first, other);
}
