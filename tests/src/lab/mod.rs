//! A laboratory of real processes: `tern serve`, `tern-agent run`, the command line, on loopback.
//!
//! | module | what it holds |
//! |---|---|
//! | `client` | an MQTT client that can misbehave |
//! | `disk` | a disk that can be filled |
//! | `images` | what is installed |
//! | `programs` | the built executables |
//! | `service` | a service with its data folder, and the command line against it |
//! | `device` | a device's folder, configuration and agent process |

mod client;
mod device;
mod disk;
mod images;
mod programs;
mod service;

pub use client::MqttClient;
pub use device::{LabDevice, Making};
pub use disk::SmallDisk;
pub use images::{firmware, made};
pub use programs::{Ran, ends, in_ci, program, program_in};
pub use service::{Broker, Lab, MODEL, PRODUCT};

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
