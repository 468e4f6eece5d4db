//! Releases in: what a release file may say, and that it is published.

use tern_protocol::id::ProductId;
use tern_protocol::tuf::{Role, peek};

use super::command::{Outcome, refuse};
use super::{Fact, Refusal, RefusalKind, Reply, Service};
use crate::core::fleet::product::{Release, releases_in};
use crate::core::rollout::record::{Rollout, Status};

impl Service {
    pub(super) fn publish_release(&mut self, product: ProductId, file: String) -> Outcome {
        let new = self.check_release(&product, &file)?;
        let files = self.sign_step(&product, Some(file.into_bytes()), None, None).map_err(|e| {
            refuse(
                RefusalKind::Invalid,
                e.to_string(),
                "sign it with `tern release sign` and the release key of this product",
            )
        })?;
        self.record(Fact::Signed { product: product.clone(), files });
        for Release { rc, version, .. } in new {
            self.note(format!("product {product}: release {rc} ({version}) published"));
            self.record(Fact::ReleasePublished { product: product.clone(), rc, version });
        }
        let releases = self.product(&product)?.releases();
        Ok(Reply::Published { releases: releases.into_keys().collect() })
    }

    /// Tells what a release file may not do, whichever way it comes, and returns the releases that it adds. Evidence
    /// about a release is evidence about its bytes: they never change under its counter.
    pub(super) fn check_release(&self, id: &ProductId, file: &str) -> Result<Vec<Release>, Refusal> {
        let state = self.product(id)?;
        let (fresh, before) = (releases_in(file), state.releases());
        let new: Vec<Release> = fresh.values().filter(|r| !before.contains_key(&r.rc)).cloned().collect();
        if let Some(halted) = new.iter().find(|r| state.halted.contains(&r.rc)) {
            let what = format!("release {} was halted and is dead for ever", halted.rc);
            return Err(refuse(RefusalKind::Conflict, what, "publish the same bytes under a new rc"));
        }
        if state.files.get(&Role::Release).is_some_and(|held| held == file) {
            return Ok(new);
        }
        // What is no file at all is refused as such, by the check of its signature.
        let Some(offered) = peek(file.as_bytes()) else { return Ok(new) };
        for (rc, release) in &fresh {
            // A checkpoint of an earlier version knows only the newest file's.
            let held = || before.get(rc).map(Release::fingerprint);
            let known = state.published.get(rc).copied().or_else(held);
            if known.is_some_and(|known| known != release.fingerprint()) {
                let what = format!("release {rc} was published already, with other bytes or conditions");
                return Err(refuse(RefusalKind::Conflict, what, "publish these under a new rc"));
            }
        }
        let held = state.versions().release;
        if offered <= held {
            let what = format!("the release file has version {offered}, and version {held} is published");
            let hint = "somebody published in between: make the draft again from the newest file, without --previous";
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        let active = |r: &&Rollout| {
            r.product == *id
                && matches!(r.status, Status::Running | Status::Paused)
                && !fresh.contains_key(&r.rc)
        };
        if let Some(rollout) = self.fleet.rollouts.values().find(active) {
            let what = format!("the file lacks release {}, which rollout {} offers", rollout.rc, rollout.id);
            return Err(refuse(
                RefusalKind::Conflict,
                what,
                "end that rollout first, or keep the release in the file",
            ));
        }
        Ok(new)
    }
}
