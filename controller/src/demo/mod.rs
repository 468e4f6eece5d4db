//! `tern demo`: the whole story on one machine, told by the real programs.
//!
//! The service and every agent are processes of their own, started from this very executable. The story uses the
//! public API alone; what it claims at the end it has read back from the devices' own slots and boot records.

mod fleet;
mod payload;
mod story;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;

pub use payload::probe;

/// What the demo is to do.
#[derive(Debug, Clone)]
pub struct DemoArgs {
    /// Devices, 1 to 1000.
    pub devices: u32,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Share of devices on which release 3 fails its health probe.
    pub bad_rate: f64,
    /// Folder to keep; a temporary one that is removed otherwise.
    pub keep: Option<PathBuf>,
    /// The user's own images for release 1 and 2.
    pub image: Option<(PathBuf, PathBuf)>,
    /// Seconds that stand for a day.
    pub day: f64,
    /// Print one JSON object as the last line, and nothing else on standard output.
    pub json: bool,
}

/// Tells the story.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!((1..=1000).contains(&args.devices), "--devices takes 1 to 1000");
    anyhow::ensure!((0.0..=1.0).contains(&args.bad_rate), "--bad-rate takes a share between 0 and 1");
    anyhow::ensure!(args.day >= 0.1, "--day takes at least 0.1 seconds");
    let (folder, temporary) = match &args.keep {
        Some(folder) => (folder.clone(), false),
        None => (std::env::temp_dir().join(format!("tern-demo-{}", std::process::id())), true),
    };
    anyhow::ensure!(!folder.join("service").exists(), "{} holds a demo already; choose another folder", folder.display());
    let result = story::tell(args, &folder);
    if temporary {
        // The system cleans up what we could not.
        let _left = std::fs::remove_dir_all(&folder);
    }
    let summary = result?;
    Ok(if summary.stranded == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one of the demo's agents: the same core and shell as on a device.
pub fn agent(config: &std::path::Path) -> anyhow::Result<()> {
    tern_agent::process::run_until_stopped(config)
}
