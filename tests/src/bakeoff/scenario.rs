//! What is played: how a release really is, and what happens to the network meanwhile.

use crate::sim::clock::{HOUR, MINUTE};

/// Share of devices that fail an update, whatever the release.
pub const BASELINE: f64 = 0.01;
/// Models of every fleet; a scenario may spoil the first.
pub const MODELS: usize = 20;
/// Devices of a tiny fleet.
pub const TINY: usize = 40;

/// When bad devices say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As soon as good ones.
    Neutral,
    /// Within minutes, long before good ones.
    BadFirst,
    /// After hours, long after good ones.
    BadLast,
}

/// What is wrong with a release that installs well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Defect {
    /// This share of devices crashes again and again, from the day of the update on.
    Crash(f64),
    /// This share of devices drains its battery.
    Battery(f64),
}

/// Nobody of these reaches the service for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When it begins.
    pub from: u64,
    /// When it is over.
    pub to: u64,
    /// The region; none: it is the service that is away.
    pub region: Option<u8>,
}

/// One scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// A stop would be right.
    pub is_bad: bool,
    /// Devices, where that is what it is about.
    pub devices: Option<usize>,
    /// Models of its fleet, at most [`MODELS`].
    pub models: usize,
    /// Share that fails and says so.
    pub fails: f64,
    /// The same of the first model.
    pub first_model_fails: f64,
    /// Share that never speaks again.
    pub bricks: f64,
    /// When bad devices say so.
    pub order: Order,
    /// What is wrong with the release though it installs.
    pub defect: Option<Defect>,
    /// What happens to the network.
    pub outage: Option<Outage>,
    /// Share of devices that are switched off for days.
    pub away: f64,
}

const HEALTHY: Scenario = Scenario {
    name: "healthy",
    about: "1 % fail, as ever",
    is_bad: false,
    devices: None,
    models: MODELS,
    fails: BASELINE,
    first_model_fails: BASELINE,
    bricks: 0.0,
    order: Order::Neutral,
    defect: None,
    outage: None,
    away: 0.0,
};

const fn healthy(name: &'static str, about: &'static str) -> Scenario {
    Scenario { name, about, ..HEALTHY }
}

const fn bad(name: &'static str, about: &'static str, fails: f64, bricks: f64) -> Scenario {
    Scenario { name, about, is_bad: true, fails, first_model_fails: fails, bricks, ..HEALTHY }
}

const NORTH: Outage = Outage { from: 25 * MINUTE, to: 25 * MINUTE + 6 * HOUR, region: Some(0) };
const OURS: Outage = Outage { from: 25 * MINUTE, to: 25 * MINUTE + 3 * HOUR, region: None };

/// All of them, healthy ones first.
pub const SCENARIOS: [Scenario; 16] = [
    healthy("healthy", "1 % of updates fail, as ever"),
    Scenario { order: Order::BadFirst, ..healthy("healthy-bad-first", "the same, failures report first") },
    Scenario { order: Order::BadLast, ..healthy("healthy-bad-last", "the same, failures report last") },
    Scenario { outage: Some(NORTH), ..healthy("region-outage", "40 % of devices cut off for 6 h") },
    Scenario { outage: Some(OURS), ..healthy("own-outage", "the service itself is cut off for 3 h") },
    Scenario { away: 0.3, ..healthy("offline-30", "30 % of devices are off for days") },
    Scenario { devices: Some(TINY), ..healthy("tiny-healthy", "40 devices, 1 % fail") },
    bad("fails-20", "20 % fail and say so", 0.20, 0.0),
    bad("fails-5", "5 % fail and say so", 0.05, 0.0),
    Scenario { order: Order::BadLast, ..bad("fails-5-last", "5 % fail, and report last", 0.05, 0.0) },
    bad("brick-100", "every device falls silent for ever", 0.0, 1.0),
    bad("brick-10", "10 % fall silent for ever", BASELINE, 0.10),
    Scenario {
        first_model_fails: 0.30,
        ..bad("bad-model", "one model of twenty fails on 30 %", BASELINE, 0.0)
    },
    Scenario {
        defect: Some(Defect::Crash(0.10)),
        ..bad("slow-crash", "10 % of devices crash daily", BASELINE, 0.0)
    },
    Scenario {
        defect: Some(Defect::Battery(0.20)),
        ..bad("battery", "20 % of devices drain their battery", BASELINE, 0.0)
    },
    Scenario { devices: Some(TINY), ..bad("tiny-bad", "40 devices, 30 % fail", 0.30, 0.0) },
];
