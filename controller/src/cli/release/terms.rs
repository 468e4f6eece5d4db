//! For whom an artifact is and what it requires, in words.

use std::collections::BTreeMap;
use std::fmt::Display;

use tern_protocol::id::{CarrierId, RegionId, VariantId};
use tern_protocol::version::Range;

use crate::api::types::ArtifactView;
use crate::release::Line;

/// What an artifact asks for beside its model.
pub(super) struct Conditions<'a> {
    carriers: &'a [CarrierId],
    regions: &'a [RegionId],
    requires: &'a BTreeMap<String, Range>,
    order: u8,
}

impl<'a> From<&'a ArtifactView> for Conditions<'a> {
    fn from(of: &'a ArtifactView) -> Self {
        Self { carriers: &of.carriers, regions: &of.regions, requires: &of.requires, order: of.order }
    }
}

impl<'a> From<&'a Line> for Conditions<'a> {
    fn from(of: &'a Line) -> Self {
        Self { carriers: &of.carriers, regions: &of.regions, requires: &of.requires, order: of.order }
    }
}

impl Conditions<'_> {
    /// Says them; nothing, if there is none.
    pub(super) fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.carriers.is_empty() {
            words.push(format!("only on carrier {}", list(self.carriers)));
        }
        if !self.regions.is_empty() {
            words.push(format!("only in region {}", list(self.regions)));
        }
        let requires: Vec<String> =
            self.requires.iter().map(|(component, range)| format!("{component} {range}")).collect();
        if !requires.is_empty() {
            words.push(format!("requires {}", requires.join(" and ")));
        }
        if self.order != 0 {
            words.push(format!("order {}", self.order));
        }
        words.join("; ")
    }
}

/// Names a component, or one of several artifacts for it.
pub(super) fn part(component: &str, variant: Option<&VariantId>) -> String {
    variant.map_or_else(|| component.to_owned(), |variant| format!("{component}@{variant}"))
}

/// Puts names in a row.
pub(super) fn list<T: Display>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
