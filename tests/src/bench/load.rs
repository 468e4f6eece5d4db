//! Devices that send sealed reports as fast as they are acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use tern_bridge::front::frame::{Packet, Publish};
use tern_protocol::id::{DeviceId, FleetId, RolloutId};
use tern_protocol::mac::{Direction, MacKey, PairSecret};
use tern_protocol::message::{Attempt, Enrol, Hello, Report, ReportKind, Versions, enrol_signing_input};
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};

use super::mqtt::Client;
use crate::lab::{MODEL, PRODUCT};

/// Reports of one device that wait for their ack.
const WINDOW: u64 = 16;

/// A device of the load.
pub(super) struct LoadDevice {
    pub(super) id: DeviceId,
    identity: SecretKey,
    telemetry: SecretKey,
}

impl LoadDevice {
    /// Makes device number `index`.
    pub(super) fn new(index: u32) -> Self {
        let key = |salt: u32| {
            let mut bytes = [7; 32];
            bytes[..4].copy_from_slice(&index.to_be_bytes());
            bytes[4..8].copy_from_slice(&salt.to_be_bytes());
            SecretKey::from_slice(&bytes).expect("below the curve's order")
        };
        let id = format!("load-{index:04}").parse().expect("a valid name");
        Self { id, identity: key(1), telemetry: key(2) }
    }

    /// Returns its identity key as lists hold it.
    pub(super) fn identity(&self) -> String {
        hex::encode(self.identity.public_key().to_encoded_point(false))
    }

    /// Agrees with the controller's telemetry key.
    pub(super) fn agree(&self, controller: &p256::PublicKey) -> PairSecret {
        PairSecret::agree(&self.telemetry, controller)
    }

    /// Returns its line of the factory list.
    pub(super) fn factory_line(&self) -> String {
        let identity = self.identity();
        format!(
            r#"{{"device":"{}","identity":"{identity}","product":"{PRODUCT}","model":"{MODEL}","carrier":"none","region":"eu"}}"#,
            self.id
        )
    }

    pub(super) fn enrol(&self, fleet: &FleetId) -> Vec<u8> {
        let point = |key: &SecretKey| key.public_key().to_encoded_point(false).as_bytes().to_vec();
        let (identity, telemetry) = (point(&self.identity), point(&self.telemetry));
        let input = enrol_signing_input(fleet, &self.id, &identity, &telemetry);
        let signature: p256::ecdsa::Signature = p256::ecdsa::SigningKey::from(&self.identity).sign(&input);
        let enrol = Enrol {
            identity: hex::encode(identity),
            telemetry: hex::encode(telemetry),
            proof: hex::encode(signature.to_der().as_bytes()),
            claim: None,
            registry: None,
            replaces: None,
            time: None,
        };
        serde_json::to_vec(&enrol).expect("a message serialises")
    }

    pub(super) fn hello(&self) -> ReportKind {
        ReportKind::Hello(Box::new(Hello {
            running: 1,
            agent: "bench".into(),
            product: PRODUCT.parse().expect("a valid name"),
            model: MODEL.parse().expect("a valid name"),
            carrier: "none".parse().expect("a valid name"),
            region: "eu".parse().expect("a valid name"),
            floor: 0,
            versions: Versions::default(),
            halted: Vec::new(),
            components: Default::default(),
            proof: None,
        }))
    }
}

/// What the load shares.
pub(super) struct Load {
    pub(super) fleet: FleetId,
    pub(super) address: SocketAddr,
    pub(super) controller: p256::PublicKey,
    pub(super) rollout: RolloutId,
    /// Epoch of this run: every run is a new boot of every device.
    pub(super) epoch: u64,
    /// Whether acks come as ranges (the service) or one by one (the echo).
    pub(super) ranges: bool,
    pub(super) acknowledged: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// Sends until it is told to stop.
pub(super) fn run(load: &Arc<Load>, device: &LoadDevice) -> std::io::Result<()> {
    let topic = |kind| Topic::Up(device.id.clone(), kind).render(&load.fleet);
    let own = Topic::DeviceIn(device.id.clone()).render(&load.fleet);
    let mut client = Client::connect(load.address, device.id.as_str(), None, vec![(own, 0)])?;
    client.patience(std::time::Duration::from_secs(5))?;
    let secret = device.agree(&load.controller);
    let key = secret.key(Direction::Up, &load.fleet, &device.id, 1, load.epoch);
    let (report_topic, mut id) = (topic(UpKind::Report), 0u16);
    let mut send = |client: &mut Client, topic: &str, payload: Vec<u8>| {
        id = id % 0x7000 + 1;
        let publish = Publish { qos: 1, topic: topic.to_owned(), id, payload, ..Publish::default() };
        Packet::Publish(publish).write(&mut client.out);
    };
    // Numbers never repeat in a device's life: each run has a range of its own.
    let mut n = load.epoch * 100_000_000;
    let mut low = n;
    if load.ranges {
        send(&mut client, &topic(UpKind::Enrol), device.enrol(&load.fleet));
        client.flush()?;
        // A broker may deliver two topics in either order, and this device does not repeat itself.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    send(&mut client, &report_topic, seal(&key, load.epoch, n, low, device.hello()));
    n += 1;
    let mut waiting = 1u64;
    let mut states = [StateName::Downloading, StateName::Retry].into_iter().cycle();
    let attempt = Attempt { rc: 2, rollout: load.rollout.clone(), attempt: 1 };
    let mut from = StateName::Idle;
    let mut greeted = false;
    while !load.stop.load(Ordering::Relaxed) {
        while greeted && waiting < WINDOW {
            let to = states.next().unwrap_or(StateName::Retry);
            let kind = ReportKind::Transition { attempt: attempt.clone(), from, to, reason: None };
            from = to;
            send(&mut client, &report_topic, seal(&key, load.epoch, n, low, kind));
            n += 1;
            waiting += 1;
        }
        client.flush()?;
        for packet in client.read()? {
            let Packet::Publish(publish) = packet else { continue };
            if publish.qos == 1 {
                Packet::PubAck(publish.id).write(&mut client.out);
            }
            let count = if load.ranges { acknowledged(&publish.payload) } else { 1 };
            greeted |= count > 0;
            waiting = waiting.saturating_sub(count);
            low += count;
            load.acknowledged.fetch_add(count, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn seal(key: &MacKey, e: u64, n: u64, low: u64, kind: ReportKind) -> Vec<u8> {
    key.seal(&Report { e, k: 1, n, low, kind })
}

/// Counts the reports that an answer acknowledges.
pub(super) fn acknowledged(payload: &[u8]) -> u64 {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(payload) else { return 0 };
    let Some(ranges) = answer["ranges"].as_array() else { return 0 };
    let length = |r: &serde_json::Value| Some(r[1].as_u64()? - r[0].as_u64()? + 1);
    ranges.iter().filter_map(length).sum()
}
