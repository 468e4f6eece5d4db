//! A small blocking MQTT 3.1.1 client that can also misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tern_bridge::front::frame::{self, Connect, Packet, Publish};

/// Longer than a busy machine needs; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
pub struct MqttClient {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl MqttClient {
    /// Connects as `id`, with a user and password for brokers that want them.
    ///
    /// # Panics
    /// When the broker does not let it in.
    pub fn connect(address: SocketAddr, id: &str, login: Option<(&str, &str)>) -> Self {
        let mut client = Self::raw(address);
        let connect = Connect {
            level: 4,
            client_id: id.into(),
            clean_session: true,
            keep_alive: 60,
            user: login.map(|(user, _)| user.into()),
            password: login.map(|(_, password)| password.into()),
            ..Connect::default()
        };
        client.send(&Packet::Connect(Box::new(connect)));
        let answer = client.next(PATIENCE);
        assert!(matches!(answer, Some(Packet::ConnAck { code: 0, .. })), "{id} got {answer:?}");
        client
    }

    /// Opens a connection and says nothing yet.
    pub fn raw(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP connection has no delay");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &Packet) {
        self.send_bytes(&packet.to_bytes());
    }

    /// Sends bytes that need not be a packet.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // A broker that has closed the connection is found out by reading.
        let _closed = self.stream.write_all(bytes);
    }

    /// Publishes at quality of service 0.
    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) {
        let publish = Publish { retain, topic: topic.into(), payload: payload.into(), ..Publish::default() };
        self.send(&Packet::Publish(publish));
    }

    /// Subscribes at quality of service 0 and returns the broker's codes; messages that come in between are put into `heard`.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn subscribe(&mut self, filters: &[&str], heard: &mut Vec<Publish>) -> Vec<u8> {
        let filters = filters.iter().map(|filter| ((*filter).to_owned(), 0)).collect();
        self.send(&Packet::Subscribe { id: 7, filters });
        loop {
            match self.next(PATIENCE) {
                Some(Packet::SubAck { codes, .. }) => return codes,
                Some(Packet::Publish(message)) => heard.push(message),
                other => panic!("SUBACK expected, got {other:?}"),
            }
        }
    }

    /// Returns every message that came until the broker has answered a ping: it has then seen all we sent before.
    ///
    /// # Panics
    /// When the connection is closed.
    pub fn messages(&mut self) -> Vec<Publish> {
        self.send(&Packet::PingReq);
        let mut heard = Vec::new();
        loop {
            match self.next(PATIENCE) {
                Some(Packet::Publish(message)) => heard.push(message),
                Some(Packet::PingResp) => return heard,
                Some(_) => {}
                None => panic!("the broker closed the connection"),
            }
        }
    }

    /// Waits until the broker closes the connection.
    ///
    /// # Panics
    /// When it does not.
    pub fn is_closed(&mut self) {
        while self.next(PATIENCE).is_some() {}
    }

    /// Returns the next packet, or none once the connection is closed.
    ///
    /// # Panics
    /// When neither comes within `most`.
    pub fn next(&mut self, most: Duration) -> Option<Packet> {
        self.stream.set_read_timeout(Some(most)).expect("a wait is not zero");
        loop {
            if let Some((packet, length)) =
                frame::read(&self.buffer, 1 << 20).expect("the broker speaks MQTT")
            {
                self.buffer.drain(..length);
                return Some(packet);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing came within {most:?}")
                }
                Err(_) => return None,
            }
        }
    }
}
