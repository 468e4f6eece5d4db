//! Which report numbers of a device were received: everything below `low`, and ranges from there up.

use serde::{Deserialize, Serialize};

/// A set of report numbers that stays small, because a device's outbox is small.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Received {
    low: u64,
    /// Inclusive, ascending, never touching.
    ranges: Vec<(u64, u64)>,
}

/// Ranges that are kept; a device cannot make the set grow without bound.
const RANGES_MAX: usize = 256;

impl Received {
    /// Tells whether `n` was received.
    pub fn contains(&self, n: u64) -> bool {
        n < self.low || self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&n))
    }

    /// Tells whether the device's outbox had moved past `n` already.
    pub fn is_done_with(&self, n: u64) -> bool {
        n < self.low
    }

    /// Adds `n`; everything below `low` is no longer in the device's outbox and counts as done with.
    pub fn insert(&mut self, n: u64, low: u64) {
        if !self.contains(n) {
            let at = self.ranges.partition_point(|(_, to)| *to < n);
            self.ranges.insert(at, (n, n));
            self.join();
        }
        self.forget_below(low.min(n));
        while self.ranges.len() > RANGES_MAX {
            let (_, to) = self.ranges.remove(0);
            self.low = to + 1;
        }
    }

    /// Returns the highest number that was received.
    pub fn highest(&self) -> u64 {
        self.ranges.last().map_or(self.low.saturating_sub(1), |(_, to)| *to)
    }

    fn forget_below(&mut self, low: u64) {
        if low <= self.low {
            return;
        }
        self.low = low;
        self.ranges.retain_mut(|(from, to)| {
            *from = (*from).max(low);
            *from <= *to
        });
    }

    fn join(&mut self) {
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.ranges.len());
        for (from, to) in self.ranges.drain(..) {
            match joined.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = (*end).max(to),
                _ => joined.push((from, to)),
            }
        }
        self.ranges = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_new_exactly_once_in_any_order(mut numbers in proptest::collection::vec(1u64..200, 1..100)) {
            let mut received = Received::default();
            let mut counted = std::collections::BTreeSet::new();
            for n in &numbers {
                prop_assert_eq!(received.contains(*n), counted.contains(n));
                received.insert(*n, 1);
                counted.insert(*n);
            }
            numbers.sort_unstable();
            prop_assert_eq!(received.highest(), *numbers.last().unwrap());
        }
    }

    #[test]
    fn what_left_the_outbox_counts_as_received() {
        let mut received = Received::default();
        received.insert(10, 8);
        assert!(
            received.contains(7) && !received.contains(8) && !received.contains(9) && received.contains(10)
        );
    }
}
