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

#[cfg(test)]
mod tests {
    use super::*;

    // Made by Python's `cryptography` 45: RSA of 2048 bits, PSS with a salt of 32 B; Ed25519 from 32 bytes of 7.
    const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA5H2HT9zQ/4PtqXwyCOAM
+tRPE2BPIRQLDcna6ooFOmEuzR9At/xcCy97/BkVQKy5ixHz+MdD54xqRiBVx7S7
LiePpgHw95vVX/DtvAjEhmg7ZDSQpDP4WpTP9aR0AUK5P4EQfqDOhUOgjrw5XtvI
kbGcKFOej7MFrLfFNOxQfCja7LbCXJgTVX8oilo0G/k5rE03MEGTmD0CIIWhowDQ
x0fhAnRrIR0bEW7qI0Lpvo3K1u7BUb7YocO5NFsD/FVSUm3bjUViq56n9IJibCfc
WwyGtihBuDL7kzIEHFq9sdrnAA8YtoKBZjlxCkBiGsN3y8imT8rASRZRXjo06oi2
ywIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_SIGNATURE: &str = "5cc4e5506634d6fcac1c10ba691e3b76d8701623026f23d83aaef1f948c64cff7a46960b35dfb1\
1b61fb14234cd936f55f20a2ab400d816315cc413894afebee8275fe51d915fd1c9eec13f26a94c9d3378b6b1aa4a922f628c890525136\
0e7f01e8e274b2a4e6f1e2c78a64756918878dd12c46e5bdd49e0e5df31a2477fba47a1f821525da722c19cf88ee8e8ee8afd7d0b78722\
8b1980c57a69c4893a62851a593f6aa323945e72c0c14c9bea657d27b02d3c6375e5dbcb343955aeaf59da14ca2266927d00e6b445a5e0\
a5191d890aa7c0bc21c042988d5aba7da905f6532c951b47ae0316f760f8ab4cba7daa6a45fe4fbd33f7340a0b54d44429349f20";
    const ED25519_HEX: &str = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    const ED25519_SIGNATURE: &str = "9e46ad095242486ab68b0b6664ade0909c98e02de019d98810c448d7e58d4319c8ae941a474f6e\
f64ea9dd22106c5c52196e4728f9a3464737bbac84df2fab0a";

    fn vectors() -> [(ForeignKey, Vec<u8>); 2] {
        [
            (
                ForeignKey::read("rsa", "rsassa-pss-sha256", RSA_PEM).unwrap(),
                hex::decode(RSA_SIGNATURE).unwrap(),
            ),
            (
                ForeignKey::read("ed25519", "ed25519", ED25519_HEX).unwrap(),
                hex::decode(ED25519_SIGNATURE).unwrap(),
            ),
        ]
    }

    #[test]
    fn signatures_of_another_implementation_verify_and_changed_ones_do_not() {
        for (key, signature) in vectors() {
            assert!(key.verifies(b"message", &signature));
            assert!(!key.verifies(b"massage", &signature));
            assert!(!key.verifies(b"message", &signature[1..]));
            let mut changed = signature;
            changed[20] ^= 1;
            assert!(!key.verifies(b"message", &changed));
        }
    }

    #[test]
    fn a_key_of_another_scheme_or_form_is_no_key() {
        let p256 = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
";
        for (keytype, scheme, public) in [
            ("rsa", "rsa-pkcs1v15-sha256", RSA_PEM),
            ("rsa", "rsassa-pss-sha256", "not PEM"),
            ("rsa", "rsassa-pss-sha256", p256),
            ("ed25519", "ed25519", RSA_PEM),
            ("ed25519", "ed25519", &ED25519_HEX[2..]),
            ("ecdsa", "rsassa-pss-sha256", RSA_PEM),
        ] {
            assert_eq!(ForeignKey::read(keytype, scheme, public), None, "{keytype} {scheme}");
        }
    }

    #[test]
    fn equal_keys_have_one_identity_and_different_ones_two() {
        let [(rsa, _), (ed25519, _)] = vectors();
        let again = ForeignKey::read("rsa", "rsassa-pss-sha256", &RSA_PEM.replace('\n', "\r\n")).unwrap();

        assert_eq!(rsa.identity(), again.identity());
        assert_ne!(rsa.identity(), ed25519.identity());
    }
}
