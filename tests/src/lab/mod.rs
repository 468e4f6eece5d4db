//! A laboratory of real processes: `tern serve`, `tern-agent run`, the command line, on loopback.
//!
//! | module | what it holds |
//! |---|---|
//! | `cable` | what leads clients to a broker, and can be cut |
//! | `client` | an MQTT client that can misbehave |
//! | `disk` | a disk that can be filled |
//! | `edge` | the edge of a site |
//! | `site` | a site with all that is around it |
//! | `wan` | the link between a site and its broker |
//! | `images` | what is installed |
//! | `foreign` | implementations of TUF that nobody here wrote |
//! | `process` | a program that runs, and can be killed |
//! | `programs` | the built executables |
//! | `service` | a service with its data folder, and the command line against it |
//! | `deltas` | what it offers of deltas |
//! | `device` | a device's folder, configuration and agent process |
//! | `second` | a device of the other implementation, in Python |
//! | `bridge` | the bridge as a process of its own |
//! | `certificates` | of that bridge and of a device, for TLS between them |
//! | `middleman` | a hostile broker between agents and service |
//! | `mosquitto` | the foreign broker, with the generated policy |
//! | `mischief` | what it does to a message |
//! | `siege` | a fleet with a middleman, and what must hold there |
//! | `tls` | certificates, and a proxy that ends TLS |
//! | `truth` | what devices reported, whatever arrived |
//! | `radio` | a slow, long and unreliable way to a broker |
//! | `reference` | the independent reference of the kill switch's arithmetic |
//! | `tree` | user data, and a walk through it |
//! | `records` | what is true of a device, read from its disk |
//! | `web` | a web server with the files of releases, well or ill |
//! | `ledger` | what devices said, read from the ledger's files |

mod bridge;
mod cable;
mod certificates;
mod client;
mod deltas;
mod device;
mod disk;
mod edge;
mod foreign;
mod images;
mod ledger;
mod middleman;
mod mischief;
mod mosquitto;
mod process;
mod programs;
mod radio;
mod records;
mod reference;
mod second;
mod service;
mod siege;
mod site;
mod tls;
pub mod tree;
mod truth;
mod uplink;
mod wan;
mod web;

pub use bridge::{Encrypted, LabBridge};
pub use client::MqttClient;
pub use device::{LabDevice, Making};
pub use disk::SmallDisk;
pub use edge::LabEdge;
pub use foreign::{Foreign, Mirror, Peer};
pub use images::{firmware, made, moved};
pub use ledger::{Heard, Part, Sum};
pub use middleman::Middleman;
pub use mischief::Manner;
pub use mosquitto::Mosquitto;
pub use programs::{Ran, ends, in_ci, program, program_in};
pub use radio::{Radio, Terms};
pub use records::Records;
pub use reference::{Reference, recomputed};
pub use second::{SecondDevice, check_vectors, foreign_python};
pub use service::{Broker, Lab, MODEL, PRODUCT};
pub use siege::{Siege, booted, image};
pub use site::LabSite;
pub use tls::{TlsProxy, certificates};
pub use truth::{Truth, seal_of};
pub use uplink::Uplink;
pub use wan::{About, Wan, WanPart};
pub use web::{Ill, WebServer};

use std::time::{Duration, Instant};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` gives something. Real processes have no virtual clock, so this is the one place that waits.
///
/// # Panics
/// When it takes longer than `most`: the test has failed.
pub fn wait<T>(what: &str, most: Duration, look: impl FnMut() -> Option<T>) -> T {
    wait_telling(|| what.to_owned(), most, look)
}

/// Waits as [`wait`] does, and asks what was waited for only when it was in vain.
///
/// # Panics
/// When it takes longer than `most`: the test has failed.
#[expect(clippy::disallowed_methods, reason = "the laboratory's clock")]
pub fn wait_telling<T>(
    what: impl FnOnce() -> String,
    most: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    while began.elapsed() < most {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK);
    }
    panic!("waited {most:?} for {}", what())
}

/// Measures how long something real took.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[expect(clippy::disallowed_methods, reason = "the laboratory's clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn read(&self) -> Duration {
        self.0.elapsed()
    }
}
