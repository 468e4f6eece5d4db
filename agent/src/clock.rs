//! The only place of this program that asks the system what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since the kernel started, sleep included, so that a device that dozes does not stretch a
/// deadline.
pub fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns the wall clock in seconds since 1970. Nobody vouches for it: a device without a battery starts at 0.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_never_runs_backwards() {
        let earlier = uptime();

        let later = uptime();

        assert!(later >= earlier && earlier > Duration::ZERO);
    }

    #[test]
    fn the_wall_clock_of_this_machine_is_in_this_century() {
        assert!(wall() > 1_700_000_000);
    }
}
