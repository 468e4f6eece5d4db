//! What the release role says about one artifact.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{CarrierId, ModelId, RegionId};
use crate::limits::{COMPONENT_MAX, CONDITIONS_MAX, REQUIRES_MAX};
use crate::version::Range;

/// One artifact of a release: the `custom` of a target in the release role. The target's path is
/// `<product>/<rc>/<component>`, or `<product>/<rc>/<component>@<variant>` where a component has several of which a
/// device takes one ([`offer::pick`](crate::offer::pick)); its length and SHA-256 are TUF's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactContent {
    /// Release counter: grows with every release of the product, never reused.
    pub rc: u64,
    /// Version of the artifact; of the release too, unless `release` says another.
    pub version: String,
    /// Version of the release, for people; empty: the artifact's. The same in all artifacts of a release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// Which part of the device it is for.
    pub component: String,
    /// Models that may run it.
    pub models: Vec<ModelId>,
    /// Carriers that it is for; empty for all. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carriers: Vec<CarrierId>,
    /// Regions that it is for; empty for all. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionId>,
    /// What the device must run of other components, or the same release must bring, by component. At most 8.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, Range>,
    /// When it is installed: lower first, equal ones by component.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub order: u8,
    /// Lowest running release counter from which the step is supported; 0 for any.
    #[serde(default)]
    pub min_from: u64,
    /// Floor that a device raises itself to after confirming; never above `rc`.
    #[serde(default)]
    pub floor: u64,
    /// Merkle root over the image's chunks.
    pub root: Digest,
}

fn is_zero(order: &u8) -> bool {
    *order == 0
}

impl ArtifactContent {
    /// Describes an artifact that may be installed from every release, on every device of some models.
    pub fn new(
        rc: u64,
        version: impl Into<String>,
        component: impl Into<String>,
        models: Vec<ModelId>,
        root: Digest,
    ) -> Self {
        Self {
            rc,
            version: version.into(),
            release: String::new(),
            component: component.into(),
            models,
            carriers: Vec::new(),
            regions: Vec::new(),
            requires: BTreeMap::new(),
            order: 0,
            min_from: 0,
            floor: 0,
            root,
        }
    }

    /// Returns the version of its release, for people.
    pub fn release_version(&self) -> &str {
        if self.release.is_empty() { &self.version } else { &self.release }
    }

    /// Tells whether it is for devices of this model, carrier and region.
    pub fn is_for(&self, model: &ModelId, carrier: &CarrierId, region: &RegionId) -> bool {
        self.models.contains(model)
            && (self.carriers.is_empty() || self.carriers.contains(carrier))
            && (self.regions.is_empty() || self.regions.contains(region))
    }

    /// Says which ceiling it is above, if any.
    pub(super) fn too_much(&self) -> Option<String> {
        let name = |component: &String| (1..=COMPONENT_MAX).contains(&component.len());
        if self.carriers.len() > CONDITIONS_MAX || self.regions.len() > CONDITIONS_MAX {
            Some(format!("is for more than {CONDITIONS_MAX} carriers or regions"))
        } else if self.requires.len() > REQUIRES_MAX || !self.requires.keys().all(name) {
            Some(format!("requires more than {REQUIRES_MAX} components, or one with no name"))
        } else {
            None
        }
    }
}
