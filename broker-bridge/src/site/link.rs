//! The connection to upstream: one MQTT session as the site, made again and again.
//!
//! What is said goes out in this order: subscriptions, stored reports, requests. So the service's answer to a report finds
//! the way back. Packets of quality of service 1 are at most [`IN_FLIGHT`]; a new connection begins with the first that
//! was not acknowledged.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tern_protocol::bundle::Bundle;
use tern_protocol::id::DeviceId;
use tern_protocol::limits::MQTT_PACKET_MAX;
use tern_protocol::topic::{Topic, UpKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{UpstreamConfig, address};
use super::key::requests;
use super::status::{self, add};
use super::{Site, local, lock};
use crate::front::frame::{Connect, Packet, Publish};
use crate::front::reader::FrameReader;
use crate::front::upstream::{Upstream, UpstreamWriter};
use crate::front::{Shared, TlsError, client_tls};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// TCP, TLS, CONNACK and SUBACK, each.
const ANSWER: Duration = Duration::from_secs(5);
const KEEP_ALIVE: u16 = 60;
const PING_EVERY: Duration = Duration::from_secs(30);
/// A link without any packet for so long is dead.
const SILENT: Duration = Duration::from_secs(90);
/// Messages of quality of service 1 under way: below the window of a broker.
const IN_FLIGHT: usize = 64;
/// Filters in one SUBSCRIBE.
const FILTERS: usize = 32;
/// Frames that wait to be verified; beyond, the link is read more slowly.
const FRAMES: usize = 16;
const STATUS_EVERY: u64 = 60_000;

type Read = FrameReader<Box<dyn AsyncRead + Send + Unpin>>;
type Write = UpstreamWriter<Box<dyn AsyncWrite + Send + Unpin>>;

/// How upstream is reached.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    brokers: Vec<(String, u16)>,
    site: String,
    password: Option<String>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// Says why upstream cannot be reached as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The password.
    #[error("could not read the site's password from {path}")]
    Password {
        /// Its file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Certificates.
    #[error("TLS to upstream cannot be set up")]
    Tls(#[from] TlsError),
}

impl Connector {
    pub(super) fn open(config: &UpstreamConfig) -> Result<Self, ConnectorError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|source| ConnectorError::Password { path: path.clone(), source })
        };
        let text = config.password_file.as_ref().map(read).transpose()?;
        let tls = config.ca.as_ref().map(|ca| client_tls(ca, config.certificate.as_ref())).transpose()?;
        let brokers = config.brokers.iter().filter_map(|broker| address(broker));
        Ok(Self {
            brokers: brokers.map(|(host, port)| (host.to_owned(), port)).collect(),
            site: config.site.to_string(),
            password: text.and_then(|text| text.lines().next().map(str::to_owned)),
            tls,
        })
    }

    async fn connect(&self, broker: &(String, u16), will: Publish) -> Result<(Read, Write), String> {
        let said = |error: io::Error| error.to_string();
        let stream = TcpStream::connect((broker.0.as_str(), broker.1)).await.map_err(said)?;
        stream.set_nodelay(true).map_err(said)?;
        let (read, write): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
            match &self.tls {
                None => {
                    let (read, write) = stream.into_split();
                    (Box::new(read), Box::new(write))
                }
                Some(tls) => {
                    let name = ServerName::try_from(broker.0.clone()).map_err(|e| e.to_string())?;
                    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(said)?;
                    let (read, write) = tokio::io::split(stream);
                    (Box::new(read), Box::new(write))
                }
            };
        let (mut read, mut write) = (FrameReader::new(read, MQTT_PACKET_MAX), UpstreamWriter::new(write));
        let connect = Connect {
            level: 4,
            client_id: self.site.clone(),
            clean_session: true,
            keep_alive: KEEP_ALIVE,
            will: Some(will),
            user: self.password.is_some().then(|| self.site.clone()),
            password: self.password.clone().map(String::into_bytes),
        };
        let first = Upstream::default();
        first.push(&Packet::Connect(Box::new(connect)));
        write.flush(&first).await.map_err(said)?;
        match read.next().await {
            Ok(Packet::ConnAck { code: 0, .. }) => Ok((read, write)),
            Ok(Packet::ConnAck { code, .. }) => {
                Err(format!("refused with code {code}: check the site's id, and its password or certificate"))
            }
            Ok(_) => Err("no CONNACK".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What one connection has under way.
#[derive(Debug, Default)]
struct Flight {
    /// Packet id to number in the queue.
    reports: HashMap<u16, u64>,
    last: u16,
    subscribed: BTreeSet<String>,
    /// What of the mirror's filters that is.
    version: Option<u64>,
    /// SUBSCRIBEs without an answer.
    awaited: usize,
}

impl Flight {
    fn id(&mut self) -> u16 {
        // Ends: far fewer than there are ids are in use.
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.reports.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

/// What came, on its way to the disk.
enum Came {
    Frame(Vec<u8>),
    Bundle(String, Vec<u8>),
}

/// Connects, and connects again, until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>, site: Arc<Site>, connector: Connector) {
    let (frames, came) = mpsc::channel(FRAMES);
    let (own_shared, own_site) = (shared.clone(), site.clone());
    // Verifying and writing block; one after the other, as they came.
    let worker = tokio::task::spawn_blocking(move || work(&own_shared, &own_site, came));
    let mut pause = FIRST_PAUSE;
    for broker in connector.brokers.iter().cycle() {
        let topic = Topic::SiteStatus(site.config.site.clone()).render(&shared.fleet);
        let payload = status::message(false, 0, std::iter::empty(), None);
        let will = Publish { qos: 1, topic, payload, ..Publish::default() };
        let reason = match timeout(ANSWER * 2, connector.connect(broker, will)).await {
            Err(_) => "it does not answer".to_owned(),
            Ok(Err(reason)) => reason,
            Ok(Ok((read, write))) => {
                let reason = session(&shared, &site, read, write, &frames).await;
                if site.is_up() {
                    pause = FIRST_PAUSE;
                }
                site.set_up(false);
                site.fetch().cut_off();
                reason
            }
        };
        tracing::warn!(broker = %broker.0, port = broker.1, reason, "the site is cut off");
        if worker.is_finished() {
            return;
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns half to all of `pause`, so that sites do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness the pause is merely not jittered.
    getrandom::fill(&mut random).ok();
    pause / 2 + pause / 2 * u32::from(random[0]) / 255
}

/// Runs one connection to its end, and returns why it ended.
async fn session(
    shared: &Arc<Shared>,
    site: &Arc<Site>,
    mut read: Read,
    mut write: Write,
    frames: &mpsc::Sender<Came>,
) -> String {
    let (out, flight) = (Upstream::default(), Mutex::new(Flight::default()));
    lock(&site.spool).again();
    site.wake.notify_one();
    tokio::select! {
        reason = listen(shared, site, &mut read, &out, &flight, frames) => reason,
        reason = say(shared, site, &out, &flight) => reason,
        error = write.run(&out) => error.to_string(),
        () = async { loop { tokio::time::sleep(PING_EVERY).await; out.push(&Packet::PingReq); add(&site.counters.up, 2); } } => String::new(),
    }
}

/// Takes in what comes.
async fn listen(
    shared: &Arc<Shared>,
    site: &Arc<Site>,
    read: &mut Read,
    out: &Upstream,
    flight: &Mutex<Flight>,
    frames: &mpsc::Sender<Came>,
) -> String {
    loop {
        let patience = if lock(flight).awaited > 0 && !site.is_up() { ANSWER } else { SILENT };
        let packet = match timeout(patience, read.next()).await {
            Ok(Ok(packet)) => packet,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it is silent".to_owned(),
        };
        add(&site.counters.down, read.last_length() as u64);
        match packet {
            Packet::Publish(message) => {
                if message.qos > 0 {
                    send(site, out, &Packet::PubAck(message.id));
                }
                let Ok(topic) = Topic::parse(&shared.fleet, &message.topic) else { continue };
                let came = match topic {
                    Topic::DevicePack(_) => Came::Frame(message.payload),
                    Topic::DeviceIn(device) => {
                        answer(shared, site, &device, &message);
                        continue;
                    }
                    _ => Came::Bundle(message.topic, message.payload),
                };
                if frames.send(came).await.is_err() {
                    return "the site stops".to_owned();
                }
            }
            Packet::PubAck(id) => {
                let number = lock(flight).reports.remove(&id);
                if let Some(number) = number {
                    lock(&site.spool).taken(number);
                    site.wake.notify_one();
                }
            }
            Packet::SubAck { codes, .. } => {
                if codes.contains(&0x80) {
                    return "it refuses a subscription: check its topic policy, and that the site is known as one".to_owned();
                }
                let mut flight = lock(flight);
                flight.awaited = flight.awaited.saturating_sub(1);
                if flight.awaited == 0 && !site.is_up() {
                    drop(flight);
                    site.set_up(true);
                    tracing::info!("the site is connected to upstream");
                    site.wake.notify_one();
                }
            }
            _ => {}
        }
    }
}

/// Hands a device what the service says to it, or the files that it asked for.
fn answer(shared: &Shared, site: &Site, device: &DeviceId, message: &Publish) {
    if Bundle::looks_like(&message.payload)
        && let Some(product) = lock(&site.questions).product_of(device)
    {
        shared.files.learn(&Topic::Head(product), &message.payload);
    }
    shared.sessions.route(device, message);
}

/// Says what there is to say, whenever there is.
async fn say(shared: &Arc<Shared>, site: &Arc<Site>, out: &Upstream, flight: &Mutex<Flight>) -> String {
    let mut told = None;
    loop {
        subscribe(shared, site, out, flight).await;
        // Before it is granted, the answers would be lost.
        if site.is_up() {
            reports(site, out, flight).await;
            let questions: Vec<_> = lock(&site.questions).waiting.drain(..).collect();
            for (topic, payload) in questions {
                publish(site, out, Publish { topic, payload, ..Publish::default() }).await;
            }
            get(shared, site, out).await;
            let now = site.now();
            if told.is_none_or(|at| now >= at + STATUS_EVERY) {
                told = Some(now);
                let topic = Topic::SiteStatus(site.config.site.clone()).render(&shared.fleet);
                let payload = site.status(true, shared.sessions.devices());
                publish(site, out, Publish { topic, payload, ..Publish::default() }).await;
            }
        }
        let due = site.fetch().wake_at().into_iter().chain(told.map(|at| at + STATUS_EVERY)).min();
        let wait = due.map_or(1000, |due| due.saturating_sub(site.now()).clamp(10, 60_000));
        // Woken, or something is due.
        timeout(Duration::from_millis(wait), site.wake.notified()).await.ok();
    }
}

fn send(site: &Site, out: &Upstream, packet: &Packet) {
    let bytes = packet.to_bytes();
    add(&site.counters.up, bytes.len() as u64);
    out.push(packet);
}

async fn publish(site: &Site, out: &Upstream, message: Publish) {
    let packet = Packet::Publish(message);
    add(&site.counters.up, packet.to_bytes().len() as u64);
    out.send(&packet).await;
}

/// Asks for the topics that devices need by now, and gives up those of devices that have gone.
async fn subscribe(shared: &Shared, site: &Site, out: &Upstream, flight: &Mutex<Flight>) {
    let version = site.mirror.version();
    if lock(flight).version == Some(version) {
        return;
    }
    let mut wanted = site.mirror.filters(&shared.fleet);
    if let Ok(own) = site.config.site.as_str().parse::<DeviceId>() {
        wanted.insert(Topic::DevicePack(own).render(&shared.fleet));
    }
    wanted.insert(Topic::Revoked.render(&shared.fleet));
    let mut packets = Vec::new();
    {
        let mut flight = lock(flight);
        let more: Vec<String> = wanted.difference(&flight.subscribed).cloned().collect();
        let less: Vec<String> = flight.subscribed.difference(&wanted).cloned().collect();
        for filters in more.chunks(FILTERS) {
            let filters =
                filters.iter().map(|filter| (filter.clone(), u8::from(!filter.ends_with("/pack")))).collect();
            packets.push(Packet::Subscribe { id: flight.id(), filters });
            flight.awaited += 1;
        }
        for filters in less.chunks(FILTERS) {
            packets.push(Packet::Unsubscribe { id: flight.id(), filters: filters.to_vec() });
        }
        (flight.subscribed, flight.version) = (wanted, Some(version));
    }
    for packet in packets {
        add(&site.counters.up, packet.to_bytes().len() as u64);
        out.send(&packet).await;
    }
}

/// Sends stored reports, as many as may be under way.
async fn reports(site: &Arc<Site>, out: &Upstream, flight: &Mutex<Flight>) {
    loop {
        let room = IN_FLIGHT.saturating_sub(lock(flight).reports.len());
        let own = site.clone();
        let next = move || {
            let mut spool = lock(&own.spool);
            (0..room).map_while(|_| spool.next()).collect::<Vec<_>>()
        };
        let messages = tokio::task::spawn_blocking(next).await.unwrap_or_default();
        if messages.is_empty() {
            return;
        }
        for message in messages {
            let id = {
                let mut flight = lock(flight);
                let id = flight.id();
                flight.reports.insert(id, message.number);
                id
            };
            let (topic, payload) = (message.topic, message.payload);
            publish(site, out, Publish { qos: 1, id, topic, payload, ..Publish::default() }).await;
        }
    }
}

/// Asks for parts, as the site itself.
async fn get(shared: &Shared, site: &Site, out: &Upstream) {
    let Ok(own) = site.config.site.as_str().parse::<DeviceId>() else { return };
    let topic = Topic::Up(own, UpKind::Get).render(&shared.fleet);
    let (keys, silent) = {
        let mut fetch = site.fetch();
        let proofs = site.proofs();
        (fetch.next(site.now(), |key| proofs.needs(key)), fetch.silent())
    };
    for (key, askers) in silent {
        site.unanswered(shared, &key, askers);
    }
    for request in requests(keys) {
        let payload = request.write();
        publish(site, out, Publish { topic: topic.clone(), payload, ..Publish::default() }).await;
    }
}

/// Verifies, writes and hands on what came.
fn work(shared: &Shared, site: &Site, mut came: mpsc::Receiver<Came>) {
    while let Some(came) = came.blocking_recv() {
        match came {
            Came::Frame(frame) => {
                site.came(shared, &frame);
                site.wake.notify_one();
            }
            Came::Bundle(topic, payload) => {
                learn(shared, &topic, &payload);
                match site.mirror.keep(&topic, &payload) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    // Devices get it all the same.
                    Err(error) => site.disk_said(Err(error)),
                }
                local::say(&site.local, topic, payload);
            }
        }
    }
}

/// Takes in what a topic for fronts and chunk servers says.
pub(super) fn learn(shared: &Shared, topic: &str, payload: &[u8]) {
    match Topic::parse(&shared.fleet, topic) {
        Ok(Topic::Revoked) => shared.revoke(payload),
        Ok(topic) => shared.files.learn(&topic, payload),
        Err(_) => {}
    }
}
