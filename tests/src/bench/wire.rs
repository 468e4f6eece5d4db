//! What a whole update by delta costs on the wire, between two images that are given.
//!
//! Two devices do the same: one speaks to its broker through a counter of MQTT packets, the other under TLS through a way
//! that counts what it carries. Counted is from the start of the rollout until the service knows of both that the release is
//! confirmed and they have said all they had to say: the signed files of the rollout, the manifest, requests, packs,
//! reports, the boot into the new release with its new connection, and the soak.

use std::path::Path;
use std::time::Duration;

use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Profile, encode};

use super::counter::{Counter, Counts};
use crate::lab::{Lab, LabDevice, MODEL, Making, Radio, Terms, TlsProxy, certificates};

/// An update is over by then.
const MOST: Duration = Duration::from_secs(600);
/// Nothing more is said by then.
const REST: Duration = Duration::from_secs(5);
/// Bytes of TCP in a packet of 1500 B: on loopback a packet carries forty times that, so packets are not counted there.
const SEGMENT: u64 = 1448;
/// Headers of a packet: IP 20 B, TCP 20 B and its timestamps 12 B.
const HEADERS: u64 = 52;

/// What was counted.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Bytes of the new image.
    pub image: u64,
    /// Bytes of the packs and of the signed manifest.
    pub delta: u64,
    /// How many packs there are.
    pub packs: u32,
    /// MQTT packets of the first device, and their bytes, by way and topic or kind.
    pub kinds: Counts,
    /// Bytes of the second device's records of TLS, handshakes included, up and down.
    pub tls: [u64; 2],
}

impl Wire {
    /// Returns the bytes of MQTT, both ways.
    pub fn mqtt(&self) -> u64 {
        self.kinds.values().map(|(_, bytes)| bytes).sum()
    }

    /// Returns the bytes of what TLS makes of it.
    pub fn tls(&self) -> u64 {
        self.tls.iter().sum()
    }

    /// Returns how many packets of IP that makes on a link of 1500 B, reckoned: each packet of MQTT begins one of its own, and
    /// every second is acknowledged by itself.
    pub fn segments(&self) -> u64 {
        let packets: u64 = self.kinds.values().map(|(packets, _)| packets).sum();
        (packets + self.tls() / SEGMENT) * 3 / 2
    }

    /// Returns the bytes of those.
    pub fn ip(&self) -> u64 {
        self.tls() + HEADERS * self.segments()
    }
}

/// Takes two devices from one image to another by a delta of `profile`.
pub fn wire(old: &Path, new: &Path, profile: Profile) -> Wire {
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (before, after) = (read(old), read(new));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let delta = encode(&before, &after, Options { threads, ..Options::new(profile) });
    let capacity = before.len().max(after.len()) as u64;
    drop((before, after));

    let lab = Lab::start_configured("heartbeat = 3600\n");
    certificates(lab.dir.path());
    let counter = Counter::start(lab.mqtt);
    let proxy = TlsProxy::start(lab.dir.path(), lab.mqtt.port());
    // As fast as nothing: it is here to count.
    let way = Radio::to(proxy.address, Terms::plain(1_000_000_000, Duration::ZERO));
    let making = |broker, authority| Making {
        capacity,
        timing: "keepalive = 1200".to_owned(),
        usual_waits: true,
        broker: Some(broker),
        authority,
        ..Making::default()
    };
    let mut plain = LabDevice::make(&lab, "dev-1", old, &making(counter.address, None));
    let authority = Some(lab.path("ca.pem"));
    let mut encrypted = LabDevice::make(&lab, "dev-2", old, &making(way.address, authority));
    plain.start();
    encrypted.start();
    lab.wait_for_hellos();
    lab.publish_with(2, new, &[MODEL], "--no-deltas");
    let signed = lab.offer_delta(&delta);
    std::thread::sleep(REST);

    let _what_was_before = counter.take();
    let carried = way.carried();
    lab.roll_out(2, "wire", "all", 0);
    lab.wait_for_status("wire", "completed", MOST);
    std::thread::sleep(REST);
    let (kinds, now) = (counter.take(), way.carried());
    for device in [&plain, &encrypted] {
        assert!(device.log().contains("by=\"delta\""), "{} did not update by the delta", device.name);
    }
    Wire {
        image: delta.manifest.new.length,
        delta: delta.manifest.bytes + signed,
        packs: delta.manifest.packs,
        kinds,
        tls: [now[0] - carried[0], now[1] - carried[1]],
    }
}
