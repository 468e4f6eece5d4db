//! How many wrong tokens a peer may show in a row before it is told to wait.
//!
//! A right token passes whatever its neighbours did: everybody on this machine, and everybody behind one proxy, is
//! one peer, and nobody may lock an operator out of a kill. Guessing needs no lock-out, for nobody guesses 256 bits;
//! the throttle keeps the log short and tells a broken script to stop.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Wrong tokens in a row.
pub(super) const BURST: u32 = 10;
/// Milliseconds after which one more is heard.
pub(super) const REFILL: u64 = 6000;
/// Peers that are remembered; above it all newcomers share one count.
const PEERS_MAX: usize = 1024;

/// Counts by peer.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    peers: BTreeMap<Peer, Count>,
}

/// IPv6 addresses come by the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    V4([u8; 4]),
    V6([u8; 8]),
    Others,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    left: u32,
    /// Unix milliseconds of the last refill.
    since: u64,
}

impl Count {
    fn refilled(self, now: u64) -> Self {
        let more = now.saturating_sub(self.since) / REFILL;
        let left = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(self.left).min(BURST);
        // A clock that was set back must not make a peer wait for it.
        let since = if now < self.since { now } else { self.since + more * REFILL };
        Self { left, since }
    }
}

impl Throttle {
    /// Notes a wrong token; `false` when the peer has shown too many.
    pub(super) fn admits_failure(&mut self, peer: IpAddr, now: u64) -> bool {
        let mut peer = match peer.to_canonical() {
            IpAddr::V4(address) => Peer::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Peer::V6(network)
            }
        };
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, count| count.refilled(now).left < BURST);
            if self.peers.len() >= PEERS_MAX {
                peer = Peer::Others;
            }
        }
        let count = self.peers.entry(peer).or_insert(Count { left: BURST, since: now });
        *count = count.refilled(now);
        let admitted = count.left > 0;
        count.left = count.left.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn a_peer_is_slowed_after_a_burst_and_heard_again_later() {
        let mut throttle = Throttle::default();
        let heard =
            |throttle: &mut Throttle, now| (0..50).filter(|_| throttle.admits_failure(peer(1), now)).count();

        assert_eq!(heard(&mut throttle, 1000), BURST as usize);
        assert_eq!(heard(&mut throttle, 1000 + REFILL - 1), 0);
        assert_eq!(heard(&mut throttle, 1000 + 3 * REFILL), 3);
        assert!(throttle.admits_failure(peer(2), 1000), "another peer is another matter");
        // A clock that is set back.
        assert_eq!(heard(&mut throttle, 500), 0);
        assert_eq!(heard(&mut throttle, 500 + REFILL), 1);
    }

    #[test]
    fn many_peers_take_little_memory_and_are_slowed_together() {
        let mut throttle = Throttle::default();
        let heard = (0..5000).filter(|n| throttle.admits_failure(peer(*n), 0)).count();

        assert!(throttle.peers.len() <= PEERS_MAX + 1);
        assert_eq!(heard, PEERS_MAX + BURST as usize);
        // Those who were quiet are forgotten.
        assert!(throttle.admits_failure(peer(9999), 100 * REFILL));
        assert_eq!(throttle.peers.len(), 1);
    }

    #[test]
    fn one_network_of_the_sixth_version_is_one_peer() {
        let mut throttle = Throttle::default();
        let inside = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]);
        assert_eq!((0..50).filter(|n| throttle.admits_failure(inside(*n), 0)).count(), BURST as usize);
        assert!(throttle.admits_failure(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]), 0));
    }
}
