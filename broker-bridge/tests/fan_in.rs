//! Reports of many devices at once arrive complete.

mod common;

use std::collections::HashSet;

use common::{Client, bridge, up};
use tern_bridge::front::frame::{Packet, Publish};
use tern_protocol::topic::UpKind;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_reports_of_two_hundred_devices_arrive_complete() {
    const DEVICES: u16 = 200;
    const EACH: u16 = 100;
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    assert_eq!(service.subscribe(&["ota/v1/acme/up/+/+/report"], 1).await, [1]);

    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let mut device = Client::device(&scene, &format!("r-{number}")).await;
        let topic = up(&format!("r-{number}"), UpKind::Report);
        devices.push(tokio::spawn(async move {
            for id in 1..=EACH {
                let payload = format!("{number} {id} {}", "x".repeat(150)).into_bytes();
                device
                    .send(&Packet::Publish(Publish {
                        qos: 1,
                        topic: topic.clone(),
                        id,
                        payload,
                        ..Publish::default()
                    }))
                    .await;
            }
            for id in 1..=EACH {
                assert_eq!(device.next().await, Some(Packet::PubAck(id)));
            }
            device
        }));
    }
    let mut seen = HashSet::new();
    while seen.len() < usize::from(DEVICES) * usize::from(EACH) {
        let Some(Packet::Publish(message)) = service.next().await else { panic!("after {}", seen.len()) };
        assert!((1..0x8000).contains(&message.id));
        service.send(&Packet::PubAck(message.id)).await;
        assert!(seen.insert(message.payload), "nothing twice");
    }
    for device in devices {
        device.await.unwrap();
    }
}
