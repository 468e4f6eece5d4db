//! Messages that make no sense are counted, and change nothing for anybody else.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use p256::SecretKey;
use p256::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use tern_bridge::front::frame::{Packet, Publish};
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::limits::{MQTT_PACKET_MAX, PRESENTED_MAX};
use tern_protocol::mac::{Direction, MacKey, PairSecret};
use tern_protocol::topic::{Topic, UpKind};
use tern_tests::lab::{Lab, LabDevice, Making, MqttClient, PRODUCT, made, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// A registered device whose keys an attacker has: nobody else could say so much that looks so right.
struct Taken {
    id: DeviceId,
    fleet: FleetId,
    key: MacKey,
    kid: u32,
    epoch: u64,
}

impl Taken {
    /// Registers a device of a model that no release is for, has it enrol, and takes its keys.
    fn take(lab: &Lab, factory: &std::path::Path) -> Self {
        let mut device = LabDevice::build(lab, "taken", factory, &Making::default());
        let mut line = device.identity();
        line["model"] = json!("tr-999");
        let list = lab.path("taken.json");
        std::fs::write(&list, line.to_string()).unwrap();
        lab.json(&["device", "add", "--unsigned", "--file", &list.display().to_string()]);
        device.start();
        wait("the device to be known", PATIENCE, || (lab.device("taken")["running"] == 1).then_some(()));
        device.kill();
        let epoch = device.status()["epoch"].as_u64().unwrap();
        let pem = std::fs::read_to_string(device.dir.join("data/telemetry.pem")).unwrap();
        let own = SecretKey::from_pkcs8_pem(&pem).unwrap();
        let online = tern_controller::keys::load_online(&lab.data(), &PRODUCT.parse().unwrap()).unwrap();
        let (id, fleet): (DeviceId, FleetId) = ("taken".parse().unwrap(), "lab".parse().unwrap());
        let (kid, ours) = online.newest().unwrap();
        let secret = PairSecret::agree(&own, &ours.public_key());
        let key = secret.key(Direction::Up, &fleet, &id, kid, epoch);
        Self { id, fleet, key, kid, epoch }
    }

    fn topic(&self, kind: UpKind) -> String {
        Topic::Up(self.id.clone(), kind).render(&self.fleet)
    }

    /// Seals a report as the device itself would.
    fn sealed(&self, n: u64, kind: &Value) -> Vec<u8> {
        let mut body = json!({"e": self.epoch, "k": self.kid, "n": n, "low": 1});
        body.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        self.key.seal(&body)
    }

    fn connect(&self, lab: &Lab) -> MqttClient {
        MqttClient::connect(lab.mqtt, self.id.as_str(), None)
    }
}

/// Returns a counter of `/v1/status`.
fn counter(status: &Value, path: &str) -> u64 {
    status.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is missing in {status}"))
}

#[test]
fn messages_that_make_no_sense_are_counted_while_a_rollout_completes_beside_them() {
    let mut lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("new.img"));
    made(&factory, 100_000, 1);
    made(&image, 1_000_000, 2);
    let taken = Taken::take(&lab, &factory);
    let mut devices: Vec<LabDevice> =
        (1..=3).map(|i| LabDevice::make(&lab, &format!("dev-{i}"), &factory, &Making::default())).collect();
    devices.iter_mut().for_each(LabDevice::start);
    lab.publish(2, &image);
    let before = lab.status();
    lab.roll_out(2, "r2", "1@none,all", 0);

    let (report, enrol, get) =
        (taken.topic(UpKind::Report), taken.topic(UpKind::Enrol), taken.topic(UpKind::Get));
    let health = json!({"t": "health", "rc": 1, "metrics": {}});
    let whole = taken.sealed(1000, &health);
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    let deep =
        [format!("{{\"e\":{},\"k\":{},", taken.epoch, taken.kid).as_bytes(), &[b'['; 4000][..]].concat();
    let forged_enrol = json!({"identity": "04aa", "telemetry": "04bb", "proof": "00"}).to_string();

    // What the service must call malformed: 6. It cannot be read, or says what nobody says.
    let mut client = taken.connect(&lab);
    client.publish(&report, b"\x00\xff\xfe not a report", false);
    client.publish(&report, b"", false);
    client.publish(&report, &taken.sealed(1001, &json!({"t": "teleport", "to": "the moon"})), false);
    client.publish(&report, &taken.sealed(1002, &json!({"t": "health", "rc": "one"})), false);
    client.publish(&enrol, b"{\"identity\":", false);
    client.publish(&enrol, b"[]", false);
    // What it must call forged: 5. Nobody vouches for these bytes.
    client.publish(&report, &whole[..whole.len() - 10], false);
    client.publish(&report, &flipped, false);
    client.publish(&report, &deep, false);
    client.publish(&report, format!("{{\"e\":{},\"k\":1,\"n\":1}}", taken.epoch + 500).as_bytes(), false);
    client.publish(&enrol, forged_enrol.as_bytes(), false);
    // What the front must call malformed: 3, and then 2 that cost the connection.
    client.publish(&get, b"\x00\x01\x02", false);
    client.publish(&get, b"{\"want\":[{\"pa", false);
    client.publish(&get, b"", false);
    client.messages();
    client.send_bytes(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
    client.is_closed();
    let mut client = taken.connect(&lab);
    client.publish(&report, &vec![b'x'; MQTT_PACKET_MAX + 1], false);
    client.is_closed();
    // What the front must refuse: 5 messages, each of which costs the connection.
    let foreign = report.replace("taken", "dev-1");
    let oversize = vec![b'x'; PRESENTED_MAX + 1];
    let others: [(&str, &[u8], bool); 5] = [
        (&report, &oversize, false),
        (&report, &whole, true),
        (&foreign, &whole, false),
        ("ota/v1/lab/p/router/head", b"forged", false),
        ("somewhere/else", b"x", false),
    ];
    for (topic, payload, retain) in others {
        let mut client = taken.connect(&lab);
        client.publish(topic, payload, retain);
        client.is_closed();
    }
    // What does not speak MQTT at all, or stops in the middle of a word.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0x20, 0x00]] {
        let mut client = MqttClient::raw(lab.mqtt);
        client.send_bytes(bytes);
        drop(client);
    }
    // A device that nobody registered.
    let ghost = Topic::Up("ghost".parse().unwrap(), UpKind::Report).render(&taken.fleet);
    let mut client = MqttClient::connect(lab.mqtt, "ghost", None);
    client.publish(&ghost, &whole, false);
    client.messages();

    let expected = [
        ("/counters/malformed", 6),
        ("/counters/forged", 5),
        ("/counters/unknown", 1),
        ("/front/malformed", 5),
        ("/front/refused_messages", 5),
        ("/front/refused_connections", 1),
    ];
    wait("every counter", PATIENCE, || {
        let status = lab.status();
        let reached = |(path, by): &(&str, u64)| counter(&status, path) >= counter(&before, path) + by;
        expected.iter().all(reached).then_some(())
    });
    let status = lab.status();
    for (path, by) in &expected[..5] {
        assert_eq!(counter(&status, path) - counter(&before, path), *by, "{path}: {status}");
    }
    let view = lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!((&view["total"]["good"], &view["total"]["bad"]), (&json!(3), &json!(0)), "{view}");
    // The control: the very report that was refused cut, flipped and oversize is taken when it is whole, once.
    let frames = counter(&lab.status(), "/ledger/frames");
    let mut client = taken.connect(&lab);
    for id in [1, 2] {
        let publish =
            Publish { qos: 1, id, topic: report.clone(), payload: whole.clone(), ..Publish::default() };
        client.send(&Packet::Publish(publish));
    }
    client.messages();
    wait("the whole report", PATIENCE, || (counter(&lab.status(), "/ledger/frames") > frames).then_some(()));

    devices.iter_mut().for_each(LabDevice::kill);
    let (memory, reports) = (lab.memory(), lab.status()["reports"].clone());
    lab.kill_service();
    lab.start_service();
    assert_eq!(lab.memory(), memory);
    assert_eq!(lab.status()["reports"], reports);
    assert!(lab.verified_frames() > frames);
}
