//! The policy, through the socket.

mod common;

use common::{Client, all_is_well, bridge, bridge_with, hello, up};
use tern_bridge::Auth;
use tern_bridge::front::frame::{Connect, Packet, Publish};
use tern_protocol::id::DeviceId;
use tern_protocol::message::{Get, Pack, Want};
use tern_protocol::position::Cohort;
use tern_protocol::topic::UpKind;

const REPORTS: &str = "ota/v1/acme/up/+/+/report";

#[tokio::test(flavor = "multi_thread")]
async fn reports_go_up_and_signed_files_come_down() {
    let scene = bridge().await;

    all_is_well(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_may_not_hear_is_refused_filter_by_filter_and_in_order() {
    let scene = bridge().await;
    let cohort = Cohort::of(&"r-1".parse::<DeviceId>().unwrap()).number();
    let mut device = Client::device(&scene, "r-1").await;

    let codes = device
        .subscribe(
            &[
                "ota/v1/acme/p/ap/head",
                "ota/v1/acme/d/r-2/in",
                "ota/v1/acme/d/r-1/in",
                "ota/v1/acme/p/ap/+",
                "ota/v1/acme/up/+/+/report",
                &format!("ota/v1/acme/p/ap/eu/{cohort:03}"),
                &format!("ota/v1/acme/p/ap/eu/{:03}", (cohort + 1) % 1000),
                "#",
            ],
            1,
        )
        .await;

    assert_eq!(codes, [0, 0x80, 1, 0x80, 0x80, 0, 0x80, 0x80]);
    assert_eq!(scene.bridge.stats().denied_subscribes, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_in_anothers_name_ends_the_connection_and_nobody_receives_it() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    service.subscribe(&[REPORTS], 1).await;
    for topic in [up("r-2", UpKind::Report), "ota/v1/acme/p/ap/head".into(), "ota/v1/acme/d/r-2/in".into()] {
        let mut device = Client::device(&scene, "r-1").await;
        device.publish(&topic, b"forged", 1).await;
        assert!(device.is_closed().await, "{topic}");
    }

    let mut device = Client::device(&scene, "r-1").await;
    device.publish(&up("r-1", UpKind::Report), b"mine", 1).await;

    assert_eq!(service.message().await.payload, b"mine");
    assert_eq!(scene.bridge.stats().denied_publishes, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_not_retain_not_even_its_will() {
    let scene = bridge().await;
    let mut device = Client::device(&scene, "r-1").await;
    device.publish_as(&up("r-1", UpKind::Presence), b"{}", 0, true).await;
    assert!(device.is_closed().await);

    let will =
        |topic: String, retain| Publish { topic, retain, payload: b"{}".to_vec(), ..Publish::default() };
    for (will, code) in [
        (will(up("r-1", UpKind::Presence), true), 5),
        (will(up("r-2", UpKind::Presence), false), 5),
        (will(up("r-1", UpKind::Presence), false), 0),
    ] {
        let mut device = Client::raw(scene.address).await;
        assert_eq!(
            device.connect(Connect { will: Some(will.clone()), ..hello("r-1") }).await,
            Some(code),
            "{will:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_speaks_when_a_device_is_lost_and_not_when_it_says_goodbye_or_comes_back() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    service.subscribe(&["ota/v1/acme/up/+/+/presence", REPORTS], 1).await;
    let connect = |text: &str| {
        let will = Publish { topic: up("r-1", UpKind::Presence), payload: text.into(), ..Publish::default() };
        Connect { will: Some(will), ..hello("r-1") }
    };
    let mut polite = Client::raw(scene.address).await;
    polite.connect(connect("polite")).await;
    polite.send(&Packet::Disconnect).await;
    assert!(polite.is_closed().await);
    let mut first = Client::raw(scene.address).await;
    first.connect(connect("first")).await;
    let mut second = Client::raw(scene.address).await;
    second.connect(connect("second")).await;
    assert!(first.is_closed().await, "taken over");

    drop(second);

    assert_eq!(service.message().await.payload, b"second");
    service.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_ceiling_of_its_topic_or_of_all_ends_the_connection() {
    let scene = bridge().await;
    for length in [17_000, 100_000] {
        let mut device = Client::device(&scene, "r-1").await;
        device.publish(&up("r-1", UpKind::Report), &vec![b'x'; length], 1).await;
        assert!(device.is_closed().await, "{length}");
    }
    all_is_well(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_an_id_replaces_the_older() {
    let scene = bridge().await;
    let mut old = Client::device(&scene, "r-1").await;
    let mut new = Client::device(&scene, "r-1").await;

    assert!(old.is_closed().await);
    assert!(new.ping().await);
    assert_eq!(scene.bridge.stats().connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_service_reaches_its_device_with_an_id_of_the_front() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    let mut device = Client::device(&scene, "r-1").await;
    let mut other = Client::device(&scene, "r-2").await;
    assert_eq!(device.subscribe(&["ota/v1/acme/d/r-1/in"], 1).await, [1]);
    assert_eq!(other.subscribe(&["ota/v1/acme/d/r-2/in"], 1).await, [1]);

    service.publish("ota/v1/acme/d/r-1/in", b"an answer", 1).await;

    assert_eq!(service.next().await, Some(Packet::PubAck(9)));
    let message = device.message().await;
    assert_eq!((message.payload.as_slice(), message.qos), (&b"an answer"[..], 1));
    assert!(message.id >= 0x8000, "{}", message.id);
    device.send(&Packet::PubAck(message.id)).await;
    assert!(device.ping().await);
    other.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_device_that_is_not_here_is_acknowledged_and_dropped() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;

    service.publish("ota/v1/acme/d/nobody/in", b"x", 1).await;

    assert_eq!(service.next().await, Some(Packet::PubAck(9)));
    all_is_well(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_head_is_there_after_a_reconnect_and_after_subscribing_again() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    service.publish_as("ota/v1/acme/p/ap/head", b"files", 1, true).await;
    assert_eq!(service.next().await, Some(Packet::PubAck(9)));
    for _ in 0..2 {
        let mut device = Client::device(&scene, "r-1").await;
        for _ in 0..2 {
            device
                .send(&Packet::Subscribe { id: 3, filters: vec![("ota/v1/acme/p/ap/head".into(), 0)] })
                .await;
            let (mut acknowledged, mut retained) = (false, false);
            while !(acknowledged && retained) {
                match device.next().await.unwrap() {
                    Packet::SubAck { id: 3, codes } => acknowledged = codes == [0],
                    Packet::Publish(message) => retained = message.retain && message.payload == b"files",
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribing_is_acknowledged_exactly_once_whatever_it_names() {
    let scene = bridge().await;
    let mut service = Client::service(&scene).await;
    let mut device = Client::device(&scene, "r-1").await;
    let (head, ts, own) = ("ota/v1/acme/p/ap/head", "ota/v1/acme/p/ap/ts", "ota/v1/acme/d/r-1/in");
    device.subscribe(&[head, ts, own], 0).await;

    let filters = vec![head.into(), "never/heard/of".into(), ts.into(), own.into()];
    device.send(&Packet::Unsubscribe { id: 5, filters }).await;

    assert_eq!(device.next().await, Some(Packet::UnsubAck(5)));
    assert!(device.ping().await, "and no second UNSUBACK");
    service.publish(own, b"x", 1).await;
    assert_eq!(service.next().await, Some(Packet::PubAck(9)));
    device.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_keepalive_is_held_to_ours() {
    let scene = bridge_with(|config| config.limits.keep_alive_seconds = 1).await;
    let mut silent = Client::raw(scene.address).await;
    assert_eq!(silent.connect(Connect { keep_alive: 0, ..hello("r-1") }).await, Some(0));

    assert!(silent.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_wrong_password_is_refused() {
    let scene = bridge().await;
    let mut client = Client::raw(scene.address).await;
    let (user, password) = (Some("service".into()), Some(b"guess".to_vec()));

    assert_eq!(client.connect(Connect { user, password, ..hello("tern") }).await, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_hears_for_its_devices_speaks_for_them_and_asks_for_itself() {
    let users = tempfile::tempdir().unwrap();
    let file = users.path().join("users");
    let site = tern_bridge::policy::Client::Site("hut-3".parse().unwrap());
    let password = tern_bridge::password::set_password(&file, &site).unwrap();
    let scene = bridge_with(|config| config.listeners[0].auth = Auth::Password { file, tls: None }).await;
    let root = scene.bridge.chunk_store().add([7; 100].as_slice()).unwrap().root;
    let mut service = Client::service(&scene).await;
    service.subscribe(&[REPORTS, "ota/v1/acme/site/+/status"], 1).await;
    let mut stranger = Client::raw(scene.address).await;
    assert_eq!(stranger.connect(hello("r-9")).await, Some(4));
    let mut site = Client::raw(scene.address).await;
    let login = |password: &str| Connect {
        user: Some("hut-3".into()),
        password: Some(password.into()),
        ..hello("hut-3")
    };
    assert_eq!(site.connect(login(&password)).await, Some(0));
    assert_eq!(
        site.subscribe(&["ota/v1/acme/p/#", "ota/v1/acme/d/+/+", "ota/v1/acme/up/#"], 1).await,
        [1, 1, 0x80]
    );

    service.publish("ota/v1/acme/d/r-7/in", b"answer", 1).await;
    assert_eq!(site.message().await.topic, "ota/v1/acme/d/r-7/in");
    site.publish(&up("r-7", UpKind::Report), b"report of r-7", 1).await;
    assert_eq!(service.message().await.payload, b"report of r-7");
    site.publish("ota/v1/acme/site/hut-3/status", b"{}", 1).await;
    assert_eq!(service.message().await.topic, "ota/v1/acme/site/hut-3/status");
    let get = Get::from(vec![Want::Packs { of: root, ranges: vec![(0, 1)] }]);
    site.publish(&up("hut-3", UpKind::Get), &get.write(), 0).await;
    let pack = site.message().await;

    assert_eq!(pack.topic, "ota/v1/acme/d/hut-3/pack");
    assert_eq!(Pack::read(&pack.payload).unwrap().payload, [7; 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_together_with_what_to_do() {
    let scene = bridge().await;
    let taken = scene.address;
    let config = tern_bridge::BridgeConfig {
        fleet: "acme".parse().unwrap(),
        listeners: vec![tern_bridge::ListenerConfig { listen: taken, auth: tern_bridge::Auth::Open {} }],
        service_password: common::PASSWORD.into(),
        chunk_dir: scene.folder.path().join("other"),
        limits: tern_bridge::FrontLimits::default(),
        upstream: None,
    };

    let error = tern_bridge::Bridge::start(config).await.unwrap_err().to_string();

    assert!(error.contains(&taken.to_string()) && error.contains("change `listen`"), "{error}");
}
