//! One file against the keys that its parent names for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::key::{KeyId, PublicKey};
use super::metadata::{Metadata, RoleKeys, RootMeta, TargetsMeta};
use super::{Role, TufError, canonical};
use crate::limits::SIGNATURES_MAX;

/// A file that was read and not verified.
#[derive(Debug, Clone)]
pub struct Unverified {
    role: Role,
    signatures: BTreeMap<KeyId, String>,
    signed: Value,
    message: Vec<u8>,
}

/// The keys that speak for a role.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    keys: &'a BTreeMap<KeyId, PublicKey>,
    role: &'a RoleKeys,
}

impl Unverified {
    /// Reads a file of `role`: its ceiling first, then strictly as JSON.
    pub fn read(role: Role, bytes: &[u8]) -> Result<Self, TufError> {
        #[derive(Deserialize)]
        struct Signature {
            keyid: KeyId,
            sig: String,
        }
        if bytes.len() > role.ceiling() {
            return Err(TufError::TooLarge { role, length: bytes.len(), ceiling: role.ceiling() });
        }
        let mut file = canonical::read(bytes).map_err(|e| TufError::malformed(role, e))?;
        let signed = file.get_mut("signed").map(Value::take).unwrap_or_default();
        if !signed.is_object() {
            return Err(TufError::malformed(role, "it has no signed part"));
        }
        let list = file.get_mut("signatures").map(Value::take).unwrap_or_default();
        if list.as_array().is_none_or(|list| list.len() > SIGNATURES_MAX) {
            let why = format!("its signatures are no list of at most {SIGNATURES_MAX}");
            return Err(TufError::malformed(role, why));
        }
        let list: Vec<Signature> = serde_json::from_value(list).map_err(|e| TufError::malformed(role, e))?;
        let mut signatures = BTreeMap::new();
        for Signature { keyid, sig } in list {
            // TUF 1.0 section 4.2.1: a key id may sign once.
            if signatures.contains_key(&keyid) {
                return Err(TufError::malformed(role, format_args!("key id {keyid:.80} signs twice")));
            }
            signatures.insert(keyid, sig);
        }
        let message = canonical::write(&signed).map_err(|e| TufError::malformed(role, e))?;
        Ok(Self { role, signatures, signed, message })
    }

    /// Returns the contents without verifying anything: for a root, which names its own keys.
    pub(crate) fn contents<T: Metadata>(&self) -> Result<T, TufError> {
        T::read(self.role, &self.signed)
    }

    /// Verifies that a threshold of keys signed.
    ///
    /// Counts distinct public keys, not key ids, so one key under two names counts once. Signatures that are
    /// invalid, or by keys that are not asked for, do no harm: a rotation leaves such signatures behind.
    pub fn verify(&self, authority: Authority<'_>) -> Result<(), TufError> {
        let mut signers = BTreeSet::new();
        for keyid in &authority.role.keyids {
            let Some((key, sig)) = authority.keys.get(keyid).zip(self.signatures.get(keyid)) else {
                continue;
            };
            let Some((point, sig)) = key.point().zip(hex::decode(sig).ok()) else { continue };
            if key.verifies(&self.message, &sig) {
                signers.insert(point.to_encoded_point(true).as_bytes().to_vec());
            }
        }
        let threshold = authority.role.threshold;
        let valid = u32::try_from(signers.len()).unwrap_or(u32::MAX);
        if valid >= threshold {
            Ok(())
        } else {
            Err(TufError::Threshold { role: self.role, valid, threshold })
        }
    }
}

impl<'a> Authority<'a> {
    /// Returns the keys that root names for a top-level role.
    pub fn top(root: &'a RootMeta, role: Role) -> Result<Self, TufError> {
        let keys = root.roles.get(role.name()).ok_or(TufError::NotDelegated(role))?;
        Ok(Self { keys: &root.keys, role: keys })
    }

    /// Returns the keys that targets names for a role that it delegates to.
    pub fn delegated(targets: &'a TargetsMeta, role: Role) -> Result<Self, TufError> {
        let delegations = targets.delegations.as_ref().ok_or(TufError::NotDelegated(role))?;
        let delegated = delegations.to(role).ok_or(TufError::NotDelegated(role))?;
        Ok(Self { keys: &delegations.keys, role: &delegated.keys })
    }

    /// Returns the distinct public keys, as compressed points.
    pub(super) fn points(self) -> BTreeSet<Vec<u8>> {
        let keys = self.role.keyids.iter().filter_map(|keyid| self.keys.get(keyid)?.point());
        keys.map(|point| point.to_encoded_point(true).as_bytes().to_vec()).collect()
    }
}

/// Reads, verifies, and only then interprets a file.
pub fn open<T: Metadata>(role: Role, bytes: &[u8], authority: Authority<'_>) -> Result<T, TufError> {
    let file = Unverified::read(role, bytes)?;
    file.verify(authority)?;
    file.contents()
}

/// Opens a root by its own keys: the only file that can vouch for itself, and only where it was provisioned.
pub fn open_root(bytes: &[u8]) -> Result<RootMeta, TufError> {
    let file = Unverified::read(Role::Root, bytes)?;
    let root: RootMeta = file.contents()?;
    file.verify(Authority::top(&root, Role::Root)?)?;
    Ok(root)
}

/// Opens the root that follows `current`.
pub fn open_next_root(bytes: &[u8], current: &RootMeta) -> Result<RootMeta, TufError> {
    let file = Unverified::read(Role::Root, bytes)?;
    // 5.3.4 Check for an arbitrary software attack: version N+1 MUST have been signed by a threshold of keys
    // specified in the trusted root (version N), and a threshold of keys specified in the new root (version N+1).
    file.verify(Authority::top(current, Role::Root)?)?;
    let root: RootMeta = file.contents()?;
    file.verify(Authority::top(&root, Role::Root)?)?;
    // 5.3.5 Check for a rollback attack: the version number MUST be exactly N+1.
    let wanted = current.version.saturating_add(1);
    if root.version != wanted {
        return Err(TufError::Version { role: Role::Root, found: root.version, wanted });
    }
    Ok(root)
}
