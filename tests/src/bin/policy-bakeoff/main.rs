//! The policy bake-off: the rules of hawkBit, AWS IoT Jobs, openmv-ota, time alone and ours over the same seeded fleets:
//! how often each stops a healthy release, how many devices a bad one harms, how long a good one takes.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use tern_tests::bakeoff::contest::{Contest, Contestant, Row};
use tern_tests::bakeoff::plot;
use tern_tests::bakeoff::scenario::{SCENARIOS, Scenario};

/// Compare what decides about rollouts, over the same fleets and faults
#[derive(Debug, Parser)]
struct Flags {
    /// Runs of each scenario
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    runs: u64,
    /// Runs of each scenario with a healthy release, if not as many: they are played to the end
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    healthy_runs: Option<u64>,
    /// Devices of a fleet; tiny fleets stay as they are
    #[arg(long, default_value_t = 100_000, value_parser = devices)]
    devices: usize,
    /// Draws everything
    #[arg(long, default_value_t = 20_261_126)]
    seed: u64,
    /// Only the scenario of this name, or those with this in their name.
    #[arg(long)]
    scenario: Option<String>,
    /// Only these rules, by name
    #[arg(long, value_delimiter = ',', value_parser = contestant)]
    rules: Vec<Contestant>,
    /// Runs at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Write plots (SVG) of the results into this folder
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Play nothing: take the rows that an earlier run printed with --json
    #[arg(long, conflicts_with_all = ["runs", "healthy_runs", "devices", "seed", "scenario", "rules", "threads"])]
    from: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Names of devices have six digits.
fn devices(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("{text} is no number"))?;
    if (100..=1_000_000).contains(&count) { Ok(count) } else { Err("give 100 to 1000000 devices".to_owned()) }
}

fn contestant(text: &str) -> Result<Contestant, String> {
    let names = || Contestant::ALL.map(Contestant::name).join(", ");
    Contestant::named(text).ok_or_else(|| format!("there is no rule {text}; there are {}", names()))
}

#[expect(clippy::print_stdout, reason = "this is the result")]
fn print(row: &Row, json: bool) {
    if json {
        println!("{}", serde_json::to_string(row).expect("a row serialises"));
        return;
    }
    let hours = |hours: Option<f64>| hours.map_or_else(|| "-".to_owned(), |hours| format!("{hours:.1}"));
    let Row { scenario, rule, runs, stopped, killed, harmed_median, harmed_p95, .. } = row;
    let (stop, full) = (hours(row.stop_hours_median), hours(row.full_hours_median));
    let wrong = if row.bad || *stopped == 0 { "" } else { " (false)" };
    println!(
        "| {scenario} | {rule} | {runs} | {stopped}{wrong} | {killed} | {harmed_median} | {harmed_p95} | {stop} | {full} |"
    );
}

#[expect(clippy::print_stdout, reason = "this is the result")]
fn head(json: bool) {
    if !json {
        println!(
            "| scenario | rule | runs | stopped | of those for ever | harmed, median | 95 % | hours to the stop | hours to 100 % |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
    }
}

/// Returns the scenario of this name, or else those with this in their name.
fn named(part: Option<&str>) -> Vec<&'static Scenario> {
    let whole = SCENARIOS.iter().filter(|scenario| Some(scenario.name) == part);
    let whole: Vec<&Scenario> = whole.collect();
    if whole.is_empty() {
        let has = |scenario: &&Scenario| part.is_none_or(|part| scenario.name.contains(part));
        SCENARIOS.iter().filter(has).collect()
    } else {
        whole
    }
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    if let Some(file) = &flags.from {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
        // A result file holds more than rows, and of several campaigns the last one counts.
        let mut rows: Vec<Row> = Vec::new();
        for row in text.lines().filter_map(|line| serde_json::from_str::<Row>(line).ok()) {
            rows.retain(|known| (&known.scenario, &known.rule) != (&row.scenario, &row.rule));
            rows.push(row);
        }
        anyhow::ensure!(!rows.is_empty(), "{} holds no row that --json printed", file.display());
        head(flags.json);
        rows.iter().for_each(|row| print(row, flags.json));
        return flags.plots.map_or(Ok(()), |folder| plot::write(&rows, &folder));
    }
    let scenarios = named(flags.scenario.as_deref());
    let names = SCENARIOS.map(|scenario| scenario.name).join(", ");
    anyhow::ensure!(!scenarios.is_empty(), "no scenario has that in its name; there are {names}");
    let contest = Contest {
        runs: flags.runs,
        devices: flags.devices,
        seed: flags.seed,
        contestants: if flags.rules.is_empty() { Contestant::ALL.to_vec() } else { flags.rules },
        threads: usize::from(flags.threads),
    };
    head(flags.json);
    let mut rows = Vec::new();
    for scenario in scenarios {
        let healthy = flags.healthy_runs.filter(|_| !scenario.is_bad);
        let runs = healthy.unwrap_or(contest.runs);
        let found = Contest { runs, ..contest.clone() }.play(scenario);
        found.iter().for_each(|row| print(row, flags.json));
        rows.extend(found);
    }
    if let Some(folder) = flags.plots {
        plot::write(&rows, &folder)?;
    }
    Ok(())
}
