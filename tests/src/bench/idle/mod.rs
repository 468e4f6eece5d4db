//! What a device that has nothing to do costs on the wire in a day, beside one that polls.
//!
//! A day is not waited for. What an idle device does by the clock, it is made to do 1200 times as often: a ping every
//! second instead of every 20 minutes, a heartbeat every 18 s instead of every 6 h. All else keeps its time. What is
//! counted is what goes over the wire in 72 s; the day's bytes are those of each kind of packet as often as a day has it.
//! Whatever else comes by is counted as if it came as often in a day.
//!
//! | module | what it holds |
//! |---|---|
//! | `polling` | a client of goosebit |

mod polling;

use std::time::Duration;

use super::counter::{Counter, Counts, segments};
use crate::lab::{Lab, LabDevice, Making, Radio, Terms, TlsProxy, certificates, made, wait};
pub use polling::Polling;

/// Pings and heartbeats of a day, at the usual waits.
pub const DAY: [u64; 2] = [72, 4];
/// The same at a 1200th of them.
const WATCHED: Duration = Duration::from_secs(72);
const TIMING: &str = "keepalive = 1.0\nheartbeat = 18";

/// One kind of packet.
#[derive(Debug, Clone)]
pub struct Kind {
    /// Its way and name; of a message the topic.
    pub name: String,
    /// How many were counted.
    pub counted: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// How many a day has.
    pub a_day: u64,
}

/// What was counted.
#[derive(Debug, Clone)]
pub struct Idle {
    /// MQTT packets.
    pub kinds: Vec<Kind>,
    /// Bytes that TLS adds to a packet, as counted over all of them.
    pub tls_each: f64,
    /// Packets of IP for one of MQTT, acknowledgements included.
    pub segments_each: f64,
    /// Bytes of MQTT of a new connection, with all that is retained.
    pub connecting: u64,
    /// The client that polls, where goosebit is installed.
    pub polling: Option<Polling>,
}

impl Kind {
    /// Returns its bytes in a day.
    pub fn day(&self) -> u64 {
        (self.bytes * self.a_day).div_ceil(self.counted.max(1))
    }
}

impl Idle {
    /// Returns the MQTT bytes of a day.
    pub fn day(&self) -> u64 {
        self.kinds.iter().map(Kind::day).sum()
    }

    /// Returns how many packets of MQTT a day has.
    pub fn packets(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.a_day).sum()
    }

    /// Returns the bytes of a day in TLS records, without a handshake.
    pub fn tls(&self) -> f64 {
        self.day() as f64 + self.packets() as f64 * self.tls_each
    }

    /// Returns the same with the headers of IP and TCP: 20 B, 20 B and 12 B of timestamps a packet.
    pub fn ip(&self) -> f64 {
        self.tls() + self.packets() as f64 * self.segments_each * 52.0
    }
}

/// Counts.
pub fn idle() -> Idle {
    let lab = Lab::start_configured("heartbeat = 18\n");
    let factory = lab.path("factory");
    made(&factory, 50_000, 1);
    certificates(lab.dir.path());
    let counter = Counter::start(lab.mqtt);
    let proxy = TlsProxy::start(lab.dir.path(), lab.mqtt.port());
    // As fast as nothing: it is here to count.
    let way = Radio::to(proxy.address, Terms::plain(1_000_000_000, Duration::ZERO));
    let making = |broker, authority| Making {
        timing: TIMING.to_owned(),
        usual_waits: true,
        broker: Some(broker),
        authority,
        ..Making::default()
    };
    let mut plain = LabDevice::make(&lab, "dev-1", &factory, &making(counter.address, None));
    let authority = Some(lab.path("ca.pem"));
    let mut encrypted = LabDevice::make(&lab, "dev-2", &factory, &making(way.address, authority));
    plain.start();
    encrypted.start();
    lab.wait_for_hellos();
    // The first heartbeat after all else has been said.
    wait("a heartbeat", Duration::from_secs(60), || (counter.seen("/ts") > 1).then_some(()));
    let connecting = counter.take().values().map(|(_, bytes)| bytes).sum();
    let before = (way.carried(), segments(way.address.port()));
    let (polling, counts, after) = std::thread::scope(|scope| {
        let polling = scope.spawn(|| polling::polling(lab.dir.path()));
        std::thread::sleep(WATCHED);
        let counted = (counter.take(), (way.carried(), segments(way.address.port())));
        (polling.join().expect("the client ends"), counted.0, counted.1)
    });
    let sum = |carried: [u64; 2]| carried.iter().sum::<u64>() as f64;
    // Both devices have heard and said the same meanwhile.
    let (packets, bytes) = counts.values().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    let each = |all: f64| all / packets.max(1) as f64;
    Idle {
        tls_each: each(sum(after.0) - sum(before.0) - bytes as f64),
        segments_each: each(after.1.saturating_sub(before.1) as f64),
        kinds: kinds(counts),
        connecting,
        polling,
    }
}

fn kinds(counts: Counts) -> Vec<Kind> {
    let [pings, heartbeats] = DAY;
    let kind = |(name, (counted, bytes)): (String, (u64, u64))| {
        let a_day = match &name {
            name if name.contains("PING") => pings,
            name if name.ends_with("/ts") => heartbeats,
            _ => counted,
        };
        Kind { name, counted, bytes, a_day }
    };
    counts.into_iter().map(kind).collect()
}
