//! The way of some devices to the broker, which can be cut: a tower that has no power, a cable that was dug up.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cable::{Cable, Way};

/// The way.
pub struct Uplink {
    /// Where devices find it.
    pub address: SocketAddr,
    cable: Cable,
    /// Bytes up and down.
    bytes: Arc<[AtomicU64; 2]>,
}

impl Uplink {
    /// Listens on loopback and leads to a broker.
    pub fn to(broker: SocketAddr) -> Self {
        let bytes = Arc::<[AtomicU64; 2]>::default();
        let counted = bytes.clone();
        let cable =
            Cable::to(broker, move |from, to, way| copy(from, to, &counted[usize::from(way == Way::Down)]));
        Self { address: cable.address, cable, bytes }
    }

    /// Returns how many bytes went up and down so far.
    pub fn bytes(&self) -> [u64; 2] {
        [0, 1].map(|way| self.bytes[way].load(Ordering::Relaxed))
    }

    /// Breaks every connection, and lets nobody through until it is mended.
    pub fn cut(&self, cut: bool) {
        self.cable.cut(cut);
    }
}

/// Copies until either end is over, and counts.
fn copy(mut from: &TcpStream, mut to: &TcpStream, counted: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
