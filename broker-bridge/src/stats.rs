//! What the bridge counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::front::End;

/// Counters since the start, and what is connected now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct BridgeStats {
    /// Clients connected now.
    pub connections: u64,
    /// Connections that got past CONNECT.
    pub accepted: u64,
    /// Connections that did not.
    pub refused: u64,
    /// Messages that the policy refused; each closed its connection.
    pub denied_publishes: u64,
    /// Filters that the policy refused.
    pub denied_subscribes: u64,
    /// Requests that could not be read, and packets that break the protocol; the latter close the connection.
    pub malformed: u64,
    /// Connections of revoked devices that were closed.
    pub revoked: u64,
    /// Connections closed because the client read too slowly.
    pub overflows: u64,
    /// Requests for packs and files.
    pub gets: u64,
    /// Packs sent.
    pub packs: u64,
    /// Bytes of packs sent.
    pub pack_bytes: u64,
    /// Packs asked for that are not in the chunk store.
    pub missed_packs: u64,
    /// MQTT bytes written to devices and sites.
    pub bytes_down: u64,
    /// MQTT bytes read from devices and sites.
    pub bytes_up: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    denied_publishes: AtomicU64,
    denied_subscribes: AtomicU64,
    malformed: AtomicU64,
    revoked: AtomicU64,
    overflows: AtomicU64,
    gets: AtomicU64,
    packs: AtomicU64,
    pack_bytes: AtomicU64,
    missed_packs: AtomicU64,
    bytes_down: AtomicU64,
    bytes_up: AtomicU64,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn accepted_connection(&self) {
        add(&self.accepted, 1);
    }

    pub(crate) fn refused_connection(&self) {
        add(&self.refused, 1);
    }

    pub(crate) fn denied_publish(&self) {
        add(&self.denied_publishes, 1);
    }

    pub(crate) fn denied_subscribe(&self) {
        add(&self.denied_subscribes, 1);
    }

    pub(crate) fn malformed(&self) {
        add(&self.malformed, 1);
    }

    pub(crate) fn closed_revoked(&self, sessions: usize) {
        add(&self.revoked, sessions as u64);
    }

    pub(crate) fn asked(&self) {
        add(&self.gets, 1);
    }

    pub(crate) fn sent_pack(&self, bytes: usize) {
        add(&self.packs, 1);
        add(&self.pack_bytes, bytes as u64);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        add(&self.bytes_down, bytes as u64);
    }

    pub(crate) fn took(&self, bytes: usize) {
        add(&self.bytes_up, bytes as u64);
    }

    pub(crate) fn missed_pack(&self) {
        add(&self.missed_packs, 1);
    }

    pub(crate) fn ended(&self, end: End) {
        match end {
            End::Overflow => add(&self.overflows, 1),
            End::Protocol => self.malformed(),
            _ => {}
        }
    }

    pub(crate) fn read(&self, connections: usize) -> BridgeStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BridgeStats {
            connections: connections as u64,
            accepted: read(&self.accepted),
            refused: read(&self.refused),
            denied_publishes: read(&self.denied_publishes),
            denied_subscribes: read(&self.denied_subscribes),
            malformed: read(&self.malformed),
            revoked: read(&self.revoked),
            overflows: read(&self.overflows),
            gets: read(&self.gets),
            packs: read(&self.packs),
            pack_bytes: read(&self.pack_bytes),
            missed_packs: read(&self.missed_packs),
            bytes_down: read(&self.bytes_down),
            bytes_up: read(&self.bytes_up),
        }
    }
}
