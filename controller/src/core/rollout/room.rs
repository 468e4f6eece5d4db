//! Room: how many more devices a rollout may offer its release to now, where its plan caps how many are on trial at once
//! or begin in an hour.
//!
//! Devices pull: who is included may start at any time. So a device counts from when it is included until it has come to an
//! end, which is at least as many as are on trial. One that is away would hold its place for ever; it is waited for as long as
//! a wave is that nobody starts. So that each gives back its own place and no other's, it is kept how far the rollout
//! reached at some times before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{DeviceId, ModelId};
use tern_protocol::message::Registry;
use tern_protocol::position::{Cut, Position};

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
        let oldest = observed.saturating_sub(millis(time)) / MINUTE;
        self.0.range(oldest..).map(|(_, devices)| devices).sum()
    }
}

/// How far a rollout reached at a time before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// When the first of the openings was that it stands for, on the clock of reception.
    since: Millis,
    /// When the last of them was.
    at: Millis,
    cuts: BTreeMap<ModelId, Cut>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_from: Option<Position>,
    /// Devices that they included by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    listed: BTreeSet<DeviceId>,
}

/// Times before that are told apart while a device is waited for.
const STEPS: u32 = 24;
/// A place that is given back is taken with others: once a tenth of the cap has gathered, or this long after the last.
const GATHER: Millis = 30_000;

impl Rollout {
    /// Notes how far it reaches now.
    pub(super) fn note_reached(&mut self, at: Millis, listed: &[DeviceId]) {
        let patience = self.plan.waves.patience(&self.plan.policy);
        let step = millis(patience / STEPS);
        let (cuts, held_from) = (self.cuts(), self.held_from);
        let mut listed: BTreeSet<DeviceId> = listed.iter().cloned().collect();
        let mut since = at;
        if let Some(last) = self.reached.pop_if(|last| at.saturating_sub(last.since) < step) {
            since = last.since;
            listed.extend(last.listed);
        }
        self.reached.push(Reached { since, at, cuts, held_from, listed });
        // Of those that are over one is enough.
        let over = self.reached.partition_point(|reached| reached.at.saturating_add(millis(patience)) < at);
        let names: Vec<DeviceId> =
            self.reached.drain(..over.saturating_sub(1)).flat_map(|reached| reached.listed).collect();
        if let Some(first) = self.reached.first_mut() {
            first.listed.extend(names);
        }
    }

    /// Returns whom it reached so long ago that nobody waits for their start any more.
    pub fn waited_for(&self, observed: Millis) -> impl Fn(&DeviceId, &Registry, Position) -> bool {
        let patience = millis(self.plan.waves.patience(&self.plan.policy));
        let over = self.reached.partition_point(|reached| reached.at.saturating_add(patience) < observed);
        let over = &self.reached[..over];
        move |id, registry, position| {
            let by_hash = |reached: &Reached| {
                reached.held_from.is_none_or(|from| position < from)
                    && reached.cuts.get(&registry.model).is_some_and(|cut| cut.includes(position))
            };
            over.last().is_some_and(by_hash) || over.iter().any(|reached| reached.listed.contains(id))
        }
    }

    /// Returns for how many devices a part of a wave is worth while at any time: each signs files and looks at all devices.
    pub fn worth_while(&self) -> u64 {
        let most = self.plan.concurrency.into_iter().chain(self.plan.rate).min();
        (most.unwrap_or(0) / 10).max(1)
    }

    /// Tells whether a part of a wave for fewer has to wait for others.
    pub fn opened_lately(&self, observed: Millis) -> bool {
        self.reached.last().is_some_and(|last| observed.saturating_sub(last.at) < GATHER)
    }

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

    /// Returns how many devices count as on trial, of whom `waiting` were included lately and have not begun.
    pub fn on_trial(&self, waiting: u64) -> u64 {
        self.total().pending() + waiting
    }

    /// Returns how many more devices may be offered the release; nobody caps them: `None`.
    pub fn room(&self, waiting: u64, observed: Millis) -> Option<u64> {
        let places = self.plan.concurrency.map(|most| most.saturating_sub(self.on_trial(waiting)));
        let starts = self.plan.rate.map(|most| most.saturating_sub(self.openings.within(HOUR, observed)));
        places.into_iter().chain(starts).min()
    }

    /// Returns why no device more may be offered the release; `None` if one may.
    pub fn no_room(&self, waiting: u64, observed: Millis) -> Option<String> {
        let on_trial = self.on_trial(waiting);
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

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
