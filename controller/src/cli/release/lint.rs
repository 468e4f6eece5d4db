//! `tern release lint`: what makes an image expensive to send, before anybody has to.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tern_protocol::delta::encode::{Options, memory};
use tern_protocol::delta::{Profile, encode_if_it_saves};
use tern_protocol::limits::{CHUNK, CHUNKS_MAX};

use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};
use crate::lint::{Finding, compare, look};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The image
    image: PathBuf,
    /// The image before it: what an update would take is measured
    old: Option<PathBuf>,
    /// Measure for this kind of device: linux, small-linux, mcu or fast
    #[arg(long, default_value = "linux", value_parser = profile)]
    profile: Profile,
    /// Take no more memory than this for measuring
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    memory_mib: u64,
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::named(name).ok_or_else(|| format!("one of {}", Profile::ALL.map(Profile::name).join(", ")))
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Bytes of the image.
    bytes: u64,
    /// Bytes of the delta from the image before, if one was given and it saves anything.
    delta: Option<u64>,
    /// About how many it would have if it saves nothing.
    useless: Option<u64>,
    /// What costs bytes.
    findings: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    finding: Finding,
    /// In words.
    what: String,
    /// What it costs and what to do.
    advice: &'static str,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let new = read(&flags.image)?;
    let old = flags.old.as_deref().map(read).transpose()?;
    let mut found = look::look(&new);
    let (mut delta, mut useless) = (None, None);
    if let Some(old) = &old {
        found.extend(compare::compare(old, &new));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let needs = memory(old.len() as u64, new.len() as u64, threads) >> 20;
        if needs > flags.memory_mib {
            let error = format!("measuring takes about {needs} MiB of memory");
            return Err(Failure::new(error, format!("say --memory-mib {needs}, or leave the old image out")));
        }
        let bar = context.out.parts("encoding", 100);
        let options = Options { threads, ..Options::new(flags.profile) };
        let made = encode_if_it_saves(old, &new, options, &|coded, all| {
            bar.set_position((coded * 100 / all.max(1)) as u64);
        });
        bar.finish_and_clear();
        match made {
            Ok(made) => delta = Some(made.manifest.bytes),
            Err(about) => useless = Some(about),
        }
    }
    let exit = if found.is_empty() { Exit::Done } else { Exit::Found };
    let line = |finding: Finding| Line { what: finding.what(), advice: finding.advice(), finding };
    let findings = found.into_iter().map(line).collect();
    let report = Report { bytes: new.len() as u64, delta, useless, findings };
    context.out.result(&report, text);
    Ok(exit)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("could not read {}: {error}", path.display()), "check the path")
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if !(1..=CHUNK as u64 * u64::from(CHUNKS_MAX)).contains(&length) {
        let error = format!("{} has {length} B, and an image has 1 B to 4 GiB", path.display());
        return Err(Failure::new(error, "give the file that is released"));
    }
    std::fs::read(path).map_err(failed)
}

fn text(report: &Report) -> String {
    let mut text = format!("image: {}\n", words::bytes(report.bytes));
    if let Some(bytes) = report.delta {
        text.push_str(&format!("delta: {}\n", super::deltas::part(bytes, report.bytes)));
    }
    if let Some(bytes) = report.useless {
        text.push_str(&format!("delta: none; it would have about {}\n", words::bytes(bytes)));
    }
    for line in &report.findings {
        text.push_str(&format!("\n{}\n  {}\n", line.what, line.advice));
    }
    if report.findings.is_empty() {
        text.push_str("nothing found that makes it expensive\n");
    }
    text
}
