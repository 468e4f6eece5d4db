//! What is wrong on purpose must be found: a check that never fails checks nothing.

use tern_controller::core::rollout::plan::Reach;
use tern_protocol::state::StateName;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Broken, Sim, SimConfig, Trial};

fn world(seed: u64, broken: Broken) -> Sim {
    let broken = Some(broken);
    Sim::new(seed, SimConfig { devices: 3, image: 150_000, broken, ..SimConfig::default() })
}

fn found(sim: &Sim, what: &str) {
    let hit = sim.violations.iter().any(|violation| violation.contains(what));
    assert!(hit, "nothing found like {what:?} in {:?}\n{}", sim.violations, sim.tail(40));
}

#[test]
fn should_find_a_journal_that_is_never_saved() {
    let mut sim = world(60, Broken::JournalNeverSaved);
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    sim.start(rc, plan(&[Reach::All], 600));
    let verifying = |s: &Sim| s.devices[0].state() == Some(StateName::Verifying);
    sim.expect("the device verifies", verifying, HOUR);
    sim.set_offline(0, true);
    sim.power_cut(0);
    sim.set_offline(0, false);
    sim.run_for(6 * HOUR);
    sim.check_counts();
    // What the journal promised to deliver died with the power.
    found(&sim, "still on their way");
}

#[test]
fn should_find_a_boot_record_without_a_trial() {
    let mut sim = world(61, Broken::NoTrial);
    let rc = sim.publish(Trial::Healthy);
    sim.start(rc, plan(&[Reach::All], 600));
    sim.run_for(2 * HOUR);
    found(&sim, "never confirmed");
}

#[test]
fn should_find_a_slot_that_is_booted_without_being_read_back() {
    let mut sim = world(62, Broken::SlotNeverReadBack);
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    sim.start(rc, plan(&[Reach::All], 600));
    let verifying = |s: &Sim| s.devices[0].state() == Some(StateName::Verifying);
    sim.expect("the device verifies", verifying, HOUR);
    sim.rot(0, 70_000);
    sim.run_for(2 * HOUR);
    found(&sim, "nobody signed");
}

#[test]
fn should_find_a_controller_that_answers_as_if_there_had_been_no_kill() {
    let mut sim = world(63, Broken::KillsForgotten);
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 600));
    let hooks = |s: &Sim| s.devices.iter().any(|d| d.state() == Some(StateName::PreUpdating));
    sim.expect("hooks run", hooks, HOUR);
    sim.kill(&rollout);
    sim.run_for(HOUR);
    found(&sim, "answered after the kill");
}
