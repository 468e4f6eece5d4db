//! Do an artifact's requirements hold: of what the device runs, or of what comes with it?

use std::collections::BTreeMap;
use std::fmt;

use super::Artifact;
use crate::version::{Range, Version};

/// A requirement that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmet<'a> {
    /// The component whose artifact requires something.
    pub component: &'a str,
    /// The version of that artifact.
    pub version: &'a str,
    /// The component that it requires.
    pub needs: &'a str,
    /// The versions that it requires.
    pub range: &'a Range,
    /// What there is instead.
    pub found: Found<'a>,
}

/// What there is of a component that is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing is known of it.
    Nothing,
    /// The device runs this version.
    Running(&'a str),
    /// The release brings this version.
    Brought(&'a str),
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, version, needs, range, found } = self;
        write!(f, "{component} {version} requires {needs} {range}, ")?;
        match found {
            Found::Nothing => write!(f, "and no version of {needs} is known"),
            Found::Running(version) => write!(f, "running is {version:?}"),
            Found::Brought(version) => write!(f, "and the release brings {version:?}"),
        }
    }
}

impl std::error::Error for Unmet<'_> {}

/// Checks what a device would install against the versions of components that it runs: a requirement holds by the
/// version that comes with it, if that component does, else by the one that runs. A version that cannot be compared
/// is in no range but `*`.
pub fn satisfied<'a>(
    artifacts: &'a [Artifact],
    running: &'a BTreeMap<String, String>,
) -> Result<(), Unmet<'a>> {
    artifacts.iter().try_for_each(|artifact| each(artifact, artifacts, Some(running)))
}

/// Checks what is installed together against itself alone: no device can mend what does not hold here.
pub fn contradiction(artifacts: &[Artifact]) -> Result<(), Unmet<'_>> {
    artifacts.iter().try_for_each(|artifact| each(artifact, artifacts, None))
}

fn each<'a>(
    artifact: &'a Artifact,
    together: &'a [Artifact],
    running: Option<&'a BTreeMap<String, String>>,
) -> Result<(), Unmet<'a>> {
    for (needs, range) in &artifact.requires {
        let brought = together.iter().find(|other| other.component == *needs);
        let found = match (brought, running) {
            (Some(other), _) => Found::Brought(&other.version),
            (None, Some(running)) => running.get(needs).map_or(Found::Nothing, |of| Found::Running(of)),
            (None, None) => continue,
        };
        let holds = match found {
            Found::Nothing => false,
            Found::Running(text) | Found::Brought(text) => {
                range.is_any() || Version::read(text).is_some_and(|version| range.contains(version))
            }
        };
        if !holds {
            let Artifact { component, version, .. } = artifact;
            return Err(Unmet { component, version, needs, range, found });
        }
    }
    Ok(())
}
