//! One connection to one broker, from the first packet to the last. The only file that names rumqttc.
//!
//! rumqttc's traps, and what is done about them: `poll` reconnects by itself at once, so a session ends with the
//! first error; it loses packets when its future is dropped, so each `poll` is carried to its end; `publish` and
//! `subscribe` block for ever when called from the polling task, so only `try_…` is used; a request larger than
//! the packet limit ends the connection, so it is refused before it is queued; and it renews no subscription.

use std::pin::{Pin, pin};
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Outgoing, Packet, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode, Transport,
};
use tern_protocol::limits::{MQTT_PACKET_MAX, OUTBOX_MAX};
use tokio::time::{Sleep, sleep, timeout};

use super::{Caller, LinkCommand, LinkConfig, LinkEvent, Tls, unique};
use crate::clock;
use crate::config::BrokerAddress;

/// Messages that may wait for the broker: a whole outbox that is sent again.
const PUBLISHES: usize = OUTBOX_MAX;
/// Room beside them, so that subscribing never waits behind publishing.
const SUBSCRIPTIONS: usize = 64;
/// What MQTT adds to topic and payload, at most.
const OVERHEAD: usize = 16;
/// A broker that acknowledges nothing for this many times its silence is given up, unless it sends something else.
const UNACKNOWLEDGED: u32 = 10;
/// Even then after this many times its silence: on a slow link an acknowledgement waits behind packs, but not for ever.
const BUSY: u32 = 100;
/// Ceiling of rumqttc's own wait for a flush or a connection; ours for the connection is shorter.
const FLUSH_SECONDS: u64 = 60;

/// How a session ended.
pub(super) enum End {
    /// The connection is no more, or never was.
    Lost { was_up: bool, reason: String },
    /// The caller wants no link any more.
    Gone,
}

/// Connects to `broker` and works until something ends it. The broker may be silent for `patience`.
pub(super) async fn run(
    config: &LinkConfig,
    broker: &BrokerAddress,
    patience: Duration,
    caller: &mut Caller,
) -> End {
    let lost = |was_up, reason| End::Lost { was_up, reason };
    let Some(options) = options(config, broker) else {
        return lost(false, "the broker wants TLS, but none is configured".to_owned());
    };
    let (client, mut connection) = AsyncClient::new(options, PUBLISHES + SUBSCRIPTIONS);
    connection.set_network_options(network_options());

    let mut connected = Err(String::new());
    let attempt = async {
        connected = match timeout(patience, connection.poll()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no CONNACK within {patience:?}")),
        };
    };
    if caller.wait_without_link(attempt).await.is_err() {
        return End::Gone;
    }
    if let Err(reason) = connected {
        return lost(false, reason);
    }

    let mut session = Session {
        client,
        patience,
        subscribed: Vec::new(),
        queued: 0,
        subacks_owed: 0,
        pubacks_owed: 0,
        acknowledged: clock::uptime(),
        silence: None,
        up: false,
    };
    match session.work(&mut connection, caller).await {
        Stop::Gone => {
            session.close(&mut connection).await;
            End::Gone
        }
        Stop::Lost(reason) => lost(session.up, reason),
    }
}

/// Why a session stops.
enum Stop {
    Gone,
    Lost(String),
}

impl From<super::Gone> for Stop {
    fn from(_: super::Gone) -> Self {
        Self::Gone
    }
}

struct Session {
    client: AsyncClient,
    patience: Duration,
    /// What this connection is subscribed to.
    subscribed: Vec<String>,
    /// Requests handed to rumqttc that it has not yet sent.
    queued: usize,
    subacks_owed: usize,
    pubacks_owed: usize,
    /// When the broker last acknowledged something, or first owed it.
    acknowledged: Duration,
    /// Runs while the broker owes an acknowledgement.
    silence: Option<Pin<Box<Sleep>>>,
    up: bool,
}

impl Session {
    async fn work(&mut self, connection: &mut EventLoop, caller: &mut Caller) -> Stop {
        match self.try_work(connection, caller).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn try_work(
        &mut self,
        connection: &mut EventLoop,
        caller: &mut Caller,
    ) -> Result<std::convert::Infallible, Stop> {
        self.subscribe(&caller.wanted)?;
        loop {
            if !self.up && self.subacks_owed == 0 {
                self.up = true;
                self.tell(LinkEvent::Up, caller).await?;
            }
            let event = {
                let mut poll = pin!(connection.poll());
                loop {
                    // In this order: silence is only what is left when the network has nothing for us, also
                    // after the caller kept us from looking.
                    tokio::select! {
                        biased;
                        command = caller.commands.recv() => {
                            self.obey(command.ok_or(Stop::Gone)?, &mut caller.wanted)?;
                        }
                        event = &mut poll => break event.map_err(|error| Stop::Lost(error.to_string()))?,
                        () = expiry(&mut self.silence) => return Err(Stop::Lost(self.reproach())),
                    }
                }
            };
            if let Some(message) = self.note(event)? {
                self.tell(message, caller).await?;
            }
        }
    }

    /// Takes note of what happened on the connection; returns what the caller should hear of it.
    fn note(&mut self, event: Event) -> Result<Option<LinkEvent>, Stop> {
        match event {
            Event::Incoming(Packet::Publish(publish)) => {
                let busy = clock::uptime().saturating_sub(self.acknowledged) < self.patience * BUSY;
                if self.subacks_owed == 0 && self.pubacks_owed > 0 && busy {
                    self.listen_for_silence();
                }
                let payload = publish.payload.to_vec();
                return Ok(Some(LinkEvent::Message { topic: publish.topic, payload }));
            }
            Event::Incoming(Packet::SubAck(SubAck { return_codes, .. })) => {
                if return_codes.contains(&SubscribeReasonCode::Failure) {
                    return Err(Stop::Lost("the broker refuses a subscription".to_owned()));
                }
                self.subacks_owed = self.subacks_owed.saturating_sub(1);
                self.listen_for_silence();
            }
            Event::Incoming(Packet::PubAck(_)) => {
                self.pubacks_owed = self.pubacks_owed.saturating_sub(1);
                self.acknowledged = clock::uptime();
                self.listen_for_silence();
            }
            Event::Outgoing(Outgoing::Publish(id)) => {
                self.queued = self.queued.saturating_sub(1);
                if id != 0 {
                    if self.pubacks_owed == 0 {
                        self.acknowledged = clock::uptime();
                    }
                    self.pubacks_owed += 1;
                    if self.silence.is_none() {
                        self.listen_for_silence();
                    }
                }
            }
            Event::Outgoing(Outgoing::Subscribe(_) | Outgoing::Unsubscribe(_)) => {
                self.queued = self.queued.saturating_sub(1);
            }
            _ => {}
        }
        Ok(None)
    }

    fn obey(&mut self, command: LinkCommand, wanted: &mut Vec<String>) -> Result<(), Stop> {
        match command {
            LinkCommand::Publish { topic, payload, qos } => {
                self.publish(topic, payload, qos);
                Ok(())
            }
            LinkCommand::Subscribe(topics) => {
                let topics = unique(topics);
                if topics == *wanted {
                    return Ok(());
                }
                *wanted = topics;
                self.subscribe(wanted)
            }
            LinkCommand::Resubscribe => self.subscribe(wanted),
        }
    }

    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: u8) {
        if self.queued >= PUBLISHES || topic.len() + payload.len() + OVERHEAD > MQTT_PACKET_MAX {
            let (bytes, queued) = (payload.len(), self.queued);
            tracing::warn!(topic, bytes, queued, "dropped: too large, or the broker is too slow");
            return;
        }
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        match self.client.try_publish(topic, qos, false, payload) {
            Ok(()) => self.queued += 1,
            Err(error) => tracing::warn!(%error, "dropped: not a topic"),
        }
    }

    /// Subscribes to `wanted`. Some brokers send retained messages again only after an UNSUBSCRIBE.
    fn subscribe(&mut self, wanted: &[String]) -> Result<(), Stop> {
        let refused = |_| Stop::Lost("too many subscriptions at once".to_owned());
        for topic in std::mem::take(&mut self.subscribed) {
            self.client.try_unsubscribe(topic).map_err(refused)?;
            self.queued += 1;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let filters = wanted.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtMostOnce));
        self.client.try_subscribe_many(filters).map_err(refused)?;
        self.queued += 1;
        self.subscribed = wanted.to_vec();
        self.subacks_owed += 1;
        self.listen_for_silence();
        Ok(())
    }

    /// Starts the clock anew, because something moved; a SUBACK is due sooner than a PUBACK.
    fn listen_for_silence(&mut self) {
        self.silence = match (self.subacks_owed, self.pubacks_owed) {
            (0, 0) => None,
            (0, _) => Some(Box::pin(sleep(self.patience * UNACKNOWLEDGED))),
            _ => Some(Box::pin(sleep(self.patience))),
        };
    }

    fn reproach(&self) -> String {
        if self.subacks_owed > 0 {
            format!("no SUBACK within {:?}", self.patience)
        } else {
            format!("no PUBACK within {:?}", self.patience * UNACKNOWLEDGED)
        }
    }

    /// Tells `event`. While the caller is too busy to hear it, the network waits and commands are still taken.
    async fn tell(&mut self, event: LinkEvent, caller: &mut Caller) -> Result<(), Stop> {
        loop {
            tokio::select! {
                permit = caller.events.reserve() => {
                    permit.map_err(|_| Stop::Gone)?.send(event);
                    return Ok(());
                }
                command = caller.commands.recv() => self.obey(command.ok_or(Stop::Gone)?, &mut caller.wanted)?,
            }
        }
    }

    /// Sends what is still queued and says goodbye, so that the broker keeps the will to itself.
    async fn close(&mut self, connection: &mut EventLoop) {
        let goodbye = async {
            self.client.try_disconnect().map_err(|error| error.to_string())?;
            while connection.poll().await.map_err(|error| error.to_string())?
                != Event::Outgoing(Outgoing::Disconnect)
            {}
            Ok::<(), String>(())
        };
        match timeout(self.patience, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::debug!(reason, "the connection ended before its goodbye"),
            Err(_) => tracing::debug!("no time for a goodbye"),
        }
    }
}

/// Ends when the silence has lasted too long; never, while nothing is owed.
async fn expiry(silence: &mut Option<Pin<Box<Sleep>>>) {
    match silence {
        Some(silence) => silence.as_mut().await,
        None => std::future::pending().await,
    }
}

fn options(config: &LinkConfig, broker: &BrokerAddress) -> Option<MqttOptions> {
    let mut options = MqttOptions::new(config.client_id.clone(), broker.host.clone(), broker.port);
    if broker.tls {
        options.set_transport(encrypted(config.tls.clone()?));
    }
    if let Some((user, password)) = &config.login {
        options.set_credentials(user.clone(), password.clone());
    }
    if let Some((topic, payload)) = &config.will {
        options.set_last_will(LastWill::new(topic.clone(), payload.clone(), QoS::AtLeastOnce, false));
    }
    // The field in CONNECT has 16 bits of whole seconds.
    let keepalive = config.keepalive.as_secs_f64().ceil().clamp(1.0, f64::from(u16::MAX));
    options
        .set_keep_alive(Duration::from_secs_f64(keepalive))
        .set_clean_session(true)
        .set_max_packet_size(MQTT_PACKET_MAX, MQTT_PACKET_MAX);
    Some(options)
}

#[cfg(feature = "tls")]
fn encrypted(tls: Tls) -> Transport {
    Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls))
}

#[cfg(not(feature = "tls"))]
fn encrypted(tls: Tls) -> Transport {
    match tls {}
}

fn network_options() -> NetworkOptions {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    options.set_connection_timeout(FLUSH_SECONDS);
    options
}
