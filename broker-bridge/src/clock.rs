//! The one place of this program that asks the system for the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Returns the current monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the place that asks the system")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns Unix time in seconds, for people to read.
#[expect(clippy::disallowed_methods, reason = "this is the place that asks the system")]
pub(crate) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
