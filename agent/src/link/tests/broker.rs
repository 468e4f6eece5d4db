//! A broker that does only what the test says, byte by byte.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::config::BrokerAddress;

/// Far beyond what anything here takes; only a failing test waits for it.
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) const CONNECT: u8 = 1;
pub(super) const PUBLISH: u8 = 3;
pub(super) const SUBSCRIBE: u8 = 8;
pub(super) const UNSUBSCRIBE: u8 = 10;
pub(super) const DISCONNECT: u8 = 14;

pub(super) struct Broker {
    listener: TcpListener,
    pub(super) address: BrokerAddress,
}

pub(super) struct Peer<S = TcpStream>(pub(super) S);

/// A packet: its first byte, and what follows the length.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) head: u8,
    pub(super) body: Vec<u8>,
}

impl Broker {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, address: BrokerAddress { tls: false, host: "127.0.0.1".into(), port } }
    }

    pub(super) async fn accept_raw(&self) -> TcpStream {
        timeout(LONG, self.listener.accept()).await.expect("nobody connects").unwrap().0
    }

    /// Accepts a connection and its CONNECT.
    pub(super) async fn accept(&self) -> Peer {
        let mut peer = Peer(self.accept_raw().await);
        peer.expect(CONNECT).await;
        peer
    }

    /// Accepts a connection and its subscriptions; returns the topics.
    pub(super) async fn welcome(&self) -> (Peer, Vec<String>) {
        let mut peer = self.accept().await;
        peer.connack(0).await;
        let topics = peer.subscribed(0).await;
        (peer, topics)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Returns the next packet, or `None` when the agent has hung up.
    pub(super) async fn receive(&mut self) -> Option<Received> {
        let head = match timeout(LONG, self.0.read_u8()).await.expect("the agent says nothing") {
            Ok(head) => head,
            Err(_) => return None,
        };
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.0.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        Some(Received { head, body })
    }

    pub(super) async fn expect(&mut self, kind: u8) -> Received {
        let received = self.receive().await.expect("the agent hung up");
        assert_eq!(received.head >> 4, kind, "{received:?}");
        received
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(super) async fn connack(&mut self, code: u8) {
        self.send(&[0x20, 2, 0, code]).await;
    }

    /// Takes a SUBSCRIBE, answers every topic with `code`, and returns the topics.
    pub(super) async fn subscribed(&mut self, code: u8) -> Vec<String> {
        let packet = self.expect(SUBSCRIBE).await;
        let topics = packet.filters(1);
        let length = u8::try_from(2 + topics.len()).unwrap();
        let mut suback = vec![0x90, length, packet.body[0], packet.body[1]];
        suback.extend(topics.iter().map(|_| code));
        self.send(&suback).await;
        topics
    }

    /// Takes an UNSUBSCRIBE and returns its topics. Like some brokers, sends no UNSUBACK.
    pub(super) async fn unsubscribed(&mut self) -> Vec<String> {
        self.expect(UNSUBSCRIBE).await.filters(0)
    }

    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8]) {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(payload);
        let (mut packet, mut length) = (vec![0x30], body.len());
        while length >= 0x80 {
            packet.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        packet.push(u8::try_from(length).unwrap());
        packet.extend_from_slice(&body);
        self.send(&packet).await;
    }
}

impl Received {
    /// Reads topics that are each followed by `options` bytes.
    fn filters(&self, options: usize) -> Vec<String> {
        let (mut rest, mut topics) = (&self.body[2..], Vec::new());
        while let [high, low, tail @ ..] = rest {
            let (topic, tail) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            topics.push(String::from_utf8(topic.to_vec()).unwrap());
            assert!(tail[..options].iter().all(|qos| *qos == 0), "devices subscribe at QoS 0");
            rest = &tail[options..];
        }
        topics
    }

    /// Reads a PUBLISH: topic, QoS, payload.
    pub(super) fn message(&self) -> (String, u8, Vec<u8>) {
        let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let (topic, rest) = self.body[2..].split_at(length);
        let qos = self.head >> 1 & 3;
        let payload = if qos == 0 { rest } else { &rest[2..] };
        assert_eq!(self.head & 1, 0, "devices never retain");
        (String::from_utf8(topic.to_vec()).unwrap(), qos, payload.to_vec())
    }
}
