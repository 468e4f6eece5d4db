//! Going back: devices that run a killed release return to the one before, and those that still hold it load nothing.

use tern_controller::core::rollout::plan::{Plan, Reach};
use tern_controller::core::rollout::record::{Rollout, Status};
use tern_controller::core::service::Command;
use tern_protocol::id::RolloutId;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const DEVICES: usize = 24;

/// Everybody runs release 1; half of them took release 2 before it was killed.
fn scene(seed: u64, revert: bool) -> (Sim, RolloutId) {
    scene_of(seed, Plan { revert, ..plan(&[Reach::Devices(12), Reach::All], 5 * 3600) })
}

/// The same under a plan whose first phase takes half of them.
fn scene_of(seed: u64, phases: Plan) -> (Sim, RolloutId) {
    let config = SimConfig { devices: DEVICES, models: vec!["B3"], image: 5000, ..SimConfig::default() };
    let mut sim = Sim::new(seed, config);
    sim.run_for(MINUTE);
    let first = sim.publish(Trial::Healthy);
    let good = sim.start(first, plan(&[Reach::All], 0));
    sim.expect("all run the first", |s| s.status(&good) == Some(Status::Completed), 6 * HOUR);
    let second = sim.publish(Trial::Healthy);
    let bad = sim.start(second, phases);
    sim.expect("half run the second", |s| s.settled_on(2) == 12, 6 * HOUR);
    (sim, bad)
}

fn reverted(sim: &Sim) -> Option<Rollout> {
    let revert: RolloutId = "r2-revert".parse().expect("a valid name");
    sim.controller.fleet().rollouts.get(&revert).cloned()
}

#[test]
fn a_kill_takes_back_by_itself_who_runs_the_release_if_the_plan_says_so() {
    let (mut sim, bad) = scene(601, true);
    // The other slot holds release 1 still.
    sim.withholds_packs = true;

    sim.kill(&bad);

    let back = |s: &Sim| reverted(s).is_some_and(|r| r.status == Status::Completed);
    sim.expect("they are back", back, 96 * HOUR);
    assert_eq!((sim.settled_on(1), sim.settled_on(2)), (DEVICES, 0), "{}", sim.tail(40));
    assert_eq!(reverted(&sim).unwrap().total().good, 12, "the others had nothing to do with it");
    sim.finish();
}

#[test]
fn without_that_they_stay_until_an_operator_takes_them_back() {
    let (mut sim, bad) = scene(602, false);
    let revert =
        |rollout: &RolloutId| Command::Revert { rollout: rollout.clone(), name: None, to: None, plan: None };
    assert!(sim.command(revert(&bad)).unwrap_err().what.contains("not killed"));

    sim.kill(&bad);
    sim.run_for(2 * HOUR);
    assert_eq!((reverted(&sim), sim.settled_on(2)), (None, 12));

    sim.must(revert(&bad));
    let back = |s: &Sim| reverted(s).is_some_and(|r| r.status == Status::Completed);
    sim.expect("they are back", back, 96 * HOUR);
    assert_eq!(sim.settled_on(1), DEVICES);
    // A later release is offered to all of them, and a base that takes back is no reason to leave it.
    let third = sim.publish(Trial::Healthy);
    let next = sim.start(third, plan(&[Reach::All], 0));
    sim.expect("all run the third", |s| s.status(&next) == Some(Status::Completed), 12 * HOUR);
    sim.run_for(4 * HOUR);
    assert_eq!(sim.settled_on(3), DEVICES);
    sim.finish();
}

/// A plan that would have stopped at half takes everybody back who has the release, and comes to its end.
#[test]
fn a_revert_of_a_plan_that_does_not_reach_everybody_does() {
    let (mut sim, bad) = scene_of(604, Plan { revert: true, ..plan(&[Reach::Devices(12)], 5 * 3600) });

    sim.kill(&bad);

    let back = |s: &Sim| reverted(s).is_some_and(|r| r.status == Status::Completed);
    sim.expect("they are back", back, 96 * HOUR);
    assert_eq!((sim.settled_on(1), sim.settled_on(2)), (DEVICES, 0), "{}", sim.tail(40));
    sim.finish();
}

/// The release that devices go back to is an approved one: a revert that goes badly pauses, and halts nothing.
#[test]
fn a_revert_that_fails_pauses_and_halts_nothing() {
    let (mut sim, bad) = scene(603, false);
    sim.kill(&bad);
    (0..DEVICES).for_each(|d| sim.on_device(d, 1, Trial::Sick));
    sim.must(Command::Revert { rollout: bad, name: None, to: None, plan: None });

    let paused = |s: &Sim| reverted(s).is_some_and(|r| r.status == Status::Paused);
    sim.expect("it pauses", paused, 12 * HOUR);

    let fleet = sim.controller.fleet();
    let halted: Vec<u64> =
        fleet.products.values().flat_map(|product| product.halted.iter().copied()).collect();
    assert_eq!(halted, [2], "{}", reverted(&sim).unwrap().because);
    let revert: RolloutId = "r2-revert".parse().unwrap();
    assert!(sim.command(Command::Kill { rollout: revert, reason: String::new() }).is_err());
}
