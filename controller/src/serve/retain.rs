//! Drops old frames once a day, beside the engine: the files that it reads and takes away are never written to again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::clock;
use crate::engine::Engine;
use crate::ledger::NoteSigner;
use crate::place;
use crate::retention::{DAY, Plan, Standing, plan};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(DAY);

/// Drops frames older than `days` now and once a day, for as long as the engine runs.
pub(super) async fn daily(data: PathBuf, days: u64, signer: NoteSigner, engine: Engine) {
    loop {
        // A segment a day: what is dropped is dropped whole.
        let Ok(standing) = engine.standing(clock::now().saturating_sub(DAY)).await else { return };
        let (data, signer) = (data.clone(), signer.clone());
        let work = move || retain(&data, &standing, &signer, days);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(Some(plan))) => tracing::info!(
                frames = plan.frames,
                first = plan.boundary.first(),
                days,
                "old frames of the ledger were dropped"
            ),
            Ok(Ok(None)) => {}
            // Nothing is lost by keeping more.
            Ok(Err(error)) => tracing::error!("no frames of the ledger were dropped: {error:#}"),
            Err(error) => tracing::error!("no frames of the ledger were dropped: {error}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Drops what may go.
pub(crate) fn retain(
    data: &Path,
    standing: &Standing,
    signer: &NoteSigner,
    days: u64,
) -> anyhow::Result<Option<Plan>> {
    let Some(plan) = plan(standing, signer, days, clock::now())? else { return Ok(None) };
    // The mark may name a file that is about to go; without it the next start would take the folder for a copy.
    place::mark(data, &standing.file).with_context(|| format!("could not mark {}", data.display()))?;
    plan.steps.iter().try_for_each(|step| step.take())?;
    Ok(Some(plan))
}
