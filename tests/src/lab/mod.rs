//! A laboratory of real processes: `tern serve`, `tern-agent run`, the command line, on loopback.
//!
//! | module | what it holds |
//! |---|---|
//! | `images` | what is installed |
//! | `programs` | the built executables |
//! | `service` | a service with its data folder, and the command line against it |
//! | `device` | a device's folder, configuration and agent process |

mod device;
mod images;
mod programs;
mod service;

pub use device::{LabDevice, Making};
pub use images::{firmware, made};
pub use programs::{in_ci, program, program_in};
pub use service::{Broker, Lab, MODEL, PRODUCT, Ran};

use std::time::{Duration, Instant};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` gives something. Real processes have no virtual clock, so this is the one place that waits.
///
/// # Panics
/// When it takes longer than `most`: the test has failed.
#[expect(clippy::disallowed_methods, reason = "the laboratory's clock")]
pub fn wait<T>(what: &str, most: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < most, "waited {most:?} for {what}");
        std::thread::sleep(LOOK);
    }
}
