//! The network: a broker that keeps retained messages, and links that lose, repeat, delay and reorder.

use std::collections::BTreeMap;

use tern_bridge::files::SignedFiles;
use tern_protocol::chunk::{PieceId, TreeShape, leaf};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Pack, Want};
use tern_protocol::topic::Topic;

use super::clock::Rng;

/// What the network does to messages.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// Share that is lost.
    pub drop: f64,
    /// Share that comes twice.
    pub duplicate: f64,
    /// Whether a message may overtake another.
    pub reorder: bool,
    /// Longest delay, ms.
    pub delay: u64,
    /// Share of packs whose payload is changed on the way.
    pub poison: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self { drop: 0.0, duplicate: 0.0, reorder: false, delay: 40, poison: 0.0 }
    }
}

impl Network {
    /// Loses a fifth, repeats a tenth and reorders.
    pub fn bad() -> Self {
        Self { drop: 0.2, duplicate: 0.1, reorder: true, delay: 3000, poison: 0.0 }
    }

    /// Returns when copies of a message arrive: none, one or two. `last` is the latest arrival on this link.
    pub fn arrivals(&self, rng: &mut Rng, now: u64, last: &mut u64) -> Vec<u64> {
        let (lost, twice) = (rng.chance(self.drop), rng.chance(self.duplicate));
        let copies = if lost { 0 } else { 1 + usize::from(twice) };
        (0..copies)
            .map(|_| {
                let at = now + 1 + rng.below(self.delay.max(1));
                if self.reorder {
                    return at;
                }
                *last = at.max(*last + 1);
                *last
            })
            .collect()
    }
}

/// Everything retained, by topic.
pub type Retained = BTreeMap<String, (Topic, Vec<u8>)>;

/// Broker and chunk server.
#[derive(Debug, Default)]
pub struct Broker {
    retained: Retained,
    images: BTreeMap<Digest, (Vec<u8>, Vec<Digest>)>,
    files: SignedFiles,
}

impl Broker {
    /// Takes in a message of the controller; retained topics are kept, and an empty payload clears.
    pub fn keep(&mut self, key: String, topic: &Topic, payload: &[u8]) {
        if !topic.is_retained() {
            return;
        }
        if payload.is_empty() {
            self.retained.remove(&key);
            return;
        }
        self.retained.insert(key, (topic.clone(), payload.to_vec()));
        // A chunk server beside the broker keeps the newest files and never judges them.
        self.files.learn(topic, payload);
    }

    /// Returns what a topic retains.
    pub fn retained(&self, key: &str) -> Option<&(Topic, Vec<u8>)> {
        self.retained.get(key)
    }

    /// Retains something old again, as a broker does whose store was restored.
    pub fn age(&mut self, key: String, topic: &Topic, payload: Vec<u8>) {
        if topic.is_retained() {
            self.retained.insert(key, (topic.clone(), payload));
        }
    }

    /// Returns a copy of everything retained.
    pub fn snapshot(&self) -> Retained {
        self.retained.clone()
    }

    /// Retains exactly what a copy held.
    pub fn restore(&mut self, old: Retained) {
        self.retained = old;
    }

    /// Forgets everything retained.
    pub fn forget_everything(&mut self) {
        self.retained.clear();
    }

    /// Forgets a retained message, as a broker does that lost its store.
    pub fn forget(&mut self, key: &str) {
        self.retained.remove(key);
    }

    /// Returns the topics that hold something.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.retained.keys().map(String::as_str)
    }

    /// Puts an image on the chunk server.
    pub fn serve(&mut self, root: Digest, image: Vec<u8>) {
        let leaves = image.chunks(CHUNK).map(leaf).collect();
        self.images.insert(root, (image, leaves));
    }

    /// Answers a request: packs, and bundles of the files that are there.
    pub fn answer(&self, request: &[u8]) -> (Vec<Pack>, Vec<Vec<u8>>) {
        let Ok(get) = Get::read(request) else { return Default::default() };
        let mut packs = Vec::new();
        for want in &get.want {
            match want {
                Want::Packs { of, ranges } => {
                    let Some((image, _)) = self.images.get(of) else { continue };
                    let chunk = |index: u32| image.chunks(CHUNK).nth(index as usize).map(<[u8]>::to_vec);
                    for index in ranges.iter().flat_map(|(from, to)| *from..*to) {
                        packs.extend(chunk(index).map(|bytes| Pack::chunk(of, index, bytes)));
                    }
                }
                Want::Piece { of, level, index } => {
                    let Some((_, leaves)) = self.images.get(of) else { continue };
                    let piece = PieceId { level: *level, index: *index };
                    let count = u32::try_from(leaves.len()).expect("an image has at most 65536 chunks");
                    let digests = TreeShape::new(count).cut(leaves, piece);
                    packs.extend(digests.map(|digests| Pack::piece(of, piece, &digests)));
                }
                Want::Delta { .. } | Want::File { .. } => {}
            }
        }
        (packs, self.files.answer(&get))
    }
}
