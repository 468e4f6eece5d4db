//! An offline file that was read, and whom it names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tern_protocol::id::ProductId;
use tern_protocol::tuf::content::{ReleaseContent, Targets, TargetsContent};
use tern_protocol::tuf::key::{KeyId, PublicKey};
use tern_protocol::tuf::metadata::{Metadata, RootMeta, TargetsMeta};
use tern_protocol::tuf::verify::{Authority, Unverified};
use tern_protocol::tuf::{Role, canonical, time};

use super::CeremonyError;

/// Characters of a key id that people compare.
const SHOWN: usize = 16;

/// A file of root, targets or release; its signatures are not verified by reading it.
#[derive(Debug, Clone)]
pub struct Document {
    /// Which of the three.
    pub role: Role,
    /// Its version.
    pub version: u32,
    /// When it expires, unix seconds.
    pub expires: u64,
    /// Its signed part.
    pub signed: Value,
    /// The file.
    pub bytes: Vec<u8>,
    contents: Contents,
}

#[derive(Debug, Clone)]
enum Contents {
    Root(Box<RootMeta>),
    Targets(Box<TargetsMeta>),
}

/// A key as people know it: its holder's name, and the beginning of its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyLine {
    /// Name that the files give it; empty if they give none.
    pub name: String,
    /// Its id.
    pub key: String,
}

impl fmt::Display for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.key.chars().take(SHOWN).collect();
        // A name is somebody else's text.
        let name: String = self.name.chars().take(40).flat_map(char::escape_debug).collect();
        if name.is_empty() { f.pad(&short) } else { f.pad(&format!("{name} ({short})")) }
    }
}

impl Document {
    /// Tells which product the file is of: targets say so by the paths that they delegate, the others not at all.
    pub fn product(&self) -> Option<ProductId> {
        let path = self.signed.pointer("/delegations/roles/0/paths/0")?.as_str()?;
        path.split('/').next()?.parse().ok()
    }

    /// Reads a file; `what` names it in errors.
    pub fn read(what: &str, bytes: &[u8]) -> Result<Self, CeremonyError> {
        let refused = |why: String| CeremonyError::NotADocument { what: what.to_owned(), why };
        let ceiling = Role::ALL.into_iter().map(Role::ceiling).max().unwrap_or_default();
        if bytes.len() > ceiling {
            return Err(refused(format!("it has {} B", bytes.len())));
        }
        let mut file = canonical::read(bytes).map_err(|e| refused(e.to_string()))?;
        let signed = file.get_mut("signed").map(Value::take).unwrap_or_default();
        let role = match signed.get("_type").and_then(Value::as_str) {
            Some("root") => Role::Root,
            // Rollout and halt name no paths of artifacts, and the service signs them by itself.
            Some("targets") if signed.get("delegations").is_some() => Role::Targets,
            Some("targets") => Role::Release,
            _ => return Err(refused("its type is another one".to_owned())),
        };
        // What a device could not read nobody should sign.
        let wrong = |e: tern_protocol::tuf::TufError| refused(e.to_string());
        Unverified::read(role, bytes).map_err(wrong)?;
        let contents = match role {
            Role::Root => Contents::Root(Box::new(RootMeta::read(role, &signed).map_err(wrong)?)),
            Role::Targets => {
                let targets = Targets::<TargetsContent>::read(role, &signed).map_err(wrong)?;
                Contents::Targets(Box::new(targets.meta))
            }
            _ => {
                let release = Targets::<ReleaseContent>::read(role, &signed).map_err(wrong)?;
                Contents::Targets(Box::new(release.meta))
            }
        };
        let (version, expires) = match &contents {
            Contents::Root(root) => (root.version, root.expires),
            Contents::Targets(targets) => (targets.version, targets.expires),
        };
        Ok(Self { role, version, expires, signed, bytes: bytes.to_vec(), contents })
    }

    /// Reads a file from disk.
    pub fn open(path: &Path) -> Result<Self, CeremonyError> {
        let bytes = std::fs::read(path).map_err(CeremonyError::io("read", path))?;
        Self::read(&path.display().to_string(), &bytes)
    }

    /// Makes a file without signatures.
    pub(super) fn unsigned(signed: &Value) -> Result<Self, CeremonyError> {
        let file = json!({"signatures": [], "signed": signed});
        let bytes = serde_json::to_vec(&file).expect("JSON values always serialise");
        Self::read("the new file", &bytes)
    }

    /// Returns whom the file names for `role`.
    pub fn authority(&self, role: Role) -> Option<Authority<'_>> {
        match &self.contents {
            Contents::Root(root) => Authority::top(root, role).ok(),
            Contents::Targets(targets) => Authority::delegated(targets, role).ok(),
        }
    }

    /// Returns the roles that the file names keys for.
    pub fn names_keys_of(&self) -> &'static [Role] {
        match self.role {
            Role::Root => &[Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp],
            Role::Targets => &[Role::Release, Role::Rollout, Role::Halt],
            _ => &[],
        }
    }

    /// Returns the keys that the file names for `role`.
    pub fn keys_of(&self, role: Role) -> Vec<(KeyLine, PublicKey)> {
        let keys = self.authority(role).into_iter().flat_map(Authority::keys);
        keys.map(|(id, key)| (self.line(id), key.clone())).collect()
    }

    /// Returns who signed, of those that `authority` names.
    pub fn signed_by(&self, authority: Authority<'_>) -> Vec<KeyId> {
        let file = Unverified::read(self.role, &self.bytes).expect("it was read before");
        file.signed_by(authority).into_iter().collect()
    }

    /// Tells whether enough of those that `authority` names signed.
    pub fn is_signed(&self, authority: Authority<'_>) -> bool {
        let file = Unverified::read(self.role, &self.bytes).expect("it was read before");
        file.verify(authority).is_ok()
    }

    /// Returns a key as the file names it.
    pub fn line(&self, id: &KeyId) -> KeyLine {
        let name = self.signed.get("x-tern").and_then(|x| x.get("names")).and_then(|n| n.get(id.as_str()));
        let name = name.and_then(Value::as_str).unwrap_or_default().to_owned();
        KeyLine { name, key: id.to_string() }
    }

    /// Returns the day on which it expires.
    pub fn expires_text(&self) -> String {
        time::write(self.expires)
    }
}

/// Writes holders' names into the signed part of a file, by key id. They stand beside the keys and not in them, so
/// a key keeps its id whatever its holder is called.
pub fn name_keys(signed: &mut Value, names: BTreeMap<String, String>) {
    if names.is_empty() {
        return;
    }
    if !signed["x-tern"].is_object() {
        signed["x-tern"] = Value::Object(Map::new());
    }
    signed["x-tern"]["names"] = json!(names);
}
