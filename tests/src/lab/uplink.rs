//! The way of some devices to the broker, which can be cut: a tower that has no power, a cable that was dug up.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The way.
pub struct Uplink {
    /// Where devices find it.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    open: Vec<TcpStream>,
    /// Bytes up and down.
    bytes: [u64; 2],
}

/// Copies until either end is over, and counts.
fn copy(mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>, way: usize) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        lock(state).bytes[way] += count as u64;
        to.write_all(&buffer[..count])?;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uplink {
    /// Listens on loopback and leads to a broker.
    pub fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<Mutex<State>>::default();
        let theirs = state.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                // A device that cannot be served tries again.
                let _lost = join(&theirs, device, broker);
            }
        });
        Self { address, state }
    }

    /// Returns how many bytes went up and down so far.
    pub fn bytes(&self) -> [u64; 2] {
        lock(&self.state).bytes
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
}

fn join(shared: &Arc<Mutex<State>>, device: TcpStream, broker: SocketAddr) -> io::Result<()> {
    let mut state = lock(shared);
    if state.cut {
        return device.shutdown(Shutdown::Both);
    }
    let front = TcpStream::connect(broker)?;
    for (way, from, to) in [(0, &device, &front), (1, &front, &device)] {
        let (from, to, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(shared));
        std::thread::spawn(move || {
            let ends = (from.try_clone(), to.try_clone());
            // Either end closes both.
            let _ended = copy(from, to, &shared, way);
            let (Ok(from), Ok(to)) = ends else { return };
            let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    state.open.extend([device, front]);
    Ok(())
}
