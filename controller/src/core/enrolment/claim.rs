//! Claims: what a token is good for, and what was made of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tern_protocol::digest::Digest;
use tern_protocol::id::{CarrierId, ClaimId, ModelId, ProductId, RegionId};
use tern_protocol::message::Registry;

use crate::core::fact::Millis;

/// Devices that one claim may let in.
pub const COUNT_MAX: u64 = 10_000;
/// The longest life of a claim, milliseconds: a token that is forgotten in a drawer ends by itself.
pub const LIFE_MAX: Millis = 366 * 24 * 3_600_000;
/// Claims that are kept, ended ones as well.
pub const CLAIMS_MAX: usize = 1000;
/// Devices that may wait for a person at once.
pub const PENDING_MAX: usize = 1000;

/// What a claim's token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Devices of this product.
    pub product: ProductId,
    /// Of this model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// In this region only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
    /// With this carrier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<CarrierId>,
    /// So many of them.
    pub count: u64,
    /// Until then, Unix ms.
    pub expires: Millis,
    /// Who lets them in.
    #[serde(default)]
    pub approve: Approval,
}

/// Who lets a claimed device in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// A person, one by one.
    #[default]
    Hand,
    /// The token alone.
    Auto,
}

/// A claim as the ledger tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What it is good for.
    pub terms: Terms,
    /// Hash of the token, the key of its proofs.
    pub key: Digest,
    /// When it was made.
    pub created_at: Millis,
    /// Devices that applied with it. A rejected one has used it up as well.
    pub used: u64,
    /// Identity keys that were rejected, by the short form of their digests: they would ask again for ever.
    pub rejected: BTreeSet<u64>,
    /// It was taken back.
    pub revoked: bool,
}

/// A device that waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applicant {
    /// The claim whose token it has.
    pub claim: ClaimId,
    /// Identity public key, hex of the uncompressed point.
    pub identity: String,
    /// Telemetry public key, hex of the uncompressed point.
    pub telemetry: String,
    /// What it says that it is.
    pub registry: Registry,
    /// Since when it waits.
    pub at: Millis,
}

/// Why a right token does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimEnded {
    /// It was taken back.
    #[error("it is revoked")]
    Revoked,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// As many devices as it was made for have applied.
    #[error("it is used up")]
    UsedUp,
    /// It is for other devices.
    #[error("it is for devices of another kind")]
    OtherKind,
    /// This very key was turned away.
    #[error("that device was rejected")]
    Rejected,
}

impl Claim {
    /// Starts unused.
    pub fn new(terms: Terms, key: Digest, at: Millis) -> Self {
        Self { terms, key, created_at: at, used: 0, rejected: BTreeSet::new(), revoked: false }
    }

    /// Returns the word for where it stands.
    pub fn status(&self, now: Millis) -> &'static str {
        if self.revoked {
            "revoked"
        } else if now >= self.terms.expires {
            "expired"
        } else if self.used >= self.terms.count {
            "used-up"
        } else {
            "open"
        }
    }

    /// Tells whether a device with this identity key may apply now.
    pub fn admits(&self, identity: u64, registry: &Registry, now: Millis) -> Result<(), ClaimEnded> {
        let Terms { product, model, region, carrier, count, expires, .. } = &self.terms;
        if self.revoked {
            return Err(ClaimEnded::Revoked);
        }
        if now >= *expires {
            return Err(ClaimEnded::Expired);
        }
        let fits = *product == registry.product
            && model.as_ref().is_none_or(|model| *model == registry.model)
            && region.as_ref().is_none_or(|region| *region == registry.region)
            && carrier.as_ref().is_none_or(|carrier| *carrier == registry.carrier);
        if !fits {
            return Err(ClaimEnded::OtherKind);
        }
        if self.rejected.contains(&identity) {
            return Err(ClaimEnded::Rejected);
        }
        if self.used >= *count {
            return Err(ClaimEnded::UsedUp);
        }
        Ok(())
    }
}

/// Names a key in a set: the short form of its digest. A collision turns one honest key away, and lets nobody in.
pub fn short(key: &str) -> u64 {
    Digest::of(key.as_bytes()).short()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(region: &str) -> Registry {
        Registry {
            product: "cam".parse().unwrap(),
            model: "b3".parse().unwrap(),
            carrier: "none".parse().unwrap(),
            region: region.parse().unwrap(),
        }
    }

    #[test]
    fn every_limit_of_a_claim_is_kept_on_its_own() {
        let terms = Terms {
            product: "cam".parse().unwrap(),
            model: None,
            region: Some("eu".parse().unwrap()),
            carrier: None,
            count: 2,
            expires: 1000,
            approve: Approval::Hand,
        };
        let claim = Claim::new(terms, Digest::of(b"token"), 0);
        let eu = registry("eu");

        assert_eq!(claim.admits(1, &eu, 999), Ok(()));
        assert_eq!(claim.admits(1, &eu, 1000), Err(ClaimEnded::Expired));
        assert_eq!(claim.admits(1, &registry("us"), 999), Err(ClaimEnded::OtherKind));
        let other = Registry { product: "router".parse().unwrap(), ..eu.clone() };
        assert_eq!(claim.admits(1, &other, 999), Err(ClaimEnded::OtherKind));
        let used = Claim { used: 2, ..claim.clone() };
        assert_eq!(used.admits(1, &eu, 999), Err(ClaimEnded::UsedUp));
        let rejected = Claim { rejected: BTreeSet::from([1]), ..claim.clone() };
        assert_eq!(rejected.admits(1, &eu, 999), Err(ClaimEnded::Rejected));
        assert_eq!(rejected.admits(2, &eu, 999), Ok(()));
        let revoked = Claim { revoked: true, ..claim };
        assert_eq!(revoked.admits(1, &eu, 999), Err(ClaimEnded::Revoked));
    }
}
