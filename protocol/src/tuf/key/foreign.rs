//! Keys that Tern never makes and other repositories use: Ed25519, and RSA with PSS padding. Verification only.

use p256::pkcs8::Document;
use p256::pkcs8::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use ring::signature::{ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

/// `rsaEncryption` of RFC 8017.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A key of another kind than the product's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tuf) enum ForeignKey {
    /// The 32 bytes of the point.
    Ed25519([u8; 32]),
    /// `RSAPublicKey` in DER; 2048 to 8192 bits, checked when it verifies.
    RsaPss(Vec<u8>),
}

impl ForeignKey {
    /// Reads a key as TUF 1.0 section 4.2 writes it: Ed25519 as 64 hex digits, RSA as PEM SPKI.
    pub(super) fn read(keytype: &str, scheme: &str, public: &str) -> Option<Self> {
        match (keytype, scheme) {
            ("ed25519", "ed25519") => {
                let mut point = [0; 32];
                hex::decode_to_slice(public, &mut point).ok()?;
                Some(Self::Ed25519(point))
            }
            ("rsa", "rsassa-pss-sha256") => {
                let (label, document) = Document::from_pem(public).ok()?;
                let spki: SubjectPublicKeyInfoRef<'_> = document.decode_msg().ok()?;
                let is_rsa = label == "PUBLIC KEY" && spki.algorithm.oid == RSA_ENCRYPTION;
                let key = spki.subject_public_key.as_bytes().filter(|_| is_rsa)?;
                Some(Self::RsaPss(key.to_vec()))
            }
            _ => None,
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
            Self::RsaPss(key) => {
                UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key).verify(message, signature)
            }
        };
        verified.is_ok()
    }

    /// Begins with a byte that no compressed point of P-256 begins with, and that differs by kind.
    pub(super) fn identity(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(point) => [&[0xed], point.as_slice()].concat(),
            Self::RsaPss(key) => [&[0x45], key.as_slice()].concat(),
        }
    }
}
