//! The bake-off's arithmetic of a device, held against real agents under the real service, kind by kind.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use tern_agent::core::timing::Timing;
use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::plan::Reach;
use tern_protocol::message::ReportKind;
use tern_protocol::state::Outcome;
use tern_tests::bakeoff::device::{End, Kind, TRIES, Traits, course};
use tern_tests::bakeoff::scenario::Outage;
use tern_tests::sim::clock::{EPOCH, HOUR, MINUTE, SECOND};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const DEVICES: usize = 24;

/// What the ledger says of one device: its starts, its first word from the new release, its ends.
#[derive(Debug, Default)]
struct Told {
    starts: Vec<u64>,
    up: Option<u64>,
    ends: Vec<(u64, Outcome)>,
}

fn told(sim: &Sim) -> BTreeMap<String, Told> {
    let mut all: BTreeMap<String, (Told, u64)> = BTreeMap::new();
    for entry in &sim.controller.ledger {
        let Fact::Reported { device, e, report, .. } = &entry.fact else { continue };
        let at = entry.at - EPOCH;
        let (told, epoch) = all.entry(device.to_string()).or_default();
        match report {
            ReportKind::Started { .. } => {
                told.starts.push(at);
                *epoch = *e;
            }
            ReportKind::Outcome { outcome, .. } => told.ends.push((at, *outcome)),
            _ => {}
        }
        if !told.starts.is_empty() && e > epoch && told.up.is_none() {
            told.up = Some(at);
        }
    }
    all.into_iter()
        .map(|(device, (told, _))| (device, told))
        .filter(|(_, told)| !told.starts.is_empty())
        .collect()
}

/// A device of the arithmetic that boots and probes as those of the simulation do.
fn twin(kind: Kind) -> Traits {
    Traits {
        model: 0,
        region: 0,
        kind,
        affected: false,
        begin: 0,
        away_until: 0,
        boot: 10 * SECOND,
        probe: 3 * SECOND,
        drain: 5 * SECOND,
        days: 0,
    }
}

fn played(trial: Trial, hours: u64) -> BTreeMap<String, Told> {
    let config = SimConfig { devices: DEVICES, models: vec!["B3"], image: 5000, ..SimConfig::default() };
    let mut sim = Sim::new(41, config);
    sim.run_for(MINUTE);
    let rc = sim.publish(trial);
    let mut plan = plan(&[Reach::All], 3600);
    // Nobody stops it: what a device does by itself is what is looked at.
    plan.policy.hard_stop = None;
    plan.policy.max_failure_rate = 0.99;
    plan.policy.alpha = 1e-300;
    plan.policy.alpha_pause = 1e-300;
    sim.start(rc, plan);
    sim.run_for(hours * HOUR);
    sim.assert_sound();
    let told = told(&sim);
    assert_eq!(told.len(), DEVICES, "every device started");
    told
}

fn near(found: u64, expected: u64, what: &str) {
    assert!(found.abs_diff(expected) <= 45 * SECOND, "{what}: at {found} ms, expected about {expected} ms");
}

#[test]
fn real_agents_start_end_and_fall_silent_as_the_arithmetic_says() {
    let timing = Timing::default();
    for (trial, kind, outcome) in [
        (Trial::Healthy, Kind::Good, Some((End::Good, Outcome::Success))),
        (Trial::Sick, Kind::Sick, Some((End::RolledBack, Outcome::RolledBack))),
        (Trial::Looping, Kind::Sick, Some((End::RolledBack, Outcome::RolledBack))),
        (Trial::Bricking, Kind::Brick, None),
    ] {
        for (device, told) in played(trial, 2) {
            let what = format!("{trial:?} {device} {told:?}");
            let start = told.starts[0];
            // A boot loader gives up after some boots; nothing is heard of them.
            let loops = trial == Trial::Looping;
            let boot = if loops { 28 * SECOND } else { twin(kind).boot };
            let expected = course(&Traits { boot, ..twin(kind) }, start, None, &timing, true);
            let Some((end, outcome)) = outcome else {
                assert!(expected.is_none() && told.up.is_none() && told.ends.is_empty(), "{what}");
                continue;
            };
            let course = expected.unwrap();
            let (at, expected) = course.end.unwrap();
            assert_eq!((expected, told.starts.len(), told.ends.len()), (end, 1, 1), "{what}");
            assert_eq!(told.ends[0].1, outcome, "{what}");
            if !loops {
                near(told.up.unwrap(), course.up, &what);
            }
            near(told.ends[0].0, at, &what);
        }
    }
}

/// Trials that reach nobody go back after the connect deadline, are told of then, and are made three times. In the
/// simulation only the new release is cut off, so each is told of as soon as the old one is back.
#[test]
fn real_agents_that_reach_nobody_go_back_and_try_again_as_the_arithmetic_says() {
    let timing = Timing::default();
    for (device, told) in played(Trial::Mute, 6) {
        let what = format!("{device} {told:?}");
        assert_eq!(told.starts.len(), TRIES as usize, "{what}");
        for (start, (at, outcome)) in told.starts.iter().zip(&told.ends) {
            // An outage for the very length of the trial.
            let over = start + timing.connect_deadline + 15 * SECOND;
            let outage = Some(Outage { from: start + 1, to: over, region: None });
            let course = course(&twin(Kind::Good), *start, outage, &timing, true).unwrap();
            assert_eq!((course.end.unwrap().1, *outcome), (End::Unreachable, Outcome::Unreachable), "{what}");
            near(*at, course.end.unwrap().0, &what);
        }
        for (again, (at, _)) in told.starts[1..].iter().zip(&told.ends) {
            near(*again, at + timing.deferral, &what);
        }
    }
}
