//! Which of a release's artifacts one device takes.
//!
//! Several artifacts may be for one component: its variants, of which a device takes the first that is for its model,
//! carrier and region. Those with a name are looked at in the order of their names, the one without a name last: it is
//! what all others get.

use std::collections::BTreeMap;

use super::NothingBecause;
use crate::id::{ModelId, VariantId};
use crate::tuf::content::ArtifactContent;

/// One of the artifacts for a component, in the order in which they are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// One with a name.
    Named(VariantId),
    /// The one without.
    Plain,
}

impl Variant {
    /// Reads the last part of a target's path, `<component>` or `<component>@<variant>`; none if it is neither.
    pub fn read(part: &str, component: &str) -> Option<Self> {
        match part.strip_prefix(component)? {
            "" => Some(Self::Plain),
            rest => Some(Self::Named(rest.strip_prefix('@')?.parse().ok()?)),
        }
    }

    /// Reads it off a target's path, `<product>/<rc>/` and the last part.
    pub fn of_path(path: &str, component: &str) -> Option<Self> {
        Self::read(path.splitn(3, '/').nth(2)?, component)
    }

    /// Returns its name, if it has one.
    pub fn name(&self) -> Option<&VariantId> {
        match self {
            Self::Named(name) => Some(name),
            Self::Plain => None,
        }
    }
}

/// One of a release's artifacts.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Which variant of its component, as its path says.
    pub variant: Variant,
    /// What it is, and for whom.
    pub content: &'a ArtifactContent,
}

/// No artifact of this component is for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoneFits<'a> {
    /// The component.
    pub component: &'a str,
    /// None of them is for its model.
    pub model: bool,
}

impl NoneFits<'_> {
    pub(super) fn of(self, rc: u64) -> NothingBecause {
        match self.model {
            true => NothingBecause::NotForModel { rc },
            false => NothingBecause::NoVariant { rc, component: self.component.to_owned() },
        }
    }
}

/// Picks one artifact for each component, in the order of installation; `fits` tells by its place whether an artifact
/// is for the device, which has this `model`. One component without any, and nothing of the release is for it.
pub fn pick<'a>(
    candidates: &[Candidate<'a>],
    model: &ModelId,
    fits: impl Fn(usize) -> bool,
) -> Result<Vec<usize>, NoneFits<'a>> {
    let mut components: BTreeMap<&'a str, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        components.entry(candidate.content.component.as_str()).or_default().push(at);
    }
    let mut picked = Vec::new();
    for (component, mut variants) in components {
        variants.sort_by_key(|at| &candidates[*at].variant);
        let Some(first) = variants.iter().find(|at| fits(**at)) else {
            let model = !variants.iter().any(|at| candidates[*at].content.models.contains(model));
            return Err(NoneFits { component, model });
        };
        picked.push(*first);
    }
    // Stable: equal ones stay in the order of their components.
    picked.sort_by_key(|at| candidates[*at].content.order);
    Ok(picked)
}
