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

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_client_library_sends_and_receives_through_the_front() {
    const MESSAGES: u32 = 500;
    let scene = bridge().await;
    let topic = "ota/v1/acme/d/r-1/in";
    let options = |id: &str| rumqttc::MqttOptions::new(id, "127.0.0.1", scene.address.port());
    let (device, mut device_link) = rumqttc::AsyncClient::new(options("r-1"), 10);
    device.subscribe(topic, rumqttc::QoS::AtLeastOnce).await.unwrap();
    while !matches!(device_link.poll().await.unwrap(), rumqttc::Event::Incoming(rumqttc::Incoming::SubAck(_)))
    {
    }
    let mut login = options("tern");
    login.set_credentials("service", common::PASSWORD);
    let (service, mut service_link) = rumqttc::AsyncClient::new(login, 10);
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            service.publish(topic, rumqttc::QoS::AtLeastOnce, false, number.to_string()).await.unwrap();
        }
        service
    });
    let acknowledging = tokio::spawn(async move {
        let mut acknowledged = 0;
        while acknowledged < MESSAGES {
            if let rumqttc::Event::Incoming(rumqttc::Incoming::PubAck(_)) = service_link.poll().await.unwrap()
            {
                acknowledged += 1;
            }
        }
    });

    let mut received = 0;
    while received < MESSAGES {
        if let rumqttc::Event::Incoming(rumqttc::Incoming::Publish(message)) =
            device_link.poll().await.unwrap()
        {
            assert_eq!(message.payload, received.to_string());
            received += 1;
        }
    }

    acknowledging.await.unwrap();
    drop(sending.await.unwrap());
}

/// Prints seconds and memory; run with --nocapture --ignored to measure.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_thousand_devices_connect_and_hear() {
    let scene = bridge().await;
    let memory = || {
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .unwrap()
            .to_owned()
    };
    let before = memory();
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
    let start = std::time::Instant::now();
    let mut devices = Vec::new();
    for number in 0..1000 {
        let mut device = Client::device(&scene, &format!("r-{number}")).await;
        device.subscribe(&["ota/v1/acme/p/ap/head", "ota/v1/acme/p/ap/ts"], 0).await;
        devices.push(device);
    }
    println!("connected in {:?}; {before} before, {} after", start.elapsed(), memory());
    let mut service = Client::service(&scene).await;
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
    let start = std::time::Instant::now();
    service.publish_as("ota/v1/acme/p/ap/head", &[b'x'; 3000], 1, true).await;
    for device in &mut devices {
        assert_eq!(device.message().await.payload.len(), 3000);
    }
    println!("heard by all in {:?}", start.elapsed());
}
