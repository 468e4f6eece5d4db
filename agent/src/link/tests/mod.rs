mod broker;
#[cfg(feature = "tls")]
mod encrypted;

use std::sync::Arc;

use super::*;
use broker::{Broker, CONNECT, DISCONNECT, LONG, PUBLISH, Peer, SUBSCRIBE};
use tokio::time::timeout;

/// A link under test.
struct Link {
    commands: mpsc::Sender<LinkCommand>,
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

fn config(brokers: &[&Broker]) -> LinkConfig {
    LinkConfig {
        brokers: brokers.iter().map(|broker| broker.address.clone()).collect(),
        client_id: "r-1".into(),
        login: None,
        tls: None,
        will: None,
        keepalive: Duration::from_secs(1200),
        silence: Duration::from_secs(10),
        reconnect_first: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(50),
        jitter: Box::new(|| 1.0),
    }
}

/// For stories about silence, where it has to pass.
fn impatient(brokers: &[&Broker]) -> LinkConfig {
    LinkConfig { silence: Duration::from_millis(500), ..config(brokers) }
}

impl Link {
    async fn start(config: LinkConfig, topics: &[&str]) -> Self {
        let (commands, events, task) = start(config);
        let mut link = Self { commands, events, task };
        link.command(subscribe(topics)).await;
        link
    }

    async fn command(&mut self, command: LinkCommand) {
        timeout(LONG, self.commands.send(command)).await.expect("the link takes no commands").unwrap();
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) {
        self.command(LinkCommand::Publish { topic: topic.into(), payload: payload.into(), qos }).await;
    }

    async fn event(&mut self) -> LinkEvent {
        timeout(LONG, self.events.recv()).await.expect("the link tells nothing").expect("the link has ended")
    }
}

fn subscribe(topics: &[&str]) -> LinkCommand {
    LinkCommand::Subscribe(topics.iter().map(|topic| (*topic).to_owned()).collect())
}

fn message(topic: &str, payload: &[u8]) -> LinkEvent {
    LinkEvent::Message { topic: topic.into(), payload: payload.into() }
}

#[tokio::test]
async fn the_link_is_up_only_when_its_subscriptions_are_acknowledged() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["head", "in"]).await;
    let mut peer = broker.accept().await;
    peer.connack(0).await;
    let packet = peer.expect(SUBSCRIBE).await;
    peer.publish("head", b"retained").await;

    assert_eq!(link.event().await, message("head", b"retained"));
    assert!(link.events.try_recv().is_err(), "not up before the SUBACK");
    peer.send(&[0x90, 4, packet.body[0], packet.body[1], 0, 0]).await;

    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn every_new_connection_subscribes_again_to_what_is_wanted_by_then() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["head", "in"]).await;
    let (peer, topics) = broker.welcome().await;
    assert_eq!(topics, ["head", "in"]);
    assert_eq!(link.event().await, LinkEvent::Up);

    drop(peer);

    assert!(matches!(link.event().await, LinkEvent::Down { .. }));
    link.command(subscribe(&["head", "in", "root"])).await;
    let mut peer = broker.accept().await;
    peer.connack(0).await;
    assert_eq!(peer.subscribed(0).await, ["head", "in", "root"]);
    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_refused_subscription_means_the_next_broker() {
    let (bad, good) = (Broker::start().await, Broker::start().await);
    let mut link = Link::start(config(&[&bad, &good]), &["head"]).await;
    let mut peer = bad.accept().await;
    peer.connack(0).await;

    peer.subscribed(0x80).await;

    let (_peer, topics) = good.welcome().await;
    assert_eq!(topics, ["head"]);
    assert_eq!(link.event().await, LinkEvent::Up, "a link that never was up does not go down");
}

#[tokio::test]
async fn a_refused_connection_means_the_next_broker() {
    let (bad, good) = (Broker::start().await, Broker::start().await);
    let mut link = Link::start(config(&[&bad, &good]), &["head"]).await;

    bad.accept().await.connack(3).await;

    let (_peer, _) = good.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_broker_that_accepts_and_says_nothing_means_the_next_broker() {
    let (silent, good) = (Broker::start().await, Broker::start().await);
    let mut link = Link::start(impatient(&[&silent, &good]), &["head"]).await;

    let _silent = silent.accept().await;

    let (_peer, _) = good.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_broker_that_owes_a_suback_means_the_next_broker() {
    let (silent, good) = (Broker::start().await, Broker::start().await);
    let mut link = Link::start(impatient(&[&silent, &good]), &["head"]).await;

    let mut peer = silent.accept().await;
    peer.connack(0).await;
    peer.expect(SUBSCRIBE).await;

    let (_peer, _) = good.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_broker_that_no_longer_acknowledges_is_left() {
    let (silent, good) = (Broker::start().await, Broker::start().await);
    let config = LinkConfig { silence: Duration::from_millis(150), ..config(&[&silent, &good]) };
    let mut link = Link::start(config, &["head"]).await;
    let (mut peer, _) = silent.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);

    link.publish("up/report", b"1", 1).await;
    peer.expect(PUBLISH).await;

    let LinkEvent::Down { reason } = link.event().await else { panic!("still up") };
    assert!(reason.contains("PUBACK"), "{reason}");
    good.welcome().await;
}

/// On a slow link an acknowledgement waits behind the packs of a download.
#[tokio::test]
async fn a_broker_that_sends_what_it_has_may_acknowledge_later() {
    let broker = Broker::start().await;
    let config = LinkConfig { silence: Duration::from_millis(150), ..config(&[&broker]) };
    let mut link = Link::start(config, &["pack"]).await;
    let (mut peer, _) = broker.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);
    link.publish("up/report", b"1", 1).await;
    peer.expect(PUBLISH).await;

    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.publish("pack", b"x").await;

        assert_eq!(link.event().await, message("pack", b"x"));
    }
}

#[tokio::test]
async fn the_pauses_between_attempts_grow() {
    let broker = Broker::start().await;
    let asked = Arc::new(std::sync::Mutex::new(0));
    let count = asked.clone();
    let config = LinkConfig {
        reconnect_first: Duration::from_millis(10),
        reconnect_max: Duration::from_secs(300),
        jitter: Box::new(move || {
            *count.lock().unwrap() += 1;
            1.0
        }),
        ..config(&[&broker])
    };
    let _link = Link::start(config, &["head"]).await;
    let mut at = Vec::new();

    for _ in 0..5 {
        drop(broker.accept().await);
        at.push(clock::uptime());
    }

    let pauses: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    let least = [10, 20, 40, 80];
    assert!(pauses.iter().zip(least).all(|(pause, least)| *pause + 2 >= least), "{pauses:?}");
    assert_eq!(*asked.lock().unwrap(), 4, "one draw a pause");
}

#[tokio::test]
async fn changed_topics_are_all_subscribed_to_anew_and_unchanged_ones_are_left_alone() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["head", "in"]).await;
    let (mut peer, _) = broker.welcome().await;

    link.command(subscribe(&["in", "head", "in"])).await;
    link.command(subscribe(&["head", "root"])).await;

    assert_eq!(peer.unsubscribed().await, ["head"]);
    assert_eq!(peer.unsubscribed().await, ["in"]);
    assert_eq!(peer.subscribed(0).await, ["head", "root"]);
    link.command(LinkCommand::Resubscribe).await;
    assert_eq!(peer.unsubscribed().await, ["head"]);
    assert_eq!(peer.unsubscribed().await, ["root"]);
    assert_eq!(peer.subscribed(0).await, ["head", "root"]);
    assert_eq!(link.event().await, LinkEvent::Up);
    assert!(link.events.try_recv().is_err(), "up once a connection");
}

#[tokio::test]
async fn messages_go_both_ways_at_their_quality_of_service() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["pack"]).await;
    let (mut peer, _) = broker.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);
    let pack = vec![7; 65_000];

    peer.publish("pack", &pack).await;
    link.publish("up/get", b"want", 0).await;
    link.publish("up/report", b"said", 1).await;

    assert_eq!(link.event().await, message("pack", &pack));
    assert_eq!(peer.expect(PUBLISH).await.message(), ("up/get".into(), 0, b"want".to_vec()));
    assert_eq!(peer.expect(PUBLISH).await.message(), ("up/report".into(), 1, b"said".to_vec()));
}

#[tokio::test]
async fn what_cannot_be_sent_is_dropped_and_does_not_cost_the_connection() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["pack"]).await;
    let (mut peer, _) = broker.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);

    link.publish("up/report", &vec![0; tern_protocol::limits::MQTT_PACKET_MAX], 1).await;
    link.publish("up/+/report", b"no topic", 1).await;
    link.publish("up/report", b"good", 1).await;

    assert_eq!(peer.expect(PUBLISH).await.message().2, b"good");
}

#[tokio::test]
async fn a_caller_that_does_not_listen_can_still_speak() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["pack"]).await;
    let (mut peer, _) = broker.welcome().await;
    for number in 0..100u8 {
        peer.publish("pack", &[number]).await;
    }

    for number in 0..200u8 {
        link.publish("up/get", &[number], 0).await;
    }

    assert_eq!(link.event().await, LinkEvent::Up);
    for number in 0..100u8 {
        assert_eq!(link.event().await, message("pack", &[number]), "nothing is lost on the way in");
    }
    for number in 0..200u8 {
        assert_eq!(peer.expect(PUBLISH).await.message().2, [number]);
    }
}

#[tokio::test]
async fn a_broker_that_takes_nothing_does_not_block_the_caller() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["pack"]).await;
    let (_peer, _) = broker.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);

    for _ in 0..2000 {
        link.publish("up/report", &[0; 4000], 1).await;
    }
}

#[tokio::test]
async fn the_broker_learns_who_comes_and_what_to_say_when_it_goes() {
    let broker = Broker::start().await;
    let config = LinkConfig {
        login: Some(("user".into(), "secret".into())),
        will: Some(("up/presence".into(), b"offline".to_vec())),
        keepalive: Duration::from_millis(1200),
        ..config(&[&broker])
    };
    let _link = Link::start(config, &["head"]).await;

    let connect = Peer(broker.accept_raw().await).expect(CONNECT).await.body;

    // Protocol level 4; user, password, will at QoS 1 and not retained, clean session; keep-alive rounded up.
    let mut expected = b"\0\x04MQTT\x04\xce\0\x02".to_vec();
    for text in ["r-1", "up/presence", "offline", "user", "secret"] {
        expected.extend_from_slice(&[0, u8::try_from(text.len()).unwrap()]);
        expected.extend_from_slice(text.as_bytes());
    }
    assert_eq!(connect, expected);
}

#[tokio::test]
async fn a_dropped_caller_gets_its_last_message_out_and_says_goodbye() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["head"]).await;
    let (mut peer, _) = broker.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);

    link.publish("up/presence", b"offline", 0).await;
    drop(link.commands);

    assert_eq!(peer.expect(PUBLISH).await.message().2, b"offline");
    peer.expect(DISCONNECT).await;
    assert!(peer.receive().await.is_none());
    timeout(LONG, link.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_wanted_topics_nobody_is_called_and_a_dropped_caller_ends_it() {
    let broker = Broker::start().await;
    let (commands, _events, task) = start(config(&[&broker]));
    commands.send(LinkCommand::Publish { topic: "x".into(), payload: vec![], qos: 0 }).await.unwrap();

    drop(commands);

    timeout(LONG, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn nonsense_from_the_broker_ends_the_connection_and_nothing_else() {
    let broker = Broker::start().await;
    let mut link = Link::start(config(&[&broker]), &["head"]).await;
    let nonsense: [&[u8]; 8] = [
        &[0x00, 0],                      // no such packet
        &[0x90, 2, 0, 9],                // SUBACK without codes
        &[0x40, 2, 0xff, 0xff],          // PUBACK of nothing
        &[0x70, 2, 0, 1],                // PUBCOMP of nothing
        &[0x30, 0xff, 0xff, 0xff, 0x7f], // a packet of 256 MiB
        &[0x30, 0xff, 0xff, 0xff, 0xff], // a length without end
        &[0x30, 3, 0, 9, b'x'],          // a topic longer than its packet
        &[0x32, 5, 0, 1, 0xff, 0, 0],    // a topic that is no text, packet id 0
    ];
    for bytes in nonsense {
        let (mut peer, _) = broker.welcome().await;
        assert_eq!(link.event().await, LinkEvent::Up);

        peer.send(bytes).await;

        assert!(matches!(link.event().await, LinkEvent::Down { .. }), "{bytes:02x?}");
    }
}
