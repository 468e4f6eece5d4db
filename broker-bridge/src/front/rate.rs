//! How fast one client may send: a token bucket. Time arrives as an argument.

use std::time::{Duration, Instant};

/// A bucket that fills at a steady rate and holds a burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    each_second: f64,
    burst: f64,
    level: f64,
    seen: Instant,
}

impl Bucket {
    /// Makes a full bucket.
    pub(crate) fn new(each_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { each_second: f64::from(each_second.max(1)), burst, level: burst, seen: now }
    }

    /// Takes `cost` and returns how long to wait before acting on it.
    ///
    /// The bucket may go into debt, so one packet above the burst is paid for by waiting, not refused.
    pub(crate) fn take(&mut self, cost: u32, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        self.seen = now;
        self.level = (self.level + passed * self.each_second).min(self.burst) - f64::from(cost);
        Duration::from_secs_f64((-self.level).max(0.0) / self.each_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_follows_is_paced() {
        let start = crate::clock::now();
        let mut bucket = Bucket::new(10, 5, start);

        let waits: Vec<_> = (0..7).map(|_| bucket.take(1, start).as_millis()).collect();

        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200]);
    }

    #[test]
    fn a_pause_fills_the_bucket_but_never_above_the_burst() {
        let start = crate::clock::now();
        let mut bucket = Bucket::new(10, 5, start);
        bucket.take(5, start);

        let later = start + Duration::from_secs(3600);

        assert_eq!(bucket.take(5, later), Duration::ZERO);
        assert_eq!(bucket.take(1, later), Duration::from_millis(100));
    }
}
