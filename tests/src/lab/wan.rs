//! The wide-area link of a site: it counts what passes, by kind, can be cut, can spoil packs, and can keep quiet of deltas.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tern_bridge::front::frame::{self, Packet, Publish};
use tern_protocol::digest::Digest;
use tern_protocol::message::{Get, Pack, PackKind, Want};

use super::cable::{Cable, Way, lock};

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
    bytes: BTreeMap<About, u64>,
    packs: Vec<WanPart>,
    /// How long every pack is on its way.
    delay: Duration,
    /// Pieces, and chunks, that are still to be spoilt.
    spoil: (u32, u32),
    spoilt: u32,
    /// How often connections were broken.
    cuts: u32,
    /// What is answered about deltas is lost.
    mute: bool,
    up: Vec<Publish>,
}

/// The link.
pub struct Wan {
    /// Where it is entered.
    pub address: SocketAddr,
    cable: Cable,
    state: Arc<Mutex<State>>,
}

impl Wan {
    /// Listens on loopback and leads to a broker.
    pub fn to(broker: SocketAddr) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let theirs = state.clone();
        let cable = Cable::to(broker, move |from, to, way| carry(&theirs, from, to, way));
        Self { address: cable.address, cable, state }
    }

    /// Breaks every connection, and lets nobody through until it is mended.
    pub fn cut(&self, cut: bool) {
        lock(&self.state).cuts += 1;
        self.cable.cut(cut);
    }

    /// Makes every pack take this long, one after the other.
    pub fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Spoils the next so many pieces, and so many chunks.
    pub fn spoil(&self, pieces: u32, chunks: u32) {
        lock(&self.state).spoil = (pieces, chunks);
    }

    /// Loses every answer about deltas: so a chunk server seems that is older than they are.
    pub fn mute_deltas(&self) {
        lock(&self.state).mute = true;
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

    /// Returns the questions about deltas that went up: on which topic, and from which image.
    pub fn questions(&self) -> Vec<(String, Digest)> {
        let mut questions = Vec::new();
        for message in self.sent().into_iter().filter(|message| message.topic.ends_with("/get")) {
            for want in Get::read(&message.payload).map(|get| get.want).unwrap_or_default() {
                if let Want::Delta { from, .. } = want {
                    questions.push((message.topic.clone(), from));
                }
            }
        }
        questions
    }

    /// Returns every message that went up, in its order.
    pub fn sent(&self) -> Vec<Publish> {
        lock(&self.state).up.clone()
    }
}

fn carry(shared: &Mutex<State>, mut from: &TcpStream, mut to: &TcpStream, way: Way) {
    let (mut buffer, mut bytes) = (Vec::new(), vec![0; 64 * 1024]);
    let cuts = lock(shared).cuts;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        buffer.extend_from_slice(&bytes[..count]);
        while let Ok(Some((packet, length))) = frame::read(&buffer, PACKET_MAX) {
            let mut raw: Vec<u8> = buffer.drain(..length).collect();
            if is_pack(&packet) {
                let delay = lock(shared).delay;
                std::thread::sleep(delay);
            }
            let mut state = lock(shared);
            if state.cuts != cuts {
                // It was on its way when the link went.
                return;
            }
            let passes = note(&mut state, &packet, &mut raw, way);
            drop(state);
            if !passes {
                continue;
            }
            if to.write_all(&raw).is_err() {
                return;
            }
        }
    }
}

/// Counts a packet, and tells whether it passes.
fn note(state: &mut State, packet: &Packet, raw: &mut [u8], way: Way) -> bool {
    let about = match packet {
        Packet::Publish(message) => {
            if way == Way::Up {
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
            PackKind::Delta => return !state.mute,
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
    true
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
