//! One rollout: a fleet in virtual hours, counted and judged as the service does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tern_controller::core::rollout::baseline::Baseline;
use tern_controller::core::rollout::hold_back::HoldBack;
use tern_controller::core::rollout::plan::{Phase, Plan, Reach};
use tern_controller::core::rollout::policy::{PhaseRule, Policy};
use tern_controller::core::rollout::record::{PhaseRecord, Rollout};
use tern_controller::core::rollout::silence::Deadline;
use tern_controller::core::rollout::verdict::Verdict;
use tern_controller::core::rollout::wave::Waves;
use tern_protocol::id::ModelId;
use tern_protocol::position::{Cut, Salt};
use tern_protocol::state::Outcome;
use tern_tests::sim::clock::Rng;

use crate::scenario::{Order, Scenario};

/// Devices of the fleet.
pub(crate) const FLEET: usize = 100_000;
/// Share of it that each phase reaches, and hours between two phases; no gate holds them.
const PHASES: [f64; 4] = [0.01, 0.10, 0.50, 1.00];
const PHASE_HOURS: f64 = 24.0;
/// Share of devices that are always on, and hours within which those and the others begin.
const ALWAYS_ON: f64 = 0.6;
const BEGIN: (f64, f64) = (0.5, 16.0);
/// Share of good devices that fall silent with any release.
const FALL_SILENT: f64 = 0.005;
/// Median hours to a report, and of a bad one that comes first; log-normal with this spread.
const REPORT: f64 = 1.0 / 3.0;
const REPORT_FIRST: f64 = 0.05;
const SPREAD: f64 = 0.8;

/// How a rollout ended.
pub(crate) struct Ended {
    /// Hours until it was killed; none if it never was.
    pub(crate) killed_at: Option<f64>,
    /// Bad devices that had started by then.
    pub(crate) harmed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Start(usize),
    Outcome(usize, Outcome),
    Due(usize, Deadline),
}

struct Device {
    start: f64,
    /// Hours; infinite for who is silent.
    report: f64,
    fails: bool,
    bricks: bool,
}

fn uniform(rng: &mut Rng) -> f64 {
    (rng.draw() >> 11) as f64 / (1u64 << 53) as f64
}

fn normal(rng: &mut Rng) -> f64 {
    // Box and Muller; the logarithm of 0 is nobody's wish.
    let (a, b) = (1.0 - uniform(rng), uniform(rng));
    libm::sqrt(-2.0 * libm::log(a)) * libm::cos(std::f64::consts::TAU * b)
}

fn device(rank: usize, scenario: &Scenario, rng: &mut Rng) -> Device {
    let share = rank as f64 / FLEET as f64;
    let phase = PHASES.iter().filter(|reach| share >= **reach).count();
    let mut offered = phase as f64 * PHASE_HOURS;
    if scenario.paced && phase == 0 {
        // Waves of 10, 20, 40 … every two hours.
        offered = (libm::floor(libm::log2(rank as f64 / 10.0 + 1.0)) * 2.0).min(14.0);
    }
    let within = if uniform(rng) < ALWAYS_ON { BEGIN.0 } else { BEGIN.1 };
    let start = offered + uniform(rng) * within;
    let luck = uniform(rng);
    let bricks = luck < scenario.bricks;
    let fails = !bricks && luck < scenario.bricks + scenario.fails;
    let silent = bricks || (!fails && uniform(rng) < FALL_SILENT);
    let median = if fails && scenario.order == Order::BadFirst { REPORT_FIRST } else { REPORT };
    let delay = median * libm::exp(SPREAD * normal(rng));
    Device { start, report: if silent { f64::INFINITY } else { start + delay }, fails, bricks }
}

fn rollout((policy, usual): (&Policy, Option<Baseline>), model: &ModelId) -> Rollout {
    let rule = PhaseRule { gate: None, soak: Duration::from_secs(24 * 3600) };
    let cuts = BTreeMap::from([(model.clone(), Cut::ALL)]);
    let plan = Plan {
        phases: vec![Phase::new(Reach::All, rule)],
        policy: policy.clone(),
        waves: Waves::OFF,
        hold_back: HoldBack::OFF,
        ..Plan::default()
    };
    let id = "table".parse().expect("a valid name");
    let product = "table".parse().expect("a valid name");
    let phases = vec![PhaseRecord::new(cuts, FLEET as u64, 0, 0)];
    let models = BTreeSet::from([model.clone()]);
    let baseline = usual.map(|usual| (model.clone(), usual)).into_iter().collect();
    Rollout { phases, baseline, ..Rollout::new(id, product, 1, Salt([0; 16]), plan, models) }
}

/// Plays one run.
pub(crate) fn play(
    scenario: &Scenario,
    (policy, usual): (&Policy, Option<Baseline>),
    seed: u64,
    run: u64,
) -> Ended {
    let mut rng = Rng::of(seed, &format!("{} {run}", scenario.name));
    let devices: Vec<Device> = (0..FLEET).map(|rank| device(rank, scenario, &mut rng)).collect();
    let hours = |deadline: Deadline| deadline.after(policy).as_secs_f64() / 3600.0;
    let mut events: Vec<(f64, Event)> = Vec::with_capacity(FLEET * 4);
    for (d, device) in devices.iter().enumerate() {
        events.push((device.start, Event::Start(d)));
        if device.report.is_finite() {
            let outcome = if device.fails { Outcome::RolledBack } else { Outcome::Success };
            events.push((device.report, Event::Outcome(d, outcome)));
        }
        events
            .extend(Deadline::ALL.map(|deadline| (device.start + hours(deadline), Event::Due(d, deadline))));
    }
    events.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));

    let model: ModelId = "b3".parse().expect("a valid name");
    let mut rollout = rollout((policy, usual), &model);
    let mut ranks = vec![0u64; FLEET];
    // Silent at the last deadline: that verdict stands.
    let mut silent = vec![false; FLEET];
    let mut killed_at = None;
    for (at, event) in events {
        let against = match event {
            Event::Start(d) => {
                ranks[d] = rollout.count_start(&model, 0);
                false
            }
            Event::Outcome(d, outcome) if !silent[d] => {
                rollout.count_outcome(&model, 0, (0, ranks[d]), outcome);
                outcome == Outcome::RolledBack
            }
            Event::Outcome(..) => false,
            Event::Due(d, deadline) => {
                let mute = devices[d].report > at;
                silent[d] |= mute && deadline == Deadline::Last;
                rollout.count_deadline(&model, 0, 0, deadline, mute);
                mute
            }
        };
        if against {
            let observed = Duration::from_secs_f64(at * 3600.0).as_millis();
            let observed = u64::try_from(observed).unwrap_or(u64::MAX);
            if matches!(rollout.judge(FLEET as u64, observed), Verdict::Kill(_)) {
                killed_at = Some(at);
                break;
            }
        }
    }
    let until = killed_at.unwrap_or(f64::INFINITY);
    let harmed = devices.iter().filter(|d| (d.fails || d.bricks) && d.start <= until).count() as u64;
    Ended { killed_at, harmed }
}
