//! Keys as metadata names them, and what signs.
//!
//! Keytype `ecdsa`, scheme `ecdsa-sha2-nistp256`: P-256, SHA-256, the public key as PEM SPKI, the signature as
//! DER. A key of another kind is read and kept, and never verifies anything, unless the feature `foreign-keys`
//! adds those of other repositories.

#[cfg(feature = "foreign-keys")]
mod foreign;

use std::collections::BTreeMap;
use std::fmt;

use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical;
use crate::digest::Digest;

const KEYTYPE: &str = "ecdsa";
const SCHEME: &str = "ecdsa-sha2-nistp256";

/// Names a key inside one file. Tern writes the SHA-256 of the key's canonical JSON; what it reads is opaque.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A public key as it stands in root and in delegations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    keytype: String,
    scheme: String,
    keyval: BTreeMap<String, String>,
    /// Fields that Tern does not know; kept because the key id covers them.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Says that a text is not a P-256 public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 public key in PEM (BEGIN PUBLIC KEY)")]
pub struct KeyError;

impl PublicKey {
    /// Wraps a P-256 key.
    pub fn p256(key: &VerifyingKey) -> Self {
        let pem = key.to_public_key_pem(LineEnding::LF).expect("a P-256 key always has a PEM form");
        Self {
            keytype: KEYTYPE.into(),
            scheme: SCHEME.into(),
            keyval: BTreeMap::from([("public".into(), pem)]),
            other: BTreeMap::new(),
        }
    }

    /// Reads a P-256 key from PEM; the text is normalised, so one key has one id.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        VerifyingKey::from_public_key_pem(pem).map(|key| Self::p256(&key)).map_err(|_| KeyError)
    }

    /// Returns the PEM text.
    pub fn pem(&self) -> &str {
        self.keyval.get("public").map_or("", String::as_str)
    }

    /// Returns the id that Tern gives the key.
    pub fn id(&self) -> KeyId {
        let value = serde_json::to_value(self).expect("a key is plain JSON");
        // A key that was read came through the strict reader, and ours has strings only.
        let bytes = canonical::write(&value).expect("a key holds no float");
        KeyId(Digest::of(&bytes).to_string())
    }

    /// Returns the point on the curve, or `None` for a key of a kind that Tern does not verify with.
    pub fn point(&self) -> Option<VerifyingKey> {
        if self.keytype != KEYTYPE || self.scheme != SCHEME {
            return None;
        }
        VerifyingKey::from_public_key_pem(self.pem()).ok()
    }

    /// Tells whether `signature` (DER) over `message` was made by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier().is_some_and(|verifier| verifier.verifies(message, signature))
    }

    /// Returns what verifies for this key, or `None` for a kind that this build does not verify with.
    pub(super) fn verifier(&self) -> Option<Verifier> {
        let verifier = self.point().map(Verifier::P256);
        #[cfg(feature = "foreign-keys")]
        let verifier = verifier.or_else(|| {
            foreign::ForeignKey::read(&self.keytype, &self.scheme, self.pem()).map(Verifier::Foreign)
        });
        verifier
    }
}

/// A key that was parsed and can verify.
#[derive(Debug)]
pub(super) enum Verifier {
    P256(VerifyingKey),
    #[cfg(feature = "foreign-keys")]
    Foreign(foreign::ForeignKey),
}

impl Verifier {
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => {
                Signature::from_der(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
            #[cfg(feature = "foreign-keys")]
            Self::Foreign(key) => key.verifies(message, signature),
        }
    }

    /// Returns bytes that are equal for equal keys, however each is written in metadata.
    pub(super) fn identity(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.to_encoded_point(true).as_bytes().to_vec(),
            #[cfg(feature = "foreign-keys")]
            Self::Foreign(key) => key.identity(),
        }
    }
}

/// Signs on behalf of one key: a file, a token, an external program.
pub trait Signer {
    /// Returns the public key.
    fn public(&self) -> PublicKey;
    /// Signs `message` itself, not its hash; returns DER.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Says why metadata could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The token, program or person behind the key did not sign.
    #[error("key {key} did not sign; check that it is at hand and try again")]
    Signer {
        /// The key.
        key: KeyId,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something was signed, but not by the key that was asked for: two tokens swapped, perhaps.
    #[error("the signature made for key {0} does not verify; check which key is plugged in")]
    OtherKey(KeyId),
    /// The metadata to sign is not metadata.
    #[error("could not sign: {0}")]
    Metadata(#[from] super::TufError),
}

/// A P-256 key in memory. Signatures are deterministic (RFC 6979).
#[derive(Clone)]
pub struct P256Signer(SigningKey);

impl P256Signer {
    /// Wraps a signing key.
    pub fn new(key: SigningKey) -> Self {
        Self(key)
    }
}

impl fmt::Debug for P256Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P256Signer({})", self.public().id())
    }
}

impl Signer for P256Signer {
    fn public(&self) -> PublicKey {
        PublicKey::p256(self.0.verifying_key())
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature: Signature = self.0.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> P256Signer {
        P256Signer::new(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    #[test]
    fn a_signature_verifies_under_its_own_key_only() {
        let signature = signer(1).sign(b"message").unwrap();

        assert!(signer(1).public().verifies(b"message", &signature));
        assert!(!signer(2).public().verifies(b"message", &signature));
        assert!(!signer(1).public().verifies(b"massage", &signature));
        assert!(!signer(1).public().verifies(b"message", &signature[1..]));
        assert_eq!(signer(1).sign(b"message").unwrap(), signature);
    }

    #[test]
    fn the_key_id_hashes_the_canonical_key() {
        let key = signer(1).public();
        let pem = key.pem().to_owned();
        assert!(
            pem.starts_with("-----BEGIN PUBLIC KEY-----\n") && pem.ends_with("-----END PUBLIC KEY-----\n")
        );
        let text =
            format!(r#"{{"keytype":"ecdsa","keyval":{{"public":"{pem}"}},"scheme":"ecdsa-sha2-nistp256"}}"#);
        assert_eq!(key.id().as_str(), Digest::of(text.as_bytes()).to_string());
    }

    #[test]
    fn a_field_that_we_do_not_know_stays_under_the_key_id() {
        let mut value = serde_json::to_value(signer(1).public()).unwrap();
        value["x-holder"] = "b".into();
        let key: PublicKey = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&key).unwrap(), value);
        assert_ne!(key.id(), signer(1).public().id());
    }

    #[test]
    fn a_key_that_is_read_from_pem_has_one_form_however_it_was_written() {
        let key = signer(1).public();
        let windows = key.pem().replace('\n', "\r\n");

        assert_eq!(PublicKey::from_pem(&windows), Ok(key.clone()));
        assert_eq!(PublicKey::from_pem(key.pem()).map(|key| key.id()), Ok(key.id()));
        assert_eq!(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----"), Err(KeyError));
        assert_eq!((key.id().as_str(), key.id().as_str().len()), (key.id().to_string().as_str(), 64));
    }

    #[test]
    fn a_signer_is_named_and_never_shown() {
        let shown = format!("{:?}", signer(1));

        assert_eq!(shown, format!("P256Signer({})", signer(1).public().id()));
    }

    #[test]
    fn a_key_of_another_kind_verifies_nothing() {
        let signature = signer(1).sign(b"message").unwrap();
        let mut value = serde_json::to_value(signer(1).public()).unwrap();
        value["scheme"] = "ecdsa-sha2-nistp384".into();
        let key: PublicKey = serde_json::from_value(value).unwrap();
        assert!(key.point().is_none() && !key.verifies(b"message", &signature));
    }
}
