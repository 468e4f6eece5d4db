//! Drafting a release file: what was approved so far, and one release more.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tern_protocol::id::{CarrierId, ModelId, ProductId, RegionId, VariantId};
use tern_protocol::limits::RELEASES_MAX;
use tern_protocol::tuf::build::{self, Named};
use tern_protocol::tuf::content::ArtifactContent;
use tern_protocol::version::Range;

use super::check::check;
use super::{Measured, ReleaseDocument, ReleaseError};

/// A release to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelease {
    /// The product.
    pub product: ProductId,
    /// Its counter.
    pub rc: u64,
    /// Its version, for people.
    pub version: String,
    /// Lowest running counter from which the step is supported; 0 for any.
    pub min_from: u64,
    /// Floor that a device raises itself to after confirming.
    pub floor: u64,
    /// What it is made of: at least one artifact, at most 8.
    pub artifacts: Vec<NewArtifact>,
    /// When the file expires, unix seconds.
    pub expires: u64,
}

/// An artifact of a release to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// Which part of the device it is for.
    pub component: String,
    /// Its name among several for that component.
    pub variant: Option<VariantId>,
    /// Its own version; none: the release's.
    pub version: Option<String>,
    /// When it is installed: lower first, equal ones by component.
    pub order: u8,
    /// Models that may run it.
    pub models: Vec<ModelId>,
    /// Carriers that it is for; empty for all.
    pub carriers: Vec<CarrierId>,
    /// Regions that it is for; empty for all.
    pub regions: Vec<RegionId>,
    /// What has to run, or to come with it, of other components.
    pub requires: BTreeMap<String, Range>,
    /// The image.
    pub image: Measured,
}

impl NewArtifact {
    /// Describes the only artifact of a component, for every device of some models.
    pub fn new(component: impl Into<String>, models: Vec<ModelId>, image: Measured) -> Self {
        Self {
            component: component.into(),
            variant: None,
            version: None,
            order: 0,
            models,
            carriers: Vec::new(),
            regions: Vec::new(),
            requires: BTreeMap::new(),
            image,
        }
    }

    /// Returns its component and its name among the variants, as the path has them.
    pub fn part(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{}@{variant}", self.component),
            None => self.component.clone(),
        }
    }
}

impl NewRelease {
    /// Returns what the file says about one of its artifacts.
    pub(super) fn named(&self, artifact: &NewArtifact) -> (Named, ArtifactContent) {
        let NewArtifact { component, models, image, .. } = artifact;
        let path = match &artifact.variant {
            Some(variant) => build::variant_path(&self.product, self.rc, component, variant),
            None => build::path(&self.product, self.rc, component),
        };
        let own = artifact.version.clone().unwrap_or_else(|| self.version.clone());
        let content = ArtifactContent {
            // A release of one version says it once, as it always did.
            release: if own == self.version { String::new() } else { self.version.clone() },
            carriers: artifact.carriers.clone(),
            regions: artifact.regions.clone(),
            requires: artifact.requires.clone(),
            order: artifact.order,
            min_from: self.min_from,
            floor: self.floor,
            ..ArtifactContent::new(self.rc, own, component.clone(), models.clone(), image.root)
        };
        (Named { path, length: image.length, sha256: image.sha256 }, content)
    }
}

/// Drafts the file that follows `previous`: its newest releases, and the new one. Returns the draft and the
/// counters of releases that had to go.
pub fn draft(previous: &ReleaseDocument, new: &NewRelease) -> Result<(Vec<u8>, Vec<u64>), ReleaseError> {
    check(previous, new)?;
    let mut counters: Vec<u64> = previous.release.content.values().map(|artifact| artifact.rc).collect();
    counters.sort_unstable_by(|a, b| b.cmp(a));
    counters.dedup();
    let dropped = counters.split_off(counters.len().min(RELEASES_MAX - 1));

    // Targets that stay are copied as they were signed, with whatever this version does not know.
    let old = previous.signed.get("targets").and_then(Value::as_object);
    let mut targets: Map<String, Value> = old.cloned().unwrap_or_default();
    targets.retain(|path, _| {
        let rc = previous.release.content.get(path).map(|artifact| artifact.rc);
        rc.is_some_and(|rc| counters.contains(&rc))
    });
    let artifacts: Vec<_> = new.artifacts.iter().map(|artifact| new.named(artifact)).collect();
    let version = previous.release.meta.version.saturating_add(1);
    let mut signed = build::release(version, new.expires, &artifacts);
    if let Some(fresh) = signed.get_mut("targets").and_then(Value::as_object_mut) {
        fresh.append(&mut targets);
    }
    let file = json!({"signatures": [], "signed": signed});
    let bytes = serde_json::to_vec(&file).expect("JSON values always serialise");
    // What a device would refuse is refused here already: sizes, counts, floors.
    ReleaseDocument::read("the draft", &bytes)?;
    Ok((bytes, dropped))
}
