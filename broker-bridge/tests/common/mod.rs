//! A small MQTT 3.1.1 client that can also misbehave, and a bridge on loopback.
#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::SocketAddr;
use std::time::Duration;

use tern_bridge::front::frame::{self, Connect, Packet, Publish};
use tern_bridge::policy::SERVICE;
use tern_bridge::{Auth, Bridge, BridgeConfig, FrontLimits, ListenerConfig};
use tern_protocol::id::DeviceId;
use tern_protocol::topic::{Topic, UpKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const PASSWORD: &str = "a-long-password";
/// Long enough for a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must come, to believe that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Scene {
    pub(crate) bridge: Bridge,
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) async fn bridge() -> Scene {
    bridge_with(|_| {}).await
}

pub(crate) async fn bridge_with(change: impl FnOnce(&mut BridgeConfig)) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut config = BridgeConfig {
        fleet: "acme".parse().unwrap(),
        listeners: vec![ListenerConfig { listen, auth: Auth::Open {} }],
        service_password: PASSWORD.into(),
        chunk_dir: folder.path().join("chunks"),
        limits: FrontLimits {
            packets_each_second: 100_000,
            bytes_each_second: 100_000_000,
            ..FrontLimits::default()
        },
        upstream: None,
    };
    change(&mut config);
    let bridge = Bridge::start(config).await.unwrap();
    let address = bridge.addresses()[0];
    Scene { bridge, address, folder }
}

pub(crate) struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) fn hello(id: &str) -> Connect {
    Connect { level: 4, client_id: id.into(), clean_session: true, keep_alive: 60, ..Connect::default() }
}

impl Client {
    pub(crate) async fn raw(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub(crate) async fn device(scene: &Scene, id: &str) -> Self {
        let mut client = Self::raw(scene.address).await;
        assert_eq!(client.connect(hello(id)).await, Some(0), "{id} connects");
        client
    }

    pub(crate) async fn service(scene: &Scene) -> Self {
        Self::service_called(scene, "tern").await
    }

    pub(crate) async fn service_called(scene: &Scene, id: &str) -> Self {
        let mut client = Self::raw(scene.address).await;
        let (user, password) = (Some(SERVICE.into()), Some(PASSWORD.into()));
        assert_eq!(
            client.connect(Connect { user, password, ..hello(id) }).await,
            Some(0),
            "the service connects"
        );
        client
    }

    /// Sends CONNECT and returns the code of CONNACK, or `None` if the connection was closed instead.
    pub(crate) async fn connect(&mut self, connect: Connect) -> Option<u8> {
        self.send(&Packet::Connect(Box::new(connect))).await;
        match self.next().await {
            Some(Packet::ConnAck { session_present: false, code }) => Some(code),
            None => None,
            other => panic!("CONNACK expected, got {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: &Packet) {
        self.send_bytes(&packet.to_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // A peer that has closed is found out when reading.
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the bridge reads").ok();
    }

    /// Returns the next packet, or `None` once the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.read()).await.expect("a packet or the end of the connection comes in time")
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            if let Some((packet, length)) =
                frame::read(&self.buffer, 1 << 20).expect("the bridge speaks MQTT")
            {
                self.buffer.drain(..length);
                return Some(packet);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Asserts that the connection stays open and nothing comes.
    pub(crate) async fn hears_nothing(&mut self) {
        if let Ok(packet) = timeout(SILENCE, self.read()).await {
            panic!("nothing expected, got {packet:?}");
        }
    }

    pub(crate) async fn is_closed(&mut self) -> bool {
        while let Some(packet) = self.next().await {
            assert!(!matches!(packet, Packet::PingResp), "the connection is alive");
        }
        true
    }

    pub(crate) async fn subscribe(&mut self, filters: &[&str], qos: u8) -> Vec<u8> {
        let filters = filters.iter().map(|f| ((*f).to_owned(), qos)).collect();
        self.send(&Packet::Subscribe { id: 7, filters }).await;
        loop {
            match self.next().await {
                Some(Packet::SubAck { id: 7, codes }) => return codes,
                Some(Packet::Publish(_)) => {}
                other => panic!("SUBACK expected, got {other:?}"),
            }
        }
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) {
        self.publish_as(topic, payload, qos, false).await;
    }

    pub(crate) async fn publish_as(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let id = if qos > 0 { 9 } else { 0 };
        let publish = Publish { dup: false, qos, retain, topic: topic.into(), id, payload: payload.into() };
        self.send(&Packet::Publish(publish)).await;
    }

    /// Returns the next message; acknowledgements on the way are passed over.
    pub(crate) async fn message(&mut self) -> Publish {
        loop {
            match self.next().await {
                Some(Packet::Publish(message)) => return message,
                Some(Packet::PubAck(_)) => {}
                other => panic!("a message expected, got {other:?}"),
            }
        }
    }

    pub(crate) async fn ping(&mut self) -> bool {
        self.send(&Packet::PingReq).await;
        self.next().await == Some(Packet::PingResp)
    }
}

pub(crate) fn up(device: &str, kind: UpKind) -> String {
    let device: DeviceId = device.parse().unwrap();
    Topic::Up(device, kind).render(&"acme".parse().unwrap())
}

/// Asserts that a client that comes now connects, subscribes and receives.
pub(crate) async fn all_is_well(scene: &Scene) {
    let mut service = Client::service_called(scene, "well").await;
    assert_eq!(service.subscribe(&["ota/v1/acme/up/+/+/report"], 1).await, [1]);
    let mut device = Client::device(scene, "fresh").await;
    assert_eq!(device.subscribe(&["ota/v1/acme/p/well/ts"], 0).await, [0]);
    device.publish(&up("fresh", UpKind::Report), b"I am well", 1).await;
    loop {
        // Reports of earlier clients may come first.
        if service.message().await.payload == b"I am well" {
            break;
        }
    }
    assert_eq!(device.next().await, Some(Packet::PubAck(9)));
    service.publish("ota/v1/acme/p/well/ts", b"tick", 1).await;
    assert_eq!(device.message().await.payload, b"tick");
}

/// A bare broker on loopback; any MQTT 3.1.1 broker would do.
pub(crate) fn external_broker() -> SocketAddr {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = rumqttd::ServerSettings {
        name: "external".into(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 0,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size: tern_protocol::limits::MQTT_PACKET_MAX,
            max_inflight_count: 100,
            auth: Some(std::collections::HashMap::from([
                ("service".into(), "right".into()),
                ("r-1".into(), "right".into()),
            ])),
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let router = rumqttd::RouterConfig {
        max_connections: 100,
        max_outgoing_packet_count: 200,
        max_segment_size: 10 * 1024 * 1024,
        max_segment_count: 4,
        ..Default::default()
    };
    let v4 = Some(std::collections::HashMap::from([("1".into(), server)]));
    let config = rumqttd::Config { router, v4, ..Default::default() };
    std::thread::spawn(move || drop(rumqttd::Broker::new(config).start()));
    address
}
