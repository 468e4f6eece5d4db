//! `cargo run --release -p tern-tests --bin bench [-- --write]`: measures and prints docs/performance.md's tables.
//! `--reports` prints the first table only, `--cores [--write]` the tables of the cores only;
//! `--quick` is for trying the command out.
//! `--kill [--broker embedded|mosquitto] [--agents N] [--runs N] [--operator-runs N] [--write]` does the table of kills,
//! `--scale [--devices N] [--in-memory] [--write]` builds a fleet of a million devices (or N) in one process and, unless
//! it has no ledger, starts it again,
//! `--goodput [--write]` does the table of bad links (ten minutes), `--idle [--write]` that of a device that has nothing to do,
//! `--wire OLD NEW [OLD NEW...] [--write]` counts the bytes of a whole update by delta between images,
//! and `--agent-size [--write]` builds the static agents and does the tables of their size and memory.

mod agent;
mod cores;
mod goodput;
mod idle;
mod kill;
mod scale;
mod wire;

use std::fmt::Write as _;
use std::process::Command;

use tern_tests::bench::{Download, Reports, authentication, download, echo, junk, push, reports, scale};

const DOCUMENT: &str = "docs/performance.md";
/// Between which marks the tables stand.
const MEASURED: [&str; 2] = ["<!-- printed by the bench: begin -->", "<!-- printed by the bench: end -->"];
const CORES: [&str; 2] =
    ["<!-- printed by bench --cores: begin -->", "<!-- printed by bench --cores: end -->"];
const SCALE: [&str; 2] =
    ["<!-- printed by bench --scale: begin -->", "<!-- printed by bench --scale: end -->"];
const LARGE: [&str; 2] = [
    "<!-- printed by bench --scale --in-memory: begin -->",
    "<!-- printed by bench --scale --in-memory: end -->",
];
const SIZES: [&str; 2] =
    ["<!-- printed by bench --agent-size: begin -->", "<!-- printed by bench --agent-size: end -->"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address, qos] = arguments.as_slice()
        && word == "echo"
    {
        // Ends when the bridge that it talks to is gone.
        let _ended = echo(address.parse().expect("an address"), qos.parse().expect("0 or 1"));
        return;
    }
    let asks = |word: &str| arguments.iter().any(|a| a == word);
    if asks("--agent-size") {
        let text = machine_line() + &agent::tables();
        return show(&text, asks("--write").then_some(SIZES));
    }
    if asks("--goodput") {
        let text = machine_line() + &goodput::table(asks("--quick"));
        return show(&text, asks("--write").then_some(goodput::MARKS));
    }
    if asks("--wire") {
        let images: Vec<String> = arguments.iter().filter(|a| !a.starts_with("--")).cloned().collect();
        let text = machine_line() + &wire::tables(&images);
        return show(&text, asks("--write").then_some(wire::MARKS));
    }
    if asks("--idle") {
        let text = machine_line() + &idle::table();
        return show(&text, asks("--write").then_some(idle::MARKS));
    }
    if asks("--kill") {
        let options = match kill::options(&arguments) {
            Ok(options) => options,
            Err(why) => {
                print(&format!("{why}\n"));
                std::process::exit(2);
            }
        };
        let text = machine_line() + &kill::table(options);
        if asks("--write") {
            write(&text, kill::marks(options.broker));
        }
        return print(text.rsplit("|\n").next().unwrap_or_default());
    }
    if asks("--scale") {
        let devices = arguments.iter().skip_while(|a| *a != "--devices").nth(1);
        let devices = devices.map_or(1_000_000, |n| n.parse().expect("--devices takes a number"));
        let in_memory = asks("--in-memory");
        let text = machine_line() + &scale::scale_table(&scale(devices, !in_memory));
        return show(&text, asks("--write").then_some(if in_memory { LARGE } else { SCALE }));
    }
    let quick = asks("--quick");
    if !asks("--reports") {
        let (rounds, seconds, runs) = if quick { (1, 0.1, 5) } else { (5, 0.5, 200) };
        let text = machine_line()
            + &cores::authentication_table(&authentication(rounds, seconds))
            + &cores::junk_table(&junk(rounds, seconds / 2.0))
            + &cores::push_table(&push(runs));
        show(&text, asks("--write").then_some(CORES));
    }
    if asks("--cores") {
        return;
    }
    let (rounds, seconds) = if quick { (1, 2) } else { (5, 6) };
    let image = if quick { 4 << 20 } else { 64 << 20 };
    let first = machine_line() + &reports_table(&reports(100, rounds, seconds));
    if asks("--reports") {
        return print(&first);
    }
    let downloads = [download(1, image), download(50, image / 4)];
    let text = first + &downloads_table(&downloads);
    show(&text, asks("--write").then_some(MEASURED));
}

/// Prints a text, and writes it into the document between two marks if there are any.
fn show(text: &str, marks: Option<[&str; 2]>) {
    print(text);
    if let Some(marks) = marks {
        write(text, marks);
    }
}

/// Writes a text into the document, between two marks.
fn write(text: &str, [begin, end]: [&str; 2]) {
    let document = std::fs::read_to_string(DOCUMENT).expect("run it in the repository's folder");
    let (head, rest) = document.split_once(begin).expect("the mark where the tables begin");
    let (_, tail) = rest.split_once(end).expect("the mark where the tables end");
    std::fs::write(DOCUMENT, format!("{head}{begin}\n{text}{end}{tail}"))
        .expect("the document can be written");
}

/// Returns the target folder that this program was built in.
fn target() -> std::path::PathBuf {
    let own = std::env::current_exe().expect("a process has an executable");
    own.ancestors().nth(2).expect("target/<profile>/bench").to_owned()
}

/// Says what was measured, and on what.
fn machine_line() -> String {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    // What is printed goes into the documents, which the run itself may have changed.
    let changed = Command::new("git").args(["diff", "--quiet", "HEAD", "--", ".", ":!docs"]).status();
    let changed = if changed.is_ok_and(|status| status.code() == Some(1)) { " with changes" } else { "" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "Commit {commit}{changed}, {cores} cores, everything on one machine; load before the run: {load}.\n\n"
    )
}

fn reports_table(reports: &Reports) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line(format!(
        "**Reports**, {} devices with 16 on the way each; a round of each side in turn:\n",
        reports.devices
    ));
    line("| round | service, reports/s | echo at QoS 1 | echo at QoS 0 | service / echo 1 | service / echo 0 | CPU s per 100k: service | echo 1 | echo 0 | load beside service | beside echo 1 | beside echo 0 |".into());
    line("|---|---|---|---|---|---|---|---|---|---|---|---|".into());
    for (round, [service, one, zero]) in (1..).zip(&reports.rounds) {
        line(format!(
            "| {round} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            service.per_second,
            one.per_second,
            zero.per_second,
            service.per_second / one.per_second,
            service.per_second / zero.per_second,
            service.cpu_per_100k,
            one.cpu_per_100k,
            zero.cpu_per_100k,
            service.load_cpu_per_100k,
            one.load_cpu_per_100k,
            zero.load_cpu_per_100k
        ));
    }
    let [one, zero] = reports.ratios;
    line(format!(
        "\nMedian service / echo: **{one:.2}** of the echo at QoS 1 (target 0.95), **{zero:.2}** of the one at QoS 0.\n"
    ));
    out
}

fn downloads_table(downloads: &[Download]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line("**Download** at QoS 0, and the whole update around it:\n".into());
    line("| agents | image | MB/s over all | HTTP, same file and clients | ratio | MQTT bytes both ways / image bytes | CPU s per device update |".into());
    line("|---|---|---|---|---|---|---|".into());
    for d in downloads {
        line(format!(
            "| {} | {:.0} MB | {:.0} | {:.0} | {:.2} | {:.4} | {:.2} |",
            d.agents,
            d.image as f64 / 1e6,
            d.mb_per_second,
            d.http_mb_per_second,
            d.mb_per_second / d.http_mb_per_second,
            d.wire_per_payload,
            d.agent_cpu_s
        ));
    }
    out
}

fn print(text: &str) {
    let _gone = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}
