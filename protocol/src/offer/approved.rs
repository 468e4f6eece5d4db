//! What release and rollout roles name together, and what of it a device takes.

use super::{Artifact, Candidate, Device, NoneFits, Variant, pick};
use crate::chunk::chunks_of;
use crate::digest::Digest;
use crate::id::ProductId;
use crate::tuf::Role;
use crate::tuf::client::Current;
use crate::tuf::content::ArtifactContent;
use crate::tuf::metadata::Target;

/// Returns the artifacts of a release, if both roles name exactly the same ones: neither the key that approves
/// nor the key that rolls out can install anything alone, or a part of a release without the rest.
pub(super) fn approved<'a>(current: &Current<'a>, product: &ProductId, rc: u64) -> Option<Vec<Approved<'a>>> {
    let prefix = format!("{product}/{rc}/");
    let named = |target: &Target| target.sha256().map(|sha256| (target.length, sha256));
    let rolled_out = |path: &str| {
        let target = current.rollout.meta.targets.get(path)?;
        named(target).filter(|_| current.covers(Role::Rollout, path))
    };
    let count = current.rollout.meta.targets.keys().filter(|path| path.starts_with(&prefix)).count();
    let mut artifacts = Vec::new();
    for (path, target) in current.release.meta.targets.iter().filter(|(path, _)| path.starts_with(&prefix)) {
        let content = current.release.content.get(path)?;
        let (length, sha256) = named(target)?;
        let same = rolled_out(path) == Some((length, sha256));
        let fits = chunks_of(length).is_some_and(|chunks| chunks > 0);
        let variant = Variant::read(&path[prefix.len()..], &content.component)?;
        if !same || !fits || content.rc != rc || !current.covers(Role::Release, path) {
            return None;
        }
        artifacts.push(Approved { candidate: Candidate { variant, content }, length, sha256 });
    }
    (!artifacts.is_empty() && artifacts.len() == count).then_some(artifacts)
}

/// An artifact on which both roles agree.
pub(super) struct Approved<'a> {
    candidate: Candidate<'a>,
    length: u64,
    sha256: Digest,
}

/// Returns what of a release the device takes, in the order of installation.
pub(super) fn own<'a>(
    approved: Vec<Approved<'a>>,
    device: &Device<'_>,
) -> Result<Vec<(Artifact, &'a ArtifactContent)>, NoneFits<'a>> {
    let candidates: Vec<Candidate<'a>> = approved.iter().map(|one| one.candidate.clone()).collect();
    let fits = |content: &ArtifactContent| content.is_for(device.model, device.carrier, device.region);
    let picked = pick(&candidates, device.model, |at| fits(candidates[at].content))?;
    let artifact = |at: usize| {
        let Approved { candidate, length, sha256 } = &approved[at];
        (Artifact::approved(candidate.content, *length, *sha256), candidate.content)
    };
    Ok(picked.into_iter().map(artifact).collect())
}
