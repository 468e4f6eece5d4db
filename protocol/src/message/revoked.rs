//! Which devices no broker of ours should let in.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::id::DeviceId;
use crate::limits::REVOKED_MAX;

/// The devices that are revoked, for the fronts of a fleet: on `ota/v1/<fleet>/revoked`, retained, for the service
/// alone to say.
///
/// The first eight bytes of SHA-256(device id) each, ascending and one after the other. Hashes, so that the list says
/// nothing about a fleet to whoever reads a broker's files. Nothing about a device's software follows from it: who can
/// forge it can keep devices from connecting, which the owner of a broker can anyway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revoked(BTreeSet<u64>);

/// Says why bytes are no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    /// Not whole entries, or more than [`REVOKED_MAX`].
    #[error("{0} B are no list of at most {REVOKED_MAX} revoked devices of 8 B each")]
    Length(usize),
    /// There is one way to write a list.
    #[error("the list of revoked devices is not in ascending order")]
    Order,
}

impl Revoked {
    /// Lists devices, at most [`REVOKED_MAX`]; tells also how many had no room.
    pub fn list<'a>(devices: impl IntoIterator<Item = &'a DeviceId>) -> (Self, usize) {
        let mut all: BTreeSet<u64> = devices.into_iter().map(hash).collect();
        let left_out = all.len().saturating_sub(REVOKED_MAX);
        all = all.into_iter().take(REVOKED_MAX).collect();
        (Self(all), left_out)
    }

    /// Tells whether a device is listed.
    pub fn contains(&self, device: &DeviceId) -> bool {
        !self.0.is_empty() && self.0.contains(&hash(device))
    }

    /// Returns how many are listed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nobody is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the list. Never empty, for an empty payload means "no information": a list of nobody is one zero.
    pub fn write(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return vec![0; 8];
        }
        self.0.iter().flat_map(|hash| hash.to_be_bytes()).collect()
    }

    /// Reads a list.
    pub fn read(bytes: &[u8]) -> Result<Self, RevokedError> {
        let (entries, rest) = bytes.as_chunks::<8>();
        if entries.is_empty() || !rest.is_empty() || entries.len() > REVOKED_MAX {
            return Err(RevokedError::Length(bytes.len()));
        }
        if entries == [[0; 8]] {
            return Ok(Self::default());
        }
        if !entries.is_sorted_by(|a, b| a < b) {
            return Err(RevokedError::Order);
        }
        Ok(Self(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect()))
    }
}

fn hash(device: &DeviceId) -> u64 {
    Digest::of(device.as_str().as_bytes()).short()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(count: usize) -> Vec<DeviceId> {
        (0..count).map(|n| format!("r-{n}").parse().unwrap()).collect()
    }

    #[test]
    fn a_list_survives_the_way_and_so_does_a_list_of_nobody() {
        for count in [0, 1, 2, 500] {
            let listed = devices(count);
            let (list, left_out) = Revoked::list(&listed);

            let read = Revoked::read(&list.write());

            assert_eq!((read, left_out), (Ok(list.clone()), 0));
            assert!(listed.iter().all(|device| list.contains(device)));
            assert!(!list.contains(&"another".parse().unwrap()));
        }
    }

    #[test]
    fn more_than_fit_are_left_out_and_counted() {
        let (list, left_out) = Revoked::list(&devices(REVOKED_MAX + 3));

        assert_eq!((list.len(), left_out), (REVOKED_MAX, 3));
        assert!(Revoked::read(&list.write()).is_ok());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let (list, _) = Revoked::list(&devices(2));
        let whole = list.write();
        let swapped = [&whole[8..], &whole[..8]].concat();
        let twice = [&whole[..8], &whole[..8]].concat();
        let long = vec![1; 8 * (REVOKED_MAX + 1)];

        assert_eq!(Revoked::read(b""), Err(RevokedError::Length(0)));
        assert_eq!(Revoked::read(&whole[..15]), Err(RevokedError::Length(15)));
        assert_eq!(Revoked::read(&long), Err(RevokedError::Length(long.len())));
        assert_eq!(Revoked::read(&swapped), Err(RevokedError::Order));
        assert_eq!(Revoked::read(&twice), Err(RevokedError::Order));
    }
}
