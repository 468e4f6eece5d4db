//! Web servers as sources of packs: ranges of the files that `tern release export` lays out.
//!
//! ```text
//! WebGet ──► pieces of .tree ──► (.packs: where they end) ──► a range for each run of chunks or packs ──► Pack, Pack, … Ended
//!                 └── another status than 206, another range, too many bytes, silence ──► Failed
//! ```
//! Nothing that a server says moves the device elsewhere: a redirect is a failure. Nothing that it sends is kept beyond one
//! part, and nothing is waited for without end. Whether the bytes are right the core judges.
//!
//! | module | what it holds |
//! |---|---|
//! | `connection` | one connection, one range at a time |
//! | `request` | from parts of an object to ranges, and back |

mod connection;
mod request;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_protocol::digest::Digest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Config, WebPrefix};
use crate::core::agent::{Web, WebGet};
use crate::link::{LinkError, Tls, authorities};
use connection::Connection;
pub(crate) use connection::Stream;

/// Packs that wait for the core; the server waits while it is busy.
const WAITING: usize = 4;
/// Connections that are kept between two requests: as many as there are requests at once.
const IDLE: usize = 4;

/// The web servers of the configuration.
pub(crate) struct WebServers {
    shared: Arc<Shared>,
    sender: mpsc::Sender<(u64, Web)>,
    receiver: mpsc::Receiver<(u64, Web)>,
    open: BTreeMap<u64, JoinHandle<()>>,
}

/// What all requests use.
struct Shared {
    prefixes: Vec<WebPrefix>,
    tls: Option<Tls>,
    patience: Patience,
    idle: Mutex<Vec<(usize, Connection)>>,
    places: Mutex<Option<Places>>,
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For a connection, an answer's head, and more bytes of its body.
    silence: Duration,
    /// For all of a part: whoever sends a byte now and then is as silent as who sends none.
    part: Duration,
}

/// Where a server says that packs begin and end: read some hundred at a time.
#[derive(Debug, Clone)]
struct Places {
    prefix: usize,
    of: Digest,
    first: u32,
    /// One more than there are packs.
    begin: Vec<u64>,
}

impl WebServers {
    /// Reads what the configuration names; asks nobody yet. Certificates are judged as if it were at least `time_floor`.
    pub(crate) fn new(config: &Config, time_floor: u64) -> Result<Self, LinkError> {
        let prefixes = config.web.prefixes.clone();
        let ca = config.web.ca.as_ref().or(config.tls.as_ref().map(|files| &files.ca));
        let ca = ca.filter(|_| prefixes.iter().any(|prefix| prefix.tls));
        let tls = ca.map(|ca| authorities(ca, time_floor)).transpose()?.flatten();
        let patience =
            Patience { silence: config.timing.get_repeat_first, part: config.timing.get_repeat_max };
        let (sender, receiver) = mpsc::channel(WAITING);
        let (idle, places) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { prefixes, tls, patience, idle, places });
        Ok(Self { shared, sender, receiver, open: BTreeMap::new() })
    }

    /// Begins to ask.
    pub(crate) fn ask(&mut self, request: u64, prefix: usize, get: WebGet) {
        let (shared, sender) = (Arc::clone(&self.shared), self.sender.clone());
        let task = tokio::spawn(async move {
            let end = match request::ask(&shared, prefix, &get, (request, &sender)).await {
                Ok(()) => Web::Ended,
                Err(failure) => Web::Failed(failure),
            };
            // In vain where the process ends.
            drop(sender.send((request, end)).await);
        });
        self.open.insert(request, task);
    }

    /// Ends a request; its connection goes with it.
    pub(crate) fn stop(&mut self, request: u64) {
        if let Some(task) = self.open.remove(&request) {
            task.abort();
        }
    }

    /// Nothing is fetched for now: connections and what is known of packs go.
    pub(crate) fn rest(&self) {
        self.shared.idle().clear();
        *self.shared.places() = None;
    }

    /// Waits for what comes next.
    pub(crate) async fn said(&mut self) -> (u64, Web) {
        let Some((request, said)) = self.receiver.recv().await else { return std::future::pending().await };
        if !matches!(said, Web::Pack(_)) {
            self.open.remove(&request);
        }
        (request, said)
    }
}

/// Requests do not outlive whoever waits for them.
impl Drop for WebServers {
    fn drop(&mut self) {
        self.open.values().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<(usize, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Option<Places>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for the next request.
    fn keep(&self, prefix: usize, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push((prefix, connection));
        }
    }

    /// Takes one that was kept.
    fn kept(&self, prefix: usize) -> Option<Connection> {
        let mut idle = self.idle();
        // One to a server that was given up is of no use any more.
        idle.retain(|(of, connection)| *of == prefix && !connection.is_closed());
        idle.pop().map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests;
