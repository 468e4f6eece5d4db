//! The chunk server as a client of an external broker: the same answers as the front's, published.
//!
//! Subscribes to `up/+/+/get` and `p/#`, publishes to `d/<device>/pack` and `d/<device>/in`. Brokers are tried in
//! order; silence or a refusal means the next one, after a pause that grows and is never the same for all.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, NetworkOptions, QoS, SubscribeReasonCode,
    TlsConfiguration, Transport,
};
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::limits::MQTT_PACKET_MAX;
use tern_protocol::message::Get;
use tern_protocol::topic::{Topic, UpKind, product_filter, uplink_filter};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::pending::{self, Job, Pending};
use super::serve::{self, PACKS_AT_ONCE};
use super::store::ChunkStore;
use crate::files::SignedFiles;
use crate::front::{TlsError, client_tls};
use crate::stats::{BridgeStats, Counters};

/// Devices that may wait for packs at once; beyond, the device that has waited longest is forgotten and asks again.
const DEVICES_MAX: usize = 4096;
/// Bundles that may wait; the oldest go.
const BUNDLES_MAX: usize = 256;
/// Messages handed to the MQTT client ahead of its socket: what waits should wait on the disk.
const AHEAD: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// CONNACK and SUBACK must be there by then (docs/protocol.md, "Brokers").
const ANSWER: Duration = Duration::from_secs(3);

/// What a chunk client needs to know.
#[derive(Clone)]
pub struct ChunkClientConfig {
    /// The fleet.
    pub fleet: FleetId,
    /// Brokers as `host:port`, tried in order.
    pub brokers: Vec<String>,
    /// Client id; one at a time may use it.
    pub client_id: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Authorities of the brokers' certificates, PEM; without, the connection is plain.
    pub ca: Option<PathBuf>,
}

/// Says why a chunk client does not start.
#[derive(Debug, thiserror::Error)]
pub enum ChunkClientError {
    /// No broker to try.
    #[error("no broker is named: give at least one as host:port")]
    NoBroker,
    /// An address that is none.
    #[error("broker {0:?} is not host:port")]
    Address(String),
    /// The authorities.
    #[error("the brokers' authorities cannot be used")]
    Tls(#[from] TlsError),
}

/// A running chunk client.
#[derive(Debug)]
pub struct ChunkClient {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    fleet: FleetId,
    store: Arc<ChunkStore>,
    files: SignedFiles,
    counters: Counters,
    work: Mutex<Work>,
    filled: Notify,
}

/// What waits to be published, fair by device.
#[derive(Debug, Default)]
struct Work {
    bundles: VecDeque<(String, Vec<u8>)>,
    packs: HashMap<DeviceId, Pending>,
    turns: VecDeque<DeviceId>,
}

enum Next {
    Bundle(String, Vec<u8>),
    Packs(Vec<Job>),
}

impl Work {
    fn ask(&mut self, device: DeviceId, jobs: impl IntoIterator<Item = Job>) {
        if !self.packs.contains_key(&device) {
            let full = self.turns.len() >= DEVICES_MAX;
            if let Some(oldest) = full.then(|| self.turns.pop_front()).flatten() {
                self.packs.remove(&oldest);
            }
            self.turns.push_back(device.clone());
        }
        self.packs.entry(device).or_default().add(jobs);
    }

    fn next(&mut self) -> Option<Next> {
        if let Some((topic, bundle)) = self.bundles.pop_front() {
            return Some(Next::Bundle(topic, bundle));
        }
        while let Some(device) = self.turns.pop_front() {
            let jobs = self.packs.get_mut(&device).map(|p| p.take(PACKS_AT_ONCE)).unwrap_or_default();
            if jobs.is_empty() {
                self.packs.remove(&device);
                continue;
            }
            self.turns.push_back(device);
            return Some(Next::Packs(jobs));
        }
        None
    }
}

impl ChunkClient {
    /// Starts to serve from `store`; connects, and connects again, until it is stopped.
    pub fn start(config: ChunkClientConfig, store: Arc<ChunkStore>) -> Result<Self, ChunkClientError> {
        let mut options = Vec::new();
        for broker in &config.brokers {
            options.push(options_for(&config, broker)?);
        }
        if options.is_empty() {
            return Err(ChunkClientError::NoBroker);
        }
        let shared = Arc::new(Shared {
            fleet: config.fleet,
            store,
            files: SignedFiles::default(),
            counters: Counters::default(),
            work: Mutex::default(),
            filled: Notify::new(),
        });
        let task = tokio::spawn(serve_for_ever(shared.clone(), options));
        Ok(Self { shared, task })
    }

    /// Returns what it counted.
    pub fn stats(&self) -> BridgeStats {
        self.shared.counters.read(0)
    }

    /// Closes the connection.
    pub async fn stop(self) {
        self.task.abort();
        // Cancelled, as it should be.
        self.task.await.ok();
    }
}

fn options_for(config: &ChunkClientConfig, broker: &str) -> Result<MqttOptions, ChunkClientError> {
    let bad = || ChunkClientError::Address(broker.to_owned());
    let (host, port) = broker.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    // A scheme would be looked up as a part of the name, again and again.
    if host.is_empty() || host.contains('/') {
        return Err(bad());
    }
    let mut options = MqttOptions::new(&config.client_id, host, port);
    options.set_credentials(&config.user, &config.password);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_session(true);
    options.set_max_packet_size(MQTT_PACKET_MAX, MQTT_PACKET_MAX);
    if let Some(ca) = &config.ca {
        let tls = TlsConfiguration::Rustls(client_tls(ca, None)?);
        options.set_transport(Transport::tls_with_config(tls));
    }
    Ok(options)
}

async fn serve_for_ever(shared: Arc<Shared>, brokers: Vec<MqttOptions>) {
    let mut pause = FIRST_PAUSE;
    for options in brokers.iter().cycle() {
        let address = options.broker_address();
        let (client, mut connection) = AsyncClient::new(options.clone(), AHEAD);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(ANSWER.as_secs());
        connection.set_network_options(network);
        let mut ready = false;
        // Side by side in one task: the publisher may wait for the connection only because that goes on meanwhile.
        let reason = tokio::select! {
            reason = listen(&shared, &client, &mut connection, &mut ready) => reason,
            reason = publish(&shared, &client) => reason,
        };
        tracing::warn!(broker = ?address, reason, "the chunk client lost its broker, or did not reach it");
        pause = if ready { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// Returns half to all of `pause`, so that a fleet of servers does not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness the pause is merely not jittered.
    getrandom::fill(&mut random).ok();
    pause / 2 + pause / 2 * u32::from(random[0]) / 255
}

/// Takes in requests and files until the connection ends; returns why it did.
async fn listen(
    shared: &Shared,
    client: &AsyncClient,
    connection: &mut EventLoop,
    ready: &mut bool,
) -> String {
    let mut granted = 0;
    loop {
        let event = if *ready {
            connection.poll().await
        } else {
            match tokio::time::timeout(ANSWER, connection.poll()).await {
                Ok(event) => event,
                Err(_) => return "no SUBACK in time".into(),
            }
        };
        match event {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                // The channel is empty right after connecting, so there is room for both.
                let gets = client.try_subscribe(uplink_filter(&shared.fleet, UpKind::Get), QoS::AtMostOnce);
                let files = client.try_subscribe(product_filter(&shared.fleet), QoS::AtLeastOnce);
                if let Err(error) = gets.and(files) {
                    return error.to_string();
                }
            }
            Ok(Event::Incoming(Incoming::SubAck(ack))) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return "the broker refused a subscription: check its topic policy".into();
                }
                granted += 1;
                if granted == 2 {
                    *ready = true;
                    tracing::info!("serving chunks");
                }
            }
            Ok(Event::Incoming(Incoming::Publish(message))) => shared.take(&message.topic, &message.payload),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

impl Shared {
    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, topic: &str, payload: &[u8]) {
        let Ok(topic) = Topic::parse(&self.fleet, topic) else { return };
        let Topic::Up(device, UpKind::Get) = topic else {
            self.files.learn(&topic, payload);
            return;
        };
        let Ok(get) = Get::read(payload) else { return };
        self.counters.asked();
        let to = Topic::DeviceIn(device.clone()).render(&self.fleet);
        let bundles = self.files.answer(&get);
        let packs = Topic::DevicePack(device.clone()).render(&self.fleet);
        let mut work = self.work();
        for bundle in bundles {
            if work.bundles.len() >= BUNDLES_MAX {
                work.bundles.pop_front();
            }
            work.bundles.push_back((to.clone(), bundle));
        }
        work.ask(device, pending::jobs(&get, packs));
        drop(work);
        self.filled.notify_one();
    }
}

/// Publishes what waits, until the client is gone; returns why.
async fn publish(shared: &Arc<Shared>, client: &AsyncClient) -> String {
    loop {
        let next = shared.work().next();
        let result = match next {
            None => {
                shared.filled.notified().await;
                continue;
            }
            Some(Next::Bundle(topic, bundle)) => client.publish(topic, QoS::AtLeastOnce, false, bundle).await,
            Some(Next::Packs(jobs)) => publish_packs(shared, client, jobs).await,
        };
        if let Err(error) = result {
            return error.to_string();
        }
    }
}

async fn publish_packs(
    shared: &Arc<Shared>,
    client: &AsyncClient,
    jobs: Vec<Job>,
) -> Result<(), rumqttc::ClientError> {
    let own = shared.clone();
    let read = tokio::task::spawn_blocking(move || {
        let packs = jobs.into_iter().filter_map(|job| match serve::pack(&own.store, &job) {
            Ok(pack) => {
                own.counters.sent_pack(pack.len());
                Some((job.topic, pack))
            }
            Err(error) => {
                own.counters.missed_pack();
                own.store.complain(&job.of, &error, &job.topic);
                None
            }
        });
        packs.collect::<Vec<_>>()
    });
    for (topic, pack) in read.await.unwrap_or_default() {
        client.publish(&*topic, QoS::AtMostOnce, false, pack).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::pending::Part;
    use super::*;
    use tern_protocol::digest::Digest;

    fn jobs(count: u32) -> impl Iterator<Item = Job> {
        (0..count).map(|n| Job { topic: "t".into(), of: Digest([0; 32]), part: Part::Chunk(n) })
    }

    fn device(number: usize) -> DeviceId {
        format!("r-{number}").parse().unwrap()
    }

    #[test]
    fn a_device_that_asks_for_much_does_not_keep_others_waiting() {
        let mut work = Work::default();
        work.ask(device(1), jobs(90));
        work.ask(device(2), jobs(1));

        let sizes: Vec<usize> = std::iter::from_fn(|| match work.next() {
            Some(Next::Packs(jobs)) => Some(jobs.len()),
            _ => None,
        })
        .collect();

        assert_eq!(sizes[..3], [PACKS_AT_ONCE, 1, PACKS_AT_ONCE]);
        assert_eq!(sizes.iter().sum::<usize>(), 91);
        assert!(work.packs.is_empty() && work.turns.is_empty());
    }

    #[test]
    fn however_many_devices_ask_a_bounded_number_waits() {
        let mut work = Work::default();
        for number in 0..DEVICES_MAX + 10 {
            work.ask(device(number), jobs(1));
        }

        assert_eq!((work.packs.len(), work.turns.len()), (DEVICES_MAX, DEVICES_MAX));
        assert!(!work.packs.contains_key(&device(0)));
    }

    #[test]
    fn a_pause_is_jittered_within_its_half() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(10));
            assert!((5..=10).contains(&pause.as_secs()), "{pause:?}");
        }
    }
}
