//! A cable from clients to a broker, which can be cut. What happens to the bytes in it is the business of whoever lays it.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Towards the broker, or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Towards it.
    Up,
    /// From it.
    Down,
}

/// A cable.
pub(super) struct Cable {
    /// Where it is entered.
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    open: Vec<TcpStream>,
}

pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cable {
    /// Listens on loopback and leads to a broker; `carry` takes the bytes of one way of one connection from end to end, and
    /// when it returns the connection is over.
    pub(super) fn to(
        broker: SocketAddr,
        carry: impl Fn(&TcpStream, &TcpStream, Way) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<Mutex<State>>::default();
        let (theirs, carry) = (state.clone(), Arc::new(carry));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                join(&theirs, near, broker, &carry);
            }
        });
        Self { address, state }
    }

    /// Breaks every connection, and lets nobody through until it is mended.
    pub(super) fn cut(&self, cut: bool) {
        let mut state = lock(&self.state);
        state.cut = cut;
        state.open.drain(..).for_each(|stream| close(&stream));
    }
}

fn close(stream: &TcpStream) {
    // It may be closed already.
    let _gone = stream.shutdown(Shutdown::Both);
}

fn join<F>(shared: &Mutex<State>, near: TcpStream, broker: SocketAddr, carry: &Arc<F>)
where
    F: Fn(&TcpStream, &TcpStream, Way) + Send + Sync + 'static,
{
    let mut state = lock(shared);
    if state.cut {
        return close(&near);
    }
    // Who cannot be served tries again.
    let Ok(far) = TcpStream::connect(broker) else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a TCP connection has no delay");
    }
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be had twice");
    state.open.extend([copy(&near), copy(&far)]);
    for (from, to, way) in [(copy(&near), copy(&far), Way::Up), (far, near, Way::Down)] {
        let carry = carry.clone();
        std::thread::spawn(move || {
            carry(&from, &to, way);
            [from, to].iter().for_each(close);
        });
    }
}
