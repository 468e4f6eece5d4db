//! A bad way between devices and a broker: so many bits a second, so much delay, jitter, stalls, and cuts at given times.
//!
//! ```text
//! device ──socket──► reader ──queue, bounded──► Way: rate, stalls ──delay, jitter──► writer ──socket──► broker
//! ```
//! Bytes leave the queue at the rate of the link and are under way for its delay. While the queue is full the reader does
//! not read, so the sender's own buffers fill, as they do behind a real link's modem. A connection's first bytes go up a
//! round trip after it was made: TCP's handshake has passed by then. A cut closes what is open, and what was in the queue
//! or under way is lost. All connections share the one link.

mod way;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::Stopwatch;
use way::Way;

/// What the sockets of the link itself hold: the queue is meant to be the place where bytes wait. With less than a few
/// segments of loopback, 64 KiB each, TCP opens its window only when all has been read, and senders stall.
const SOCKET: usize = 128 * 1024;
/// What waits for a receiver that does not read, beside what its own socket holds: about what Linux gives a connection of
/// so long a way. Behind it the link stands still.
const RECEIVER: u64 = 2 << 20;

/// What a link does to what it carries.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Bits a second, each way.
    pub rate: u64,
    /// One way.
    pub delay: Duration,
    /// Up to so much is added to the delay; nothing overtakes.
    pub jitter: Duration,
    /// How much the queue before the link holds, as the time that the link needs for it.
    pub queue: Duration,
    /// From when on, and for how long, nothing moves; counted from the start of the link.
    pub stalls: Vec<(Duration, Duration)>,
    /// When connections break, counted from the start of the link.
    pub cuts: Vec<Duration>,
    /// Decides about the jitter.
    pub seed: u64,
}

impl Terms {
    /// A link without jitter, stalls and cuts.
    pub fn plain(rate: u64, delay: Duration) -> Self {
        let queue = Duration::from_millis(500);
        Self { rate, delay, jitter: Duration::ZERO, queue, stalls: Vec::new(), cuts: Vec::new(), seed: 1 }
    }

    /// The same with a cut after every `pause`, for an hour.
    #[must_use]
    pub fn cut_every(mut self, pause: Duration) -> Self {
        self.cuts =
            (1..=3600 / pause.as_secs().max(1)).map(|n| pause * u32::try_from(n).unwrap_or(0)).collect();
        self
    }

    /// There and back.
    pub fn round_trip(&self) -> Duration {
        2 * self.delay
    }
}

/// The link.
pub struct Radio {
    /// Where devices find it.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped to end the cutting.
    _running: Sender<()>,
}

struct Shared {
    terms: Terms,
    clock: Stopwatch,
    /// Up and down.
    ways: [Mutex<Way>; 2],
    carried: [AtomicU64; 2],
    connections: AtomicU32,
    cuts: AtomicU32,
    open: Mutex<Vec<Arc<Connection>>>,
}

struct Connection {
    sockets: [TcpStream; 2],
    is_cut: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Radio {
    /// Listens on loopback and leads to `broker`.
    pub fn to(broker: SocketAddr, terms: Terms) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let ways = [0, 1].map(|way| Mutex::new(Way::new(&terms, terms.seed + way)));
        let shared = Arc::new(Shared {
            terms,
            clock: Stopwatch::start(),
            ways,
            carried: Default::default(),
            connections: AtomicU32::new(0),
            cuts: AtomicU32::new(0),
            open: Mutex::default(),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                // A device that cannot be served tries again.
                let _lost = theirs.join(device, broker);
            }
        });
        let (running, ended) = channel();
        let theirs = shared.clone();
        std::thread::spawn(move || theirs.cut_in_time(&ended));
        Self { address, shared, _running: running }
    }

    /// Returns the bytes that it has brought there, up and down.
    pub fn carried(&self) -> [u64; 2] {
        [0, 1].map(|way| self.shared.carried[way].load(Ordering::Relaxed))
    }

    /// Returns how many connections were made.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Returns how often it was cut while a connection was open.
    pub fn cuts(&self) -> u32 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Cuts it now.
    pub fn cut(&self) {
        self.shared.cut();
    }
}

impl Shared {
    fn cut_in_time(&self, ended: &Receiver<()>) {
        for at in &self.terms.cuts {
            let wait = at.saturating_sub(self.clock.read());
            if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            self.cut();
        }
    }

    fn cut(&self) {
        let mut open = std::mem::take(&mut *lock(&self.open));
        open.retain(|connection| !connection.is_cut.swap(true, Ordering::Relaxed));
        // Before anybody can notice.
        self.cuts.fetch_add(u32::from(!open.is_empty()), Ordering::Relaxed);
        open.iter().for_each(|connection| connection.close());
        for way in &self.ways {
            lock(way).clear(self.clock.read());
        }
    }

    fn join(self: &Arc<Self>, device: TcpStream, broker: SocketAddr) -> std::io::Result<()> {
        let front = TcpStream::connect(broker)?;
        for socket in [&device, &front] {
            set_socket_recv_buffer_size(socket, SOCKET)?;
            socket.set_nodelay(true)?;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection { sockets: [device, front], is_cut: AtomicBool::new(false) });
        let mut open = lock(&self.open);
        open.retain(|other| !other.is_cut.load(Ordering::Relaxed));
        open.push(connection.clone());
        drop(open);
        let ready = self.clock.read() + self.terms.round_trip();
        for way in [0, 1] {
            let (sender, receiver) = sync_channel(self.under_way());
            let (shared, ours) = (self.clone(), connection.clone());
            std::thread::spawn(move || shared.read(&ours, way, ready, &sender));
            let (shared, ours) = (self.clone(), connection.clone());
            std::thread::spawn(move || shared.write(&ours, way, &receiver));
        }
        Ok(())
    }

    /// Returns how many segments there may be between reader and writer: a full queue, a full link and a full receiver.
    fn under_way(&self) -> usize {
        let Terms { rate, delay, jitter, queue, .. } = self.terms;
        let bytes =
            RECEIVER + rate / 8 * u64::try_from((delay + jitter + queue).as_millis()).unwrap_or(0) / 1000;
        usize::try_from(bytes).unwrap_or(usize::MAX) / way::segment(rate) + 16
    }

    /// Takes bytes into the queue as it has room.
    fn read(
        &self,
        connection: &Connection,
        way: usize,
        ready: Duration,
        to: &std::sync::mpsc::SyncSender<(Duration, Vec<u8>)>,
    ) {
        let mut from = &connection.sockets[way];
        let mut bytes = vec![0; way::segment(self.terms.rate)];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if connection.is_cut.load(Ordering::Relaxed) {
                // What is left in the socket must not go over the link that the next connection has.
                return;
            }
            let now = self.clock.read().max(ready);
            let passage = lock(&self.ways[way]).take(now, count);
            if to.send((passage.arrives, bytes[..count].to_vec())).is_err() {
                return;
            }
            std::thread::sleep(passage.room.saturating_sub(self.clock.read()));
        }
    }

    /// Hands bytes on when they are there.
    fn write(&self, connection: &Connection, way: usize, from: &Receiver<(Duration, Vec<u8>)>) {
        let mut to = &connection.sockets[1 - way];
        while let Ok((arrives, bytes)) = from.recv() {
            std::thread::sleep(arrives.saturating_sub(self.clock.read()));
            if connection.is_cut.load(Ordering::Relaxed) || to.write_all(&bytes).is_err() {
                break;
            }
            self.carried[way].fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        connection.is_cut.store(true, Ordering::Relaxed);
        connection.close();
    }
}

impl Connection {
    fn close(&self) {
        for socket in &self.sockets {
            // It may be closed already.
            let _gone = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Radio {
    fn drop(&mut self) {
        self.shared.cut();
    }
}

#[cfg(test)]
mod tests;
