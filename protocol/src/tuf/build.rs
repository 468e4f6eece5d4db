//! Unsigned metadata of each role, ready for [`super::sign::sign`]. For the controller.

use serde_json::{Map, Value, json};

use super::content::{ArtifactContent, HaltContent, RolloutContent, TargetsContent};
use super::key::PublicKey;
use super::{Role, time};
use crate::digest::Digest;
use crate::id::{ProductId, VariantId};
use crate::message::Versions;

/// The version of the specification that these files follow.
pub const SPEC_VERSION: &str = "1.0.31";

/// Keys of one role, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// How many must sign.
    pub threshold: u32,
}

impl Keys {
    /// One key that signs alone.
    pub fn one(key: PublicKey) -> Self {
        Self { keys: vec![key], threshold: 1 }
    }

    fn ids(&self) -> Vec<Value> {
        self.keys.iter().map(|key| key.id().as_str().into()).collect()
    }
}

/// Keys of the top-level roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKeys {
    /// Of root.
    pub root: Keys,
    /// Of timestamp.
    pub timestamp: Keys,
    /// Of snapshot.
    pub snapshot: Keys,
    /// Of targets.
    pub targets: Keys,
}

/// Keys of the roles that targets delegates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegatedKeys {
    /// Of release.
    pub release: Keys,
    /// Of rollout.
    pub rollout: Keys,
    /// Of halt.
    pub halt: Keys,
}

/// A target as release or rollout names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `<product>/<rc>/<component>`.
    pub path: String,
    /// Length of the image in bytes.
    pub length: u64,
    /// SHA-256 of the image.
    pub sha256: Digest,
}

/// Returns the path of a release's artifact for one component.
pub fn path(product: &ProductId, rc: u64, component: &str) -> String {
    format!("{product}/{rc}/{component}")
}

/// Returns the path of one of several artifacts for one component.
pub fn variant_path(product: &ProductId, rc: u64, component: &str, variant: &VariantId) -> String {
    format!("{product}/{rc}/{component}@{variant}")
}

/// Builds root.
pub fn root(version: u32, expires: u64, keys: &RootKeys) -> Value {
    let all = [
        (Role::Root, &keys.root),
        (Role::Timestamp, &keys.timestamp),
        (Role::Snapshot, &keys.snapshot),
        (Role::Targets, &keys.targets),
    ];
    let roles: Map<String, Value> = all
        .iter()
        .map(|(role, keys)| {
            (role.name().to_owned(), json!({"keyids": keys.ids(), "threshold": keys.threshold}))
        })
        .collect();
    common(
        Role::Root,
        version,
        expires,
        json!({
            "consistent_snapshot": false,
            "keys": by_id(all.iter().map(|(_, keys)| *keys)),
            "roles": roles,
        }),
    )
}

/// Builds targets: delegates `<product>/*/*` to release, rollout and halt.
pub fn targets(
    version: u32,
    expires: u64,
    product: &ProductId,
    keys: &DelegatedKeys,
    content: &TargetsContent,
) -> Value {
    let all = [(Role::Release, &keys.release), (Role::Rollout, &keys.rollout), (Role::Halt, &keys.halt)];
    let roles: Vec<Value> = all
        .iter()
        .map(|(role, keys)| {
            json!({
                "name": role.name(),
                "keyids": keys.ids(),
                "threshold": keys.threshold,
                "paths": [format!("{product}/*/*")],
                "terminating": false,
            })
        })
        .collect();
    common(
        Role::Targets,
        version,
        expires,
        json!({
            "targets": {},
            "delegations": {"keys": by_id(all.iter().map(|(_, keys)| *keys)), "roles": roles},
            "x-tern": content,
        }),
    )
}

/// Builds release: every approved artifact.
pub fn release(version: u32, expires: u64, artifacts: &[(Named, ArtifactContent)]) -> Value {
    let targets = artifacts.iter().map(|(named, content)| (named, Some(content)));
    common(Role::Release, version, expires, json!({"targets": target_map(targets)}))
}

/// Builds rollout: repeats the artifacts that it may offer, and says who should run which.
pub fn rollout(version: u32, expires: u64, artifacts: &[Named], content: &RolloutContent) -> Value {
    let targets = target_map(artifacts.iter().map(|named| (named, None)));
    common(Role::Rollout, version, expires, json!({"targets": targets, "x-tern": content}))
}

/// Builds halt.
pub fn halt(version: u32, expires: u64, content: &HaltContent) -> Value {
    common(Role::Halt, version, expires, json!({"targets": {}, "x-tern": content}))
}

/// Builds snapshot: names targets, release, rollout and halt at the versions in `names`.
pub fn snapshot(version: u32, expires: u64, names: &Versions) -> Value {
    let meta = json!({
        "targets.json": {"version": names.targets},
        "release.json": {"version": names.release},
        "rollout.json": {"version": names.rollout},
        "halt.json": {"version": names.halt},
    });
    common(Role::Snapshot, version, expires, json!({"meta": meta}))
}

/// Builds timestamp: names snapshot at version `snapshot`, with length and hash if its `file` is given, and says
/// when it was issued.
pub fn timestamp(version: u32, expires: u64, snapshot: u32, file: Option<&[u8]>, issued: u64) -> Value {
    let mut named = json!({"version": snapshot});
    if let Some(file) = file {
        named["length"] = file.len().into();
        named["hashes"] = json!({"sha256": Digest::of(file)});
    }
    let body = json!({"meta": {"snapshot.json": named}, "x-tern": {"time": issued}});
    common(Role::Timestamp, version, expires, body)
}

fn common(role: Role, version: u32, expires: u64, mut body: Value) -> Value {
    body["_type"] = role.kind().into();
    body["spec_version"] = SPEC_VERSION.into();
    body["version"] = version.into();
    body["expires"] = time::write(expires).into();
    body
}

fn by_id<'a>(keys: impl Iterator<Item = &'a Keys>) -> Map<String, Value> {
    keys.flat_map(|keys| &keys.keys)
        .map(|key| (key.id().to_string(), serde_json::to_value(key).expect("a key is plain JSON")))
        .collect()
}

fn target_map<'a>(
    targets: impl Iterator<Item = (&'a Named, Option<&'a ArtifactContent>)>,
) -> Map<String, Value> {
    targets
        .map(|(named, content)| {
            let mut target = json!({"length": named.length, "hashes": {"sha256": named.sha256}});
            if let Some(content) = content {
                target["custom"] = json!(content);
            }
            (named.path.clone(), target)
        })
        .collect()
}
