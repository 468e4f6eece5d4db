//! One direction of a link, as arithmetic: when do bytes that come now leave the queue, and when are they there?

use std::time::Duration;

use super::Terms;

/// What is read at once: two milliseconds' worth, within reason.
pub(super) fn segment(rate: u64) -> usize {
    usize::try_from(rate / 8 / 500).unwrap_or(usize::MAX).clamp(256, 16 * 1024)
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    rate: u64,
    delay: Duration,
    jitter: Duration,
    queue: Duration,
    stalls: Vec<(Duration, Duration)>,
    /// When the link has sent all that it was given.
    free: Duration,
    /// When the last of it is there.
    last: Duration,
    /// State of the generator.
    chance: u64,
}

/// What becomes of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    /// When they are there.
    pub(super) arrives: Duration,
    /// When the queue has room for more.
    pub(super) room: Duration,
}

impl Way {
    pub(super) fn new(terms: &Terms, seed: u64) -> Self {
        Self {
            rate: terms.rate.max(1),
            delay: terms.delay,
            jitter: terms.jitter,
            queue: terms.queue,
            stalls: terms.stalls.clone(),
            free: Duration::ZERO,
            last: Duration::ZERO,
            chance: seed,
        }
    }

    /// Takes `bytes` that come at `now`.
    pub(super) fn take(&mut self, now: Duration, bytes: usize) -> Passage {
        let nanos = bytes as u128 * 8 * 1_000_000_000 / u128::from(self.rate);
        let sending = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free = self.moving(self.free.max(now)) + sending;
        let jitter = self.jitter.mul_f64(self.draw());
        // Nothing overtakes.
        self.last = self.last.max(self.moving(self.free) + self.delay + jitter);
        Passage { arrives: self.last, room: self.free.saturating_sub(self.queue) }
    }

    /// Forgets what is in the queue and under way.
    pub(super) fn clear(&mut self, now: Duration) {
        (self.free, self.last) = (now, now);
    }

    /// Returns when something that is ready at `at` moves: then, or after the stall.
    fn moving(&self, at: Duration) -> Duration {
        let stalled = |at: Duration, (from, length): &(Duration, Duration)| {
            if (*from..*from + *length).contains(&at) { *from + *length } else { at }
        };
        self.stalls.iter().fold(at, stalled)
    }

    /// Returns the next random number, 0 to 1 (splitmix64).
    fn draw(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// 8 kbit/s: a byte a millisecond.
    fn terms() -> Terms {
        Terms { queue: 200 * MS, ..Terms::plain(8000, 300 * MS) }
    }

    #[test]
    fn bytes_leave_at_the_rate_and_arrive_after_the_delay() {
        let mut way = Way::new(&terms(), 1);

        assert_eq!(way.take(10 * MS, 100), Passage { arrives: 410 * MS, room: Duration::ZERO });
        assert_eq!(
            way.take(20 * MS, 100),
            Passage { arrives: 510 * MS, room: 10 * MS },
            "it waits for the first"
        );
        assert_eq!(way.take(1000 * MS, 100).arrives, 1400 * MS, "an idle link waits for nobody");
    }

    #[test]
    fn a_full_queue_has_room_when_enough_of_it_has_left() {
        let mut way = Way::new(&terms(), 1);
        let room: Vec<_> = (0..4).map(|_| way.take(Duration::ZERO, 100).room).collect();

        assert_eq!(room, [0, 0, 100, 200].map(|ms| ms * MS));
    }

    #[test]
    fn in_a_stall_nothing_moves_and_nothing_is_lost() {
        let stalls = vec![(50 * MS, 1000 * MS)];
        let mut way = Way::new(&Terms { stalls, ..terms() }, 1);

        assert_eq!(way.take(Duration::ZERO, 40).arrives, 340 * MS);
        assert_eq!(way.take(Duration::ZERO, 20).arrives, 1350 * MS, "what was half sent waits");
        assert_eq!(way.take(500 * MS, 50).arrives, 1400 * MS);
    }

    #[test]
    fn jitter_is_within_its_bounds_keeps_order_and_comes_from_the_seed() {
        let terms = Terms { jitter: 100 * MS, ..terms() };
        let arrivals = |seed| {
            let mut way = Way::new(&terms, seed);
            (0..200).map(|n| way.take(n * 10 * MS, 1).arrives).collect::<Vec<_>>()
        };
        let first = arrivals(7);

        assert!(first.is_sorted());
        for (n, at) in (0..).zip(&first) {
            let least = n * 10 * MS + 301 * MS;
            assert!((least..least + 100 * MS).contains(at), "{n}: {at:?}");
        }
        assert_eq!(first, arrivals(7));
        assert_ne!(first, arrivals(8));
    }
}
