//! Drafting a release file: what was approved so far, and one release more.

use serde_json::{Map, Value, json};
use tern_protocol::id::{ModelId, ProductId};
use tern_protocol::limits::RELEASES_MAX;
use tern_protocol::tuf::build::{self, Named};
use tern_protocol::tuf::content::ArtifactContent;

use super::{Measured, ReleaseDocument, ReleaseError};

/// Characters of a version or a component.
const WORD_MAX: usize = 64;

/// A release to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelease {
    /// The product.
    pub product: ProductId,
    /// Its counter.
    pub rc: u64,
    /// Its version, for people.
    pub version: String,
    /// Which part of the device it is for.
    pub component: String,
    /// Models that may run it.
    pub models: Vec<ModelId>,
    /// Lowest running counter from which the step is supported; 0 for any.
    pub min_from: u64,
    /// Floor that a device raises itself to after confirming.
    pub floor: u64,
    /// The image.
    pub image: Measured,
    /// When the file expires, unix seconds.
    pub expires: u64,
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
    let named = Named {
        path: build::path(&new.product, new.rc, &new.component),
        length: new.image.length,
        sha256: new.image.sha256,
    };
    let content = ArtifactContent {
        rc: new.rc,
        version: new.version.clone(),
        component: new.component.clone(),
        models: new.models.clone(),
        min_from: new.min_from,
        floor: new.floor,
        root: new.image.root,
    };
    let version = previous.release.meta.version.saturating_add(1);
    let mut signed = build::release(version, new.expires, &[(named, content)]);
    if let Some(fresh) = signed.get_mut("targets").and_then(Value::as_object_mut) {
        fresh.append(&mut targets);
    }
    let file = json!({"signatures": [], "signed": signed});
    let bytes = serde_json::to_vec(&file).expect("JSON values always serialise");
    // What a device would refuse is refused here already: sizes, counts, floors.
    ReleaseDocument::read("the draft", &bytes)?;
    Ok((bytes, dropped))
}

fn check(previous: &ReleaseDocument, new: &NewRelease) -> Result<(), ReleaseError> {
    let value = |why: String| Err(ReleaseError::Value(why));
    let newest = previous.newest();
    if new.rc <= newest {
        return Err(ReleaseError::Counter { rc: new.rc, newest });
    }
    if let Some(other) = previous.product()?.filter(|other| *other != new.product) {
        return value(format!("the previous file is of product {other}, not of {}", new.product));
    }
    if new.models.is_empty() {
        return value("a release names at least one model that may run it".into());
    }
    if new.floor > new.rc || new.min_from >= new.rc {
        return value(format!("--floor is at most {0} and --min-from below {0}", new.rc));
    }
    let word = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        (1..=WORD_MAX).contains(&text.len()) && text.bytes().all(plain)
    };
    if !word(&new.version) {
        return value(format!("a version has 1 to {WORD_MAX} letters, digits and . _ + -"));
    }
    // It stands in a path, and on a device in a file's name.
    if !word(&new.component) || new.component.starts_with('.') {
        return value(format!("a component has 1 to {WORD_MAX} letters, digits and . _ + -"));
    }
    Ok(())
}
