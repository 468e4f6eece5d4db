//! rumqttd, embedded: on loopback, MQTT 3.1.1 only, behind a password that nobody but this process knows.
//!
//! What its clients could do to it is kept away by the front (docs/design.md, "The embedded broker"). What is
//! left: a panic in one of its threads poisons a listener for ever while the process seems well. So
//! [`abort_on_broker_panic`] turns such a panic into an exit, and the watchdog finds the silent cases.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, SegmentConfig, ServerSettings};
use tern_protocol::id::FleetId;
use tern_protocol::limits;
use tern_protocol::topic::{UpKind, product_filter, site_filter, uplink_filter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::clock;
use crate::front::frame::{Connect, Packet};
use crate::front::reader::{FrameReader, ReadError};

const SERVER_THREAD: &str = "tern-broker-v4";
const START_THREAD: &str = "tern-broker";
/// rumqttd names its router thread so; the number is the broker's id.
const ROUTER_THREAD: &str = "router-";
const USER: &str = "front";
/// Seconds; the front pings well within. Only there so that a forgotten socket is not kept for ever.
const KEEP_ALIVE: u16 = 300;
/// How often a session pings its broker connection.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(100);
/// A client id of the broker rests so long before its next use: the end of its last connection must have
/// reached the router, or the router would end the new connection in its place.
const REST: Duration = Duration::from_secs(30);
const ATTACH: Duration = Duration::from_secs(10);

/// Says why there is no broker, or no connection to it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No random bytes for the password.
    #[error("could not draw a password for the embedded broker")]
    Random(#[source] getrandom::Error),
    /// A thread could not be started.
    #[error("could not start the embedded broker")]
    Start(#[source] std::io::Error),
    /// It does not answer.
    #[error("the embedded broker did not answer on loopback")]
    Silent,
    /// It refused, or spoke out of turn.
    #[error("the embedded broker refused a connection of the front")]
    Refused,
    /// The loopback connection broke.
    #[error("the connection to the embedded broker broke")]
    Io(#[source] std::io::Error),
}

/// The embedded broker. It cannot be stopped: its router thread lives as long as the process.
#[derive(Debug)]
pub(crate) struct EmbeddedBroker {
    address: SocketAddr,
    password: String,
    ids: Mutex<ClientIds>,
}

/// One connection of the front to the broker.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) read: FrameReader<OwnedReadHalf>,
    pub(crate) write: OwnedWriteHalf,
    pub(crate) id: AttachmentId,
}

/// Number of a client id towards the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachmentId(u32);

/// Client ids for the broker. It keeps a record of every id that it ever saw, so ids are used again, after a rest.
#[derive(Debug, Default)]
struct ClientIds {
    made: u32,
    resting: VecDeque<(Instant, u32)>,
}

impl ClientIds {
    fn take(&mut self, now: Instant) -> AttachmentId {
        let rested = self.resting.front().is_some_and(|(since, _)| now.duration_since(*since) >= REST);
        match self.resting.pop_front() {
            Some((_, number)) if rested => return AttachmentId(number),
            Some(tired) => self.resting.push_front(tired),
            None => {}
        }
        self.made += 1;
        AttachmentId(self.made)
    }

    fn give_back(&mut self, id: AttachmentId, now: Instant) {
        self.resting.push_back((now, id.0));
    }
}

impl EmbeddedBroker {
    /// Starts a broker for `fleet` that has room for `connections`.
    pub(crate) async fn start(fleet: &FleetId, connections: usize) -> Result<Self, BrokerError> {
        // rumqttd neither tells the port it got nor reports a failed bind: find one, then look who answers.
        for _ in 0..5 {
            let address = free_port().map_err(BrokerError::Start)?;
            let mut random = [0; 24];
            getrandom::fill(&mut random).map_err(BrokerError::Random)?;
            let broker = Self { address, password: hex::encode(random), ids: Mutex::default() };
            broker.spawn(fleet, connections)?;
            for _ in 0..100 {
                if broker.attach().await.is_ok() {
                    return Ok(broker);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Err(BrokerError::Silent)
    }

    fn spawn(&self, fleet: &FleetId, connections: usize) -> Result<(), BrokerError> {
        let config = config(fleet, connections, self.address, &self.password);
        let start = std::thread::Builder::new().name(START_THREAD.into()).spawn(move || {
            if let Err(error) = Broker::new(config).start() {
                tracing::error!(?error, "the embedded broker did not start");
            }
        });
        // The thread lives as long as the process; nobody joins it.
        start.map(drop).map_err(BrokerError::Start)
    }

    /// Makes one connection. Must run to its end: one that is dropped half-way stays in the broker for ever.
    pub(crate) async fn attach(&self) -> Result<Attachment, BrokerError> {
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).take(clock::now());
        // On any error the id is not used again: the broker may believe that it is still connected.
        let (read, write) = timeout(ATTACH, self.handshake(format!("front~{}", id.0)))
            .await
            .map_err(|_| BrokerError::Silent)??;
        Ok(Attachment { read, write, id })
    }

    pub(crate) async fn handshake(
        &self,
        client_id: String,
    ) -> Result<(FrameReader<OwnedReadHalf>, OwnedWriteHalf), BrokerError> {
        let stream = TcpStream::connect(self.address).await.map_err(BrokerError::Io)?;
        stream.set_nodelay(true).map_err(BrokerError::Io)?;
        let (read, mut write) = stream.into_split();
        let connect = Connect {
            level: 4,
            client_id,
            clean_session: true,
            keep_alive: KEEP_ALIVE,
            will: None,
            user: Some(USER.into()),
            password: Some(self.password.clone().into_bytes()),
        };
        let bytes = Packet::Connect(Box::new(connect)).to_bytes();
        tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.map_err(BrokerError::Io)?;
        let mut read = FrameReader::new(read, limits::MQTT_PACKET_MAX);
        match read.next().await {
            Ok(Packet::ConnAck { code: 0, .. }) => Ok((read, write)),
            Ok(_) | Err(ReadError::Frame(_) | ReadError::Closed) => Err(BrokerError::Refused),
            Err(ReadError::Io(error)) => Err(BrokerError::Io(error)),
        }
    }

    /// Gives back the id of a connection that has been closed.
    ///
    /// Close by closing the socket, without DISCONNECT: the broker then hears of the end once. Twice, and the
    /// second end would hit whoever got the slot in between.
    pub(crate) fn detached(&self, id: AttachmentId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).give_back(id, clock::now());
    }
}

fn free_port() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn config(fleet: &FleetId, connections: usize, listen: SocketAddr, password: &str) -> Config {
    let mib = 1024 * 1024;
    let server = ServerSettings {
        name: SERVER_THREAD.into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: limits::MQTT_PACKET_MAX,
            max_inflight_count: 100,
            auth: Some(HashMap::from([(USER.to_owned(), password.to_owned())])),
            external_auth: None,
            // The same for topics that the service makes up.
            dynamic_filters: true,
        },
    };
    // A publish that matches no filter makes rumqttd drop its publisher: have those of devices from the start.
    // The names must be the ones that the controller subscribes to, or each message would be kept twice.
    let mut filters: Vec<String> = [UpKind::Report, UpKind::Presence, UpKind::Enrol]
        .into_iter()
        .map(|kind| uplink_filter(fleet, kind))
        .collect();
    filters.extend([site_filter(fleet), product_filter(fleet)]);
    // Covers every filter below `p/`: bundles are few, and what counts of them is retained.
    let small = SegmentConfig { max_segment_size: mib, max_segment_count: 2 };
    Config {
        id: 0,
        router: RouterConfig {
            max_connections: connections,
            max_outgoing_packet_count: 200,
            max_segment_size: 10 * mib,
            max_segment_count: 4,
            custom_segment: Some(HashMap::from([(product_filter(fleet), small)])),
            initialized_filters: Some(filters),
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("front".to_owned(), server)])),
        ..Config::default()
    }
}

/// Makes the process abort when a thread of the embedded broker panics; panics elsewhere unwind as usual.
///
/// Call it once, early in `main`. A broker that has panicked keeps its locks poisoned and accepts nobody, but
/// looks alive; a supervisor can only restart what has ended.
pub fn abort_on_broker_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            let thread = std::thread::current();
            if thread.name().is_some_and(is_broker_thread) {
                tracing::error!(
                    thread = thread.name(),
                    "the embedded broker panicked; aborting for a restart"
                );
                std::process::abort();
            }
        }));
    });
}

fn is_broker_thread(name: &str) -> bool {
    name == SERVER_THREAD
        || name == START_THREAD
        || name.strip_prefix(ROUTER_THREAD).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_used_again_only_after_its_rest() {
        let start = clock::now();
        let mut ids = ClientIds::default();
        let first = ids.take(start);
        ids.give_back(first, start);

        assert_ne!(ids.take(start + REST / 2), first);
        assert_eq!(ids.take(start + REST), first);
    }

    #[test]
    fn threads_of_the_broker_are_told_from_others() {
        for name in ["router-0", "tern-broker-v4", "tern-broker"] {
            assert!(is_broker_thread(name), "{name}");
        }
        for name in ["main", "tokio-rt-worker", "router-x", "tern-broker-v5"] {
            assert!(!is_broker_thread(name), "{name}");
        }
    }
}
