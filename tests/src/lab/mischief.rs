//! What a hostile broker does to one message; the seed, the client and the number of its connection decide.

use std::collections::BTreeMap;

use tern_bridge::front::frame::Publish;

use crate::sim::clock::Rng;

/// Messages that it remembers; the first quarter stays, for the oldest are the most dangerous.
const HEARD_MAX: usize = 400;

/// How the middleman behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Hands everything on.
    Behaves,
    /// Does by a seed all that somebody without a key can.
    Hostile,
    /// Lets no outcome through. Reports are sealed, not secret: it can read them.
    HidesOutcomes,
    /// Lets no signed file through to devices, neither retained nor asked for; answers pass.
    HidesFiles,
}

/// What both directions of all connections share.
#[derive(Default)]
pub(super) struct Mind {
    heard: Vec<Publish>,
    /// Retained messages, the newest of each topic.
    retained: BTreeMap<String, Vec<u8>>,
    /// All that was retained at one early moment.
    old_state: BTreeMap<String, Vec<u8>>,
    /// Genuine files of another product.
    pub(super) foreign: Vec<Vec<u8>>,
    /// How often it did what.
    pub(super) acts: BTreeMap<&'static str, u64>,
}

/// One direction of one connection.
pub(super) struct Stream {
    rng: Rng,
    up: bool,
    /// This connection lives in the old state.
    stale: bool,
    /// Messages that are held back, and for how many packets yet.
    held: Vec<(u64, Publish)>,
}

/// What becomes of a message.
#[derive(Default)]
pub(super) struct Verdict {
    /// A receipt to invent.
    pub(super) receipt: Option<u16>,
    /// What goes on in its place.
    pub(super) out: Vec<Publish>,
    /// The connection ends.
    pub(super) cut: bool,
}

fn made(message: &Publish, payload: Vec<u8>) -> Publish {
    Publish { payload, qos: 0, id: 0, dup: false, ..message.clone() }
}

/// Tells whether this is one of the topics that a product retains.
fn of_product(topic: &str) -> bool {
    topic.split('/').nth(3) == Some("p")
}

impl Mind {
    pub(super) fn keep_state(&mut self) {
        self.old_state = self.retained.clone();
    }

    pub(super) fn remember(&mut self, message: &Publish, rng: &mut Rng) {
        if of_product(&message.topic) {
            self.retained.insert(message.topic.clone(), message.payload.clone());
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push(message.clone());
        } else {
            let place = HEARD_MAX / 4 + below(rng, HEARD_MAX - HEARD_MAX / 4);
            self.heard[place] = message.clone();
        }
    }

    fn did(&mut self, what: &'static str) {
        *self.acts.entry(what).or_default() += 1;
    }
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.below(end.max(1) as u64)).unwrap_or(0)
}

impl Stream {
    pub(super) fn new(seed: u64, client: &str, connection: u64, up: bool) -> Self {
        let mut rng = Rng::of(seed, &format!("middleman {client} {connection} {up}"));
        // Everybody's first connection is needed to hear what there is to repeat.
        let stale = !up && connection > 0 && rng.below(2) == 0;
        Self { rng, up, stale, held: Vec::new() }
    }

    /// Returns what was held back long enough, after a packet has passed.
    pub(super) fn released(&mut self) -> Vec<Publish> {
        for (left, _) in &mut self.held {
            *left = left.saturating_sub(1);
        }
        let (out, held) = std::mem::take(&mut self.held).into_iter().partition(|(left, _)| *left == 0);
        self.held = held;
        out.into_iter().map(|(_, message): (u64, Publish)| message).collect()
    }

    pub(super) fn judge(&mut self, mind: &mut Mind, manner: Manner, message: Publish) -> Verdict {
        mind.remember(&message, &mut self.rng);
        let receipt = (message.qos == 1).then_some(message.id);
        let gone = Verdict { receipt, ..Verdict::default() };
        match manner {
            Manner::HidesOutcomes if self.up && contains(&message.payload, br#""t":"outcome""#) => {
                mind.did("outcome hidden");
                gone
            }
            Manner::HidesFiles if !self.up && message.payload.starts_with(b"TRNB") => {
                mind.did("file hidden");
                gone
            }
            Manner::Hostile => self.mischief(mind, message, gone),
            _ => Verdict { out: vec![message], ..Verdict::default() },
        }
    }

    fn mischief(&mut self, mind: &mut Mind, message: Publish, gone: Verdict) -> Verdict {
        let passes = |out| Verdict { out, ..Verdict::default() };
        if self.stale && of_product(&message.topic) {
            mind.did("old state");
            let old = mind.old_state.get(&message.topic).cloned();
            return Verdict { out: old.into_iter().map(|old| made(&message, old)).collect(), ..gone };
        }
        let what = self.rng.below(18);
        let (name, verdict) = match what {
            0 => ("lost", gone),
            1 => ("twice", passes(vec![message.clone(), made(&message, message.payload.clone())])),
            2 | 3 => {
                let payload = self.bend(&message.payload);
                ("bent", passes(vec![Publish { payload, ..message }]))
            }
            // Something that it heard elsewhere or earlier: another device's, another cohort's.
            4 | 5 => {
                let place = below(&mut self.rng, mind.heard.len());
                let other = mind.heard.get(place).map(|other| other.payload.clone()).unwrap_or_default();
                ("swapped", Verdict { out: vec![made(&message, other)], ..gone })
            }
            6 => {
                let invented = made(&message, self.invented().into_bytes());
                ("invented", passes(vec![invented, message]))
            }
            7 | 8 => {
                let packets = 1 + self.rng.below(8);
                self.held.push((packets, made(&message, message.payload.clone())));
                ("held back", gone)
            }
            9 if !self.up => {
                let empty = Publish { retain: true, ..made(&message, Vec::new()) };
                ("cleared", Verdict { out: vec![empty], ..gone })
            }
            10 if !self.up && !mind.foreign.is_empty() => {
                let place = below(&mut self.rng, mind.foreign.len());
                ("foreign", Verdict { out: vec![made(&message, mind.foreign[place].clone())], ..gone })
            }
            11 if self.rng.chance(0.5) => ("cut", Verdict { cut: true, ..gone }),
            _ => return passes(vec![message]),
        };
        mind.did(name);
        verdict
    }

    /// Made up, in good form, and sealed by nobody.
    fn invented(&mut self) -> String {
        let (e, n) = (1 + self.rng.below(3), self.rng.below(60));
        let what = match (self.up, self.rng.below(2)) {
            (true, 0) => format!(
                r#""n":{n},"low":{n},"t":"outcome","rc":2,"rollout":"r2","attempt":1,"outcome":"success""#
            ),
            (true, _) => format!(
                r#""n":{n},"low":{n},"t":"outcome","rc":2,"rollout":"r2","attempt":1,"outcome":"rolled-back""#
            ),
            (false, 0) => r#""t":"ack","ranges":[[0,1000]]"#.to_owned(),
            (false, _) => {
                format!(r#""t":"answer","nonce":"{n:032x}","time":4000000000,"rollout":0,"halt":0"#)
            }
        };
        format!(r#"{{"e":{e},"k":1,{what},"m":"AAAAAAAAAAAAAAAAAAAAAA"}}"#)
    }

    fn bend(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        if !bytes.is_empty() {
            let at = below(&mut self.rng, bytes.len());
            bytes[at] ^= 1 << self.rng.below(8);
        }
        bytes
    }
}

fn contains(payload: &[u8], part: &[u8]) -> bool {
    payload.windows(part.len()).any(|window| window == part)
}
