//! Shows the whole product on one machine.

use crate::cli::demo::DemoArgs;

/// Runs the demonstration.
pub fn run(_args: DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("the demonstration is not part of this build")
}
