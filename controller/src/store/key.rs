//! Every key, rendered to bytes and read back in one place.
//!
//! A key is a tag, then its parts. Names end with a zero byte, which no name can hold, so that a scan for
//! product `a` does not find product `ab`; numbers are big endian, so that they sort.

use std::str::FromStr;

use tern_protocol::id::{ClaimId, DeviceId, FactoryId, ModelId, ProductId, RolloutId};

/// Tag of the store's own record; no [`Key`] has it.
pub(super) const OWN: &[u8] = &[0];

const META: u8 = b'm';
const DEVICE: u8 = b'd';
const ROLLOUT: u8 = b'r';
const PRODUCT: u8 = b'p';
const RELEASE: u8 = b'l';
const COUNTERS: u8 = b'c';
const CLAIM: u8 = b't';
const FACTORY: u8 = b'f';
const PENDING: u8 = b'q';
const PAGE: u8 = b'g';
const END: u8 = 0;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A fact about the service itself.
    Meta(Meta),
    /// A device, as checkpoints had it before there were pages.
    Device(DeviceId),
    /// A rollout.
    Rollout(RolloutId),
    /// A product: its newest signed files.
    Product(ProductId),
    /// A release: product and release counter.
    Release(ProductId, u64),
    /// Counters of one phase and stratum of a rollout.
    Counters(RolloutId, u32, ModelId),
    /// A claim.
    Claim(ClaimId),
    /// A factory.
    Factory(FactoryId),
    /// A device that waits to be let in.
    Pending(DeviceId),
    /// A part of a page of devices. Of its two places one counts.
    Page {
        /// The page.
        number: u32,
        /// Which of its places.
        place: bool,
        /// The part.
        part: u16,
    },
}

/// Facts about the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Meta {
    /// The clock of deadlines and soaks, which stands while nothing is received.
    Reception = 1,
    /// Versions of the signed roles that this service has made or seen.
    Roles = 2,
    /// A kill that was decided and is not fully published yet.
    UnfinishedKill = 3,
    /// A checkpoint that takes several batches is being written; found at a start, the store is rebuilt.
    Checkpointing = 4,
    /// Reports counted in the fleet's life.
    Reports = 5,
    /// The comparison with the devices that goes on.
    Comparison = 6,
    /// Tokens of the API.
    Access = 7,
    /// Which place of each page of devices counts.
    Directory = 8,
}

impl Meta {
    const ALL: [Self; 8] = [
        Self::Reception,
        Self::Roles,
        Self::UnfinishedKill,
        Self::Checkpointing,
        Self::Reports,
        Self::Comparison,
        Self::Access,
        Self::Directory,
    ];
}

/// Which keys a scan walks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// Facts about the service.
    Meta,
    /// All devices.
    Devices,
    /// All rollouts.
    Rollouts,
    /// All products.
    Products,
    /// All releases.
    Releases,
    /// Releases of one product, by release counter.
    ReleasesOf(ProductId),
    /// Counters of one rollout, by phase.
    CountersOf(RolloutId),
    /// All claims.
    Claims,
    /// All factories.
    Factories,
    /// All devices that wait.
    Pending,
}

impl Key {
    /// Renders the key.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Meta(meta) => vec![META, *meta as u8],
            Self::Device(id) => named(DEVICE, id.as_str()),
            Self::Rollout(id) => named(ROLLOUT, id.as_str()),
            Self::Product(id) => named(PRODUCT, id.as_str()),
            Self::Claim(id) => named(CLAIM, id.as_str()),
            Self::Factory(id) => named(FACTORY, id.as_str()),
            Self::Pending(id) => named(PENDING, id.as_str()),
            Self::Page { number, place, part } => {
                let mut out = vec![PAGE];
                out.extend_from_slice(&number.to_be_bytes());
                out.push(u8::from(*place));
                out.extend_from_slice(&part.to_be_bytes());
                out
            }
            Self::Release(product, rc) => {
                let mut out = named(RELEASE, product.as_str());
                out.extend_from_slice(&rc.to_be_bytes());
                out
            }
            Self::Counters(rollout, phase, model) => {
                let mut out = named(COUNTERS, rollout.as_str());
                out.extend_from_slice(&phase.to_be_bytes());
                out.extend_from_slice(model.as_str().as_bytes());
                out.push(END);
                out
            }
        }
    }

    /// Reads a key back; none if nothing renders to these bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (key, left) = match *tag {
            META => {
                let (number, left) = rest.split_first()?;
                (Self::Meta(Meta::ALL.into_iter().find(|meta| *meta as u8 == *number)?), left)
            }
            DEVICE => name(rest).map(|(id, left)| (Self::Device(id), left))?,
            ROLLOUT => name(rest).map(|(id, left)| (Self::Rollout(id), left))?,
            PRODUCT => name(rest).map(|(id, left)| (Self::Product(id), left))?,
            CLAIM => name(rest).map(|(id, left)| (Self::Claim(id), left))?,
            FACTORY => name(rest).map(|(id, left)| (Self::Factory(id), left))?,
            PENDING => name(rest).map(|(id, left)| (Self::Pending(id), left))?,
            PAGE => {
                let (number, rest) = rest.split_first_chunk()?;
                let (place, rest) = rest.split_first().filter(|(place, _)| **place < 2)?;
                let (part, left) = rest.split_first_chunk()?;
                let (number, part) = (u32::from_be_bytes(*number), u16::from_be_bytes(*part));
                (Self::Page { number, place: *place == 1, part }, left)
            }
            RELEASE => {
                let (product, rest) = name(rest)?;
                let (rc, left) = rest.split_first_chunk()?;
                (Self::Release(product, u64::from_be_bytes(*rc)), left)
            }
            COUNTERS => {
                let (rollout, rest) = name(rest)?;
                let (phase, rest) = rest.split_first_chunk()?;
                let (model, left) = name(rest)?;
                (Self::Counters(rollout, u32::from_be_bytes(*phase), model), left)
            }
            _ => return None,
        };
        left.is_empty().then_some(key)
    }
}

impl Prefix {
    /// Renders the bytes that every key of the scan begins with.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Meta => vec![META],
            Self::Devices => vec![DEVICE],
            Self::Rollouts => vec![ROLLOUT],
            Self::Products => vec![PRODUCT],
            Self::Claims => vec![CLAIM],
            Self::Factories => vec![FACTORY],
            Self::Pending => vec![PENDING],
            Self::Releases => vec![RELEASE],
            Self::ReleasesOf(product) => named(RELEASE, product.as_str()),
            Self::CountersOf(rollout) => named(COUNTERS, rollout.as_str()),
        }
    }
}

fn named(tag: u8, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 10);
    out.push(tag);
    out.extend_from_slice(name.as_bytes());
    out.push(END);
    out
}

fn name<T: FromStr>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == END)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((text.parse().ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_is_read_back_as_it_was() {
        let id = "router-17_B";
        let keys = [
            Key::Meta(Meta::Reception),
            Key::Meta(Meta::Roles),
            Key::Meta(Meta::UnfinishedKill),
            Key::Meta(Meta::Access),
            Key::Meta(Meta::Directory),
            Key::Page { number: 300, place: true, part: 2 },
            Key::Device(id.parse().unwrap()),
            Key::Product(id.parse().unwrap()),
            Key::Rollout(id.parse().unwrap()),
            Key::Claim(id.parse().unwrap()),
            Key::Factory(id.parse().unwrap()),
            Key::Pending(id.parse().unwrap()),
            Key::Release(id.parse().unwrap(), u64::MAX),
            Key::Counters(id.parse().unwrap(), 3, "B3".parse().unwrap()),
        ];
        for key in keys {
            let mut bytes = key.to_bytes();
            assert_eq!(Key::from_bytes(&bytes), Some(key.clone()));
            bytes.push(b'x');
            assert_eq!(Key::from_bytes(&bytes), None, "{key:?}");
            assert!(!bytes.starts_with(OWN));
        }
    }

    #[test]
    fn a_product_is_not_found_among_those_that_begin_alike() {
        let other = Key::Release("ab".parse().unwrap(), 1).to_bytes();
        assert!(!other.starts_with(&Prefix::ReleasesOf("a".parse().unwrap()).to_bytes()));
    }

    proptest! {
        #[test]
        fn releases_sort_by_their_counter(a: u64, b: u64) {
            let key = |rc| Key::Release("p".parse().unwrap(), rc).to_bytes();
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn bytes_that_nobody_wrote_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(key) = Key::from_bytes(&bytes) {
                prop_assert_eq!(key.to_bytes(), bytes);
            }
        }
    }
}
