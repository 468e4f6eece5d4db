//! Factory keys: who may vouch for a list of devices.
//!
//! A factory signs `"tern-factory-v1\n" ‖ fleet ‖ "\n" ‖ the list, byte for byte` with ECDSA on P-256 and SHA-256;
//! the signature is DER. `openssl dgst -sha256 -sign` over these bytes gives the same, so any token that openssl
//! knows can hold the key.

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use tern_protocol::id::FleetId;

use crate::core::fact::Millis;

/// Factories that are trusted at once, each of which costs a signature check for every list.
pub const FACTORIES_MAX: usize = 32;
/// Bytes of one signed list: some 16,000 devices. Longer ones are cut into several before they are signed.
pub const LIST_MAX: usize = 4 * 1024 * 1024;

/// A factory whose key the operator has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factory {
    /// Public key, hex of the uncompressed point.
    pub key: String,
    /// When it was registered.
    pub added_at: Millis,
    /// Its lists are refused. Devices that it brought stay.
    pub revoked: bool,
}

/// Who vouches for a list of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "vouched", rename_all = "kebab-case")]
pub enum Vouched {
    /// A factory, by its signature.
    ByFactory {
        /// The factory.
        factory: tern_protocol::id::FactoryId,
        /// SHA-256 of the list.
        list: tern_protocol::digest::Digest,
    },
    /// Nobody: whoever reached the API.
    Unsigned,
}

/// Returns what a factory signs.
pub fn signing_input(fleet: &FleetId, list: &[u8]) -> Vec<u8> {
    [b"tern-factory-v1\n", fleet.as_str().as_bytes(), b"\n", list].concat()
}

impl Factory {
    /// Tells whether this factory vouches for `input`.
    pub fn vouches(&self, input: &[u8], signature: &Signature) -> bool {
        let key = hex::decode(&self.key).ok().and_then(|point| VerifyingKey::from_sec1_bytes(&point).ok());
        !self.revoked && key.is_some_and(|key| key.verify(input, signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer as _;
    use tern_protocol::tuf::content::point_hex;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 32]).unwrap()
    }

    fn factory(key: &SigningKey) -> Factory {
        let key = point_hex(&p256::PublicKey::from(key.verifying_key()));
        Factory { key, added_at: 0, revoked: false }
    }

    #[test]
    fn a_list_counts_only_as_it_was_signed_for_this_fleet_by_a_trusted_factory() {
        let fleet: FleetId = "acme".parse().unwrap();
        let list = b"{\"device\":\"cam-1\"}\n".to_vec();
        let signature: Signature = key(1).sign(&signing_input(&fleet, &list));
        let trusted = factory(&key(1));

        assert!(trusted.vouches(&signing_input(&fleet, &list), &signature));
        for place in 0..list.len() {
            let mut changed = list.clone();
            changed[place] ^= 1;
            assert!(!trusted.vouches(&signing_input(&fleet, &changed), &signature), "byte {place}");
        }
        assert!(!trusted.vouches(&signing_input(&"other".parse().unwrap(), &list), &signature));
        assert!(!factory(&key(2)).vouches(&signing_input(&fleet, &list), &signature));
        let revoked = Factory { revoked: true, ..trusted };
        assert!(!revoked.vouches(&signing_input(&fleet, &list), &signature));
    }
}
