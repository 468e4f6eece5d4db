//! How many devices a bad release harms before it is killed, and how often a healthy one is: scenarios with known
//! failure rates, drawn by seed, and the product's own counting and judgement.
//!
//! Every event is counted as in the service: starts, outcomes, and both silence deadlines. The judgement is asked
//! whenever something spoke against the release; nothing else can bring a kill about.

mod scenario;
mod world;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::json;

use scenario::{SCENARIOS, Scenario};
use tern_controller::core::rollout::baseline::Baseline;
use tern_controller::core::rollout::policy::{Claim, Policy};

/// Play rollouts of releases whose failure rate is known
#[derive(Debug, Parser)]
struct Flags {
    /// Under which policy
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    profile: Profile,
    /// Runs of each scenario; healthy releases get ten times as many
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// Draws everything
    #[arg(long, default_value_t = 20_261_123)]
    seed: u64,
    /// Only scenarios with this in their name
    #[arg(long)]
    scenario: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// What a plan has when nothing is said, after a release that failed as usual
    Default,
    /// The same for a product's first release: nothing is known of what is usual
    First,
    /// One relative claim at 1.25 times the baseline, no hard stop
    Oracle,
}

impl Profile {
    /// What a release that failed as usual did before, with everybody. The other policy has it in its limit.
    fn usual(self, scenario: &Scenario) -> Option<Baseline> {
        (self == Self::Default).then(|| scenario.usual(world::FLEET as u64))
    }

    fn policy(self, baseline: f64) -> Policy {
        match self {
            Self::Default | Self::First => Policy::default(),
            Self::Oracle => Policy {
                claim: Claim::Absolute,
                max_failure_rate: baseline * 1.25,
                hard_stop: None,
                ..Policy::default()
            },
        }
    }
}

/// What all runs of one scenario came to.
struct Row {
    runs: u64,
    killed: usize,
    harmed: Vec<u64>,
    hours: Vec<f64>,
}

fn play(scenario: &Scenario, profile: Profile, runs: u64, seed: u64) -> Row {
    let (policy, usual) = (profile.policy(scenario.baseline), profile.usual(scenario));
    let mut row = Row { runs, killed: 0, harmed: Vec::new(), hours: Vec::new() };
    for run in 0..runs {
        let ended = world::play(scenario, (&policy, usual), seed, run);
        row.killed += usize::from(ended.killed_at.is_some());
        row.harmed.push(ended.harmed);
        row.hours.push(ended.killed_at.unwrap_or(f64::INFINITY));
    }
    row.harmed.sort_unstable();
    row.hours.sort_unstable_by(f64::total_cmp);
    row
}

/// The value below which this share lies.
fn quantile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the result, or what is wrong")]
fn main() -> ExitCode {
    let flags = Flags::parse();
    let wanted = |s: &&Scenario| flags.scenario.as_ref().is_none_or(|part| s.name.contains(part.as_str()));
    if !SCENARIOS.iter().any(|scenario| wanted(&scenario)) {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("no scenario has that in its name; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    if !flags.json {
        println!(
            "| scenario | runs | killed | harmed, median | 95 % | hours, median | reference: median, 95 % |"
        );
        println!("|---|---|---|---|---|---|---|");
    }
    for scenario in SCENARIOS.iter().filter(wanted) {
        let runs = if scenario.is_healthy() { flags.runs * 10 } else { flags.runs };
        let row = play(scenario, flags.profile, runs, flags.seed);
        let (median, p95) = (quantile(&row.harmed, 50), quantile(&row.harmed, 95));
        let hours = quantile(&row.hours, 50).filter(|hours| hours.is_finite());
        if flags.json {
            let value = json!({
                "scenario": scenario.name, "runs": row.runs, "killed": row.killed, "harmed_median": median,
                "harmed_p95": p95, "hours_median": hours, "reference": scenario.reference,
            });
            println!("{value}");
            continue;
        }
        let shown = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let reference =
            scenario.reference.map_or_else(String::new, |(median, p95)| format!("{median}, {p95}"));
        let (runs, killed) = (row.runs, row.killed);
        let hours = hours.map_or_else(|| "-".to_owned(), |hours| format!("{hours:.1}"));
        let (name, median, p95) = (scenario.name, shown(median), shown(p95));
        println!("| {name} | {runs} | {killed} | {median} | {p95} | {hours} | {reference} |");
    }
    ExitCode::SUCCESS
}
