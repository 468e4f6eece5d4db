//! The five ways in which one client brought the bare broker down, each tried against the front.
//!
//! After each a client that comes now must connect, subscribe and receive.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Client, all_is_well, bridge, bridge_with, hello, up};
use tern_bridge::FrontLimits;
use tern_bridge::front::frame::Packet;
use tern_protocol::topic::UpKind;
use tokio::net::TcpSocket;

/// 1: a client id that the broker rejects, twice, left a lock poisoned; so did its own "full".
#[tokio::test(flavor = "multi_thread")]
async fn rejected_client_ids_leave_nothing_behind() {
    let scene = bridge().await;
    for id in ["a/b", "a/b", "a+b", "a+b", "#", "#", "$x", "$x", ""] {
        let mut client = Client::raw(scene.address).await;
        assert_eq!(client.connect(hello(id)).await, Some(2), "{id:?}");
        assert!(client.is_closed().await);
    }

    all_is_well(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_refuses_politely_and_has_room_again() {
    let scene = bridge_with(|config| config.limits.connections = 3).await;
    let mut inside = Vec::new();
    for id in ["a", "b", "c"] {
        inside.push(Client::device(&scene, id).await);
    }
    for _ in 0..2 {
        for id in ["d", "e"] {
            let mut client = Client::raw(scene.address).await;
            assert_eq!(client.connect(hello(id)).await, Some(3), "{id}");
        }
    }
    let mut again = Client::device(&scene, "c").await;
    assert!(again.ping().await, "a client takes its own place over even now");

    drop((inside, again));
    while scene.bridge.stats().connections > 0 {
        tokio::task::yield_now().await;
    }

    all_is_well(&scene).await;
}

/// 2: a v5 publisher with properties made the tasks of v4 subscribers panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_mqtt_5_is_told_so_and_gets_no_further() {
    let scene = bridge().await;
    for _ in 0..2 {
        let mut client = Client::raw(scene.address).await;
        // CONNECT of version 5: clean start, keepalive 60, no properties, client id "five".
        client.send_bytes(b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04five").await;
        assert_eq!(client.next().await, Some(Packet::ConnAck { session_present: false, code: 1 }));
        // PUBLISH of version 5 to "t" with a content type.
        client.send_bytes(b"\x30\x0a\x00\x01t\x05\x03\x00\x02ab!").await;
        assert!(client.is_closed().await);
    }

    all_is_well(&scene).await;
}

/// 3: a shared subscription that ended with an unacknowledged message made the router panic.
#[tokio::test(flavor = "multi_thread")]
async fn shared_subscriptions_never_reach_the_broker() {
    let scene = bridge().await;
    for _ in 0..2 {
        let mut service = Client::service_called(&scene, "sharing").await;
        let codes = service.subscribe(&["$share/g/ota/v1/acme/up/+/+/report", "$SYS/#"], 1).await;
        assert_eq!(codes, [0x80, 0x80]);
        let mut device = Client::device(&scene, "r-1").await;
        device.publish(&up("r-1", UpKind::Report), b"x", 1).await;
        assert_eq!(device.next().await, Some(Packet::PubAck(9)));
        service.hears_nothing().await;
    }

    all_is_well(&scene).await;
}

/// 4: a reader with a full socket was taken over by its own reconnect; when the old connection drained, the router
/// panicked.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_that_reconnects_and_drains_hurts_nobody() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    let head = "ota/v1/acme/p/ap/head";
    for round in 0..3 {
        // A small receive buffer fills soon.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut slow = Client::over(socket.connect(scene.address).await.unwrap());
        assert_eq!(slow.connect(hello("slow")).await, Some(0));
        assert_eq!(slow.subscribe(&[head], 1).await, [0]);
        for _ in 0..200 {
            service.publish(head, &[b'x'; 60_000], 1).await;
            assert_eq!(service.next().await, Some(Packet::PubAck(9)), "the publisher is not held up");
        }

        let mut again = Client::device(&scene, "slow").await;
        assert_eq!(again.subscribe(&[head], 1).await, [0]);
        again.send(&Packet::Disconnect).await;
        assert!(again.is_closed().await);
        assert!(slow.is_closed().await, "drained to its end, round {round}");
    }

    all_is_well(&scene).await;
    assert!(scene.bridge.stats().overflows > 0, "the slow reader was let go");
}

/// 5: one connection that never finished its handshake blocked every TLS client behind it.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_block_nobody_and_are_gone_after_the_deadline() {
    let scene = bridge_with(|config| {
        config.limits = FrontLimits { handshake_seconds: 1, ..config.limits };
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(Client::raw(scene.address).await);
    }
    let mut half = Client::raw(scene.address).await;
    half.send_bytes(b"\x10\x10\x00\x04MQ").await;

    all_is_well(&scene).await;

    for client in idle.iter_mut().chain([&mut half]) {
        assert!(client.is_closed().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_ends_the_connection_that_sent_it_and_nothing_else() {
    let scene = bridge().await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xff, 0xff, 0xff, 0xff], &[0; 100], &[0xe0, 0], &[0x10, 0]]
    {
        let mut client = Client::raw(scene.address).await;
        client.send_bytes(bytes).await;
        assert!(client.is_closed().await, "{bytes:?}");
    }
    for bytes in [&[0x62, 2, 0, 1][..], &[0x20, 2, 0, 0], &[0x34, 5, 0, 1, b'a', 0, 1], &[0xc1, 0]] {
        let mut client = Client::device(&scene, "r-1").await;
        client.send_bytes(bytes).await;
        assert!(client.is_closed().await, "{bytes:?}");
    }

    all_is_well(&scene).await;
}
