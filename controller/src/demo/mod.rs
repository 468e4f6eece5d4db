//! `tern demo`: the whole story on one machine, told by the real programs.
//!
//! The service and every agent are processes of their own, started from this very executable. The story uses the
//! public API alone; what it claims at the end it has read back from the devices' own slots and boot records.

mod fleet;
mod payload;
mod service;
mod stop;
mod story;
mod tell;

use std::path::Path;

use anyhow::Context as _;

use crate::cli::demo::DemoArgs;

pub use payload::probe;

/// Tells the story; `false` if it ended with a stranded device.
pub fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    anyhow::ensure!((1..=1000).contains(&args.devices), "--devices takes 1 to 1000");
    anyhow::ensure!((0.0..=1.0).contains(&args.bad_rate), "--bad-rate takes a share between 0 and 1");
    anyhow::ensure!(args.day >= 0.1, "--day takes at least 0.1 seconds");
    let (folder, temporary) = match &args.keep {
        Some(folder) => (folder.clone(), false),
        None => (std::env::temp_dir().join(format!("tern-demo-{}", std::process::id())), true),
    };
    refuse_taken(&folder)?;
    let stop = stop::Stop::listen()?;
    let result = story::tell(args, &folder, &stop);
    if temporary {
        // The system cleans up what we could not.
        let _left = std::fs::remove_dir_all(&folder);
    }
    // A signal from the terminal reaches the service and the agents as well: whatever failed then is no news.
    let result = result.or_else(|error| stop.check().and(Err(error)));
    let summary = result?;
    Ok(summary.stranded == 0)
}

/// Refuses a folder in which something lies: it may be a live service's.
fn refuse_taken(folder: &Path) -> anyhow::Result<()> {
    let mut entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("could not read {}", folder.display())),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let shown = folder.display();
    anyhow::ensure!(
        !folder.join("service").join("service.log").exists(),
        "{shown} holds a demo already; choose another folder"
    );
    anyhow::bail!(
        "{shown} is not empty, and the demo writes into no folder of others; choose an empty or a new one"
    )
}

/// Runs one of the demo's agents: the same core and shell as on a device.
pub fn agent(config: &Path) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TERN_LOG").unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    tern_agent::process::run_until_stopped(config)
}
