//! Where a device stands in a rollout.
//!
//! Membership is random per release, sticky, and only grows. Controller and device compute it alike; the
//! device checks its own inclusion against the signed rollout role, so a topic can only save radio.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::DeviceId;

/// Cohorts that every region has.
pub const COHORTS: u16 = 1000;

/// One of 256 shares of the uplink; byte 0 of SHA-256(device id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u8);

impl Partition {
    /// Returns the partition of `device`.
    pub fn of(device: &DeviceId) -> Self {
        Self(Digest::of(device.as_str().as_bytes()).0[0])
    }
}

/// One of a thousand groups of devices; bytes 1 to 8 of SHA-256(device id), big endian, modulo 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cohort(u16);

impl Cohort {
    /// Returns the cohort of `device`.
    pub fn of(device: &DeviceId) -> Self {
        let hash = Digest::of(device.as_str().as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.0[1..9]);
        let number = u64::from_be_bytes(bytes) % u64::from(COHORTS);
        Self(u16::try_from(number).expect("a remainder of 1000 fits"))
    }

    /// Returns the cohort with this number, if it is below [`COHORTS`].
    pub fn new(number: u16) -> Option<Self> {
        (number < COHORTS).then_some(Self(number))
    }

    /// Returns its number, 0 to 999.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Sixteen random bytes that shuffle a rollout; unpublished before its first wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt(pub [u8; 16]);

impl TryFrom<String> for Salt {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut out = [0; 16];
        hex::decode_to_slice(text, &mut out)?;
        Ok(Self(out))
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> String {
        hex::encode(salt.0)
    }
}

/// A device's place in a rollout: rank of its cohort × 2³² + four bytes of its own hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

/// The bound below which positions are included. [`Cut::ALL`] includes everybody, [`Cut::NONE`] nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cut(pub u64);

impl Cut {
    /// Includes nobody.
    pub const NONE: Cut = Cut(0);
    /// Includes every position.
    pub const ALL: Cut = Cut((COHORTS as u64) << 32);

    /// Tells whether `position` lies below the cut.
    pub fn includes(self, position: Position) -> bool {
        position.0 < self.0
    }
}

/// The order of the cohorts in one rollout: sorted by SHA-256(salt ‖ three ASCII digits), ties by cohort.
#[derive(Debug, Clone)]
pub struct Shuffle {
    salt: Salt,
    rank: Box<[u16]>,
}

impl Shuffle {
    /// Computes the order that `salt` gives: a thousand hashes, so keep it for a rollout.
    pub fn new(salt: Salt) -> Self {
        let mut order: Vec<(Digest, u16)> = (0..COHORTS).map(|c| (hash(salt, c), c)).collect();
        order.sort_unstable();
        let mut rank = vec![0; usize::from(COHORTS)].into_boxed_slice();
        for (place, (_, cohort)) in (0u16..).zip(&order) {
            rank[usize::from(*cohort)] = place;
        }
        Self { salt, rank }
    }

    /// Returns the salt that made this order.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// Returns where `device` stands.
    pub fn position(&self, device: &DeviceId) -> Position {
        at(self.salt, u64::from(self.rank[usize::from(Cohort::of(device).number())]), device)
    }
}

/// Returns the position of one device; for many devices keep a [`Shuffle`].
///
/// The rank of its cohort is the number of cohorts that stand before it: a thousand hashes, and nothing to sort.
pub fn position(salt: Salt, device: &DeviceId) -> Position {
    let key = |cohort: u16| (hash(salt, cohort), cohort);
    let own = key(Cohort::of(device).number());
    let rank = (0..COHORTS).filter(|cohort| key(*cohort) < own).count();
    at(salt, rank as u64, device)
}

fn hash(salt: Salt, cohort: u16) -> Digest {
    let digit = |place: u16| b'0' + u8::try_from(cohort / place % 10).expect("a digit");
    Digest::of_parts(&[&salt.0, &[digit(100), digit(10), digit(1)]])
}

fn at(salt: Salt, rank: u64, device: &DeviceId) -> Position {
    let own = Digest::of_parts(&[&salt.0, device.as_str().as_bytes()]);
    let mut four = [0; 4];
    four.copy_from_slice(&own.0[..4]);
    Position((rank << 32) + u64::from(u32::from_be_bytes(four)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    /// Computed with Python's hashlib from the formula in docs/protocol.md; never change these.
    #[test]
    fn positions_match_the_fixed_vectors() {
        let salt = Salt(*b"0123456789abcdef");
        let found: Vec<(u8, u16, u64)> = ["router-1", "router-2", "modem_A", "x"]
            .iter()
            .map(|name| {
                let d = device(name);
                (Partition::of(&d).0, Cohort::of(&d).number(), position(salt, &d).0)
            })
            .collect();
        assert_eq!(found, VECTORS);
    }

    #[test]
    fn one_device_finds_its_position_as_a_shuffle_of_all_does() {
        for mark in 0..20u8 {
            let (salt, device) = (Salt([mark; 16]), device(&format!("d{mark}")));
            assert_eq!(position(salt, &device), Shuffle::new(salt).position(&device));
        }
    }

    #[test]
    fn a_wider_cut_only_adds_devices() {
        let shuffle = Shuffle::new(Salt([7; 16]));
        let positions: Vec<_> = (0..500).map(|i| shuffle.position(&device(&format!("d{i}")))).collect();
        let included = |cut: Cut| positions.iter().filter(|p| cut.includes(**p)).count();
        assert_eq!((included(Cut::NONE), included(Cut::ALL)), (0, 500));
        assert!(included(Cut(100 << 32)) <= included(Cut(200 << 32)));
    }

    const VECTORS: [(u8, u16, u64); 4] = [
        (120, 631, 4251138340520),
        (22, 529, 3293362234734),
        (204, 770, 1010264707885),
        (45, 537, 1187786106602),
    ];
}
