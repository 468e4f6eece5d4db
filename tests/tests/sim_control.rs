//! Waves and the control: few devices at risk before anybody can know, and nobody blamed for what hits all alike.

use std::collections::BTreeMap;
use std::time::Duration;

use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::hold_back::HoldBack;
use tern_controller::core::rollout::plan::{Plan, Reach};
use tern_controller::core::rollout::policy::PhaseRule;
use tern_controller::core::rollout::record::Status;
use tern_controller::core::rollout::wave::Waves;
use tern_protocol::id::{DeviceId, RolloutId};
use tern_protocol::message::ReportKind;
use tern_tests::lab::{Reference, recomputed};
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::device::OLDER_CRASHES;
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const DEVICES: usize = 240;
const DAY: u64 = 24 * HOUR;

/// A fleet that is large enough to hold devices back.
fn scene(seed: u64, trial: Trial, plan: Plan) -> (Sim, RolloutId) {
    scene_of(DEVICES, seed, trial, plan)
}

fn scene_of(devices: usize, seed: u64, trial: Trial, plan: Plan) -> (Sim, RolloutId) {
    let config = SimConfig { devices, models: vec!["B3"], image: 5000, ..SimConfig::default() };
    let mut sim = Sim::new(seed, config);
    sim.run_for(MINUTE);
    let rc = sim.publish(trial);
    let rollout = sim.start(rc, plan);
    (sim, rollout)
}

/// A canary of 100 and then all, in waves, with devices held back.
fn held(soak: u64) -> Plan {
    let hold_back = HoldBack::default();
    Plan { waves: Waves::default(), hold_back, ..plan(&[Reach::Devices(100), Reach::All], soak) }
}

fn because(sim: &Sim, rollout: &RolloutId) -> String {
    sim.rollout(rollout).because
}

fn stops(sim: &Sim) -> Vec<&Fact> {
    let stop = |fact: &&Fact| matches!(fact, Fact::Paused { .. } | Fact::Killed { .. });
    sim.controller.ledger.iter().map(|entry| &entry.fact).filter(stop).collect()
}

/// Crashes of every day that a device told about.
fn crashes_told(sim: &Sim) -> Vec<u64> {
    let told = sim.controller.ledger.iter().filter_map(|entry| match &entry.fact {
        Fact::Reported { report: ReportKind::Health { metrics, .. }, .. } => metrics.get("crashes").copied(),
        _ => None,
    });
    told.collect()
}

fn controls(sim: &Sim, rollout: &RolloutId) -> u64 {
    sim.rollout(rollout).control.values().map(|control| control.held).sum()
}

#[test]
fn a_good_release_reaches_everybody_in_waves_and_last_of_all_the_control() {
    let (mut sim, rollout) = scene(501, Trial::Healthy, held(2 * 3600));

    sim.expect("the canary is open", |s| s.rollout(&rollout).phases[0].is_open(), 10 * HOUR);
    let waves: Vec<u64> = sim
        .controller
        .ledger
        .iter()
        .filter_map(|entry| match &entry.fact {
            Fact::PhaseOpened { included, .. } => *included,
            Fact::WaveOpened { devices, .. } => Some(*devices),
            _ => None,
        })
        .collect();
    assert_eq!(waves, [10, 20, 40, 30]);
    sim.expect("the last phase is open", |s| s.rollout(&rollout).phases.len() == 2, DAY);
    assert_eq!(controls(&sim, &rollout), 48, "one in five at most");
    assert!(sim.rollout(&rollout).held_from.is_some());
    sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 3 * DAY);

    assert_eq!((sim.settled_on(1), stops(&sim).len()), (DEVICES, 0), "{}", sim.tail(40));
    assert_eq!(sim.rollout(&rollout).total().good, DEVICES as u64);
    sim.finish();
}

/// Has the reference work out every verdict of the ledger again; there must be one about a control.
fn worked_out(sim: &Sim) {
    let Some(reference) = Reference::found() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let frames = folder.path().join("frames.jsonl");
    let entries = sim.controller.ledger.iter().enumerate();
    let line = |(seq, entry)| serde_json::json!({"seq": seq, "entry": entry}).to_string();
    std::fs::write(&frames, entries.map(line).collect::<Vec<_>>().join("\n")).expect("a file");
    let Some(lines) = recomputed(&reference, &frames, &[]) else { return };
    assert!(lines.iter().any(|line| line.contains("vs control")), "{lines:?}");
}

/// Every fourth device is cut off for hours, whether it has the release or not.
fn outage(sim: &mut Sim, hours: u64) {
    let hit: Vec<usize> = (0..DEVICES).filter(|d| d % 4 != 0).collect();
    hit.iter().for_each(|d| sim.set_offline(*d, true));
    sim.run_for(hours * HOUR);
    hit.iter().for_each(|d| sim.set_offline(*d, false));
}

#[test]
fn a_regional_outage_stops_nothing_beside_a_control_and_pauses_without_one() {
    for (hold_back, calm) in [(HoldBack::default(), true), (HoldBack::OFF, false)] {
        let plan = Plan { waves: Waves::OFF, hold_back, ..held(24 * 3600) };
        let (mut sim, rollout) = scene(502, Trial::Healthy, plan);
        let begun = |s: &Sim| s.rollout(&rollout).total().started >= 40;
        sim.expect("many have begun", begun, 2 * HOUR);

        outage(&mut sim, 9);
        sim.run_for(HOUR);

        let status = sim.status(&rollout).unwrap();
        if calm {
            assert_eq!(status, Status::Running, "{}", because(&sim, &rollout));
            assert_eq!(stops(&sim), Vec::<&Fact>::new());
        } else {
            assert_eq!(status, Status::Paused, "{}", because(&sim, &rollout));
        }
        sim.assert_sound();
    }
}

#[test]
fn a_brick_is_found_out_in_the_first_wave_beside_a_control() {
    let (mut sim, rollout) = scene(503, Trial::Bricking, held(24 * 3600));

    sim.expect("it is killed", |s| s.status(&rollout) == Some(Status::Killed), 8 * HOUR);

    let (said, started) = (because(&sim, &rollout), sim.rollout(&rollout).total().started);
    assert_eq!(started, 10, "{said}");
    sim.assert_sound();
    worked_out(&sim);
    // The control: all at once, a hundred are lost before anybody can know.
    let at_once = Plan { waves: Waves::OFF, ..held(24 * 3600) };
    let (mut sim, rollout) = scene(503, Trial::Bricking, at_once);
    sim.expect("it is killed", |s| s.status(&rollout) == Some(Status::Killed), 8 * HOUR);
    assert_eq!(sim.rollout(&rollout).total().started, 100);
}

/// Neither shows in an outcome: the devices are up, confirmed, and worse than those that were held back.
#[test]
fn a_release_that_crashes_or_drains_is_stopped_by_comparison_and_a_good_one_is_not() {
    for (trial, words) in [
        (Trial::Crashing, Some("crashes: released")),
        (Trial::Thirsty, Some("battery drain: released")),
        (Trial::Healthy, None),
    ] {
        let mut plan = Plan { waves: Waves::OFF, ..held(8 * 24 * 3600) };
        plan.phases.iter_mut().for_each(|phase| phase.rule = PhaseRule { gate: None, ..phase.rule.clone() });
        plan.policy.health_window = Duration::from_secs(24 * 3600);
        // Nine in ten of both arms are usual: with half as many held back, all that drain could hardly be told from a tenth.
        let devices = if trial == Trial::Thirsty { 500 } else { DEVICES };
        let (mut sim, rollout) = scene_of(devices, 504, trial, plan);

        sim.run_until(|s| s.status(&rollout) != Some(Status::Running), 7 * DAY);

        let days = crashes_told(&sim);
        assert!(days.len() >= 100 && days.iter().all(|crashes| *crashes < OLDER_CRASHES), "{days:?}");
        let (status, said) = (sim.status(&rollout).unwrap(), because(&sim, &rollout));
        match words {
            Some(words) => {
                // The first day suffices for a pause.
                assert!(status != Status::Running && said.contains(words), "{said}");
                assert!(said.contains("vs control") && !stops(&sim).is_empty(), "{said}");
                assert_eq!(sim.rollout(&rollout).total().started, 100);
                worked_out(&sim);
            }
            None => assert_eq!((status, stops(&sim).len()), (Status::Running, 0), "{said}"),
        }
        sim.assert_sound();
    }
}

/// Who boots again and again never sees a day's end in one boot. Told before it, its bad day would be compared with days
/// that go on.
#[test]
fn who_boots_again_and_again_tells_of_a_day_when_it_is_over_and_stops_no_good_release() {
    let mut plan = Plan { waves: Waves::OFF, ..held(8 * 24 * 3600) };
    plan.phases.iter_mut().for_each(|phase| phase.rule = PhaseRule { gate: None, ..phase.rule.clone() });
    plan.policy.health_window = Duration::from_secs(24 * 3600);
    let (mut sim, rollout) = scene(505, Trial::Healthy, plan);
    sim.run_for(DAY);
    let looping: Vec<usize> = (0..DEVICES).filter(|d| d % 13 == 3).collect();
    for _ in 0..4 * 8 {
        sim.run_for(3 * HOUR);
        looping.iter().for_each(|d| sim.power_cut(*d));
    }
    sim.run_for(DAY);

    let mut told: BTreeMap<&DeviceId, Vec<(u64, u64)>> = BTreeMap::new();
    for entry in &sim.controller.ledger {
        if let Fact::Reported { device, report: ReportKind::Health { metrics, .. }, .. } = &entry.fact
            && let Some(boots) = metrics.get("boots")
        {
            told.entry(device).or_default().push((entry.at, *boots));
        }
    }
    let loops: Vec<_> = looping.iter().filter_map(|d| told.get(&sim.devices[*d].id)).collect();
    assert!(loops.len() > 5 && loops.iter().all(|days| days.len() >= 3), "{loops:?}");
    assert!(loops.iter().any(|days| days.iter().any(|(_, boots)| *boots >= 4)), "{loops:?}");
    let apart = |days: &[(u64, u64)]| days.windows(2).all(|two| two[1].0 - two[0].0 >= DAY - MINUTE);
    assert!(told.values().all(|days| apart(days)), "{told:?}");
    assert_eq!(
        (sim.status(&rollout), stops(&sim).len()),
        (Some(Status::Running), 0),
        "{}",
        because(&sim, &rollout)
    );
    sim.assert_sound();
}
