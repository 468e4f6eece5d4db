//! Runs of every contestant over every scenario, in rows.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::Ended;
use super::device::{self, Traits};
use super::fleet;
use super::ours::{self, Devices, Profile};
use super::rule::Rule;
use super::rule::aws::AwsJobs;
use super::rule::clock::TimeOnly;
use super::rule::hawkbit::HawkBit;
use super::rule::openmv::OpenMv;
use super::scenario::Scenario;
use crate::sim::clock::HOUR;

/// Who decides about a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// Time alone.
    TimeOnly,
    /// hawkBit, both thresholds at 50 %: its defaults.
    HawkBit,
    /// hawkBit with the error threshold at 5 %.
    HawkBit5,
    /// AWS IoT Jobs, the guide's example.
    Aws,
    /// The same with a time-out.
    AwsTimeout,
    /// AWS IoT Jobs, slow and strict.
    AwsCareful,
    /// openmv-ota's ramp.
    OpenMv,
    /// Ours, under this policy.
    Ours(Profile),
}

impl Contestant {
    /// Everybody in the tables; the deliberately wrong are for tests.
    pub const ALL: [Self; 9] = [
        Self::TimeOnly,
        Self::HawkBit,
        Self::HawkBit5,
        Self::Aws,
        Self::AwsTimeout,
        Self::AwsCareful,
        Self::OpenMv,
        Self::Ours(Profile::Default),
        Self::Ours(Profile::Relative),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TimeOnly => "time-only",
            Self::HawkBit => "hawkbit",
            Self::HawkBit5 => "hawkbit-5%",
            Self::Aws => "aws-jobs",
            Self::AwsTimeout => "aws-jobs-timeout",
            Self::AwsCareful => "aws-jobs-careful",
            Self::OpenMv => "openmv-ota",
            Self::Ours(Profile::Default) => "tern",
            Self::Ours(Profile::Relative) => "tern-relative",
            Self::Ours(Profile::Deaf) => "tern-deaf",
            Self::Ours(Profile::Blind) => "tern-blind",
        }
    }

    /// Returns the contestant of this name.
    pub fn named(name: &str) -> Option<Self> {
        let wrong = [Self::Ours(Profile::Deaf), Self::Ours(Profile::Blind)];
        Self::ALL.into_iter().chain(wrong).find(|contestant| contestant.name() == name)
    }

    fn play(self, scenario: &Scenario, traits: &[Traits], devices: &Devices, seed: u64) -> Ended {
        let mut rule: Box<dyn Rule> = match self {
            Self::TimeOnly => Box::new(TimeOnly::default()),
            Self::HawkBit => Box::new(HawkBit::defaults()),
            Self::HawkBit5 => Box::new(HawkBit::new(5, 50)),
            Self::Aws => Box::new(AwsJobs::example()),
            Self::AwsTimeout => Box::new(AwsJobs::with_timeout()),
            Self::AwsCareful => Box::new(AwsJobs::careful()),
            Self::OpenMv => Box::new(OpenMv::default()),
            Self::Ours(profile) => return ours::play(scenario, traits, devices, profile, seed),
        };
        fleet::play(scenario, traits, rule.as_mut())
    }
}

/// What all runs of one scenario under one rule came to. Hours are virtual, since the start of the rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// A stop is right there.
    pub bad: bool,
    /// The rule.
    pub rule: String,
    /// Devices of the fleet.
    pub devices: usize,
    /// Runs.
    pub runs: u64,
    /// Of those, stopped: by a pause or for ever.
    pub stopped: u64,
    /// Of those, stopped for ever.
    pub killed: u64,
    /// Bad devices that had started when it was stopped, or in all.
    pub harmed_median: u64,
    /// The same, 95 %.
    pub harmed_p95: u64,
    /// Hours until it was stopped, of the runs that were.
    pub stop_hours_median: Option<f64>,
    /// Hours until everybody was offered the release, if half of the runs came so far.
    pub full_hours_median: Option<f64>,
    /// Why ours stopped, and how often for that; `#` stands for every number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub because: BTreeMap<String, u64>,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Contest {
    /// Runs of each scenario.
    pub runs: u64,
    /// Devices of a fleet, where the scenario does not say.
    pub devices: usize,
    /// Draws everything.
    pub seed: u64,
    /// Who.
    pub contestants: Vec<Contestant>,
    /// Threads at once.
    pub threads: usize,
}

impl Contest {
    /// Plays a scenario; one row for each contestant. The same seed gives the same rows, whatever the threads.
    pub fn play(&self, scenario: &Scenario) -> Vec<Row> {
        let size = scenario.devices.unwrap_or(self.devices);
        let (next, results) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let run = next.fetch_add(1, Ordering::Relaxed);
                        if run >= self.runs {
                            return;
                        }
                        let traits = device::fleet(scenario, size, self.seed, run);
                        let devices = Devices::new(&traits);
                        let chance = self.seed.wrapping_add(run);
                        let play = |who: &Contestant| who.play(scenario, &traits, &devices, chance);
                        let ended: Vec<Ended> = self.contestants.iter().map(play).collect();
                        results.lock().expect("no thread panics while it holds this").push((run, ended));
                    }
                });
            }
        });
        let mut results = results.into_inner().expect("every thread is gone");
        results.sort_unstable_by_key(|(run, _)| *run);
        let rows = self.contestants.iter().enumerate();
        rows.map(|(i, who)| row(scenario, *who, size, results.iter().map(|(_, ended)| ended[i].clone())))
            .collect()
    }
}

fn row(scenario: &Scenario, who: Contestant, devices: usize, runs: impl Iterator<Item = Ended>) -> Row {
    let runs: Vec<Ended> = runs.collect();
    let sorted = |mut values: Vec<u64>| {
        values.sort_unstable();
        values
    };
    let harmed = sorted(runs.iter().map(|run| run.harmed).collect());
    let stops = sorted(runs.iter().filter_map(|run| run.stopped_at).collect());
    // Who never got so far is later than everybody.
    let full = sorted(runs.iter().map(|run| run.reached_all_at.unwrap_or(u64::MAX)).collect());
    let count = |is: fn(&Ended) -> bool| runs.iter().filter(|run| is(run)).count() as u64;
    Row {
        scenario: scenario.name.to_owned(),
        bad: scenario.is_bad,
        rule: who.name().to_owned(),
        devices,
        runs: runs.len() as u64,
        stopped: count(|run| run.stopped_at.is_some()),
        killed: count(|run| run.killed),
        harmed_median: quantile(&harmed, 50).unwrap_or(0),
        harmed_p95: quantile(&harmed, 95).unwrap_or(0),
        stop_hours_median: quantile(&stops, 50).map(hours),
        full_hours_median: quantile(&full, 50).filter(|at| *at < u64::MAX).map(hours),
        because: said(&runs),
    }
}

/// Counts what was said, without the numbers, in which no two runs agree.
fn said(runs: &[Ended]) -> BTreeMap<String, u64> {
    let mut said = BTreeMap::new();
    for because in runs.iter().filter_map(|run| run.because.as_ref()) {
        let mut words = because.replace(|c: char| c.is_ascii_digit(), "#");
        while words.contains("##") {
            words = words.replace("##", "#");
        }
        *said.entry(words).or_default() += 1;
    }
    said
}

fn hours(at: u64) -> f64 {
    libm::round(at as f64 / HOUR as f64 * 10.0) / 10.0
}

/// The value below which this share lies.
fn quantile(sorted: &[u64], percent: usize) -> Option<u64> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}
