//! The service's own connection to the broker, embedded or not. rumqttc is named here alone.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, NetworkOptions, Packet, QoS, SubscribeFilter};
use tern_protocol::id::FleetId;
use tern_protocol::limits::MQTT_PACKET_MAX;
use tern_protocol::topic::{Topic, UpKind, site_filter, uplink_filter};
use tokio::sync::mpsc;

use crate::engine::{Engine, Message};

/// Messages that may wait for the connection.
pub const OUTGOING: usize = 4096;
/// Requests that rumqttc keeps; beyond it publishing waits.
const REQUESTS: usize = 256;
/// QoS 1 publishes without their PUBACK.
const IN_FLIGHT: u16 = 200;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// First and longest pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Where the broker is and who we are there.
#[derive(Clone)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Client id, unique at the broker.
    pub client: String,
}

impl std::fmt::Debug for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} as {}", self.host, self.port, self.user)
    }
}

impl BrokerAddress {
    /// Reads `mqtt://host:port`.
    pub fn parse(url: &str, user: String, password: String) -> Result<Self, String> {
        let wrong = || format!("broker {url:?} is not of the form mqtt://host:port");
        let rest = url.strip_prefix("mqtt://").ok_or_else(wrong)?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (rest, 1883),
        };
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, user, password, client: "tern-service".to_owned() })
    }
}

/// Keeps the connection for as long as the process lives.
pub async fn run(
    fleet: FleetId,
    broker: BrokerAddress,
    engine: Engine,
    outgoing: mpsc::Receiver<(Topic, Vec<u8>)>,
) {
    let mut options = MqttOptions::new(broker.client.clone(), broker.host.clone(), broker.port);
    options.set_credentials(broker.user.clone(), broker.password.clone());
    options.set_clean_session(true);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_max_packet_size(MQTT_PACKET_MAX, MQTT_PACKET_MAX);
    options.set_inflight(IN_FLIGHT);
    let _no_will: Option<LastWill> = None;
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    // Publishing waits when the broker is slow; it must not wait in the task that polls.
    let sender = tokio::spawn(send(fleet.clone(), client.clone(), outgoing));
    let mut pause = PAUSE.0;
    // What devices send reaches us.
    let mut up = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                pause = PAUSE.0;
                tracing::info!(broker = ?broker, "connected to the broker");
                let filters = [
                    uplink_filter(&fleet, UpKind::Report),
                    uplink_filter(&fleet, UpKind::Enrol),
                    uplink_filter(&fleet, UpKind::Presence),
                    site_filter(&fleet),
                ];
                // A PUBACK of ours would prove nothing to a device: it repeats a report until the controller itself
                // has acknowledged it. So the broker need not wait for us message by message.
                let filters = filters.map(|path| SubscribeFilter { path, qos: QoS::AtMostOnce });
                if client.try_subscribe_many(filters).is_err() {
                    tracing::warn!("could not subscribe: the queue is full");
                }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                    tracing::error!(
                        "the broker refused a subscription of the service; check its access rules"
                    );
                }
                // Publishing goes on, for it may be a kill; what is not heard is not taken for silence.
                let refused = ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure);
                up = !refused;
                if engine.send(Message::BrokerUp).await.is_err() {
                    break;
                }
                if refused && engine.send(Message::BrokerDown).await.is_err() {
                    break;
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let Ok(topic) = Topic::parse(&fleet, &publish.topic) else { continue };
                if publish.retain && matches!(topic, Topic::Up(..)) && !publish.payload.is_empty() {
                    // Devices never retain. A broker whose rules cannot forbid it is cleaned up after.
                    if client.try_publish(publish.topic.clone(), QoS::AtLeastOnce, true, Vec::new()).is_err()
                    {
                        tracing::warn!(topic = publish.topic, "a retained uplink message stays for now");
                    }
                }
                if engine.send(Message::Received(topic, publish.payload.to_vec())).await.is_err() {
                    break;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the broker is not there");
                if std::mem::take(&mut up) && engine.send(Message::BrokerDown).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
    sender.abort();
}

async fn send(fleet: FleetId, client: AsyncClient, mut outgoing: mpsc::Receiver<(Topic, Vec<u8>)>) {
    while let Some((topic, payload)) = outgoing.recv().await {
        let qos = if topic.qos() == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        if let Err(error) = client.publish(topic.render(&fleet), qos, topic.is_retained(), payload).await {
            tracing::warn!(%error, "a message was not published");
        }
    }
}
