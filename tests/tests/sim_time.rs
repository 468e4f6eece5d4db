//! Devices without a clock, with a wrong one, and with somebody who lies to them about the time.

use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_protocol::message::ReportKind;
use tern_protocol::state::StateName;
use tern_tests::sim::clock::{EPOCH, HOUR, MINUTE};
use tern_tests::sim::device::Wall;
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const DAY: u64 = 24 * HOUR;
/// In seconds.
const YEAR: i64 = 365 * 24 * 3600;
const DAY_SECONDS: i64 = 24 * 3600;

fn small(walls: &[Wall], seed: u64) -> Sim {
    let config = SimConfig { devices: walls.len(), models: vec!["B3"], image: 5000, ..SimConfig::default() };
    let mut sim = Sim::new(seed, config);
    for (device, wall) in sim.devices.iter_mut().zip(walls) {
        device.wall = *wall;
    }
    sim
}

fn seconds(sim: &Sim) -> u64 {
    (EPOCH + sim.now()) / 1000
}

/// How far each device believes to be from the time, seconds.
fn ahead(sim: &Sim) -> Vec<i64> {
    sim.devices.iter().map(|device| device.ahead(sim.now()).unwrap_or(i64::MIN)).collect()
}

fn said_stale(sim: &Sim) -> usize {
    let is = |fact: &Fact| matches!(fact, Fact::Reported { report: ReportKind::Health { metrics, .. }, .. } if metrics.contains_key("stale"));
    sim.controller.ledger.iter().filter(|entry| is(&entry.fact)).count()
}

fn completes(sim: &mut Sim) {
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 60));
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
    assert_eq!(sim.settled_on(rc), sim.devices.len());
}

#[test]
fn devices_without_a_clock_take_the_time_from_signed_files_and_keep_it_over_a_boot() {
    let mut sim = small(&[Wall::None; 4], 101);
    completes(&mut sim);
    sim.run_for(10 * DAY);
    for (d, off) in ahead(&sim).into_iter().enumerate() {
        assert!((-7 * 3600..=0).contains(&off), "device {d} is {off} s off");
    }

    // Off for a minute and without a connection: what it had saved is all it has.
    sim.set_offline(0, true);
    sim.power_cut(0);
    sim.run_for(MINUTE);
    let off = ahead(&sim)[0];
    assert!((-8 * 3600..=0).contains(&off), "{off} s off after the boot");
    sim.set_offline(0, false);
    completes(&mut sim);
    sim.finish();
}

#[test]
fn a_clock_that_leaps_ten_years_changes_nothing() {
    let walls = [Wall::Off(10 * YEAR), Wall::Off(-10 * YEAR), Wall::Right, Wall::None];
    let mut sim = small(&walls, 102);
    completes(&mut sim);
    // And while it runs: everybody becomes everybody else.
    for turn in 1..=walls.len() {
        for d in 0..walls.len() {
            sim.devices[d].wall = walls[(d + turn) % walls.len()];
        }
        sim.run_for(2 * HOUR);
        for (d, off) in ahead(&sim).into_iter().enumerate() {
            assert!(off.abs() <= DAY_SECONDS, "turn {turn}, device {d}: {off} s off");
        }
    }
    completes(&mut sim);
    sim.finish();
}

#[test]
fn a_kill_is_heard_by_a_device_whose_clock_somebody_has_set_to_another_decade() {
    for (seed, wall) in [(103, Wall::Off(10 * YEAR)), (104, Wall::Off(-10 * YEAR))] {
        let mut sim = small(&[wall; 3], seed);
        let rc = sim.publish(Trial::Healthy);
        let rollout = sim.start(rc, plan(&[Reach::All], 1800));
        sim.expect("trials run", |s| s.devices.iter().any(|d| d.running_rc() == rc), 6 * HOUR);

        sim.kill(&rollout);

        sim.expect("everybody is back", |s| s.settled_on(0) == 3 && s.is_quiet(), 6 * HOUR);
        sim.finish();
    }
}

#[test]
fn a_device_whose_files_are_over_begins_nothing_says_so_once_and_goes_on_when_new_ones_come() {
    let mut sim = small(&[Wall::Right, Wall::None], 105);
    sim.run_for(10 * MINUTE);
    let rc = sim.publish(Trial::Healthy);
    sim.withholds_packs = true;
    let rollout = sim.start(rc, plan(&[Reach::All], 60));
    let fetching = |s: &Sim| s.devices.iter().all(|d| d.state() == Some(StateName::Downloading));
    sim.expect("both fetch", fetching, 2 * HOUR);

    // The broker hides every new file from now on; answers and packs pass.
    sim.withholds_files = true;
    sim.run_for(4 * DAY);
    sim.withholds_packs = false;
    sim.run_for(2 * DAY);

    let states: Vec<_> = sim.devices.iter().map(|device| device.state()).collect();
    assert_eq!(states, [Some(StateName::Verifying); 2], "{}", sim.tail(40));
    assert_eq!((sim.settled_on(0), said_stale(&sim)), (2, 2));
    sim.withholds_files = false;
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
    assert_eq!(sim.settled_on(rc), 2);
    sim.finish();
}

#[test]
fn a_trial_ends_well_although_its_files_are_over() {
    let mut sim = small(&[Wall::Right], 106);
    let rc = sim.publish(Trial::Healthy);
    sim.start(rc, plan(&[Reach::All], 60));
    sim.expect("it runs on trial", |s| s.devices[0].running_rc() == rc, 6 * HOUR);
    sim.set_offline(0, true);
    sim.withholds_files = true;
    // Somebody sets the clock to where the files end; a trial has its own deadline, so not by waiting.
    sim.devices[0].wall = Wall::Off(4 * DAY_SECONDS);

    sim.set_offline(0, false);

    sim.expect("it is confirmed", |s| s.settled_on(rc) == 1 && s.is_at_rest(0), 2 * HOUR);
    assert_eq!(said_stale(&sim), 1);
    sim.finish();
}

#[test]
fn who_answers_with_a_time_far_ahead_may_hold_installs_up_and_hides_no_kill() {
    let mut sim = small(&[Wall::None, Wall::None, Wall::Right], 107);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    let tried = |s: &Sim| s.devices.iter().all(|d| d.running_rc() == rc);
    sim.expect("trials run", tried, 6 * HOUR);

    sim.controller.lies_about_time = 9 * YEAR.unsigned_abs();
    sim.run_for(10 * MINUTE);
    sim.kill(&rollout);

    sim.expect("everybody is back", |s| s.settled_on(0) == 3 && s.is_quiet(), 6 * HOUR);
    let next = sim.publish(Trial::Healthy);
    let rollout = sim.start(next, plan(&[Reach::All], 60));
    sim.run_for(2 * DAY);
    for (d, off) in ahead(&sim).into_iter().enumerate() {
        assert!(off <= 0, "device {d} is {off} s ahead");
    }
    assert_eq!(sim.settled_on(0), 3, "by the answers every file is over");
    // Nothing is left of it once nobody lies.
    sim.controller.lies_about_time = 0;
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
    sim.finish();
}

#[test]
fn a_stolen_timestamp_key_stops_clocks_until_root_replaces_it_and_not_where_a_clock_is_right() {
    let mut sim = small(&[Wall::None, Wall::Right], 108);
    sim.run_for(2 * HOUR);

    let far = seconds(&sim) + 9 * YEAR.unsigned_abs();
    sim.plant_timestamp(far, far + 3 * 24 * 3600);
    sim.run_for(MINUTE);

    let off = ahead(&sim);
    assert!(off[0] > 8 * YEAR && off[1] <= DAY_SECONDS, "{off:?}");
    // After root's end nobody believes it at all.
    sim.plant_timestamp(far + 2 * YEAR.unsigned_abs(), far + 3 * YEAR.unsigned_abs());
    sim.run_for(MINUTE);
    assert!(ahead(&sim)[0] < 10 * YEAR);
    sim.run_for(2 * DAY);
    assert!(ahead(&sim)[0] > 8 * YEAR, "nothing else brings it back");

    sim.rotate_timestamp_key();

    sim.run_for(HOUR);
    let off = ahead(&sim);
    assert!(off.iter().all(|off| off.abs() <= DAY_SECONDS + 3600), "{off:?}");
    completes(&mut sim);
    sim.finish();
}

#[test]
fn a_journal_forgets_what_a_stolen_halt_key_halted_once_targets_names_another() {
    let mut sim = small(&[Wall::Right, Wall::None], 109);
    completes(&mut sim);
    let halted = |sim: &Sim| -> Vec<Vec<u64>> {
        let of = |device: &tern_tests::sim::device::Device| {
            let agent = device.agent().expect("it is up");
            agent.durable().halted.iter().copied().collect()
        };
        sim.devices.iter().map(of).collect()
    };
    let bad = sim.publish(Trial::Healthy);
    let rollout = sim.start(bad, plan(&[Reach::All], 1800));
    sim.kill(&rollout);
    sim.run_for(HOUR);
    let next = bad + 1;

    sim.plant_halt(next);
    sim.run_for(HOUR);
    assert_eq!(halted(&sim), [[bad, next], [bad, next]]);
    // The same keys with other targets change nothing.
    sim.rotate_by_targets("time");
    sim.run_for(12 * HOUR);
    assert_eq!(halted(&sim), [[bad, next], [bad, next]]);

    sim.rotate_by_targets("halt");
    sim.run_for(12 * HOUR);

    assert_eq!(halted(&sim), [[bad], [bad]], "what the operator halted stays dead");
    assert_eq!(sim.publish(Trial::Healthy), next);
    let rollout = sim.start(next, plan(&[Reach::All], 60));
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
    sim.finish();
}

#[test]
fn a_device_that_lost_its_journal_goes_by_the_floor_that_was_signed_with_what_it_runs() {
    let mut sim = small(&[Wall::Right], 110);
    sim.publish(Trial::Healthy);
    let rc = sim.publish_image(Trial::Healthy, 5000, 2);
    let rollout = sim.start(rc, plan(&[Reach::All], 60));
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
    let floor = |sim: &Sim| sim.devices[0].agent().map(|agent| agent.durable().floor);
    assert_eq!(floor(&sim), Some(2));

    sim.set_offline(0, true);
    sim.lose_journal(0);
    sim.run_for(HOUR);

    assert_eq!(floor(&sim), Some(2));
    sim.set_offline(0, false);
    completes(&mut sim);
    sim.finish();
}
