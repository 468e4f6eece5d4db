//! A hostile broker over real sockets: it stands between the agents and the service's own broker, reads every packet
//! of MQTT, and loses, repeats, bends, swaps, ages and invents messages by a seed, until it is told to behave.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_bridge::front::frame::{self, Packet, Publish};

use crate::sim::clock::Rng;

/// Messages that it remembers; the first quarter stays, for the oldest are the most dangerous.
const HEARD_MAX: usize = 400;
/// Bytes of one packet.
const PACKET_MAX: usize = 1 << 20;

/// What both directions of all connections share.
struct Shared {
    front: SocketAddr,
    hostile: AtomicBool,
    acts: AtomicU64,
    mind: Mutex<Mind>,
    open: Mutex<Vec<TcpStream>>,
}

struct Mind {
    rng: Rng,
    heard: Vec<Publish>,
}

/// The middleman.
pub struct Middleman {
    /// Where agents find it.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Middleman {
    /// Listens on loopback and hands on to `front`.
    pub fn start(front: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mind = Mind { rng: Rng::of(seed, "middleman"), heard: Vec::new() };
        let shared = Arc::new(Shared {
            front,
            hostile: AtomicBool::new(true),
            acts: AtomicU64::new(0),
            mind: Mutex::new(mind),
            open: Mutex::default(),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                theirs.join(device);
            }
        });
        Self { address, shared }
    }

    /// Behaves from here on; everybody connects anew, as after a start of the broker.
    pub fn behave(&self) {
        self.shared.hostile.store(false, Ordering::SeqCst);
        for stream in lock(&self.shared.open).drain(..) {
            // Whoever has gone already need not be told.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Returns how many messages it has lost, changed or made up.
    pub fn acts(&self) -> u64 {
        self.shared.acts.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn join(self: &Arc<Self>, device: TcpStream) {
        let Ok(service) = TcpStream::connect(self.front) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be had twice");
        lock(&self.open).push(copy(&device));
        for (from, to, up) in [(copy(&device), copy(&service), true), (service, device, false)] {
            let shared = self.clone();
            std::thread::spawn(move || {
                shared.carry(&from, &to, up);
                for stream in [from, to] {
                    let _gone = stream.shutdown(Shutdown::Both);
                }
            });
        }
    }

    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, up: bool) {
        let (mut buffer, mut bytes) = (Vec::new(), [0; 16_384]);
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            buffer.extend_from_slice(&bytes[..count]);
            while let Ok(Some((packet, length))) = frame::read(&buffer, PACKET_MAX) {
                let raw: Vec<u8> = buffer.drain(..length).collect();
                let out = match packet {
                    Packet::Publish(message) if self.hostile.load(Ordering::SeqCst) => {
                        let (ack, out) = self.judge(message, up);
                        if let Some(id) = ack {
                            // Who sent it believes that it arrived.
                            let _closed = from.write_all(&Packet::PubAck(id).to_bytes());
                        }
                        out.into_iter().flat_map(|m| Packet::Publish(m).to_bytes()).collect()
                    }
                    _ => raw,
                };
                if to.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }

    /// Returns an acknowledgement to invent, and what goes on in place of the message.
    fn judge(&self, message: Publish, up: bool) -> (Option<u16>, Vec<Publish>) {
        let mut mind = lock(&self.mind);
        let what = mind.rng.below(10);
        if what >= 5 {
            mind.remember(&message);
            return (None, vec![message]);
        }
        self.acts.fetch_add(1, Ordering::SeqCst);
        let lost = (message.qos == 1).then_some(message.id);
        let made = |payload: Vec<u8>| Publish { payload, qos: 0, id: 0, dup: false, ..message.clone() };
        let out = match what {
            // Gone, though acknowledged.
            0 => (lost, Vec::new()),
            // Twice.
            1 => (None, vec![message.clone(), made(message.payload.clone())]),
            // With a bit turned over: a chunk, a file, a report, an answer.
            2 => (None, vec![Publish { payload: mind.bend(&message.payload), ..message.clone() }]),
            // Something else in its place: older, or another device's, cohort's or product's.
            3 => {
                let other = mind.recall().unwrap_or_default();
                (lost, if up { vec![made(other)] } else { vec![made(other), made(message.payload.clone())] })
            }
            // Made up, in good form.
            _ => {
                let text = if up {
                    r#"{"e":1,"k":1,"n":7,"low":1,"t":"outcome","rc":2,"rollout":"r2","attempt":1,"outcome":"success","m":"AAAAAAAAAAAAAAAAAAAAAA"}"#
                } else {
                    r#"{"e":1,"k":1,"t":"ack","ranges":[[0,1000]],"m":"AAAAAAAAAAAAAAAAAAAAAA"}"#
                };
                (None, vec![made(text.as_bytes().to_vec()), message.clone()])
            }
        };
        mind.remember(&message);
        out
    }
}

impl Mind {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.below(end.max(1) as u64)).unwrap_or(0)
    }

    fn remember(&mut self, message: &Publish) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push(message.clone());
        } else {
            let place = HEARD_MAX / 4 + self.below(HEARD_MAX - HEARD_MAX / 4);
            self.heard[place] = message.clone();
        }
    }

    fn recall(&mut self) -> Option<Vec<u8>> {
        let place = self.below(self.heard.len());
        self.heard.get(place).map(|message| message.payload.clone())
    }

    fn bend(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.rng.below(8);
        }
        bytes
    }
}
