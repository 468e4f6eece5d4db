//! `--agent-size`: the tables of what devices get, by size and by memory.

use std::fmt::Write as _;

use tern_tests::bench::{Build, Link, Part, builds};

/// Bytes of the release that agents are measured with.
const RELEASE: usize = 32 << 20;

/// Builds, measures, and returns the tables.
pub(super) fn tables() -> String {
    let (builds, areas) = builds(&super::target().join("static-agent"), RELEASE);
    format!(
        "{}\nOf the first one, by its symbols; a generic counts to the first crate that it was made for:\n\n{}",
        size_table(&builds),
        area_table(&areas)
    )
}

fn size_table(builds: &[Build]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line("| agent | bytes | at most | resident when idle, MB (at most 4) | most in an update, MB (at most 12) | most in one by delta, MB (at most 12) |".into());
    line("|---|---|---|---|---|---|".into());
    for build in builds {
        let Build { name, link, bytes, limit, memory } = build;
        let tls = match link {
            Link::Tls => "with TLS",
            Link::Plain => "without TLS",
        };
        let memory = memory.map_or_else(
            || "not run here | |".into(),
            |m| format!("{:.1} | {:.1} | {:.1}", mb(m.idle_kib), mb(m.most_kib), mb(m.delta_kib)),
        );
        let limit = limit.map_or_else(String::new, |limit| limit.to_string());
        line(format!("| {name}, {tls} | {bytes} | {limit} | {memory} |"));
    }
    let delta = builds.iter().find_map(|build| build.memory).map_or(0, |memory| memory.delta);
    line(format!(
        "\nThe update is to a release of {:.1} MB; the delta, of profile `linux`, has {:.1} MB.",
        RELEASE as f64 / 1e6,
        delta as f64 / 1e6
    ));
    out
}

fn area_table(parts: &[Part]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line("| area | kB | largest crates, kB | why it is there |".into());
    line("|---|---|---|---|".into());
    for part in parts {
        let crates: Vec<String> =
            part.crates.iter().map(|(name, bytes)| format!("{name} {}", (bytes + 500) / 1000)).collect();
        let bytes = (part.bytes + 500) / 1000;
        line(format!("| {} | {bytes} | {} | {} |", part.name, crates.join(", "), part.reason));
    }
    let sum: u64 = parts.iter().map(|part| part.bytes).sum();
    line(format!("| **all** | **{}** | | |", (sum + 500) / 1000));
    out
}

/// Decimal megabytes of so many KiB.
fn mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
