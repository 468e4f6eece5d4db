//! The way of some devices to the broker, which can be cut: a tower that has no power, a cable that was dug up.

use std::io;
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

fn join(state: &Mutex<State>, device: TcpStream, broker: SocketAddr) -> io::Result<()> {
    let mut state = lock(state);
    if state.cut {
        return device.shutdown(Shutdown::Both);
    }
    let front = TcpStream::connect(broker)?;
    for (from, to) in [(&device, &front), (&front, &device)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            // Either end closes both.
            let _ended = io::copy(&mut from, &mut to);
            let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    state.open.extend([device, front]);
    Ok(())
}
