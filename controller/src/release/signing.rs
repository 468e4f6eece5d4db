//! Signing a release file: what a person should see first, and what devices would say afterwards.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use tern_protocol::digest::Digest;
use tern_protocol::id::{CarrierId, ModelId, ProductId, RegionId, VariantId};
use tern_protocol::offer::Variant;
use tern_protocol::tuf::content::{ReleaseContent, Targets, TargetsContent};
use tern_protocol::tuf::metadata::Metadata;
use tern_protocol::tuf::verify::{Authority, open};
use tern_protocol::tuf::{Role, Signer, canonical};
use tern_protocol::version::Range;

use super::{ReleaseDocument, ReleaseError};

/// What a person should see before signing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The product.
    pub product: ProductId,
    /// Version of the file.
    pub file_version: u32,
    /// When it expires, as it stands there.
    pub expires: String,
    /// Every artifact that the signature would approve, the newest release first.
    pub artifacts: Vec<Line>,
    /// Releases that the file signed last named, and this one does not.
    pub dropped: Vec<u64>,
    /// Whether it was compared with a file signed earlier.
    pub compared: bool,
    /// Signatures that are on it.
    pub signatures: usize,
}

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Release.
    pub rc: u64,
    /// Version of the release.
    pub release: String,
    /// Version of the artifact.
    pub version: String,
    /// Component.
    pub component: String,
    /// Its name among several for the component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<VariantId>,
    /// Models that may run it.
    pub models: Vec<ModelId>,
    /// Carriers that it is for; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub carriers: Vec<CarrierId>,
    /// Regions that it is for; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionId>,
    /// What has to run, or to come with it, of other components.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, Range>,
    /// When it is installed: lower first.
    pub order: u8,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of the image.
    pub sha256: Option<Digest>,
    /// Merkle root.
    pub root: Digest,
    /// Lowest running counter from which the step is supported.
    pub min_from: u64,
    /// Floor after confirming.
    pub floor: u64,
    /// Against the file signed last.
    pub change: Change,
}

/// How an artifact compares with the file signed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Approved for the first time.
    New,
    /// Approved before, in the same words.
    Same,
    /// Nothing to compare with.
    Unknown,
}

/// Compares a draft with the file that was signed last. A release that was approved before may leave, never
/// change: whoever made the draft could otherwise slip other bytes under a number that nobody looks at any more.
pub fn summarise(draft: &ReleaseDocument, last: Option<&ReleaseDocument>) -> Result<Summary, ReleaseError> {
    let empty = || ReleaseError::NotARelease { what: "the draft".into(), why: "it names nothing".into() };
    let product = draft.product()?.ok_or_else(empty)?;
    let (meta, content) = (&draft.release.meta, &draft.release.content);
    let counters = |document: &ReleaseDocument| -> BTreeSet<u64> {
        document.release.content.values().map(|artifact| artifact.rc).collect()
    };
    let before = last.map(counters).unwrap_or_default();
    let mut artifacts = Vec::new();
    for (path, artifact) in content {
        let target = &meta.targets[path];
        let change = match last {
            None => Change::Unknown,
            Some(last) if before.contains(&artifact.rc) => {
                if last.signed["targets"].get(path) != draft.signed["targets"].get(path) {
                    return Err(ReleaseError::Tampered(artifact.rc));
                }
                Change::Same
            }
            Some(_) => Change::New,
        };
        artifacts.push(Line {
            rc: artifact.rc,
            release: artifact.release_version().to_owned(),
            version: artifact.version.clone(),
            component: artifact.component.clone(),
            variant: Variant::of_path(path, &artifact.component).and_then(|of| of.name().cloned()),
            models: artifact.models.clone(),
            carriers: artifact.carriers.clone(),
            regions: artifact.regions.clone(),
            requires: artifact.requires.clone(),
            order: artifact.order,
            length: target.length,
            sha256: target.sha256(),
            root: artifact.root,
            min_from: artifact.min_from,
            floor: artifact.floor,
            change,
        });
    }
    artifacts.sort_by(|a, b| (b.rc, a.order, &a.component).cmp(&(a.rc, b.order, &b.component)));
    let kept = counters(draft);
    if let Some(last) = last {
        // The same file once more is how a second person adds a signature.
        let same = last.signed == draft.signed;
        if !same && meta.version <= last.release.meta.version {
            let last = last.release.meta.version;
            return Err(ReleaseError::Version { found: meta.version, last });
        }
        let lost = before.intersection(&kept).find(|rc| part(last, **rc) != part(draft, **rc));
        if let Some(rc) = lost {
            return Err(ReleaseError::Tampered(*rc));
        }
    }
    Ok(Summary {
        product,
        file_version: meta.version,
        expires: draft.signed["expires"].as_str().unwrap_or_default().to_owned(),
        artifacts,
        dropped: before.difference(&kept).copied().collect(),
        compared: last.is_some(),
        signatures: draft.signatures,
    })
}

/// Returns the artifacts of one release, by path.
fn part(document: &ReleaseDocument, rc: u64) -> BTreeMap<&String, &Value> {
    let of = |path: &&String| document.release.content[*path].rc == rc;
    document.release.content.keys().filter(of).map(|path| (path, &document.signed["targets"][path])).collect()
}

/// Adds a signature to a draft, or to a file that others signed already.
pub fn sign(draft: &[u8], key: &dyn Signer) -> Result<Vec<u8>, ReleaseError> {
    let signed = tern_protocol::tuf::sign::add_signature(draft, key)?;
    ReleaseDocument::read("the signed file", &signed)?;
    Ok(signed)
}

/// Asks what a device with these targets would say to the signed file.
pub fn check_authority(targets: &[u8], signed: &[u8]) -> Result<(), ReleaseError> {
    let targets = read_targets(targets)?;
    let authority = Authority::delegated(&targets.meta, Role::Release).map_err(ReleaseError::Refused)?;
    drop(open::<Targets<ReleaseContent>>(Role::Release, signed, authority).map_err(ReleaseError::Refused)?);
    outside(&targets, signed)
}

/// Checks that targets let the release key name what the file names; signatures may be missing yet.
pub fn check_paths(targets: &[u8], file: &[u8]) -> Result<(), ReleaseError> {
    outside(&read_targets(targets)?, file)
}

fn read_targets(bytes: &[u8]) -> Result<Targets<TargetsContent>, ReleaseError> {
    let wrong = |why: String| ReleaseError::NotARelease { what: "targets.json".into(), why };
    let file = canonical::read(bytes).map_err(|e| wrong(e.to_string()))?;
    let part = file.get("signed").ok_or_else(|| wrong("it has no signed part".into()))?;
    Targets::<TargetsContent>::read(Role::Targets, part).map_err(|e| wrong(e.to_string()))
}

fn outside(targets: &Targets<TargetsContent>, file: &[u8]) -> Result<(), ReleaseError> {
    let release = ReleaseDocument::read("the signed file", file)?.release;
    let delegations = targets.meta.delegations.as_ref();
    let delegated = delegations.and_then(|delegations| delegations.to(Role::Release));
    let outside =
        release.content.keys().find(|path| !delegated.is_some_and(|delegated| delegated.covers(path)));
    match outside {
        Some(path) => Err(ReleaseError::Value(format!("the release key may not name {path:.80}"))),
        None => Ok(()),
    }
}
