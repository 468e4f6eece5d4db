//! Runs the service.

use crate::cli::serve::ServeArgs;

/// Runs the service until it is told to stop.
pub fn run(_args: ServeArgs) -> anyhow::Result<()> {
    anyhow::bail!("the service is not part of this build")
}
