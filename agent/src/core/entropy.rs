//! Chance without asking anybody for it.

/// Random values from one seed, so that the core itself stays deterministic.
pub(super) struct Entropy {
    pub(super) seed: [u8; 32],
    pub(super) used: u64,
}

impl Entropy {
    pub(super) fn nonce(&mut self) -> tern_protocol::message::Nonce {
        self.used += 1;
        let digest = tern_protocol::digest::Digest::of_parts(&[&self.seed, &self.used.to_be_bytes()]);
        let mut out = [0; 16];
        out.copy_from_slice(&digest.0[..16]);
        tern_protocol::message::Nonce(out)
    }
}
