//! One file against the keys that its parent names for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

pub use super::client::open_next_root;
use super::key::{KeyId, PublicKey, Verifier};
use super::metadata::{DelegatedRole, Delegations, Metadata, RoleKeys, RootMeta, TargetsMeta};
use super::{Role, RoleName, TufError, canonical};
use crate::limits::{SIGNATURES_MAX, TufLimits};

/// A file that was read and not verified.
#[derive(Debug, Clone)]
pub struct Unverified {
    role: RoleName,
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
    /// Reads a file of `role`: its ceiling on a device first, then strictly as JSON.
    pub fn read(role: Role, bytes: &[u8]) -> Result<Self, TufError> {
        Self::read_within(role, bytes, &TufLimits::DEVICE)
    }

    /// Reads a file of `role`, with ceilings of the caller's choice.
    pub fn read_within(
        role: impl Into<RoleName>,
        bytes: &[u8],
        limits: &TufLimits,
    ) -> Result<Self, TufError> {
        #[derive(Deserialize)]
        struct Signature {
            keyid: KeyId,
            sig: String,
        }
        let role = role.into();
        let ceiling = limits.of_kind(role.kind());
        if bytes.len() > ceiling {
            return Err(TufError::TooLarge { role, length: bytes.len(), ceiling });
        }
        let mut file = canonical::read(bytes).map_err(|e| TufError::malformed(&role, e))?;
        let signed = file.get_mut("signed").map(Value::take).unwrap_or_default();
        if !signed.is_object() {
            return Err(TufError::malformed(&role, "it has no signed part"));
        }
        let list = file.get_mut("signatures").map(Value::take).unwrap_or_default();
        if list.as_array().is_none_or(|list| list.len() > SIGNATURES_MAX) {
            let why = format!("its signatures are no list of at most {SIGNATURES_MAX}");
            return Err(TufError::malformed(&role, why));
        }
        let list: Vec<Signature> = serde_json::from_value(list).map_err(|e| TufError::malformed(&role, e))?;
        let mut signatures = BTreeMap::new();
        for Signature { keyid, sig } in list {
            // TUF 1.0 section 4.2.1: a key id may sign once.
            if signatures.contains_key(&keyid) {
                return Err(TufError::malformed(&role, format_args!("key id {keyid:.80} signs twice")));
            }
            signatures.insert(keyid, sig);
        }
        let message = canonical::write(&signed).map_err(|e| TufError::malformed(&role, e))?;
        Ok(Self { role, signatures, signed, message })
    }

    /// Returns the contents without verifying anything: for a root, which names its own keys.
    pub(crate) fn contents<T: Metadata>(&self) -> Result<T, TufError> {
        T::read(&self.role, &self.signed)
    }

    /// Verifies that a threshold of keys signed.
    ///
    /// Counts distinct public keys, not key ids, so one key under two names counts once. Signatures that are
    /// invalid, or by keys that are not asked for, do no harm: a rotation leaves such signatures behind.
    pub fn verify(&self, authority: Authority<'_>) -> Result<(), TufError> {
        let signers: BTreeSet<_> = self.valid(authority).map(|(_, verifier)| verifier.identity()).collect();
        let threshold = authority.role.threshold;
        let valid = u32::try_from(signers.len()).unwrap_or(u32::MAX);
        if valid >= threshold {
            Ok(())
        } else {
            Err(TufError::Threshold { role: self.role.clone(), valid, threshold })
        }
    }

    /// Returns which of the authority's keys signed validly: for people who collect signatures.
    pub fn signed_by(&self, authority: Authority<'_>) -> BTreeSet<KeyId> {
        self.valid(authority).map(|(keyid, _)| keyid.clone()).collect()
    }

    fn valid<'a>(&'a self, authority: Authority<'a>) -> impl Iterator<Item = (&'a KeyId, Verifier)> {
        authority.role.keyids.iter().filter_map(move |keyid| {
            let (key, sig) = authority.keys.get(keyid).zip(self.signatures.get(keyid))?;
            let (verifier, sig) = key.verifier().zip(hex::decode(sig).ok())?;
            verifier.verifies(&self.message, &sig).then_some((keyid, verifier))
        })
    }
}

impl<'a> Authority<'a> {
    /// Returns the keys that root names for a top-level role.
    pub fn top(root: &'a RootMeta, role: Role) -> Result<Self, TufError> {
        let keys = root.roles.get(role.name()).ok_or_else(|| TufError::NotDelegated(role.into()))?;
        Ok(Self { keys: &root.keys, role: keys })
    }

    /// Returns the keys that targets names for a role that it delegates to.
    pub fn delegated(targets: &'a TargetsMeta, role: Role) -> Result<Self, TufError> {
        let found = targets.delegations.as_ref().and_then(|delegations| {
            let delegated = delegations.to(role)?;
            Some(Self::by(delegations, delegated))
        });
        found.ok_or_else(|| TufError::NotDelegated(role.into()))
    }

    /// Returns the keys that one delegation names.
    pub fn by(delegations: &'a Delegations, delegated: &'a DelegatedRole) -> Self {
        Self { keys: &delegations.keys, role: &delegated.keys }
    }

    /// Returns the keys, in the order in which they are listed; those without a key behind them are left out.
    pub fn keys(self) -> impl Iterator<Item = (&'a KeyId, &'a PublicKey)> {
        self.role.keyids.iter().filter_map(move |keyid| Some((keyid, self.keys.get(keyid)?)))
    }

    /// Returns how many distinct keys must sign.
    pub fn threshold(self) -> u32 {
        self.role.threshold
    }

    /// Tells whether a threshold of distinct keys signed `message`, by signatures (DER) that name no key.
    pub fn vouches(self, message: &[u8], signatures: &[&[u8]]) -> bool {
        let verifiers = self.keys().filter_map(|(_, key)| key.verifier());
        let signed =
            verifiers.filter(|verifier| signatures.iter().any(|sig| verifier.verifies(message, sig)));
        let signers: BTreeSet<_> = signed.map(|verifier| verifier.identity()).collect();
        u32::try_from(signers.len()).unwrap_or(u32::MAX) >= self.role.threshold.max(1)
    }

    /// Returns what identifies the distinct public keys.
    pub(super) fn identities(self) -> BTreeSet<Vec<u8>> {
        let verifiers = self.role.keyids.iter().filter_map(|keyid| self.keys.get(keyid)?.verifier());
        verifiers.map(|verifier| verifier.identity()).collect()
    }
}

/// Reads, verifies, and only then interprets a file.
pub fn open<T: Metadata>(role: Role, bytes: &[u8], authority: Authority<'_>) -> Result<T, TufError> {
    open_within(role, bytes, authority, &TufLimits::DEVICE)
}

/// Reads, verifies, and only then interprets a file, with ceilings of the caller's choice.
pub fn open_within<T: Metadata>(
    role: impl Into<RoleName>,
    bytes: &[u8],
    authority: Authority<'_>,
    limits: &TufLimits,
) -> Result<T, TufError> {
    let file = Unverified::read_within(role, bytes, limits)?;
    file.verify(authority)?;
    file.contents()
}

/// Opens a root by its own keys: the only file that can vouch for itself, and only where it was provisioned.
pub fn open_root(bytes: &[u8]) -> Result<RootMeta, TufError> {
    open_root_within(bytes, &TufLimits::DEVICE)
}

/// Opens a root by its own keys, with ceilings of the caller's choice.
pub fn open_root_within(bytes: &[u8], limits: &TufLimits) -> Result<RootMeta, TufError> {
    let file = Unverified::read_within(Role::Root, bytes, limits)?;
    let root: RootMeta = file.contents()?;
    file.verify(Authority::top(&root, Role::Root)?)?;
    Ok(root)
}
