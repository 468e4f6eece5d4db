//! The one place that asks the system what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns Unix time in milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
