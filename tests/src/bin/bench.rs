//! `cargo run --release -p tern-tests --bin bench [-- --write]`: measures and prints docs/performance.md's tables.

use std::fmt::Write as _;
use std::process::Command;

use tern_tests::bench::{Download, Reports, download, echo, reports, resident_kib};
use tern_tests::lab::{Lab, LabDevice, Making, made, program_in};

const DOCUMENT: &str = "docs/performance.md";
const BEGIN: &str = "<!-- printed by the bench: begin -->";
const END: &str = "<!-- printed by the bench: end -->";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address] = arguments.as_slice()
        && word == "echo"
    {
        // Ends when the bridge that it talks to is gone.
        let _ended = echo(address.parse().expect("an address"));
        return;
    }
    let quick = arguments.iter().any(|a| a == "--quick");
    let (rounds, seconds) = if quick { (1, 2) } else { (5, 6) };
    let image = if quick { 4 << 20 } else { 64 << 20 };
    let text = tables(
        &reports(100, rounds, seconds),
        &[download(1, image), download(50, image / 4)],
        agent().as_ref(),
    );
    print(&text);
    if arguments.iter().any(|a| a == "--write") {
        let document = std::fs::read_to_string(DOCUMENT).expect("run it in the repository's folder");
        let (head, rest) = document.split_once(BEGIN).expect("the mark where the tables begin");
        let (_, tail) = rest.split_once(END).expect("the mark where the tables end");
        std::fs::write(DOCUMENT, format!("{head}{BEGIN}\n{text}{END}{tail}"))
            .expect("the document can be written");
    }
}

/// Size of the agent's own profile, and its memory when idle, where it was built.
struct AgentSize {
    bytes: u64,
    idle_kib: u64,
}

fn agent() -> Option<AgentSize> {
    let program = program_in("agent", "tern-agent")?;
    let bytes = std::fs::metadata(&program).ok()?.len();
    let lab = Lab::start();
    let factory = lab.path("factory");
    made(&factory, 50_000, 1);
    let mut device = LabDevice::make(&lab, "dev-1", &factory, &Making::default());
    device.start_program(&program);
    std::thread::sleep(std::time::Duration::from_secs(5));
    Some(AgentSize { bytes, idle_kib: resident_kib(device.pid()) })
}

fn tables(reports: &Reports, downloads: &[Download], agent: Option<&AgentSize>) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    line(format!("Commit {commit}, {cores} cores, loopback, everything on one machine.\n"));
    line(format!(
        "**Reports**, {} devices with 16 on the way each; a round of each side in turn:\n",
        reports.devices
    ));
    line("| round | service, reports/s | echo, answers/s | service / echo | CPU s per 100k: service | echo | load beside service | beside echo |".into());
    line("|---|---|---|---|---|---|---|---|".into());
    for (round, (service, echo)) in (1..).zip(&reports.rounds) {
        line(format!(
            "| {round} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            service.per_second,
            echo.per_second,
            service.per_second / echo.per_second,
            service.cpu_per_100k,
            echo.cpu_per_100k,
            service.load_cpu_per_100k,
            echo.load_cpu_per_100k
        ));
    }
    line(format!("\nMedian service / echo: **{:.2}** (target 0.95).\n", reports.ratio));
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
    match agent {
        Some(agent) => line(format!(
            "\n**Agent**, profile `agent`, TLS included: {:.2} MB (target 2.8), {:.1} MB resident when idle (target 6).",
            agent.bytes as f64 / 1e6,
            agent.idle_kib as f64 / 1024.0
        )),
        None => line(
            "\n**Agent**: not measured; build it first with `cargo build --profile agent -p tern-agent`."
                .into(),
        ),
    }
    out
}

fn print(text: &str) {
    let _gone = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}
