//! The time, for a device with which the controller shares no code yet.
//!
//! ```text
//! "TRNT"   format u8 = 1   nonce: 16 bytes   time u64   rollout u32   halt u32   signature: 64 bytes, r ‖ s
//! ```
//! The signature is the time key's, ECDSA with SHA-256 over [`TimeAnswer::signing_input`]. That key signs nothing else,
//! and no key of a TUF role signs this. A device believes it until the controller has answered it with a code once.

use p256::PublicKey;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};

use super::Nonce;
use crate::digest::Digest;
use crate::id::{DeviceId, FleetId, ProductId};

const MAGIC: [u8; 4] = *b"TRNT";
const FORMAT: u8 = 1;
const SIGNED: usize = 5 + 16 + 8 + 4 + 4;
const LENGTH: usize = SIGNED + 64;

/// An answer to the nonce of an enrolment, on `d/<device>/in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeAnswer {
    /// The nonce.
    pub nonce: Nonce,
    /// Unix time, seconds.
    pub time: u64,
    /// Current version of the rollout role.
    pub rollout: u32,
    /// Current version of the halt role.
    pub halt: u32,
}

/// Says why bytes are not an answer of the time key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeAnswerError {
    /// Not its length, or an unknown format.
    #[error("not {LENGTH} B of format {FORMAT}")]
    Form,
    /// The signature is not the time key's over this.
    #[error("the time key has not signed this")]
    Signature,
}

impl TimeAnswer {
    /// Tells whether a payload on `d/<device>/in` is of this kind.
    pub fn looks_like(payload: &[u8]) -> bool {
        payload.starts_with(&MAGIC)
    }

    /// Returns what the time key signs.
    pub fn signing_input(&self, fleet: &FleetId, product: &ProductId, device: &DeviceId) -> Vec<u8> {
        let names = [fleet.as_str(), product.as_str(), device.as_str()];
        let names = names.map(|name| Digest::of(name.as_bytes()).0).concat();
        [b"tern-time-v1".as_slice(), &names, &self.frame()].concat()
    }

    /// Writes it, signed.
    pub fn sign(&self, key: &SigningKey, fleet: &FleetId, product: &ProductId, device: &DeviceId) -> Vec<u8> {
        let signature: Signature = key.sign(&self.signing_input(fleet, product, device));
        [self.frame(), signature.to_bytes().to_vec()].concat()
    }

    /// Reads it, and believes it only under `key`.
    pub fn open(
        bytes: &[u8],
        key: &PublicKey,
        fleet: &FleetId,
        product: &ProductId,
        device: &DeviceId,
    ) -> Result<Self, TimeAnswerError> {
        if bytes.len() != LENGTH || bytes[..4] != MAGIC || bytes[4] != FORMAT {
            return Err(TimeAnswerError::Form);
        }
        let (frame, signature) = bytes.split_at(SIGNED);
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&frame[5..21]);
        let number = |from: usize, to: usize| frame[from..to].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let short = |from: usize| u32::try_from(number(from, from + 4)).unwrap_or(u32::MAX);
        let answer = Self { nonce: Nonce(nonce), time: number(21, 29), rollout: short(29), halt: short(33) };
        let signature = Signature::from_slice(signature).map_err(|_| TimeAnswerError::Signature)?;
        let input = answer.signing_input(fleet, product, device);
        let verified = VerifyingKey::from(key).verify(&input, &signature);
        verified.map(|()| answer).map_err(|_| TimeAnswerError::Signature)
    }

    fn frame(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.extend_from_slice(&MAGIC);
        out.push(FORMAT);
        out.extend_from_slice(&self.nonce.0);
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.rollout.to_be_bytes());
        out.extend_from_slice(&self.halt.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(device: &str) -> (FleetId, ProductId, DeviceId) {
        ("acme".parse().unwrap(), "cam".parse().unwrap(), device.parse().unwrap())
    }

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    const ANSWER: TimeAnswer = TimeAnswer { nonce: Nonce([7; 16]), time: 1_795_461_800, rollout: 3, halt: 1 };

    #[test]
    fn an_answer_reads_as_it_was_signed_and_is_short() {
        let (fleet, product, device) = names("cam-1");
        let bytes = ANSWER.sign(&key(5), &fleet, &product, &device);

        assert!(TimeAnswer::looks_like(&bytes) && bytes.len() == 101);
        let public = PublicKey::from(key(5).verifying_key());
        assert_eq!(TimeAnswer::open(&bytes, &public, &fleet, &product, &device), Ok(ANSWER));
    }

    #[test]
    fn another_key_name_or_byte_does_not_open() {
        let (fleet, product, device) = names("cam-1");
        let bytes = ANSWER.sign(&key(5), &fleet, &product, &device);
        let public = PublicKey::from(key(5).verifying_key());
        let open = |bytes: &[u8]| TimeAnswer::open(bytes, &public, &fleet, &product, &device);

        for i in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[i] ^= 1;
            assert!(open(&bent).is_err(), "byte {i}");
        }
        assert_eq!(open(&bytes[..100]), Err(TimeAnswerError::Form));
        let other = PublicKey::from(key(6).verifying_key());
        assert!(TimeAnswer::open(&bytes, &other, &fleet, &product, &device).is_err());
        assert!(TimeAnswer::open(&bytes, &public, &fleet, &product, &names("cam-2").2).is_err());
        assert!(TimeAnswer::open(&bytes, &public, &fleet, &"other".parse().unwrap(), &device).is_err());
    }

    /// The vector of docs/protocol.md; never change it.
    #[test]
    fn what_is_signed_is_what_it_always_was() {
        let (fleet, product, device) = names("cam-1");
        let input = ANSWER.signing_input(&fleet, &product, &device);

        assert_eq!(input.len(), 12 + 96 + 37);
        assert_eq!(
            Digest::of(&input).to_string(),
            "4884045ca6ae5fb02102e2f570241d8bc8cc2db198929f669251307e9dc45d06"
        );
    }
}
