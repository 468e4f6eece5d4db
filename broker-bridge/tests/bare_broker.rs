//! What the front keeps away, done to the broker without it: proof that the attacks in `hostile.rs` are real.
//!
//! When one of these fails after an update of rumqttd, that flaw has been mended.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Client, external_broker, hello};
use tern_bridge::front::frame::{Connect, Packet};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn login(id: &str) -> Connect {
    Connect { user: Some("r-1".into()), password: Some("right".into()), ..hello(id) }
}

async fn broker() -> SocketAddr {
    let address = external_broker();
    while TcpStream::connect(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(serves(address).await, "well before the attack");
    address
}

/// Tells whether a client that comes now gets its CONNACK.
async fn serves(address: SocketAddr) -> bool {
    let mut client = Client::raw(address).await;
    matches!(timeout(Duration::from_secs(2), client.connect(login("fresh"))).await, Ok(Some(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_client_id_twice_closes_the_bare_broker_to_all() {
    let address = broker().await;
    for _ in 0..2 {
        let mut client = Client::raw(address).await;
        drop(timeout(Duration::from_millis(500), client.connect(login("a/b"))).await);
    }

    assert!(!serves(address).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_left_unacknowledged_ends_the_bare_brokers_router() {
    let address = broker().await;
    let mut subscriber = Client::raw(address).await;
    assert_eq!(subscriber.connect(Connect { clean_session: false, ..login("sharing") }).await, Some(0));
    subscriber.subscribe(&["$share/g/t"], 1).await;
    let mut publisher = Client::raw(address).await;
    publisher.connect(login("publisher")).await;
    publisher.publish("t", b"x", 1).await;
    assert_eq!(publisher.next().await, Some(Packet::PubAck(9)));
    assert_eq!(subscriber.message().await.payload, b"x");

    drop(subscriber);
    // The router ends once it looks at whom the message was for: from then on nobody's is acknowledged.
    let ends = async {
        loop {
            publisher.publish("t", b"x", 1).await;
            let answer = timeout(Duration::from_secs(2), publisher.next()).await;
            if !matches!(answer, Ok(Some(Packet::PubAck(9)))) {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), ends).await.expect("it ends");

    assert!(!serves(address).await);
}
