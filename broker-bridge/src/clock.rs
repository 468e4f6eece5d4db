//! The one place of this program that asks the system for the time.

use std::time::Instant;

/// Returns the current monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the place that asks the system")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
