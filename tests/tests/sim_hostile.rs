//! The broker is an untrusted mirror: whoever owns it can delay, and nothing else.
//!
//! Every seed combines what it does. Safety is checked after every event (signed bytes only, only what was approved
//! and offered, never below the floor, nothing armed or taken as good that the device knows to be halted, nothing armed
//! after a kill was answered, no report in the ledger that its device did not make); truth against the harness's own
//! list of reports; liveness once the broker behaves again: two heartbeats later everybody has converged.

use std::panic::catch_unwind;

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_controller::core::service::Lives;
use tern_protocol::id::RolloutId;
use tern_tests::sim::clock::{HOUR, MINUTE, SECOND};
use tern_tests::sim::hostile::Hostility;
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Faults, Sim, SimConfig, Trial};

/// How long the broker is hostile.
const WAR: u64 = 2 * HOUR;
/// Devices in a world: one for each phase of the plan.
const CAST: usize = 3;
/// Bytes of an image: two chunks.
const IMAGE: usize = 70_000;

/// How long everybody may take to converge once the broker behaves.
fn two_heartbeats() -> u64 {
    2 * Lives::default().heartbeat * SECOND
}

fn world(seed: u64, hostility: Hostility) -> Sim {
    let mut config =
        SimConfig { devices: CAST, image: IMAGE, hostility: Some(hostility), ..SimConfig::default() };
    config.network.poison = if seed.is_multiple_of(3) { 0.2 } else { 0.0 };
    config.faults = Faults {
        until: hostility.until,
        power_cut: Some(2 * HOUR),
        disconnect: Some(20 * MINUTE),
        service_restart: Some(HOUR),
        ..Faults::default()
    };
    Sim::new(seed, config)
}

/// Publishes the next release, in a quarter of the seeds with a floor that no older one may pass.
fn publish(sim: &mut Sim, seed: u64, trial: Trial, rc: u64) -> u64 {
    let floor = if seed % 4 == 1 { rc } else { 0 };
    is_up(sim);
    let rc = sim.publish_image(trial, IMAGE, floor);
    // It may have died over the command.
    is_up(sim);
    rc
}

fn is_up(sim: &mut Sim) {
    sim.expect("the service is up", |s| s.controller.is_up(), MINUTE);
}

fn end(sim: &mut Sim, rollout: &RolloutId) {
    is_up(sim);
    if matches!(sim.status(rollout), Some(Status::Running | Status::Paused)) {
        sim.kill(rollout);
    }
}

/// Has everybody converge two heartbeats after `since` at the latest; returns how long it took.
fn converges(sim: &mut Sim, since: u64) -> u64 {
    let left = (since + two_heartbeats()).saturating_sub(sim.now());
    sim.expect("everybody converges within two heartbeats", Sim::all_have_converged, left);
    let took = sim.now() - since;
    sim.finish();
    took
}

/// A release under a hostile broker, in half of the seeds killed; then peace, and the next release for everybody: at
/// once in half of the seeds, and after the first one has come to its end in the others. Returns how long it took
/// from peace until everybody had converged.
fn survives(seed: u64) -> u64 {
    let mut sim = world(seed, Hostility::of(seed, WAR));
    let trial = if seed.is_multiple_of(5) { Trial::Sick } else { Trial::Healthy };
    let rc = publish(&mut sim, seed, trial, 1);
    let rollout = sim.start(rc, plan(&[Reach::Devices(1), Reach::Percent(50.0), Reach::All], 600));
    sim.run_for((seed % 9) * 10 * MINUTE + MINUTE);
    sim.check_not_more_than_the_truth();
    if seed.is_multiple_of(2) {
        end(&mut sim, &rollout);
    }
    let left = WAR.saturating_sub(sim.now());
    sim.run_for(left);
    sim.check_not_more_than_the_truth();
    sim.assert_sound();

    let waits = (seed / 2).is_multiple_of(2);
    let mut took = if waits { converges(&mut sim, WAR) } else { 0 };
    let since = if waits { sim.now() } else { WAR };
    end(&mut sim, &rollout);
    let next = publish(&mut sim, seed, Trial::Healthy, 2);
    let last = sim.start(next, plan(&[Reach::All], 600));
    took = took.max(converges(&mut sim, since));
    assert_eq!(sim.status(&last), Some(Status::Completed), "seed {seed}\n{}", sim.tail(40));
    assert_eq!(sim.settled_on(next), CAST, "seed {seed}");
    took
}

/// Says what a campaign found, for .ci/long to keep.
#[expect(clippy::print_stdout, reason = "with --nocapture this is the result")]
fn tell(what: &str) {
    println!("{what}");
}

/// Plays every seed to its end, whatever became of those before, and tells which failed.
fn campaign(seeds: std::ops::Range<u64>) {
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    for seed in seeds.clone() {
        match catch_unwind(|| survives(seed)) {
            Ok(time) => took.push(time / MINUTE),
            Err(_) => failed.push(seed),
        }
    }
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
    let told = format!(
        "seeds {seeds:?}: {} sound, failed {failed:?}; minutes until all had converged: median {:?}, 99 % {:?}, most {:?}",
        took.len(),
        at(50),
        at(99),
        took.last()
    );
    tell(&told);
    assert!(failed.is_empty(), "these seeds failed, each with its story above: {failed:?}");
}

// In halves, because tests run side by side.
#[test]
fn whoever_owns_the_broker_can_delay_and_nothing_else() {
    campaign(5000..5150);
}

#[test]
fn whoever_owns_the_broker_can_delay_and_nothing_else_once_more() {
    campaign(5150..5300);
}

/// Two devices were recalled after a deferral, and the broker delivered the deferral last.
#[test]
fn a_recall_that_overtook_a_deferral_counts_once() {
    [102_723, 109_367].into_iter().for_each(|seed| campaign(seed..seed + 1));
}

#[test]
#[ignore = "half an hour of simulation: .ci/long hostile"]
fn ten_thousand_hostile_brokers() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let first = number("TERN_HOSTILE_SEED", 100_000);
    campaign(first..first + number("TERN_HOSTILE_SEEDS", 10_000));
}

/// A broker that only acts by itself.
fn calm(until: u64) -> Hostility {
    let (hides, mutes, holds, bends, doubles) = (0.0, 0.0, 0.0, 0.0, 0.0);
    Hostility { until, hides, mutes, holds, bends, doubles, acts_every: MINUTE, thief: false }
}

#[test]
fn should_find_a_broker_that_also_stole_the_devices_keys() {
    let thief = Hostility { thief: true, acts_every: 10 * SECOND, ..calm(2 * HOUR) };
    let mut sim = world(7001, thief);
    let rc = sim.publish(Trial::Healthy);
    sim.start(rc, plan(&[Reach::Devices(1), Reach::All], 60));

    sim.run_for(2 * HOUR - MINUTE);

    let hit = sim.violations.iter().any(|v| v.contains("is not what the device's journal holds"));
    assert!(hit, "the thief was not seen: {:?}\n{}", sim.violations, sim.tail(30));
}

#[test]
fn a_broker_that_lets_no_outcome_through_widens_nothing() {
    let silent = Hostility { mutes: 1.0, ..calm(3 * HOUR) };
    let mut sim = world(7000, silent);
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&[Reach::Devices(1), Reach::All], 60));

    sim.run_for(3 * HOUR - MINUTE);

    assert_eq!(sim.rollout(&rollout).phases.len(), 1, "{}", sim.tail(30));
    assert_eq!(sim.rollout(&rollout).total().good, 0);
    sim.check_not_more_than_the_truth();
    sim.assert_sound();
}
