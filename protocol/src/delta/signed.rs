//! A delta manifest under signatures of the rollout role, as it travels.
//!
//! ```text
//! manifest, 127 bytes   signatures: u8   for each: length u8, DER
//! ```
//! Who may say which release a device should run may also say how to make it: what comes out is held against the root
//! that the release role signed. The signatures keep a chunk server, or whoever stands between, from choosing which
//! bytes a device fetches and decodes.

use super::error::SignedDeltaError;
use super::manifest::{DeltaManifest, MANIFEST_LENGTH};
use crate::tuf::key::{SignError, Signer};
use crate::tuf::verify::Authority;

/// Signatures on one manifest.
pub const DELTA_SIGNATURES_MAX: usize = 4;
/// A signed manifest as it travels.
pub const SIGNED_DELTA_MAX: usize = MANIFEST_LENGTH + 1 + DELTA_SIGNATURES_MAX * 256;

/// Nothing else that a role signs begins so: metadata begins with a brace.
const CONTEXT: &[u8] = b"tern-delta-v1\0";

fn message(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, manifest].concat()
}

/// Signs `manifest` with every signer; at most [`DELTA_SIGNATURES_MAX`] of them.
pub fn sign(manifest: &DeltaManifest, signers: &[&dyn Signer]) -> Result<Vec<u8>, SignError> {
    let mut out = manifest.write();
    let message = message(&out);
    let signers = &signers[..signers.len().min(DELTA_SIGNATURES_MAX)];
    out.push(signers.len() as u8);
    for signer in signers {
        let (key, signature) = (signer.public(), signer.sign(&message)?);
        if !key.verifies(&message, &signature) || signature.len() > 255 {
            return Err(SignError::OtherKey(key.id()));
        }
        out.push(signature.len() as u8);
        out.extend_from_slice(&signature);
    }
    Ok(out)
}

/// Reads a signed manifest without verifying who signed it: for whoever only stores and hands it on.
pub fn read_unverified(bytes: &[u8]) -> Result<DeltaManifest, SignedDeltaError> {
    split(bytes).map(|(manifest, _)| manifest)
}

/// Verifies that a threshold of the authority's keys signed, and only then hands out what they signed.
pub fn open(bytes: &[u8], authority: Authority<'_>) -> Result<DeltaManifest, SignedDeltaError> {
    let (manifest, signatures) = split(bytes)?;
    let message = message(&bytes[..MANIFEST_LENGTH]);
    if authority.vouches(&message, &signatures) { Ok(manifest) } else { Err(SignedDeltaError::Unsigned) }
}

fn split(bytes: &[u8]) -> Result<(DeltaManifest, Vec<&[u8]>), SignedDeltaError> {
    if bytes.len() > SIGNED_DELTA_MAX {
        return Err(SignedDeltaError::Malformed);
    }
    let (manifest, rest) = bytes.split_at_checked(MANIFEST_LENGTH).ok_or(SignedDeltaError::Malformed)?;
    let (count, mut rest) = rest.split_first().ok_or(SignedDeltaError::Malformed)?;
    if usize::from(*count) > DELTA_SIGNATURES_MAX {
        return Err(SignedDeltaError::Malformed);
    }
    let mut signatures = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let (length, tail) = rest.split_first().ok_or(SignedDeltaError::Malformed)?;
        let (signature, tail) =
            tail.split_at_checked(usize::from(*length)).ok_or(SignedDeltaError::Malformed)?;
        signatures.push(signature);
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(SignedDeltaError::Malformed);
    }
    Ok((DeltaManifest::read(manifest)?, signatures))
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;

    use super::*;
    use crate::delta::{ImageId, Profile};
    use crate::digest::Digest;
    use crate::tuf::Role;
    use crate::tuf::key::P256Signer;
    use crate::tuf::metadata::Delegations;

    fn manifest() -> DeltaManifest {
        DeltaManifest {
            profile: Profile::Linux,
            chunk_log2: 16,
            old: ImageId::nothing(),
            new: ImageId { length: 9, root: Digest::of(b"new") },
            packs: 1,
            bytes: 30,
            root: Digest::of(b"pack"),
        }
    }

    fn key(seed: u8) -> P256Signer {
        P256Signer::new(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    /// The rollout role is delegated to two keys, of which `threshold` must sign.
    fn delegations(threshold: u32) -> Delegations {
        let keys = [1, 2].map(|seed| key(seed).public());
        let ids: Vec<_> = keys.iter().map(|key| key.id().to_string()).collect();
        let keys: serde_json::Map<_, _> =
            ids.iter().cloned().zip(keys.iter().map(|key| serde_json::to_value(key).unwrap())).collect();
        serde_json::from_value(serde_json::json!({
            "keys": keys,
            "roles": [{"name": "rollout", "keyids": ids, "threshold": threshold, "terminating": false, "paths": ["*"]}],
        }))
        .unwrap()
    }

    fn opened(bytes: &[u8], threshold: u32) -> Result<DeltaManifest, SignedDeltaError> {
        let delegations = delegations(threshold);
        open(bytes, Authority::by(&delegations, delegations.to(Role::Rollout).unwrap()))
    }

    #[test]
    fn a_manifest_is_believed_under_a_threshold_of_the_roles_keys_and_no_others() {
        let one = sign(&manifest(), &[&key(1)]).unwrap();
        let both = sign(&manifest(), &[&key(2), &key(1)]).unwrap();
        let twice = sign(&manifest(), &[&key(1), &key(1)]).unwrap();
        let foreign = sign(&manifest(), &[&key(3)]).unwrap();

        assert_eq!(opened(&one, 1), Ok(manifest()));
        assert_eq!(opened(&both, 2), Ok(manifest()));
        assert_eq!(read_unverified(&foreign), Ok(manifest()));
        for (bytes, threshold) in [(&one, 2), (&twice, 2), (&foreign, 1)] {
            assert_eq!(opened(bytes, threshold), Err(SignedDeltaError::Unsigned));
        }
    }

    #[test]
    fn no_byte_of_a_signed_manifest_can_be_changed_added_or_left_out() {
        let good = sign(&manifest(), &[&key(1)]).unwrap();
        assert!(good.len() < 210, "{}", good.len());
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(opened(&changed, 1).is_err(), "byte {at}");
            assert!(opened(&good[..at], 1).is_err(), "{at} bytes");
        }
        assert_eq!(opened(&[&good[..], &[0]].concat(), 1), Err(SignedDeltaError::Malformed));
        assert_eq!(opened(&vec![1; SIGNED_DELTA_MAX + 1], 1), Err(SignedDeltaError::Malformed));
    }
}
