//! What a client sends, packet by packet: checked by the policy, then answered here or handed to the broker.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tern_protocol::message::Get;
use tern_protocol::topic::{Topic, UpKind};
use tokio::time::timeout;

use super::Shared;
use super::frame::{Packet, Publish};
use super::queue::End;
use super::rate::Bucket;
use super::session::{Awaited, Reader};
use super::sessions::Session;
use super::upstream::Upstream;
use crate::chunks::pending;
use crate::clock;
use crate::policy::{self, Client, Route};

/// Filters that one device may hold; it needs six.
const DEVICE_FILTERS_MAX: usize = 32;
/// Filters that a site or service may hold: a site has two for each of its devices.
const FILTERS_MAX: usize = 4096;
/// SUBSCRIBEs for which the broker's answer is awaited.
const AWAITED_MAX: usize = 16;
/// How many devices' worth a site may send.
const SITE_SHARE: u32 = 100;

/// Says that the session is over.
type Step = Result<(), End>;

/// Sends the will of a client that is gone without a goodbye.
pub(crate) async fn last_will(shared: &Shared, upstream: &Upstream, will: Publish) {
    match (&shared.site, Topic::parse(&shared.fleet, &will.topic)) {
        (Some(site), Ok(Topic::Up(_, kind))) => site.take_up(kind, will.topic, will.payload).await,
        _ => upstream.push(&Packet::Publish(Publish { qos: 0, ..will })),
    }
}

pub(crate) struct Uplink<'a> {
    shared: &'a Arc<Shared>,
    session: &'a Session,
    upstream: &'a Upstream,
    awaited: &'a Awaited,
    /// Filters that the broker serves for this session.
    filters: HashSet<String>,
    /// Whether a refused subscription has been logged.
    warned: bool,
    /// Packets and bytes; none for the service.
    rate: Option<(Bucket, Bucket)>,
}

impl<'a> Uplink<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        session: &'a Session,
        upstream: &'a Upstream,
        awaited: &'a Awaited,
    ) -> Self {
        let share = match session.client {
            Client::Device(_) => Some(1),
            Client::Site(_) => Some(SITE_SHARE),
            Client::Service(_) => None,
        };
        let rate = share.map(|share| {
            let packets = shared.limits.packets_each_second.saturating_mul(share);
            let bytes = shared.limits.bytes_each_second.saturating_mul(share);
            let now = clock::now();
            (
                Bucket::new(packets, packets.saturating_mul(10), now),
                Bucket::new(bytes, bytes.saturating_mul(4), now),
            )
        });
        Self { shared, session, upstream, awaited, filters: HashSet::new(), warned: false, rate }
    }

    /// Reads and acts until the session is over.
    pub(crate) async fn run(&mut self, reader: &mut Reader, patience: Duration) -> End {
        loop {
            let packet = match timeout(patience, reader.next()).await {
                Ok(Ok(packet)) => packet,
                Ok(Err(error)) => {
                    tracing::debug!(client = %self.session.client, %error, "reading from a client ended");
                    return error.into();
                }
                Err(_) => return End::Silent,
            };
            // A client that is too fast is read more slowly; TCP passes that on to it.
            if let Some((packets, bytes)) = &mut self.rate {
                let now = clock::now();
                let length = u32::try_from(reader.last_length()).unwrap_or(u32::MAX);
                self.shared.counters.took(reader.last_length());
                let wait = packets.take(1, now).max(bytes.take(length, now));
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
            }
            if let Err(end) = self.act(packet).await {
                return end;
            }
        }
    }

    async fn act(&mut self, packet: Packet) -> Step {
        match packet {
            Packet::Publish(message) => self.publish(message).await,
            Packet::PubAck(id) => {
                self.session.queue.acknowledged(id);
                Ok(())
            }
            Packet::Subscribe { id, filters } => self.subscribe(id, filters).await,
            Packet::Unsubscribe { id, filters } => {
                self.unsubscribe(id, filters).await;
                Ok(())
            }
            Packet::PingReq => {
                self.session.queue.push(&Packet::PingResp);
                Ok(())
            }
            Packet::Disconnect => Err(End::Disconnected),
            // [MQTT-3.1.0-2] a second CONNECT; or a packet that only servers send.
            _ => Err(End::Protocol),
        }
    }

    async fn publish(&mut self, message: Publish) -> Step {
        let (shared, client) = (self.shared, &self.session.client);
        let length = message.payload.len();
        let topic = match policy::may_publish(&shared.fleet, client, &message.topic, message.retain, length) {
            Ok(topic) => topic,
            Err(denied) => {
                // MQTT 3.1.1 has no way to refuse one message ([MQTT-3.3.5-2]), so the connection ends.
                tracing::warn!(%denied, "a message was refused");
                shared.counters.denied_publish();
                return Err(End::Denied);
            }
        };
        match topic {
            Some(Topic::Up(device, UpKind::Get)) => {
                let get = Get::read(&message.payload);
                self.acknowledge(&message);
                match get {
                    Ok(get) => self.answer(&device, &get),
                    Err(error) => {
                        shared.counters.malformed();
                        tracing::debug!(%client, %error, "a get cannot be read");
                    }
                }
            }
            Some(Topic::DeviceIn(device) | Topic::DevicePack(device)) => {
                self.acknowledge(&message);
                shared.sessions.route(&device, &message);
            }
            Some(Topic::Up(_, kind)) if shared.site.is_some() => {
                let (id, qos) = (message.id, message.qos);
                if let Some(site) = &shared.site {
                    site.take_up(kind, message.topic, message.payload).await;
                }
                // Kept, and only then acknowledged.
                if qos > 0 {
                    self.session.queue.push(&Packet::PubAck(id));
                }
            }
            topic => {
                if topic == Some(Topic::Revoked) {
                    shared.revoke(&message.payload);
                } else if let Some(topic) = &topic {
                    // Only the service gets here with a topic of signed files.
                    shared.files.learn(topic, &message.payload);
                }
                self.upstream.send(&Packet::Publish(message)).await;
            }
        }
        Ok(())
    }

    fn acknowledge(&self, message: &Publish) {
        if message.qos > 0 {
            self.session.queue.push(&Packet::PubAck(message.id));
        }
    }

    fn answer(&self, device: &tern_protocol::id::DeviceId, get: &Get) {
        let fleet = &self.shared.fleet;
        self.shared.counters.asked();
        let packs = Topic::DevicePack(device.clone()).render(fleet);
        if self.session.hears(&packs).is_some() {
            self.session.queue.ask(pending::jobs(get, packs));
        }
        let topic = Topic::DeviceIn(device.clone()).render(fleet);
        for payload in self.shared.files.answer(get) {
            self.session.deliver(&Publish { topic: topic.clone(), qos: 1, payload, ..Publish::default() });
        }
        if let Some(site) = &self.shared.site {
            site.ask_files(device, get, &self.shared.files);
        }
    }

    async fn subscribe(&mut self, id: u16, filters: Vec<(String, u8)>) -> Step {
        let client = &self.session.client;
        let is_device = matches!(client, Client::Device(_));
        let most = if is_device { DEVICE_FILTERS_MAX } else { FILTERS_MAX };
        if filters.len() > most {
            return Err(End::Protocol);
        }
        let mut codes = Vec::with_capacity(filters.len());
        let (mut wanted, mut again) = (Vec::new(), Vec::new());
        for (filter, qos) in filters {
            let full = self.filters.len() + self.session.subscriptions() >= most;
            let route = policy::may_subscribe(&self.shared.fleet, client, &filter);
            let route = route.map_err(|denied| {
                // Once a connection: a client that tries on and on must not fill the log.
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(%denied, "a subscription was refused");
                }
            });
            if let (Ok(_), Some(site)) = (route, &self.shared.site) {
                site.follow(&filter);
            }
            codes.push(match route {
                Ok(Route::Direct) if !full => {
                    self.session.subscribe(&filter, qos.min(1));
                    Some(qos.min(1))
                }
                Ok(Route::Broker) if !full && self.admits(&filter) => {
                    // The broker sends retained messages only for a new subscription; the standard asks for
                    // them with every one ([MQTT-3.8.4-3]), and devices rely on it.
                    if !self.filters.insert(filter.clone()) {
                        again.push(filter.clone());
                    }
                    // Devices hear at quality of service 0: retained state and `get` repair what is lost.
                    wanted.push((filter, if is_device { 0 } else { qos.min(1) }));
                    None
                }
                _ => {
                    self.shared.counters.denied_subscribe();
                    Some(0x80)
                }
            });
        }
        if wanted.is_empty() {
            let codes = codes.into_iter().map(|code| code.unwrap_or(0x80)).collect();
            self.session.queue.push(&Packet::SubAck { id, codes });
            return Ok(());
        }
        {
            let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
            if awaited.len() >= AWAITED_MAX || awaited.insert(id, codes).is_some() {
                return Err(End::Protocol);
            }
        }
        if !again.is_empty() {
            self.upstream.send(&Packet::Unsubscribe { id, filters: again }).await;
        }
        self.upstream.send(&Packet::Subscribe { id, filters: wanted }).await;
        Ok(())
    }

    fn admits(&self, filter: &str) -> bool {
        self.shared.sessions.admits(&self.session.client, filter, self.shared.limits.filters_each_device)
    }

    async fn unsubscribe(&mut self, id: u16, filters: Vec<String>) {
        let (at_broker, direct): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|filter| self.filters.remove(filter));
        direct.iter().for_each(|filter| self.session.unsubscribe(filter));
        if !at_broker.is_empty() {
            self.upstream.send(&Packet::Unsubscribe { id, filters: at_broker }).await;
        }
        self.session.queue.push(&Packet::UnsubAck(id));
    }
}
