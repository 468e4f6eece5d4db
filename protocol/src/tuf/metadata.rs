//! The signed part of each role's file, as types.
//!
//! Only what the workflow reads is here. Signatures cover the file's own JSON, never these types written again,
//! so a field that Tern does not know is neither lost nor unsigned.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

pub use super::delegation::{DelegatedRole, Delegations};
use super::key::{KeyId, PublicKey};
use super::{Role, RoleName, TufError, time};
use crate::digest::Digest;

/// What every role's signed part has.
pub trait Metadata: Clone + Send + Sync + Sized + 'static {
    /// Reads the signed part of `role`'s file.
    fn read(role: impl Into<RoleName>, signed: &Value) -> Result<Self, TufError>;
    /// Returns the version.
    fn version(&self) -> u32;
    /// Returns when it expires, in unix seconds.
    fn expires(&self) -> u64;
}

/// Reads the version of a file without reading the rest: for chunk servers, which keep files as opaque bytes.
/// The version is not verified by anything.
pub fn peek(bytes: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct File {
        signed: Signed,
    }
    #[derive(Deserialize)]
    struct Signed {
        version: u32,
    }
    let ceiling = Role::ALL.into_iter().map(Role::ceiling).max()?;
    let file: File = (bytes.len() <= ceiling).then(|| serde_json::from_slice(bytes).ok())??;
    (file.signed.version > 0).then_some(file.signed.version)
}

/// Which keys speak for a role, and how many are needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RoleKeys {
    /// Names of the keys.
    pub keyids: Vec<KeyId>,
    /// How many distinct keys must sign.
    pub threshold: u32,
}

impl RoleKeys {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.threshold == 0 {
            return Err("a threshold of 0");
        }
        let distinct: BTreeSet<_> = self.keyids.iter().collect();
        if distinct.len() != self.keyids.len() {
            return Err("a role that lists a key id twice");
        }
        Ok(())
    }
}

/// Root: names the keys of the top-level roles.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RootMeta {
    /// Version.
    pub version: u32,
    /// When it expires, in unix seconds.
    #[serde(deserialize_with = "iso")]
    pub expires: u64,
    /// Keys by id.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Keys of each top-level role.
    pub roles: BTreeMap<String, RoleKeys>,
    /// Whether files are published under names that carry their version or hash.
    #[serde(default)]
    pub consistent_snapshot: bool,
}

impl Metadata for RootMeta {
    fn read(role: impl Into<RoleName>, signed: &Value) -> Result<Self, TufError> {
        let role = &role.into();
        let root: Self = read(role, signed)?;
        for name in [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets] {
            let keys = root.roles.get(name.name());
            let keys =
                keys.ok_or_else(|| TufError::malformed(role, format_args!("it has no keys for {name}")))?;
            keys.check().map_err(|why| TufError::malformed(role, why))?;
        }
        Ok(root)
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn expires(&self) -> u64 {
        self.expires
    }
}

/// How a parent names a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MetaFile {
    /// Its version.
    pub version: u32,
    /// Its length in bytes, where the parent says it.
    pub length: Option<u64>,
    /// Its hashes, where the parent says them.
    pub hashes: Option<BTreeMap<String, String>>,
}

impl MetaFile {
    /// Tells whether `bytes` have the length and every hash that the parent names. A hash of a kind that is not
    /// known here matches nothing: better no file than an unchecked one.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.length.is_none_or(|length| length == bytes.len() as u64)
            && self.hashes.iter().all(|hashes| all_match(hashes, bytes))
    }
}

fn all_match(hashes: &BTreeMap<String, String>, bytes: &[u8]) -> bool {
    hashes.iter().all(|(kind, hex_digits)| {
        let found = match kind.as_str() {
            "sha256" => hex::encode(Sha256::digest(bytes)),
            "sha384" => hex::encode(Sha384::digest(bytes)),
            "sha512" => hex::encode(Sha512::digest(bytes)),
            _ => return false,
        };
        found == *hex_digits
    })
}

/// Timestamp: names the newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampMeta {
    /// Version.
    pub version: u32,
    /// When it expires, in unix seconds.
    pub expires: u64,
    /// The newest snapshot.
    pub snapshot: MetaFile,
    /// When it was issued, in unix seconds (`x-tern`).
    pub time: Option<u64>,
}

impl Metadata for TimestampMeta {
    fn read(role: impl Into<RoleName>, signed: &Value) -> Result<Self, TufError> {
        let role = &role.into();
        #[derive(Deserialize)]
        struct Raw {
            version: u32,
            #[serde(deserialize_with = "iso")]
            expires: u64,
            meta: BTreeMap<String, MetaFile>,
            #[serde(rename = "x-tern")]
            extension: Option<Issued>,
        }
        #[derive(Deserialize)]
        struct Issued {
            time: u64,
        }
        let mut raw: Raw = read(role, signed)?;
        let snapshot = raw.meta.remove("snapshot.json");
        let snapshot = snapshot.ok_or_else(|| TufError::malformed(role, "it does not name snapshot.json"))?;
        check_version(role, snapshot.version)?;
        Ok(Self {
            version: raw.version,
            expires: raw.expires,
            snapshot,
            time: raw.extension.map(|extension| extension.time),
        })
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn expires(&self) -> u64 {
        self.expires
    }
}

/// Snapshot: names the newest version of targets and of every delegated role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SnapshotMeta {
    /// Version.
    pub version: u32,
    /// When it expires, in unix seconds.
    #[serde(deserialize_with = "iso")]
    pub expires: u64,
    /// File name (`<role>.json`) to what it names.
    pub meta: BTreeMap<String, MetaFile>,
}

impl SnapshotMeta {
    /// Returns what it says about `role`'s file.
    pub fn of(&self, role: impl Into<RoleName>) -> Option<&MetaFile> {
        self.meta.get(&format!("{}.json", role.into().as_str()))
    }
}

impl Metadata for SnapshotMeta {
    fn read(role: impl Into<RoleName>, signed: &Value) -> Result<Self, TufError> {
        let role = &role.into();
        let snapshot: Self = read(role, signed)?;
        for file in snapshot.meta.values() {
            check_version(role, file.version)?;
        }
        if snapshot.of(Role::Targets).is_none() {
            return Err(TufError::malformed(role, "it does not name targets.json"));
        }
        Ok(snapshot)
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn expires(&self) -> u64 {
        self.expires
    }
}

/// Targets, release, rollout and halt share this shape; what Tern adds is in [`super::content`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TargetsMeta {
    /// Version.
    pub version: u32,
    /// When it expires, in unix seconds.
    #[serde(deserialize_with = "iso")]
    pub expires: u64,
    /// Path to what it names.
    pub targets: BTreeMap<String, Target>,
    /// To whom it delegates.
    pub delegations: Option<Delegations>,
    /// What Tern adds.
    #[serde(rename = "x-tern")]
    pub extension: Option<Value>,
}

/// A target: one payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Target {
    /// Its length in bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: BTreeMap<String, String>,
    /// What Tern says about it.
    pub custom: Option<Value>,
}

impl Target {
    /// Returns its SHA-256, if it is named and well formed.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.get("sha256")?.parse().ok()
    }

    /// Tells whether `bytes` are this target: its length, and every hash; there must be one (TUF 1.0 section 5.7.3).
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.length == bytes.len() as u64 && !self.hashes.is_empty() && all_match(&self.hashes, bytes)
    }
}

impl Metadata for TargetsMeta {
    fn read(role: impl Into<RoleName>, signed: &Value) -> Result<Self, TufError> {
        let role = &role.into();
        let targets: Self = read(role, signed)?;
        if let Some(delegations) = &targets.delegations {
            let names: BTreeSet<_> = delegations.roles.iter().map(|delegated| &delegated.name).collect();
            if names.len() != delegations.roles.len() {
                return Err(TufError::malformed(role, "it delegates to a role twice"));
            }
            for delegated in &delegations.roles {
                delegated.check().map_err(|why| TufError::malformed(role, why))?;
            }
        }
        Ok(targets)
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn expires(&self) -> u64 {
        self.expires
    }
}

/// Reads a signed part after checking what all have in common.
fn read<T: DeserializeOwned>(role: &RoleName, signed: &Value) -> Result<T, TufError> {
    let text = |field: &str| signed.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("_type") != role.kind() {
        return Err(TufError::malformed(role, format_args!("its type is {:?}", text("_type"))));
    }
    // TUF 1.0 section 4.3: a client refuses a major version that it does not know.
    if !text("spec_version").starts_with("1.") {
        return Err(TufError::malformed(role, "its spec_version is not 1.x"));
    }
    if signed.get("version") == Some(&Value::from(0)) {
        return Err(TufError::malformed(role, "its version is 0"));
    }
    T::deserialize(signed).map_err(|e| TufError::malformed(role, e))
}

fn check_version(role: &RoleName, version: u32) -> Result<(), TufError> {
    if version == 0 { Err(TufError::malformed(role, "it names a version 0")) } else { Ok(()) }
}

fn iso<'de, D: Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(reader)?;
    time::read(&text).ok_or_else(|| serde::de::Error::custom("expires is not YYYY-MM-DDTHH:MM:SSZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peek_reads_the_version_and_refuses_what_is_too_large() {
        let file = br#"{"signatures":[{"sig":{"version":9}}],"signed":{"a":[1],"version":7}}"#;
        assert_eq!(peek(file), Some(7));
        assert_eq!(peek(br#"{"signed":{"version":0}}"#), None);
        assert_eq!(peek(br#"{"signed":{"version":1,"version":2}}"#), None);
        assert_eq!(peek(b"TRNB"), None);
        let padded = [file.as_slice(), &vec![b' '; 64 * 1024]].concat();
        assert_eq!(peek(&padded), None);
    }

    #[test]
    fn every_hash_that_is_named_must_match() {
        let named = |kind: &str, digits: String| MetaFile {
            version: 1,
            length: Some(3),
            hashes: Some(BTreeMap::from([(kind.to_owned(), digits)])),
        };
        assert!(named("sha256", hex::encode(Sha256::digest(b"abc"))).matches(b"abc"));
        assert!(named("sha512", hex::encode(Sha512::digest(b"abc"))).matches(b"abc"));
        assert!(!named("sha256", hex::encode(Sha256::digest(b"abc"))).matches(b"abd"));
        assert!(named("sha384", hex::encode(Sha384::digest(b"abc"))).matches(b"abc"));
        assert!(!named("sha384", hex::encode(Sha384::digest(b"abc"))).matches(b"abd"));
        assert!(!named("sha512", hex::encode(Sha512::digest(b"abc"))).matches(b"abd"));
        assert!(!named("md5", "900150983cd24fb0d6963f7d28e17f72".into()).matches(b"abc"));
        assert!(!MetaFile { version: 1, length: Some(4), hashes: None }.matches(b"abc"));
        // The length alone is enough to be another file, and so is the hash.
        let hash = hex::encode(Sha256::digest(b"abc"));
        assert!(!MetaFile { length: Some(4), ..named("sha256", hash.clone()) }.matches(b"abc"));
        assert!(MetaFile { length: None, ..named("sha256", hash) }.matches(b"abc"));
    }

    #[test]
    fn a_target_has_its_length_and_at_least_one_hash() {
        let digest = Digest::of(b"abc");
        let target = |length, hashes: &[(&str, &str)]| Target {
            length,
            hashes: hashes.iter().map(|(kind, digits)| ((*kind).to_owned(), (*digits).to_owned())).collect(),
            custom: None,
        };
        let text = digest.to_string();
        let right = ("sha256", text.as_str());

        assert!(target(3, &[right]).matches(b"abc"));
        assert!(!target(3, &[right]).matches(b"abd"));
        assert!(!target(4, &[right]).matches(b"abc"));
        assert!(!target(3, &[]).matches(b"abc"));
        assert!(!target(3, &[right, ("sha512", "00")]).matches(b"abc"));
        assert_eq!(target(3, &[right]).sha256(), Some(digest));
        assert_eq!(target(3, &[("sha256", "00")]).sha256(), None);
    }
}
