//! What every holder of the same root and targets knows of files to come.
//!
//! docs/protocol.md, "Dictionary", says how to build it; a change here is a change of the protocol.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::skeleton;
use crate::limits::SIGNATURES_MAX;
use crate::tuf::key::KeyId;
use crate::tuf::metadata::{RootMeta, TargetsMeta};
use crate::tuf::verify::Unverified;
use crate::tuf::{Role, TufError};

/// Names a dictionary: the versions of the two signed files that it is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct DictionaryId {
    /// Version of root.
    pub root: u32,
    /// Version of targets; 0 for the general dictionary, which is built from neither.
    pub targets: u32,
}

impl From<(u32, u32)> for DictionaryId {
    fn from((root, targets): (u32, u32)) -> Self {
        Self { root, targets }
    }
}

impl From<DictionaryId> for (u32, u32) {
    fn from(id: DictionaryId) -> Self {
        (id.root, id.targets)
    }
}

/// Skeletons of the files that change often, as the signer writes them: field names, the product, the key ids that
/// root and targets name, and marks where values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary {
    id: DictionaryId,
    bytes: Vec<u8>,
}

/// The roles of which every dictionary holds a skeleton. What is sent most stands last, for near is cheap; and in
/// the order of a bundle's files, for a match runs on from one into the next. The order was chosen by measuring.
const STEP: [Role; 5] = [Role::Halt, Role::Release, Role::Timestamp, Role::Snapshot, Role::Rollout];

impl Dictionary {
    /// Returns the general dictionary, number 0, which names no key and no product: every program has it.
    pub fn general() -> &'static Self {
        static GENERAL: LazyLock<Dictionary> = LazyLock::new(|| {
            let mut bytes = Vec::new();
            let key = skeleton::any_key().id();
            for role in [Role::Root, Role::Targets].into_iter().chain(STEP) {
                skeleton::write(role, "a", &[&key], |_| false, &mut bytes);
            }
            Dictionary { id: DictionaryId { root: 0, targets: 0 }, bytes }
        });
        &GENERAL
    }

    /// Builds the dictionary of a root and a targets file.
    pub fn new(root: &RootMeta, targets: &TargetsMeta) -> Self {
        let top = |role: Role| root.roles.get(role.name()).map(|keys| keys.keyids.as_slice());
        let delegations = targets.delegations.as_ref();
        let delegated = |role| delegations.and_then(|d| d.to(role)).map(|role| role.keys.keyids.as_slice());
        let product = product(targets);
        let mut bytes = Vec::new();
        for role in STEP {
            let keys = match role {
                Role::Timestamp | Role::Snapshot => top(role),
                _ => delegated(role),
            };
            let keys: Vec<&KeyId> = keys.unwrap_or_default().iter().take(SIGNATURES_MAX).collect();
            let is_key = |word: &[u8]| keys.iter().any(|id| id.as_str().as_bytes() == word);
            skeleton::write(role, &product, &keys, is_key, &mut bytes);
        }
        Self { id: DictionaryId { root: root.version, targets: targets.version }, bytes }
    }

    /// Builds it from the two files without verifying them: for chunk servers, which verify nothing. Whoever
    /// hands them false files only has them send what no device can read.
    pub fn unverified(root: &[u8], targets: &[u8]) -> Result<Self, TufError> {
        let root = Unverified::read(Role::Root, root)?.contents()?;
        Ok(Self::new(&root, &Unverified::read(Role::Targets, targets)?.contents()?))
    }

    /// Returns its name.
    pub fn id(&self) -> DictionaryId {
        self.id
    }

    /// Returns the bytes that precede a bundle's files in the window.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The product, as the first delegated path begins with it.
fn product(targets: &TargetsMeta) -> String {
    let delegated = targets.delegations.iter().flat_map(|d| &d.roles).flat_map(|role| &role.paths);
    delegated.take(1).filter_map(|path| path.split('/').next()).collect()
}
