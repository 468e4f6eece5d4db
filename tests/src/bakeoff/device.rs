//! One device: what it draws, and what follows from that. The waits are the agent's own.

use tern_agent::core::timing::Timing;

use super::scenario::{Defect, MODELS, Order, Outage, Scenario};
use crate::sim::clock::{HOUR, MINUTE, Rng, SECOND};

/// Share of devices that are always on; they begin within half an hour, the others within sixteen.
const ALWAYS_ON: f64 = 0.6;
const BEGIN: [u64; 2] = [30 * MINUTE, 16 * HOUR];
/// Share of devices that fall silent with any release.
const FALL_SILENT: f64 = 0.005;
/// Share of the first region.
const NORTH: f64 = 0.4;
/// Median of the health probes, by when they tell that a device is bad; log-normal with the spread beside it.
const PROBE: (u64, f64) = (20 * MINUTE, 0.8);
const PROBE_FIRST: (u64, f64) = (3 * MINUTE, 0.8);
const PROBE_LAST: (u64, f64) = (3 * HOUR, 0.2);
/// Devices that are off for days come back within so many.
const AWAY: u64 = 10 * 24 * HOUR;
/// After an outage outboxes drain over this time.
const DRAIN: u64 = 10 * MINUTE;
/// Trials that an agent makes of a release if each reaches nobody.
pub const TRIES: u32 = 3;

/// How a device takes the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Well.
    Good,
    /// A probe fails, and it goes back.
    Sick,
    /// It never speaks again.
    Brick,
    /// The same, and not because of the release.
    Mute,
}

/// What a device draws, once for every rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Its model, below [`MODELS`].
    pub model: u8,
    /// Its region.
    pub region: u8,
    /// How it takes the release.
    pub kind: Kind,
    /// The release's defect is one on this device.
    pub affected: bool,
    /// From the offer to its start.
    pub begin: u64,
    /// It is off until then.
    pub away_until: u64,
    /// From one release to the other.
    pub boot: u64,
    /// How long its probes take.
    pub probe: u64,
    /// How long after an outage it is heard again.
    pub drain: u64,
    /// Draws its days.
    pub days: u64,
}

impl Traits {
    /// Tells whether the release harms it.
    pub fn is_bad(&self) -> bool {
        matches!(self.kind, Kind::Sick | Kind::Brick) || self.affected
    }
}

/// Draws between 0 and 1.
pub fn uniform(rng: &mut Rng) -> f64 {
    (rng.draw() >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws from the normal distribution.
pub fn normal(rng: &mut Rng) -> f64 {
    // Box and Muller; the logarithm of 0 is nobody's wish.
    let (a, b) = (1.0 - uniform(rng), uniform(rng));
    libm::sqrt(-2.0 * libm::log(a)) * libm::cos(std::f64::consts::TAU * b)
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds of hours are far below 2^53")]
fn log_normal((median, spread): (u64, f64), rng: &mut Rng) -> u64 {
    (median as f64 * libm::exp(spread * normal(rng))) as u64
}

/// Draws a fleet. Every device draws the same number of times, so one trait changes no other.
pub fn fleet(scenario: &Scenario, size: usize, seed: u64, run: u64) -> Vec<Traits> {
    let mut rng = Rng::of(seed, &format!("bakeoff {} {run}", scenario.name));
    (0..size).map(|d| draw(scenario, d, &mut rng)).collect()
}

fn draw(scenario: &Scenario, d: usize, rng: &mut Rng) -> Traits {
    let model = u8::try_from(d % scenario.models.clamp(1, MODELS)).expect("few models");
    let within = BEGIN[usize::from(!rng.chance(ALWAYS_ON))];
    let begin = rng.below(within);
    let fails = if model == 0 { scenario.first_model_fails } else { scenario.fails };
    let (luck, mute) = (uniform(rng), rng.chance(FALL_SILENT));
    let kind = if luck < scenario.bricks {
        Kind::Brick
    } else if luck < scenario.bricks + fails {
        Kind::Sick
    } else if mute {
        Kind::Mute
    } else {
        Kind::Good
    };
    let usual = log_normal(PROBE, rng);
    let early = log_normal(PROBE_FIRST, rng);
    let late = log_normal(PROBE_LAST, rng);
    let probe = match (kind, scenario.order) {
        (Kind::Sick, Order::BadFirst) => early,
        (Kind::Sick, Order::BadLast) => late,
        _ => usual,
    };
    let share = match scenario.defect {
        Some(Defect::Crash(share) | Defect::Battery(share)) => share,
        None => 0.0,
    };
    let affected = rng.chance(share);
    let (off, back) = (rng.chance(scenario.away), rng.below(AWAY));
    Traits {
        model,
        region: u8::from(!rng.chance(NORTH)),
        kind,
        affected: affected && kind == Kind::Good,
        begin,
        away_until: if off { back } else { 0 },
        boot: 20 * SECOND + rng.below(100 * SECOND),
        probe,
        drain: rng.below(DRAIN),
        days: rng.draw(),
    }
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Confirmed.
    Good,
    /// Went back, for a probe failed.
    RolledBack,
    /// Went back, for it reached nobody.
    Unreachable,
}

/// What is heard of a trial, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// The first word from the new release.
    pub up: u64,
    /// How it ended, and when that is heard.
    pub end: Option<(u64, End)>,
}

/// Returns when a message of a device that it sends at `at` is heard.
pub fn heard(device: &Traits, at: u64, outage: Option<Outage>) -> u64 {
    let hit = |outage: &Outage| {
        (outage.from..outage.to).contains(&at) && outage.region.is_none_or(|region| region == device.region)
    };
    outage.filter(hit).map_or(at, |outage| outage.to + device.drain)
}

/// Returns when a device that is offered the release at `offered` starts: it is on, and reaches the service.
pub fn start(device: &Traits, offered: u64, outage: Option<Outage>) -> u64 {
    heard(device, (offered + device.begin).max(device.away_until), outage)
}

/// Returns what is heard of a trial that started at `start`; none of a device that falls silent. A device that
/// `insists` on an answer goes back without one, as our agent does.
pub fn course(
    device: &Traits,
    start: u64,
    outage: Option<Outage>,
    timing: &Timing,
    insists: bool,
) -> Option<Course> {
    if matches!(device.kind, Kind::Brick | Kind::Mute) {
        return None;
    }
    let booted = start + device.boot;
    let up = heard(device, booted, outage);
    if insists && up > booted + timing.connect_deadline {
        let back = booted + timing.connect_deadline + device.boot;
        let told = heard(device, back, outage);
        return Some(Course { up: told, end: Some((told, End::Unreachable)) });
    }
    let (at, end) = match device.kind {
        Kind::Sick => (booted + device.probe + device.boot, End::RolledBack),
        _ => (booted + device.probe.max(timing.soak), End::Good),
    };
    // It cannot be confirmed before it is answered.
    let at = if end == End::Good { at.max(up) } else { at };
    Some(Course { up, end: Some((heard(device, at, outage), end)) })
}
