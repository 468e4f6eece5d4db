//! How much of a bad link a download makes use of: the agent's own, beside a client that asks for one chunk a round trip
//! and beside HTTP, each over a link of its own of the same terms.
//!
//! | module | what it holds |
//! |---|---|
//! | `peers` | the other clients |
//! | `server` | files over HTTP, with ranges |

mod peers;
mod server;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use super::download::moment;
use crate::lab::{Lab, LabDevice, Making, Radio, Terms, made, wait_telling};

/// One link, and what is fetched over it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The link.
    pub terms: Terms,
    /// Bytes of the image.
    pub image: usize,
    /// Connections break after every so much.
    pub cut_every: Option<Duration>,
    /// How long each of the other clients is measured; none is with zero.
    pub peers: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Goodput {
    /// What was measured.
    pub case: Case,
    /// From the state Downloading to the last chunk, synced, in seconds.
    pub seconds: f64,
    /// Bytes of the image a second, as a part of the link's rate.
    pub part: f64,
    /// Bytes on the link towards the device in that time, over the image's.
    pub down: f64,
    /// Bytes on the link from the device in that time, over the image's.
    pub up: f64,
    /// Connections in that time.
    pub connections: u32,
    /// The same part for a client that asks for the next chunk when the last is here.
    pub one_chunk: f64,
    /// The same for HTTP, one range of 64 KiB after the other over one connection.
    pub ranges: f64,
    /// The same for HTTP with one request, resumed by a range after a cut.
    pub whole: f64,
}

impl Case {
    /// A link without cuts.
    pub fn new(terms: Terms, image: usize, peers: Duration) -> Self {
        Self { terms, image, cut_every: None, peers }
    }

    /// The same, cut after every `pause`.
    pub fn cut_every(self, pause: Duration) -> Self {
        Self { terms: self.terms.cut_every(pause), cut_every: Some(pause), ..self }
    }

    /// The part that is asked for: 95 % of the link; of a link that is cut, 95 % of what is left when every cut costs five
    /// round trips and half a pack.
    pub fn bound(&self) -> f64 {
        let pack = 65_536.0 * 8.0 / self.terms.rate as f64;
        let left = |pause: Duration| {
            let lost = 5.0 * self.terms.round_trip().as_secs_f64() + pack / 2.0;
            (pause.as_secs_f64() - lost) / pause.as_secs_f64()
        };
        0.95 * self.cut_every.map_or(1.0, left)
    }

    /// Returns what part of the link's rate so many bytes in so much time are.
    fn part(&self, bytes: u64, seconds: f64) -> f64 {
        bytes as f64 * 8.0 / self.terms.rate as f64 / seconds
    }

    /// How long it may take at the very most: a sixth of the link.
    fn patience(&self) -> Duration {
        Duration::from_secs_f64(60.0 + 6.0 * self.image as f64 * 8.0 / self.terms.rate as f64)
    }
}

/// Measures; the lines of `timing` are added to the agent's configuration.
pub fn goodput(case: &Case, timing: &str) -> Goodput {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory"), lab.path("image"));
    made(&factory, 50_000, 1);
    random(&image, case.image).expect("an image file");
    lab.publish(2, &image);
    let ours = ours(&lab, case, &factory, timing);
    let peers = if case.peers.is_zero() { [0.0; 3] } else { peers::all(&lab, case, &image) };
    let [one_chunk, ranges, whole] = peers;
    Goodput { one_chunk, ranges, whole, ..ours }
}

/// Fills a file with what nothing makes smaller; quicker than [`made`], for images of half a gigabyte.
fn random(path: &Path, length: usize) -> std::io::Result<u64> {
    let mut chance = File::open("/dev/urandom")?.take(length as u64);
    std::io::copy(&mut chance, &mut File::create(path)?)
}

fn ours(lab: &Lab, case: &Case, factory: &Path, timing: &str) -> Goodput {
    let radio = Radio::to(lab.mqtt, case.terms.clone());
    let making = Making {
        capacity: case.image as u64 + 65_536,
        timing: timing.to_owned(),
        usual_waits: true,
        broker: Some(radio.address),
        ..Making::default()
    };
    let mut device = LabDevice::make(lab, "dev-1", factory, &making);
    device.start();
    lab.wait_for_hellos();
    lab.roll_out(2, "r2", "all", 0);
    let reached = |mark: &str, most: Duration| {
        let log = || device.log();
        let tell = || format!("{mark}; the agent's log ends: {}", log().lines().last().unwrap_or_default());
        wait_telling(tell, most, || log().contains(mark).then_some(()));
        (radio.carried(), radio.connections())
    };
    let ([up, down], connections) = reached("to=downloading", Duration::from_secs(120));
    let (after, connections_after) = reached("to=verifying", case.patience());
    let log = device.log();
    let seconds = (moment(&log, "to=verifying") - moment(&log, "to=downloading")).rem_euclid(86_400.0);
    let image = case.image as f64;
    Goodput {
        case: case.clone(),
        seconds,
        part: case.part(case.image as u64, seconds),
        down: (after[1] - down) as f64 / image,
        up: (after[0] - up) as f64 / image,
        connections: 1 + connections_after - connections,
        one_chunk: 0.0,
        ranges: 0.0,
        whole: 0.0,
    }
}
