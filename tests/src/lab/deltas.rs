//! Deltas in a laboratory: made here, and signed and kept as the service does.

use p256::ecdsa::SigningKey;
use p256::pkcs8::DecodePrivateKey as _;
use tern_bridge::ChunkStore;
use tern_protocol::delta::{Delta, signed};
use tern_protocol::tuf::key::P256Signer;

use super::service::{Lab, PRODUCT};

impl Lab {
    /// Has the chunk server offer a delta; returns the bytes of its signed manifest.
    pub fn offer_delta(&self, delta: &Delta) -> u64 {
        let key = self.data().join("keys").join(PRODUCT).join("rollout.pem");
        let key = std::fs::read_to_string(key).expect("the service has the rollout key");
        self.offer_delta_signed(delta, &SigningKey::from_pkcs8_pem(&key).expect("a key in PKCS #8"))
    }

    /// Has the chunk server offer a delta that somebody else signed; returns the bytes of its signed manifest.
    pub fn offer_delta_signed(&self, delta: &Delta, key: &SigningKey) -> u64 {
        let store = ChunkStore::open(self.data().join("images")).expect("the service's images");
        let signer = P256Signer::new(key.clone());
        let signed = signed::sign(&delta.manifest, &[&signer]).expect("a key signs");
        store.add_delta(&signed, delta.packs.iter().cloned().map(Ok)).expect("the delta that was made");
        signed.len() as u64
    }
}
