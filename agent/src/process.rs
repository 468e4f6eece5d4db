//! The agent as a process: one runtime, one run, and a new process image for every boot of the file back end.

use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::Context as _;

use crate::config::Config;
use crate::run::{Ended, run};

/// Runs the agent until somebody stops it. When the device boots, this process ends and a new one with the same
/// arguments takes its place; it learns from the boot record and the slots alone what has come up.
pub fn run_until_stopped(config: &Path) -> anyhow::Result<()> {
    // Asked now: once the file was replaced, the system no longer says where it was.
    let program = std::env::current_exe();
    let config = Config::load(config)?;
    let ended = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Looking names up is blocking, too: a hash, or a read that hangs, must not keep the device from its broker.
            .max_blocking_threads(4)
            .build()
            .context("could not start the runtime")?;
        runtime.block_on(run(config))?
    };
    match ended {
        Ended::Stopped => {
            tracing::info!("stopped");
            Ok(())
        }
        Ended::Rebooting => {
            tracing::info!("booting");
            // An updated agent may have replaced the file; the path is what a boot would start.
            let mut arguments = std::env::args_os();
            let name = arguments.next().context("a process has a name")?;
            let program = program.unwrap_or_else(|_| name.into());
            let error = std::process::Command::new(program).args(arguments).exec();
            Err(error).context("could not start the agent after the boot")
        }
    }
}
