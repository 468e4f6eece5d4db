//! Revoked devices are shown the door, by the service alone.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Client, bridge, hello};
use tern_protocol::id::DeviceId;
use tern_protocol::message::Revoked;

const REVOKED: &str = "ota/v1/acme/revoked";

fn list(devices: &[&str]) -> Vec<u8> {
    let devices: Vec<DeviceId> = devices.iter().map(|id| id.parse().unwrap()).collect();
    Revoked::list(&devices).0.write()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_closed_and_refused_until_the_service_says_otherwise() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    let (mut stolen, mut other) = (Client::device(&scene, "r-1").await, Client::device(&scene, "r-2").await);

    service.publish_as(REVOKED, &list(&["r-1"]), 0, true).await;

    assert!(stolen.is_closed().await);
    assert!(other.ping().await);
    assert_eq!(Client::raw(scene.address).await.connect(hello("r-1")).await, Some(5), "not authorized");
    assert_eq!(scene.bridge.stats().revoked, 1);
    // What cannot be read, and an empty payload, are no pardon.
    for no_list in [&b""[..], b"seven b"] {
        service.publish_as(REVOKED, no_list, 0, true).await;
        assert!(service.ping().await);
        assert_eq!(Client::raw(scene.address).await.connect(hello("r-1")).await, Some(5));
    }
    service.publish_as(REVOKED, &list(&[]), 0, true).await;
    assert!(service.ping().await);
    assert_eq!(Client::raw(scene.address).await.connect(hello("r-1")).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_service_revokes_or_reads_who_is_revoked() {
    let scene = bridge().await;
    let mut victim = Client::device(&scene, "r-1").await;
    let mut enemy = Client::device(&scene, "r-2").await;

    assert_eq!(enemy.subscribe(&[REVOKED, "ota/v1/acme/+"], 0).await, [0x80, 0x80]);
    enemy.publish_as(REVOKED, &list(&["r-1"]), 0, false).await;

    assert!(enemy.is_closed().await);
    assert!(victim.ping().await);
}
