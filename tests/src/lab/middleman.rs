//! A hostile broker over real sockets: it stands between the agents and the service's own broker, reads every packet
//! of MQTT, and does its mischief by a seed, until it is told to behave. It also writes down what the agents send
//! before it touches anything: the truth that the service's counts are compared with.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tern_bridge::front::frame::{self, Packet, Publish};

use super::mischief::{Manner, Mind, Stream};

/// Bytes of one packet.
const PACKET_MAX: usize = 1 << 20;

struct Shared {
    seed: u64,
    front: Mutex<SocketAddr>,
    manner: Mutex<Manner>,
    mind: Mutex<Mind>,
    sent: Mutex<Vec<Publish>>,
    answers: Mutex<BTreeMap<String, u64>>,
    connections: Mutex<BTreeMap<String, u64>>,
    open: Mutex<Vec<TcpStream>>,
}

/// Who a connection belongs to, and which of that client's connections it is; known from CONNECT on.
type Client = Arc<OnceLock<(String, u64)>>;

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
    pub fn start(front: SocketAddr, seed: u64, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            seed,
            front: Mutex::new(front),
            manner: Mutex::new(manner),
            mind: Mutex::default(),
            sent: Mutex::default(),
            answers: Mutex::default(),
            connections: Mutex::default(),
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

    /// Behaves otherwise from here on, towards connections that stay.
    pub fn set(&self, manner: Manner) {
        *lock(&self.shared.manner) = manner;
    }

    /// Behaves from here on; everybody connects anew, as after a start of the broker.
    pub fn behave(&self) {
        self.set(Manner::Behaves);
        self.cut();
    }

    /// Hands on to another service from here on.
    pub fn lead_to(&self, front: SocketAddr) {
        *lock(&self.shared.front) = front;
        self.cut();
    }

    fn cut(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            // Whoever has gone already need not be told.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps what is retained now, to serve it whole when it will be old.
    pub fn keep_state(&self) {
        lock(&self.shared.mind).keep_state();
    }

    /// Gives it genuine files of another product.
    pub fn teach(&self, foreign: Vec<Vec<u8>>) {
        lock(&self.shared.mind).foreign = foreign;
    }

    /// Returns how often it did what.
    pub fn acts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.shared.mind).acts.clone()
    }

    /// Returns everything that agents sent, as they sent it.
    pub fn sent(&self) -> Vec<Publish> {
        lock(&self.shared.sent).clone()
    }

    /// Returns how many answers to a nonce have come by for each device.
    pub fn answers(&self, device: &str) -> u64 {
        let topic = format!("/d/{device}/in");
        lock(&self.shared.answers).iter().filter(|(t, _)| t.ends_with(&topic)).map(|(_, count)| count).sum()
    }
}

impl Shared {
    fn join(self: &Arc<Self>, device: TcpStream) {
        let front = *lock(&self.front);
        let Ok(service) = TcpStream::connect(front) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be had twice");
        lock(&self.open).push(copy(&device));
        let client = Client::default();
        for (from, to, up) in [(copy(&device), copy(&service), true), (service, device, false)] {
            let (shared, client) = (self.clone(), client.clone());
            std::thread::spawn(move || {
                shared.carry(&from, &to, &client, up);
                for stream in [from, to] {
                    let _gone = stream.shutdown(Shutdown::Both);
                }
            });
        }
    }

    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, client: &Client, up: bool) {
        let (mut buffer, mut bytes) = (Vec::new(), [0; 16_384]);
        let mut stream = None;
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            buffer.extend_from_slice(&bytes[..count]);
            while let Ok(Some((packet, length))) = frame::read(&buffer, PACKET_MAX) {
                let raw: Vec<u8> = buffer.drain(..length).collect();
                if let Packet::Connect(connect) = &packet {
                    let _once = client.set((connect.client_id.clone(), self.count(&connect.client_id)));
                }
                let Some((name, connection)) = client.get() else { return };
                let stream = stream.get_or_insert_with(|| Stream::new(self.seed, name, *connection, up));
                let manner = *lock(&self.manner);
                let mut out = match packet {
                    Packet::Publish(message) => {
                        self.note(&message, up);
                        let verdict = stream.judge(&mut lock(&self.mind), manner, message);
                        if verdict.cut {
                            return;
                        }
                        if let Some(id) = verdict.receipt {
                            // Who sent it believes that it arrived.
                            let _closed = from.write_all(&Packet::PubAck(id).to_bytes());
                        }
                        verdict.out.into_iter().flat_map(|m| Packet::Publish(m).to_bytes()).collect()
                    }
                    _ => raw,
                };
                out.extend(stream.released().into_iter().flat_map(|m| Packet::Publish(m).to_bytes()));
                if to.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }

    fn count(&self, client: &str) -> u64 {
        let mut connections = lock(&self.connections);
        let count = connections.entry(client.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    fn note(&self, message: &Publish, up: bool) {
        if up {
            lock(&self.sent).push(message.clone());
        } else if message.payload.starts_with(b"{")
            && message.payload.windows(9).any(|w| w == br#""t":"answ"#)
        {
            *lock(&self.answers).entry(message.topic.clone()).or_default() += 1;
        }
    }
}
