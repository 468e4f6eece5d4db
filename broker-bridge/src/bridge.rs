//! The bridge as a whole: started, watched, stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::broker::{BrokerError, EmbeddedBroker};
use crate::chunks::{ChunkStore, StoreError};
use crate::config::{BridgeConfig, ConfigError};
use crate::front::{self, Gate, GateError, Listener, Shared};
use crate::site::{ConnectorError, Site, SiteError};
use crate::stats::{BridgeStats, Counters};
use crate::watchdog;

/// Reads from the chunk store at the same time.
const DISK_TURNS: usize = 8;

/// Says why a bridge does not start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Its configuration.
    #[error("the bridge's configuration cannot be used")]
    Config(#[from] ConfigError),
    /// An address.
    #[error(
        "could not listen on {address}: end the program that uses it, or change `listen` (port 0 takes a free one)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Certificates or users of a listener.
    #[error("listener {address} cannot let clients in")]
    Gate {
        /// Its address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: GateError,
    },
    /// The chunk store.
    #[error("the chunk store cannot be opened")]
    Store(#[from] StoreError),
    /// The embedded broker.
    #[error("the embedded broker does not run")]
    Broker(#[from] BrokerError),
    /// What a site keeps.
    #[error("the site's edge cannot keep anything")]
    Site(#[from] SiteError),
    /// The way to upstream.
    #[error("upstream cannot be reached as it is configured")]
    Upstream(#[from] ConnectorError),
}

/// A running front with its embedded broker.
///
/// [`Bridge::stop`] closes listeners and connections; the broker's threads stay until the process ends, for rumqttd
/// has no way to stop. Start one bridge a process.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    died: watch::Receiver<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Bridge {
    /// Starts to listen; returns when clients can connect.
    pub async fn start(config: BridgeConfig) -> Result<Self, BridgeError> {
        config.check()?;
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let address = listener.listen;
            let gate = Gate::open(&listener.auth).map_err(|source| BridgeError::Gate { address, source })?;
            let socket =
                TcpListener::bind(address).await.map_err(|source| BridgeError::Listen { address, source })?;
            listeners.push(Listener { socket, gate });
        }
        let addresses = listeners.iter().map(|l| l.socket.local_addr()).collect::<Result<_, _>>();
        let addresses: Vec<SocketAddr> = addresses
            .map_err(|source| BridgeError::Listen { address: config.listeners[0].listen, source })?;
        let store = Arc::new(ChunkStore::open(config.chunk_dir)?);
        let site = match config.upstream {
            Some(upstream) => {
                let connector = Site::connector(&upstream)?;
                Some((Arc::new(Site::open(upstream, config.fleet.clone())?), connector))
            }
            None => None,
        };
        let service_password = match config.service_password.as_str() {
            // Nobody is the service at a site that names no password: nobody can know this one.
            "" => unguessable().map_err(BrokerError::Random)?,
            given => given.to_owned(),
        };
        // The broker must never be the one to say "full": a rejected connection poisons it.
        let room = 4 * config.limits.connections as usize + 1000;
        let broker = Arc::new(EmbeddedBroker::start(&config.fleet, room).await?);
        let shared = Arc::new(Shared {
            fleet: config.fleet,
            limits: config.limits,
            service_password,
            broker: broker.clone(),
            sessions: Default::default(),
            files: Default::default(),
            store,
            counters: Counters::default(),
            disk: Semaphore::new(DISK_TURNS),
            site: site.as_ref().map(|(site, _)| site.clone()),
        });
        let (report, died) = watch::channel(None);
        let mut tasks: Vec<_> =
            listeners.into_iter().map(|l| tokio::spawn(front::accept(shared.clone(), l))).collect();
        if let Some((site, connector)) = site {
            tasks.extend(Site::start(&shared, &site, connector));
        }
        tasks.push(tokio::spawn(async move {
            let reason = watchdog::watch(broker).await;
            tracing::error!(reason, "the embedded broker died");
            report.send_replace(Some(reason));
        }));
        for address in &addresses {
            tracing::info!(%address, "listening");
        }
        Ok(Self { shared, addresses, died, tasks })
    }

    /// Returns the addresses that it listens on, in the order of the configuration, with real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Waits until the embedded broker has died, and returns why. End the process then: only that brings it back.
    pub async fn died(&self) -> String {
        let mut died = self.died.clone();
        loop {
            if let Some(reason) = died.borrow_and_update().clone() {
                return reason;
            }
            if died.changed().await.is_err() {
                return "the watchdog is gone".into();
            }
        }
    }

    /// Returns what it counted.
    pub fn stats(&self) -> BridgeStats {
        self.shared.counters.read(self.shared.sessions.len())
    }

    /// Returns the store from which packs are served; add images to it.
    pub fn chunk_store(&self) -> Arc<ChunkStore> {
        self.shared.store.clone()
    }

    /// Closes listeners and connections, and gives these a moment to hand the broker what they have.
    pub async fn stop(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Cancelled, as it should be; waiting makes sure that the port is free.
            task.await.ok();
        }
        self.shared.sessions.stop();
        for _ in 0..100 {
            if self.shared.sessions.len() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(site) = self.shared.site.clone() {
            // What could not be saved is said twice.
            tokio::task::spawn_blocking(move || site.save(None)).await.ok();
        }
    }
}

fn unguessable() -> Result<String, getrandom::Error> {
    let mut random = [0; 24];
    getrandom::fill(&mut random)?;
    Ok(hex::encode(random))
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.sessions.stop();
    }
}
