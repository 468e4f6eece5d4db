//! What is drawn: fleets, policies, releases of every kind, and logs that end near a threshold.

use tern_controller::core::rollout::evidence::{kill_evidence, kill_threshold};
use tern_controller::core::rollout::policy::{HardStop, Policy};
use tern_protocol::id::{DeviceId, ModelId};
use tern_tests::sim::clock::{HOUR, MINUTE, Rng};

use crate::device::{Fate, Way, lines};
use crate::log::Log;
use crate::moments::Moments;

/// The kinds of logs, in turn.
pub(crate) const PROFILES: [&str; 13] = [
    "healthy",
    "twice-as-bad",
    "bad",
    "very-bad",
    "bricks",
    "mixed",
    "tiny",
    "strata",
    "near-outcome",
    "over-outcome",
    "near-early",
    "near-last",
    "edges",
];
/// Fleets below this size have rules of their own.
const LARGE: u64 = 200;

/// A device of a log that is being drawn.
struct Actor {
    model: ModelId,
    fate: Fate,
    way: Way,
    start: u64,
    slow: u64,
}

/// A log that is being drawn.
struct Draft {
    policy: Policy,
    actors: Vec<Actor>,
    /// Devices that never start.
    idle: u64,
    copies: f64,
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("the generator uses valid names")
}

/// Draws log number `number`.
pub(crate) fn draw(seed: u64, number: u64) -> Log {
    let profile = PROFILES[usize::try_from(number % PROFILES.len() as u64).unwrap_or(0)];
    let mut rng = Rng::of(seed, &format!("event log {number}"));
    let draft = draft(profile, &mut rng);
    let after = |wait: std::time::Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let (early, last) = (draft.policy.silence_early.after, draft.policy.silence_deadline.after);
    let mut moments = Moments::new(after(early), after(last));
    let mut log = Log {
        log: number,
        profile: profile.to_owned(),
        policy: draft.policy,
        devices: Vec::new(),
        lines: Vec::new(),
    };
    for (index, actor) in draft.actors.iter().enumerate() {
        let device: DeviceId = name(&format!("d-{index:04}"));
        let (what, when) = ((actor.fate, actor.way), (actor.start, actor.slow));
        log.lines.extend(lines(&device, what, when, draft.copies, (&mut rng, &mut moments)));
        log.devices.push((device, actor.model.clone()));
    }
    let idle = (0..draft.idle).map(|index| (name(&format!("idle-{index:04}")), name("b3")));
    log.devices.extend(idle);
    log.lines.sort_by(|a, b| (a.at, &a.device, a.n).cmp(&(b.at, &b.device, b.n)));
    log
}

fn draft(profile: &str, rng: &mut Rng) -> Draft {
    let rates: &[(Fate, f64)] = match profile {
        "healthy" => &[(Fate::Bad, 0.01), (Fate::Limbo, 0.005), (Fate::Unreachable, 0.01)],
        "twice-as-bad" => &[(Fate::Bad, 0.10), (Fate::Limbo, 0.005)],
        "bad" => &[(Fate::Bad, 0.18), (Fate::CannotArm, 0.02), (Fate::Limbo, 0.005)],
        "very-bad" | "tiny" => &[(Fate::Bad, 0.4), (Fate::CannotArm, 0.1)],
        "bricks" => &[(Fate::Brick, 0.5), (Fate::Late, 0.05)],
        "mixed" => &[(Fate::Bad, 0.08), (Fate::Brick, 0.08), (Fate::Limbo, 0.03), (Fate::Defers, 0.05)],
        "edges" => &[
            (Fate::Bad, 0.10),
            (Fate::CannotArm, 0.05),
            (Fate::Brick, 0.05),
            (Fate::Late, 0.05),
            (Fate::Defers, 0.10),
            (Fate::Unreachable, 0.05),
        ],
        "strata" => return strata(rng),
        near => return near_threshold(near, rng),
    };
    let count = match profile {
        "tiny" => 5 + rng.below(50),
        "healthy" | "twice-as-bad" => 60 + rng.below(100),
        _ => 20 + rng.below(80),
    };
    let mut policy = drawn_policy(rng);
    if matches!(profile, "very-bad" | "tiny") && rng.chance(0.7) {
        policy.hard_stop = Some(HardStop { bad: 3, first: 10 });
    }
    let strange = if profile == "edges" { 0.6 } else { 0.2 };
    let actors = (0..count).map(|_| actor(rates, strange, name("b3"), rng)).collect();
    let idle = if profile == "tiny" { 1 + rng.below(5) } else { LARGE };
    Draft { policy, actors, idle, copies: if rng.chance(0.5) { 0.3 } else { 0.0 } }
}

fn actor(rates: &[(Fate, f64)], strange: f64, model: ModelId, rng: &mut Rng) -> Actor {
    let (mut luck, mut fate) = (rng.below(1_000_000) as f64 / 1e6, Fate::Good);
    for (other, rate) in rates {
        if luck >= 0.0 && luck < *rate {
            fate = *other;
        }
        luck -= rate;
    }
    let way = match rng.below(4) {
        _ if !rng.chance(strange) || !matches!(fate, Fate::Good | Fate::Bad | Fate::CannotArm) => {
            Way::Straight
        }
        0 => Way::Swapped,
        1 => Way::StartLast,
        2 => Way::OnTheDot,
        _ => Way::JustLate,
    };
    Actor { model, fate, way, start: 5 * MINUTE + rng.below(2 * HOUR), slow: 5 * MINUTE }
}

fn one_of(choices: &[f64], rng: &mut Rng) -> f64 {
    let index = rng.below(choices.len() as u64);
    choices[usize::try_from(index).expect("an index of a slice")]
}

fn drawn_policy(rng: &mut Rng) -> Policy {
    let mut policy = Policy { hard_stop: None, ..Policy::default() };
    policy.max_failure_rate = one_of(&[0.05, 0.02, 0.01, 0.1], rng);
    policy.alpha = one_of(&[0.001, 0.01, 0.0001], rng);
    if rng.chance(0.3) {
        (policy.weights.outcome, policy.weights.silence, policy.weights.silence_early) = (0.3, 0.3, 0.2);
    }
    policy
}

/// Two to four hardware models, of which one does not take the release.
fn strata(rng: &mut Rng) -> Draft {
    let models = 2 + rng.below(3);
    let broken = rng.below(models);
    let rate = 0.15 + rng.below(35) as f64 / 100.0;
    let actors = (0..70 + rng.below(60))
        .map(|_| {
            let model = rng.below(models);
            let bad: &[(Fate, f64)] =
                if model == broken { &[(Fate::Bad, rate)] } else { &[(Fate::Bad, 0.02)] };
            let mut actor = actor(bad, 0.2, name(&format!("m{model}")), rng);
            // One model begins long before the others.
            actor.start += if model == 0 { 0 } else { HOUR };
            actor
        })
        .collect();
    Draft { policy: drawn_policy(rng), actors, idle: 0, copies: 0.2 }.filled()
}

impl Draft {
    /// Adds devices that never start, of a model that is there already.
    fn filled(mut self) -> Self {
        self.idle = LARGE;
        self
    }
}

/// A log whose last word leaves the evidence less than 1 below its threshold, or brings it less than 1 above.
fn near_threshold(profile: &str, rng: &mut Rng) -> Draft {
    let mut policy = drawn_policy(rng);
    let over = profile == "over-outcome" || (profile != "near-outcome" && rng.chance(0.5));
    // Only one test is to speak.
    if profile == "near-early" {
        policy.silence_deadline.max_rate = 0.9;
    }
    let (p, weight) = match profile {
        "near-early" => (policy.silence_early.max_rate, policy.weights.silence_early),
        "near-last" => (policy.silence_deadline.max_rate, policy.weights.silence),
        _ => (policy.max_failure_rate, policy.weights.outcome),
    };
    let threshold = kill_threshold(policy.alpha, weight);
    let (count, bad) = loop {
        let count = 20 + rng.below(80);
        let Some(enough) = (1..=count).find(|bad| kill_evidence(count, *bad, p) >= threshold) else {
            continue;
        };
        let bad = if over { enough } else { enough - 1 };
        if (kill_evidence(count, bad, p) - threshold).abs() < 0.95 {
            break (count, bad);
        }
    };
    let silent = match profile {
        "near-early" => Some(Fate::Brick),
        "near-last" => Some(Fate::Limbo),
        _ => None,
    };
    let actors = (0..count)
        .map(|index| {
            let is_bad = index < bad;
            // Whoever is silent starts last; whoever fails says so when everybody has started.
            let late = if is_bad && silent.is_some() { 40 * MINUTE } else { 0 };
            let fate = if is_bad { silent.unwrap_or(Fate::Bad) } else { Fate::Good };
            let way = if silent.is_none() && rng.chance(0.2) { Way::Swapped } else { Way::Straight };
            let start = 5 * MINUTE + late + rng.below(30 * MINUTE);
            let slow = if is_bad { 40 * MINUTE } else { 5 * MINUTE };
            Actor { model: name("b3"), fate, way, start, slow }
        })
        .collect();
    Draft { policy, actors, idle: LARGE, copies: if rng.chance(0.5) { 0.3 } else { 0.0 } }
}
