//! Yesterday's data folder is put back in the middle of a rollout: a kill given since stays in force, versions go
//! above, the fleet goes on.
//!
//! The invariants hold after every event: above all, no device that is answered after a kill arms that release, whoever
//! answers.

use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_controller::core::service::{Command, RefusalKind};
use tern_protocol::id::RolloutId;
use tern_tests::sim::broker::Network;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::restore::Restore;
use tern_tests::sim::{Broken, Sim, SimConfig, Trial};

const DEVICES: usize = 12;
const PHASES: [Reach; 3] = [Reach::Devices(3), Reach::Percent(50.0), Reach::All];
/// A comparison takes two heartbeats of six hours.
const COMPARISON: u64 = 12 * HOUR + 10 * MINUTE;

fn world(seed: u64, broken: Option<Broken>) -> Sim {
    let network = if seed.is_multiple_of(2) { Network::default() } else { Network::bad() };
    Sim::new(seed, SimConfig { devices: DEVICES, image: 70_000, network, broken, ..SimConfig::default() })
}

fn phases(sim: &Sim, rollout: &RolloutId) -> usize {
    sim.controller
        .live()
        .and_then(|fleet| fleet.rollouts.get(rollout))
        .map_or(0, |rollout| rollout.phases.len())
}

/// Opens every phase. What ran the release before has nothing left to start, so after a resumption a gate may have
/// nobody to judge: people widen.
fn promote(sim: &mut Sim, rollout: &RolloutId) {
    while phases(sim, rollout) < PHASES.len() {
        let from_phase = phases(sim, rollout);
        sim.must(Command::Promote { rollout: rollout.clone(), from_phase, key: None });
    }
}

/// A rollout is widened, killed and followed by the next one after the copy; some devices are away for the kill.
fn killed_since(seed: u64, broken: Option<Broken>, how: Restore) -> (Sim, RolloutId) {
    let mut sim = world(seed, broken);
    sim.run_for(MINUTE);
    let first = sim.publish(Trial::Healthy);
    let rollout = sim.start(first, plan(&PHASES, 1800));
    sim.run_for(5 * MINUTE);
    let copy = sim.copy();
    (0..3).for_each(|d| sim.set_offline(d, true));
    sim.expect("it widens", |s| phases(s, &rollout) == 2, 12 * HOUR);
    sim.run_for((seed % 4) * MINUTE);
    sim.kill(&rollout);
    let second = sim.publish(Trial::Healthy);
    let next = sim.start(second, plan(&PHASES, 1800));
    sim.expect("the next one is on its way", |s| s.settled_on(second) > 0 && phases(s, &next) > 0, 12 * HOUR);

    sim.restore(copy, how);
    (sim, rollout)
}

/// What must come of it, whoever noticed the restore.
fn goes_on(mut sim: Sim, rollout: &RolloutId) {
    sim.expect("the service compares", Sim::is_comparing, 30 * MINUTE);
    let refusal = sim.command(Command::Resume(rollout.clone())).expect_err("nothing is offered meanwhile");
    assert_eq!(refusal.kind, RefusalKind::Conflict, "{refusal}");
    // They never heard of the kill, and hold what the restored service believes in.
    (0..3).for_each(|d| sim.set_offline(d, false));
    sim.expect("the kill is known again", |s| s.status(rollout) == Some(Status::Killed), 2 * HOUR);
    let before = sim.highest_held();

    sim.expect("the comparison ends", |s| !s.is_comparing(), COMPARISON + HOUR);

    let fleet = sim.controller.fleet();
    let product = fleet.products.values().next().expect("there is one");
    let after = product.versions();
    assert!(
        after.rollout > before.rollout
            && after.halt > before.halt
            && after.snapshot > before.snapshot
            && after.timestamp > before.timestamp,
        "{after:?} is not above {before:?}"
    );
    assert_eq!(after.release, before.release, "the release file was signed by people and is known again");
    assert!(product.halt_content().halted.contains(&1), "{:?}", product.halt_content());
    let again = sim.start_as("again", 2, plan(&PHASES, 1800));
    sim.expect("everybody runs the good release", |s| s.settled_on(2) == DEVICES, 48 * HOUR);
    sim.expect("it completes", |s| s.status(&again) == Some(Status::Completed), 12 * HOUR);
    sim.finish();
}

#[test]
fn a_kill_given_since_the_copy_stays_in_force_and_the_fleet_goes_on() {
    for seed in 0..4 {
        for how in [Restore::Marked, Restore::MarkedBesideABroker, Restore::Unmarked] {
            let (sim, rollout) = killed_since(100 + seed, None, how);
            goes_on(sim, &rollout);
        }
    }
}

#[test]
fn should_find_a_service_that_never_compares() {
    let (mut sim, _) = killed_since(100, Some(Broken::NeverCompares), Restore::Marked);
    (0..3).for_each(|d| sim.set_offline(d, false));

    sim.run_for(24 * HOUR);

    let hit = sim.violations.iter().any(|violation| violation.contains("answered after the kill"));
    assert!(hit, "{:?}\n{}", sim.violations, sim.tail(40));
}

#[test]
fn whoever_a_lost_widening_included_stays_included_and_a_resumed_rollout_completes() {
    for (seed, how) in [(110, Restore::Marked), (111, Restore::Unmarked), (112, Restore::MarkedBesideABroker)]
    {
        let mut sim = world(seed, None);
        sim.run_for(MINUTE);
        let rc = sim.publish(Trial::Healthy);
        let rollout = sim.start(rc, plan(&PHASES, 1800));
        sim.run_for(5 * MINUTE);
        let copy = sim.copy();
        sim.expect("it widens", |s| phases(s, &rollout) == 2, 12 * HOUR);
        // Long enough for somebody to hear of it: what nobody has is lost, and nobody misses it.
        sim.run_for((1 + seed % 3) * 5 * MINUTE);
        let cuts = sim.rollout(&rollout).cuts();

        sim.restore(copy, how);
        sim.expect("the service compares", Sim::is_comparing, 30 * MINUTE);
        sim.expect("the comparison ends", |s| !s.is_comparing(), COMPARISON + HOUR);

        let known = sim.rollout(&rollout);
        assert_eq!((known.status, known.cuts()), (Status::Paused, cuts), "seed {seed}");
        sim.must(Command::Resume(rollout.clone()));
        promote(&mut sim, &rollout);
        sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
        assert_eq!(sim.settled_on(rc), DEVICES);
        sim.finish();
    }
}

#[test]
fn a_kill_given_while_the_service_compares_reaches_devices_at_once() {
    let mut sim = world(120, None);
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::All], 1800));
    let copy = sim.copy();
    sim.run_for(2 * MINUTE);
    // Versions go on: what is signed now must be above what devices hold by then.
    sim.must(Command::Pause(rollout.clone()));
    sim.must(Command::Resume(rollout.clone()));
    sim.run_for(MINUTE);

    sim.restore(copy, Restore::Marked);
    sim.expect("the service is up", Sim::is_comparing, MINUTE);
    sim.kill(&rollout);

    let knows = |s: &Sim| {
        s.devices.iter().all(|device| device.agent().is_some_and(|a| a.durable().halted.contains(&rc)))
    };
    sim.expect("every device knows the kill", knows, 10 * MINUTE);
    assert!(sim.is_comparing(), "the comparison goes on");
    sim.expect("the comparison ends", |s| !s.is_comparing(), COMPARISON + HOUR);
    sim.expect("everybody is quiet", Sim::is_quiet, 6 * HOUR);
    assert_eq!(sim.settled_on(0), DEVICES);
    sim.finish();
}

#[test]
fn a_device_that_claims_what_nobody_signed_moves_nothing_and_stops_the_service_once() {
    let mut sim = world(130, None);
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&PHASES, 1800));
    sim.run_for(5 * MINUTE);
    let lie = |hello: &mut tern_protocol::message::Hello| {
        hello.halted = vec![rc];
        hello.versions.halt = u32::MAX;
        hello.versions.timestamp = u32::MAX;
    };

    sim.lie(0, 1 << 40, lie);

    sim.expect("the service compares", Sim::is_comparing, MINUTE);
    sim.set_offline(0, true);
    // Asked for the file that would prove it, it presents one that it signed itself.
    sim.run_for(MINUTE);
    sim.present_forged_halt(0, 500, rc);
    sim.run_for(MINUTE);
    let refused = |line: &&String| line.contains("halt of device d0 proves nothing");
    assert_eq!(sim.log.iter().filter(refused).count(), 1, "the file was not looked at\n{}", sim.tail(20));
    sim.expect("the comparison ends", |s| !s.is_comparing(), COMPARISON + HOUR);
    let fleet = sim.controller.fleet();
    let product = fleet.products.values().next().expect("there is one");
    assert!(product.versions().halt < 10_000 && product.versions().timestamp < 10_000);
    assert_eq!(product.halted.len(), 0, "a claim killed a release");
    assert_eq!(sim.status(&rollout), Some(Status::Paused));

    sim.lie(0, (1 << 40) + 1, lie);
    sim.run_for(HOUR);
    assert!(!sim.is_comparing(), "one device stops the fleet again and again");
    sim.set_offline(0, false);
    sim.must(Command::Resume(rollout.clone()));
    promote(&mut sim, &rollout);
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 48 * HOUR);
    sim.finish();
}

#[test]
fn a_service_that_lost_its_whole_ledger_finds_its_versions_and_its_kills_again() {
    let mut sim = world(140, None);
    sim.run_for(MINUTE);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&PHASES, 1800));
    sim.run_for(10 * MINUTE);
    sim.kill(&rollout);
    sim.run_for(10 * MINUTE);
    let before = sim.highest_held();
    // What is left: the keys, the first files, and the factory's list.
    let copy: Vec<_> = sim
        .copy()
        .into_iter()
        .filter(|entry| matches!(entry.fact, Fact::ProductAdded { .. } | Fact::DevicesAdded { .. }))
        .collect();

    sim.restore(copy, Restore::Unmarked);

    sim.expect("a device enrols and claims more", Sim::is_comparing, 2 * HOUR);
    sim.expect("the comparison ends", |s| !s.is_comparing(), COMPARISON + HOUR);
    let fleet = sim.controller.fleet();
    let product = fleet.products.values().next().expect("there is one");
    assert!(product.halted.contains(&rc), "the kill is forgotten");
    assert!(product.versions().halt > before.halt && product.versions().rollout > before.rollout);
    let next = sim.publish(Trial::Healthy);
    sim.start(next, plan(&[Reach::All], 1800));
    sim.expect("everybody follows", |s| s.settled_on(next) == DEVICES, 48 * HOUR);
    sim.finish();
}
