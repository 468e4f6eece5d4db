//! Claim tokens: how a device that no factory list names shows that somebody wanted it.
//!
//! ```text
//! token = <claim id> "." <32 hex digits>                          128 random bits, known to devices of one batch
//! key   = SHA-256(the 16 bytes)                                   all that the controller keeps
//! proof = HMAC-SHA256(key, "tern-claim-v1" ‖ SHA-256 of each of:
//!           fleet, device, identity key, telemetry key, product, model, carrier, region)
//! claim = <claim id> "." <64 hex digits of proof>                 what travels in an enrolment
//! ```
//! The token itself never travels: whoever reads along learns a proof that is good for one device, one pair of keys
//! and one description only.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::digest::Digest;
use crate::id::{ClaimId, DeviceId, FleetId};
use crate::message::Registry;

/// Bytes of a token's secret.
const SECRET: usize = 16;

/// A token as an operator hands it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    claim: ClaimId,
    secret: [u8; SECRET],
}

/// What checks proofs: the hash of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClaimKey(Digest);

/// A proof as it travels, beside the name of its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimProof {
    /// The claim.
    pub claim: ClaimId,
    mac: [u8; 32],
}

/// What a proof speaks for: nothing of it can be changed on the way.
#[derive(Debug, Clone, Copy)]
pub struct Claimed<'a> {
    /// The fleet.
    pub fleet: &'a FleetId,
    /// The device.
    pub device: &'a DeviceId,
    /// Its identity key, uncompressed SEC1.
    pub identity: &'a [u8],
    /// Its telemetry key, uncompressed SEC1.
    pub telemetry: &'a [u8],
    /// What it says that it is.
    pub registry: &'a Registry,
}

/// Says that a text is no token, or no proof of one. Never shows the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not a token.
    #[error("a token is the name of its claim, a dot and 32 hex digits")]
    Token,
    /// Not a proof.
    #[error("a proof is the name of its claim, a dot and 64 hex digits")]
    Proof,
}

impl Token {
    /// Makes a token of random bytes.
    pub fn new(claim: ClaimId, secret: [u8; SECRET]) -> Self {
        Self { claim, secret }
    }

    /// Returns the claim's name.
    pub fn claim(&self) -> &ClaimId {
        &self.claim
    }

    /// Returns what checks its proofs.
    pub fn key(&self) -> ClaimKey {
        ClaimKey(Digest::of(&self.secret))
    }

    /// Returns the text that is handed out.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.claim, hex::encode(self.secret))
    }

    /// Proves the token for one device.
    pub fn prove(&self, claimed: &Claimed<'_>) -> ClaimProof {
        let mac = self.key().hmac(claimed).finalize().into_bytes().into();
        ClaimProof { claim: self.claim.clone(), mac }
    }
}

impl ClaimKey {
    /// Takes the hash as it was kept.
    pub fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// Returns the hash, to be kept.
    pub fn digest(&self) -> Digest {
        self.0
    }

    /// Tells whether `proof` was made with the token for exactly this; in constant time.
    pub fn checks(&self, proof: &ClaimProof, claimed: &Claimed<'_>) -> bool {
        self.hmac(claimed).verify_slice(&proof.mac).is_ok()
    }

    fn hmac(&self, claimed: &Claimed<'_>) -> Hmac<Sha256> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0.0).expect("HMAC takes keys of any length");
        hmac.update(b"tern-claim-v1");
        let Claimed { fleet, device, identity, telemetry, registry } = claimed;
        let Registry { product, model, carrier, region } = registry;
        // Each part hashed, so that no part can lend a byte to its neighbour.
        for part in [
            fleet.as_str().as_bytes(),
            device.as_str().as_bytes(),
            identity,
            telemetry,
            product.as_str().as_bytes(),
            model.as_str().as_bytes(),
            carrier.as_str().as_bytes(),
            region.as_str().as_bytes(),
        ] {
            hmac.update(&Digest::of(part).0);
        }
        hmac
    }
}

impl FromStr for Token {
    type Err = ClaimError;
    fn from_str(text: &str) -> Result<Self, ClaimError> {
        let (claim, secret) = parts(text).ok_or(ClaimError::Token)?;
        Ok(Self { claim, secret })
    }
}

impl FromStr for ClaimProof {
    type Err = ClaimError;
    fn from_str(text: &str) -> Result<Self, ClaimError> {
        let (claim, mac) = parts(text).ok_or(ClaimError::Proof)?;
        Ok(Self { claim, mac })
    }
}

fn parts<const N: usize>(text: &str) -> Option<(ClaimId, [u8; N])> {
    let (claim, digits) = text.split_once('.')?;
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some((claim.parse().ok()?, bytes))
}

impl fmt::Display for ClaimProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.claim, hex::encode(self.mac))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, hidden)", self.claim)
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        Registry {
            product: "cam".parse().unwrap(),
            model: "b3".parse().unwrap(),
            carrier: "none".parse().unwrap(),
            region: "eu".parse().unwrap(),
        }
    }

    #[test]
    fn a_proof_is_good_for_exactly_what_it_was_made_for() {
        let (fleet, device): (FleetId, DeviceId) = ("acme".parse().unwrap(), "cam-1".parse().unwrap());
        let registry = registry();
        let token = Token::new("batch-7".parse().unwrap(), [7; 16]);
        let claimed = Claimed {
            fleet: &fleet,
            device: &device,
            identity: &[4; 65],
            telemetry: &[5; 65],
            registry: &registry,
        };
        let proof: ClaimProof = token.prove(&claimed).to_string().parse().unwrap();
        let key = ClaimKey::from_digest(token.key().digest());

        assert!(key.checks(&proof, &claimed));
        let (other_fleet, other_device) = ("other".parse().unwrap(), "cam-2".parse().unwrap());
        let other_registry = Registry { region: "us".parse().unwrap(), ..registry.clone() };
        for changed in [
            Claimed { fleet: &other_fleet, ..claimed },
            Claimed { device: &other_device, ..claimed },
            Claimed { identity: &[6; 65], ..claimed },
            Claimed { telemetry: &[6; 65], ..claimed },
            Claimed { identity: &[5; 65], telemetry: &[4; 65], ..claimed },
            Claimed { registry: &other_registry, ..claimed },
        ] {
            assert!(!key.checks(&proof, &changed), "{changed:?}");
        }
        let other = Token::new("batch-7".parse().unwrap(), [8; 16]);
        assert!(!other.key().checks(&proof, &claimed));
    }

    #[test]
    fn a_token_is_read_back_and_never_shown_by_accident() {
        let token = Token::new("batch-7".parse().unwrap(), [0xab; 16]);

        assert_eq!(token.reveal(), "batch-7.abababababababababababababababab");
        assert_eq!(token.reveal().parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?} {:?}", token.key()), "Token(batch-7, hidden) ClaimKey(hidden)");
        for wrong in ["", "batch-7", "batch-7.", "batch-7.abab", ".abababababababababababababababab"] {
            assert_eq!(wrong.parse::<Token>(), Err(ClaimError::Token), "{wrong:?}");
        }
        assert_eq!(token.reveal().parse::<ClaimProof>(), Err(ClaimError::Proof));
    }

    /// Anybody who writes another agent can compare with these bytes; docs/protocol.md shows them.
    #[test]
    fn the_proof_of_the_documented_example_is_reproduced() {
        let (fleet, device): (FleetId, DeviceId) = ("acme".parse().unwrap(), "cam-1".parse().unwrap());
        let claimed = Claimed {
            fleet: &fleet,
            device: &device,
            identity: &[0x04; 65],
            telemetry: &[0x05; 65],
            registry: &registry(),
        };
        let token: Token = "batch-7.000102030405060708090a0b0c0d0e0f".parse().unwrap();
        // Worked out with another program.
        let key = "be45cb2605bf36bebde684841a28f0fd43c69850a3dce5fedba69928ee3a8991";
        let proof = "4122cc51f7b508821f383a4deac22d15c3892f9efa7211afd853beaadc58d555";
        assert_eq!(token.key().digest().to_string(), key);
        assert_eq!(token.prove(&claimed).to_string(), format!("batch-7.{proof}"));
    }
}
