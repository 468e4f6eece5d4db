//! What is wrong with a release to be, before anybody signs it.

use std::collections::BTreeSet;

use tern_protocol::id::ModelId;
use tern_protocol::limits::{ARTIFACTS_MAX, COMPONENT_MAX, CONDITIONS_MAX, REQUIRES_MAX, VERSION_MAX};
use tern_protocol::offer::{Artifact, Candidate, Variant, contradiction, pick};
use tern_protocol::version::Version;

use super::{NewArtifact, NewRelease, ReleaseDocument, ReleaseError};

pub(super) fn check(previous: &ReleaseDocument, new: &NewRelease) -> Result<(), ReleaseError> {
    let value = |why: String| Err(ReleaseError::Value(why));
    let newest = previous.newest();
    if new.rc <= newest {
        return Err(ReleaseError::Counter { rc: new.rc, newest });
    }
    if let Some(other) = previous.product()?.filter(|other| *other != new.product) {
        return value(format!("the previous file is of product {other}, not of {}", new.product));
    }
    if new.floor > new.rc || new.min_from >= new.rc {
        return value(format!("--floor is at most {0} and --min-from below {0}", new.rc));
    }
    is_version(&new.version)?;
    let count = new.artifacts.len();
    if !(1..=ARTIFACTS_MAX).contains(&count) {
        return value(format!(
            "a release has 1 to {ARTIFACTS_MAX} artifacts, variants among them; this has {count}"
        ));
    }
    let mut parts = BTreeSet::new();
    for artifact in &new.artifacts {
        alone(artifact)?;
        if !parts.insert(artifact.part()) {
            let part = artifact.part();
            return value(format!(
                "{part} is there twice: several artifacts of a component are told apart by `variant`"
            ));
        }
    }
    together(new)
}

/// Says what is wrong with one artifact, whatever else there is.
fn alone(artifact: &NewArtifact) -> Result<(), ReleaseError> {
    let part = artifact.part();
    let value = |why: String| Err(ReleaseError::Value(why));
    is_component(&artifact.component)?;
    if let Some(version) = &artifact.version {
        is_version(version)?;
    }
    if artifact.models.is_empty() {
        return value(format!("{part} names no model: an artifact is for at least one"));
    }
    if artifact.carriers.len() > CONDITIONS_MAX || artifact.regions.len() > CONDITIONS_MAX {
        return value(format!("{part} is for more than {CONDITIONS_MAX} carriers or regions"));
    }
    if artifact.requires.len() > REQUIRES_MAX {
        return value(format!("{part} requires more than {REQUIRES_MAX} components"));
    }
    for (needs, range) in &artifact.requires {
        is_component(needs)?;
        if *needs == artifact.component {
            return value(format!(
                "{part} requires {needs}, which it is itself: what devices must run to take the release is --min-from"
            ));
        }
        if range.is_contradiction() {
            return value(format!("{part} requires {needs} {range}, and no version is in that range"));
        }
    }
    Ok(())
}

/// A component stands in a path, and on a device in a file's name.
fn is_component(text: &str) -> Result<(), ReleaseError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    let sound =
        (1..=COMPONENT_MAX).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.');
    let why = || {
        format!(
            "a component has 1 to {COMPONENT_MAX} letters, digits and . _ + -, and no . in front: {text:?}"
        )
    };
    if sound { Ok(()) } else { Err(ReleaseError::Value(why())) }
}

fn is_version(text: &str) -> Result<(), ReleaseError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-:~^".contains(&b);
    let sound = text.bytes().all(plain) && Version::read(text).is_some();
    let why = || {
        let signs = "letters, digits and . _ + - : ~ ^";
        format!("a version has 1 to {VERSION_MAX} {signs}, with a letter or digit among them: {text:?}")
    };
    if sound { Ok(()) } else { Err(ReleaseError::Value(why())) }
}

/// A kind of device: which artifacts are for it, and how it is told to people.
struct Kind<'a> {
    model: &'a ModelId,
    fits: u8,
    words: String,
}

/// Says what is wrong with the artifacts as devices would take them: what comes together contradicts itself, or
/// something that nobody would take.
fn together(new: &NewRelease) -> Result<(), ReleaseError> {
    let named: Vec<_> = new.artifacts.iter().map(|artifact| new.named(artifact)).collect();
    let variant = |artifact: &NewArtifact| artifact.variant.clone().map_or(Variant::Plain, Variant::Named);
    let candidates: Vec<Candidate<'_>> = new
        .artifacts
        .iter()
        .zip(&named)
        .map(|(artifact, (_, content))| Candidate { variant: variant(artifact), content })
        .collect();
    let artifact = |at: &usize| {
        let (named, content) = &named[*at];
        Artifact::approved(content, named.length, named.sha256)
    };
    let mut taken = BTreeSet::new();
    for kind in kinds(new) {
        let fits = |at: usize| kind.fits & (1 << at) != 0;
        let Ok(picked) = pick(&candidates, kind.model, fits) else { continue };
        let set: Vec<Artifact> = picked.iter().map(artifact).collect();
        if let Err(unmet) = contradiction(&set) {
            return Err(ReleaseError::Value(format!("on devices of {}: {unmet}", kind.words)));
        }
        taken.extend(picked);
    }
    match (0..named.len()).find(|at| !taken.contains(at)) {
        None => Ok(()),
        Some(at) => Err(ReleaseError::Value(format!(
            "no device would take {}: variants that are looked at first are for all of its devices, or another component \
             has nothing for them. Variants are looked at in the order of their names, the one without a name last",
            new.artifacts[at].part()
        ))),
    }
}

/// Returns every kind of device that the conditions tell apart; `other` are those that nothing names.
fn kinds(new: &NewRelease) -> Vec<Kind<'_>> {
    let all = &new.artifacts;
    let models: BTreeSet<&ModelId> = all.iter().flat_map(|artifact| &artifact.models).collect();
    let carriers = classes(all, |artifact| &artifact.carriers);
    let regions = classes(all, |artifact| &artifact.regions);
    let mut kinds = Vec::new();
    let mut seen = BTreeSet::new();
    for model in models {
        let by_model = mask(all, |artifact| artifact.models.contains(model));
        if !seen.insert(by_model) {
            continue;
        }
        for (by_carrier, carrier) in &carriers {
            for (by_region, region) in &regions {
                let words = format!("model {model}, carrier {carrier}, region {region}");
                kinds.push(Kind { model, fits: by_model & by_carrier & by_region, words });
            }
        }
    }
    kinds
}

/// Returns the sets of artifacts that the values of one condition admit, each with a value for people.
fn classes<T: PartialEq + ToString>(
    all: &[NewArtifact],
    names: impl Fn(&NewArtifact) -> &Vec<T>,
) -> Vec<(u8, String)> {
    let admits = |value: Option<&T>| {
        mask(all, |artifact| names(artifact).is_empty() || value.is_some_and(|v| names(artifact).contains(v)))
    };
    let mut classes = vec![(admits(None), "other".to_owned())];
    for value in all.iter().flat_map(&names) {
        let class = admits(Some(value));
        if classes.iter().all(|(known, _)| *known != class) {
            classes.push((class, value.to_string()));
        }
    }
    classes
}

/// One bit for each artifact.
fn mask(all: &[NewArtifact], of: impl Fn(&NewArtifact) -> bool) -> u8 {
    all.iter().take(ARTIFACTS_MAX).enumerate().map(|(at, artifact)| u8::from(of(artifact)) << at).sum()
}

/// A set of artifacts is a byte.
const _: () = assert!(ARTIFACTS_MAX <= 8);
