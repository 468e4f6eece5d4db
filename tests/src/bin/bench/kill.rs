//! `--kill`: its options, and its table.

use std::fmt::Write as _;

use tern_tests::bench::{By, KillBroker, KillOptions, KillRun, kill};

/// Returns the marks between which the table of this broker stands.
pub(super) fn marks(broker: KillBroker) -> [&'static str; 2] {
    match broker {
        KillBroker::Embedded => [
            "<!-- printed by bench --kill --broker embedded: begin -->",
            "<!-- printed by bench --kill --broker embedded: end -->",
        ],
        KillBroker::Mosquitto => [
            "<!-- printed by bench --kill --broker mosquitto: begin -->",
            "<!-- printed by bench --kill --broker mosquitto: end -->",
        ],
    }
}

/// Reads the options that stand after `--kill`.
pub(super) fn options(arguments: &[String]) -> Result<KillOptions, String> {
    let value = |word: &str| {
        let place = arguments.iter().position(|argument| argument == word)?;
        Some(arguments.get(place + 1).cloned().unwrap_or_default())
    };
    let number = |word: &str, default: u32| match value(word) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{word} takes a number, not {text:?}")),
    };
    let name = value("--broker").unwrap_or_else(|| "embedded".to_owned());
    let broker = KillBroker::named(&name)
        .ok_or_else(|| format!("--broker takes embedded or mosquitto, not {name:?}"))?;
    let default = if broker == KillBroker::Embedded { 1000 } else { 5000 };
    let options = KillOptions {
        broker,
        agents: number("--agents", default)?,
        runs: number("--runs", 10)?,
        operator_runs: number("--operator-runs", 3)?,
    };
    if options.agents == 0 || options.runs == 0 {
        return Err("--agents and --runs take numbers above 0".to_owned());
    }
    Ok(options)
}

/// Measures, telling of every run as it ends, and returns the table.
pub(super) fn table(options: KillOptions) -> String {
    let mut out = format!(
        "**Kill**, {} agents and as many baseline clients, broker {}, connections without TLS, {} runs by a report and \
         {} by an operator:\n\n",
        options.agents,
        options.broker.name(),
        options.runs,
        options.operator_runs
    );
    out += "| run | by | load | agents p50, ms | p99 | last | baseline p50, ms | p99 | last | p99 allowed | verification, CPU s: agents | baseline | all CPU s: agents' process | service and broker | baseline's process | its broker |\n";
    out += "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    super::print(&out);
    let mut number = 0;
    let runs = kill(options, |run| {
        number += 1;
        let line = line(number, run);
        super::print(&line);
        out += &line;
    });
    out += &verdict(&runs);
    out
}

fn line(number: usize, run: &KillRun) -> String {
    let by = if run.by == By::Report { "report" } else { "operator" };
    let (agents, base) = (&run.agents, &run.baseline);
    format!(
        "| {number} | {by} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |\n",
        run.load,
        agents.p50,
        agents.p99,
        agents.last,
        base.p50,
        base.p99,
        base.last,
        run.allowed(),
        agents.verify_cpu,
        base.verify_cpu,
        agents.crowd_cpu,
        agents.service_cpu,
        base.crowd_cpu,
        base.service_cpu
    )
}

/// The medians, and in how many runs the target was met.
fn verdict(runs: &[KillRun]) -> String {
    let median = |values: Vec<f64>| {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let mut out = String::new();
    for (by, word) in [(By::Report, "a report"), (By::Operator, "an operator")] {
        let runs: Vec<&KillRun> = runs.iter().filter(|run| run.by == by).collect();
        if runs.is_empty() {
            continue;
        }
        let of = |value: fn(&KillRun) -> f64| median(runs.iter().map(|run| value(run)).collect());
        let met = runs.iter().filter(|run| run.agents.p99 <= run.allowed()).count();
        let (p50, p99) = (of(|run| run.agents.p50), of(|run| run.agents.p99));
        let (base_50, base_99) = (of(|run| run.baseline.p50), of(|run| run.baseline.p99));
        writeln!(
            out,
            "\nBy {word}, medians: p50 **{p50:.0} ms** beside {base_50:.0} ms, p99 **{p99:.0} ms** beside {base_99:.0} \
             ms; p99 at most 1.5 × baseline + 150 ms in **{met} of {}** runs.",
            runs.len()
        )
        .expect("a string takes everything");
    }
    out
}
