//! Room: how many more devices a rollout may offer its release to now, where its plan caps how many are on trial at once
//! or begin in an hour.
//!
//! Devices pull: who is included may start at any time. So a device counts from when it is included until it has come to an
//! end, which is at least as many as are on trial. One that is away would hold its place for ever; it is waited for as long as
//! a wave is that nobody starts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::Rollout;
use crate::core::fact::Millis;

const MINUTE: Millis = 60_000;
const HOUR: Duration = Duration::from_secs(3600);
/// More minutes than these are not told apart: the oldest count as one.
const MINUTES_MAX: usize = 1500;

/// When devices were included lately: how many in each minute on the clock of reception.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Openings(BTreeMap<u64, u64>);

impl Openings {
    /// Tells whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, observed: Millis, devices: u64) {
        if devices == 0 {
            return;
        }
        *self.0.entry(observed / MINUTE).or_default() += devices;
        if self.0.len() > MINUTES_MAX
            && let Some((_, oldest)) = self.0.pop_first()
            && let Some(mut next) = self.0.first_entry()
        {
            *next.get_mut() += oldest;
        }
    }

    /// Returns how many devices were included within a time before now; a minute that has begun to leave it still counts.
    pub fn within(&self, time: Duration, observed: Millis) -> u64 {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let oldest = observed.saturating_sub(time) / MINUTE;
        self.0.range(oldest..).map(|(_, devices)| devices).sum()
    }
}

impl Rollout {
    /// Tells whether its plan caps how many devices begin.
    pub fn is_capped(&self) -> bool {
        self.plan.concurrency.is_some() || self.plan.rate.is_some()
    }

    /// Returns how many devices were included and have not begun, at most, by its counters alone.
    pub fn waiting_at_most(&self) -> u64 {
        let included: u64 = self.phases.iter().map(|phase| phase.included).sum();
        let total = self.total();
        included.saturating_sub(total.started.saturating_sub(total.deferred))
    }

    /// Returns how many devices count as on trial, of whom `waiting` are included and have not begun.
    pub fn on_trial(&self, waiting: u64, observed: Millis) -> u64 {
        let patience = self.plan.waves.patience(&self.plan.policy);
        self.total().pending() + waiting.min(self.openings.within(patience, observed))
    }

    /// Returns how many more devices may be offered the release; nobody caps them: `None`.
    pub fn room(&self, waiting: u64, observed: Millis) -> Option<u64> {
        let places = self.plan.concurrency.map(|most| most.saturating_sub(self.on_trial(waiting, observed)));
        let starts = self.plan.rate.map(|most| most.saturating_sub(self.openings.within(HOUR, observed)));
        places.into_iter().chain(starts).min()
    }

    /// Returns why no device more may be offered the release; `None` if one may.
    pub fn no_room(&self, waiting: u64, observed: Millis) -> Option<String> {
        let on_trial = self.on_trial(waiting, observed);
        if let Some(most) = self.plan.concurrency.filter(|most| on_trial >= *most) {
            return Some(format!(
                "waits for room: {on_trial} of its devices are on trial or about to begin, concurrency {most}"
            ));
        }
        let lately = self.openings.within(HOUR, observed);
        let most = self.plan.rate.filter(|most| lately >= *most)?;
        Some(format!("waits for its pace: {lately} devices were included within an hour, rate {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_included_counts_for_its_time_and_then_no_more() {
        let mut openings = Openings::default();
        openings.add(10 * MINUTE + 5, 4);
        openings.add(10 * MINUTE + 9, 3);
        openings.add(50 * MINUTE, 2);
        assert_eq!(openings.within(HOUR, 60 * MINUTE), 9);
        assert_eq!(openings.within(HOUR, 70 * MINUTE + 59_999), 9, "until its minute is over");
        assert_eq!(openings.within(HOUR, 71 * MINUTE), 2);
        for minute in 0..10_000 {
            openings.add(minute * MINUTE, 1);
        }
        assert_eq!(openings.0.len(), MINUTES_MAX);
        assert_eq!(openings.within(Duration::MAX, 10_000 * MINUTE), 10_009, "and nobody is forgotten");
    }
}
