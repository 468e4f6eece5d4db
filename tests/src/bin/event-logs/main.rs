//! Event logs for the comparison with an independent implementation of the kill switch: `make` draws what devices send,
//! `play` has the real service count and judge it. tests/reference/logs.py counts and judges the same lines by itself.

mod broken;
mod device;
mod log;
mod moments;
mod play;
mod profile;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use broken::Broken;
use log::Log;

/// Make event logs of rollouts, and play them through the service
#[derive(Debug, Parser)]
struct Flags {
    #[command(subcommand)]
    command: Wanted,
}

#[derive(Debug, Subcommand)]
enum Wanted {
    /// Draw event logs, and print one JSON object a line
    Make {
        /// How many
        #[arg(long, default_value_t = 520)]
        count: u64,
        /// Draws everything
        #[arg(long, default_value_t = 20_261_123)]
        seed: u64,
    },
    /// Play event logs, and print what the service made of each as one JSON object a line
    Play {
        /// What `make` printed
        file: PathBuf,
        /// Count wrongly, as a control
        #[arg(long, value_enum)]
        broken: Option<Broken>,
        /// Play so many at a time
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

fn read(file: &Path) -> anyhow::Result<Vec<Log>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("line {} of {} is no event log", number + 1, file.display()))
    };
    text.lines().enumerate().map(line).collect()
}

fn played(logs: &[Log], broken: Option<Broken>, threads: usize) -> Vec<play::Finding> {
    let one = |log: &Log| match broken {
        Some(broken) => play::play(&broken.log(log)),
        None => play::play(log),
    };
    let share = logs.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = logs
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(one).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a log is played to its end")).collect()
    })
}

#[expect(clippy::print_stdout, reason = "this is the result")]
fn main() -> anyhow::Result<()> {
    match Flags::parse().command {
        Wanted::Make { count, seed } => {
            for number in 0..count {
                println!("{}", serde_json::to_string(&profile::draw(seed, number))?);
            }
        }
        Wanted::Play { file, broken, threads } => {
            for finding in played(&read(&file)?, broken, threads) {
                println!("{}", serde_json::to_string(&finding)?);
            }
        }
    }
    Ok(())
}
