//! `tern ledger retain`: drops old frames of a service that does not run.

use std::path::Path;

use serde_json::json;

use super::{check::dropped, folder};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};
use crate::ledger::Occasion;
use crate::retention::{self, DAY, Standing};
use crate::{clock, keys, serve, state};

pub(super) fn retain(data: &Path, days: u64, context: &Context) -> Result<Exit, Failure> {
    folder(data)?;
    let fleet = keys::fleet(data)?.ok_or_else(|| {
        Failure::new(
            format!("{} belongs to no fleet", data.display()),
            "name the service's own data folder with --data; a copy of the ledger alone cannot be signed",
        )
    })?;
    let mut opened = state::open(data, &fleet).map_err(anyhow::Error::from)?;
    if !opened.original {
        return Err(Failure::new(
            format!("{} is a copy that no service has run on", data.display()),
            "start the service on it first; it compares itself with its devices",
        ));
    }
    opened.notes.iter().for_each(|note| context.out.note(note));
    // What the last run has written may not be on the disk yet.
    opened.checkpoint.sync().map_err(anyhow::Error::from)?;
    let now = clock::now();
    opened.notary.consider(&opened.ledger, Occasion::Stop, now)?;
    let began = retention::began_at(opened.ledger.dir(), opened.ledger.segment())?;
    if began.is_some_and(|at| at < now.saturating_sub(DAY)) {
        opened.ledger.begin_segment()?;
    }
    let standing = Standing {
        dir: opened.ledger.dir().to_owned(),
        file: opened.ledger.file().to_owned(),
        checkpointed: opened.checkpoint.next(),
        end: opened.ledger.synced(),
        active: retention::active(&opened.fleet),
    };
    match serve::retain(data, &standing, opened.notary.signer(), days)? {
        Some(plan) => {
            let value = json!({"frames": plan.frames, "dropped": dropped(&plan.boundary)});
            context.out.result(&value, |_| {
                format!(
                    "{} dropped; the ledger begins with frame {}",
                    words::count(plan.frames, "frame"),
                    plan.boundary.first()
                )
            });
        }
        None => context.out.result(&json!({"frames": 0, "dropped": null}), |_| {
            format!(
                "nothing may go: whole segments do, when the checkpoint has them, all their frames are older than {days} \
                 days, and no rollout that runs or is paused began in them"
            )
        }),
    }
    Ok(Exit::Done)
}
