//! The wide-area link of a site: it counts what passes, by kind, can be cut, and can spoil packs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_bridge::front::frame::{self, Packet, Publish};
use tern_protocol::message::{Pack, PackKind};

const PACKET_MAX: usize = 1 << 20;

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Packs, and what is asked for them.
    Packs,
    /// Signed bundles of products.
    Bundles,
    /// What devices report, what is answered, and the receipts.
    Reports,
    /// What keeps the connection.
    Connection,
}

/// One part: start of its object's root, level of a piece (9: a chunk, 8: about a delta), index.
pub type WanPart = (u64, u8, u32);

#[derive(Default)]
struct State {
    cut: bool,
    open: Vec<TcpStream>,
    bytes: BTreeMap<About, u64>,
    packs: Vec<WanPart>,
    /// How long every pack is on its way.
    delay: Duration,
    /// Pieces, and chunks, that are still to be spoilt.
    spoil: (u32, u32),
    spoilt: u32,
    up: Vec<Publish>,
}

/// The link.
pub struct Wan {
    /// Where it is entered.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wan {
    /// Listens on loopback and leads to a broker.
    pub fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<Mutex<State>>::default();
        let theirs = state.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                join(&theirs, near, broker);
            }
        });
        Self { address, state }
    }

    /// Breaks every connection, and lets nobody through until it is mended.
    pub fn cut(&self, cut: bool) {
        let mut state = lock(&self.state);
        state.cut = cut;
        for stream in state.open.drain(..) {
            // It may be closed already.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Makes every pack take this long, one after the other.
    pub fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Spoils the next so many pieces, and so many chunks.
    pub fn spoil(&self, pieces: u32, chunks: u32) {
        lock(&self.state).spoil = (pieces, chunks);
    }

    /// Returns how many packs it has spoilt.
    pub fn spoilt(&self) -> u32 {
        lock(&self.state).spoilt
    }

    /// Returns the MQTT bytes that passed, both ways.
    pub fn bytes(&self, about: About) -> u64 {
        lock(&self.state).bytes.get(&about).copied().unwrap_or(0)
    }

    /// Returns how many packs and pieces passed, and how many of them had passed before.
    pub fn packs(&self) -> (u64, u64) {
        let passed = self.passed();
        let different: BTreeSet<_> = passed.iter().collect();
        (passed.len() as u64, (passed.len() - different.len()) as u64)
    }

    /// Returns which packs and pieces passed, in their order.
    pub fn passed(&self) -> Vec<WanPart> {
        lock(&self.state).packs.clone()
    }

    /// Returns every message that went up, in its order.
    pub fn sent(&self) -> Vec<Publish> {
        lock(&self.state).up.clone()
    }
}

fn join(shared: &Arc<Mutex<State>>, near: TcpStream, broker: SocketAddr) {
    let mut state = lock(shared);
    if state.cut {
        // It may be gone already.
        let _gone = near.shutdown(Shutdown::Both);
        return;
    }
    let Ok(far) = TcpStream::connect(broker) else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a TCP connection has no delay");
    }
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be had twice");
    state.open.extend([copy(&near), copy(&far)]);
    for (from, to, up) in [(copy(&near), copy(&far), true), (far, near, false)] {
        let shared = shared.clone();
        std::thread::spawn(move || {
            carry(&shared, &from, &to, up);
            for stream in [from, to] {
                let _gone = stream.shutdown(Shutdown::Both);
            }
        });
    }
}

fn carry(shared: &Mutex<State>, mut from: &TcpStream, mut to: &TcpStream, up: bool) {
    let (mut buffer, mut bytes) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        buffer.extend_from_slice(&bytes[..count]);
        while let Ok(Some((packet, length))) = frame::read(&buffer, PACKET_MAX) {
            let mut raw: Vec<u8> = buffer.drain(..length).collect();
            if is_pack(&packet) {
                let delay = lock(shared).delay;
                std::thread::sleep(delay);
            }
            note(&mut lock(shared), &packet, &mut raw, up);
            if to.write_all(&raw).is_err() {
                return;
            }
        }
    }
}

fn note(state: &mut State, packet: &Packet, raw: &mut [u8], up: bool) {
    let about = match packet {
        Packet::Publish(message) => {
            if up {
                state.up.push(message.clone());
            }
            about(&message.topic)
        }
        Packet::PubAck(_) => About::Reports,
        _ => About::Connection,
    };
    *state.bytes.entry(about).or_default() += raw.len() as u64;
    if let Packet::Publish(message) = packet
        && is_pack(packet)
        && let Ok(pack) = Pack::read(&message.payload)
    {
        let part = match pack.kind {
            PackKind::Chunk(index) => (pack.of, 9, index),
            PackKind::Piece(piece) => (pack.of, piece.level, piece.index),
            // What there is of deltas is said to each device anew; none of it is a part of anything.
            PackKind::Delta => return,
        };
        let left = if part.1 == 9 { &mut state.spoil.1 } else { &mut state.spoil.0 };
        if *left > 0 {
            *left -= 1;
            state.spoilt += 1;
            if let Some(last) = raw.last_mut() {
                *last ^= 1;
            }
        } else {
            state.packs.push(part);
        }
    }
}

fn is_pack(packet: &Packet) -> bool {
    matches!(packet, Packet::Publish(message) if message.topic.ends_with("/pack"))
}

fn about(topic: &str) -> About {
    match topic.rsplit('/').next() {
        Some("pack" | "get") => About::Packs,
        _ if topic.contains("/p/") => About::Bundles,
        _ => About::Reports,
    }
}
