//! What the records of many devices in one rollout have in common, kept once for all of them.

use std::sync::Arc;

use tern_protocol::id::RolloutId;

use super::device::{AttemptRecord, SPENT};
use super::reception::Reception;
use crate::core::fact::Millis;
use crate::core::rollout::record::Rollout;

/// Commons stand apart by the hour, so that a record tells its time by a short distance.
const HOUR: Millis = 3_600_000;
/// From so many on, those that no device refers to any more are looked for.
const MANY: usize = 1024;

/// What devices of one phase share that were first heard of in the same hour, with no outage in between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Common {
    /// The rollout.
    pub rollout: RolloutId,
    /// Attempt number.
    pub attempt: u32,
    /// The phase.
    pub phase: usize,
    /// The series in which they start.
    pub series: u32,
    /// Records count milliseconds from here; Unix time.
    pub base: Millis,
    /// How far the clock of reception is behind.
    pub behind: Millis,
    /// Gaps of reception until then.
    pub gaps: u64,
    /// Milliseconds that reception had missed until then.
    pub missed: Millis,
    /// Windows of health count from here.
    pub window: u64,
}

impl Common {
    /// Returns what a device shares that is first heard of at this time.
    pub(crate) fn at(
        rollout: &Rollout,
        (attempt, phase): (u32, usize),
        at: Millis,
        reception: &Reception,
    ) -> Self {
        let observed = reception.observed(at);
        Self {
            rollout: rollout.id.clone(),
            attempt,
            phase,
            series: rollout.series,
            base: at - at % HOUR,
            behind: at.saturating_sub(observed),
            gaps: reception.gaps(),
            missed: reception.missed(),
            window: observed / rollout.plan.policy.health_length(),
        }
    }

    /// Returns the same of a record that was kept whole; `now`: what a device of its rollout would share that is first
    /// heard of now.
    pub(crate) fn of(record: &AttemptRecord, now: Self) -> Self {
        let began = record.started_at.unwrap_or(record.changed_at).min(record.changed_at);
        let common = Self {
            attempt: record.attempt,
            phase: record.phase,
            series: if record.series == 0 { now.series } else { record.series },
            base: began - began % HOUR,
            window: record.health.filter(|window| *window != SPENT).unwrap_or(now.window),
            ..now
        };
        match (record.watch, record.started_at) {
            (Some(watch), Some(at)) => Self {
                behind: at.saturating_sub(watch.since),
                gaps: watch.gaps,
                missed: watch.missed,
                ..common
            },
            _ => common,
        }
    }

    /// Stands for a rollout of which nothing else is known yet.
    pub(crate) fn unknown(rollout: RolloutId) -> Self {
        Self { rollout, attempt: 0, phase: 0, series: 0, base: 0, behind: 0, gaps: 0, missed: 0, window: 0 }
    }
}

/// All of them, each once; two fleets are the same fleet whoever shares what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commons {
    /// Ascending.
    known: Vec<Arc<Common>>,
}

impl PartialEq for Commons {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Commons {
    /// Returns the one that all share.
    pub(crate) fn share(&mut self, common: Common) -> Arc<Common> {
        let found = self.known.binary_search_by(|known| known.as_ref().cmp(&common));
        if let Ok(place) = found {
            return self.known[place].clone();
        }
        if self.known.len() >= MANY && self.known.len().is_power_of_two() {
            self.known.retain(|known| Arc::strong_count(known) > 1);
        }
        let shared = Arc::new(common);
        let place = self.known.partition_point(|known| known < &shared);
        self.known.insert(place, shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(base: Millis) -> Common {
        Common { base, ..Common::unknown("r".parse().unwrap()) }
    }

    #[test]
    fn each_is_kept_once_and_goes_when_nobody_refers_to_it() {
        let mut commons = Commons::default();
        let kept: Vec<_> = (0..10).map(|base| commons.share(common(base))).collect();
        assert!(Arc::ptr_eq(&kept[3], &commons.share(common(3))));
        for base in 10..(MANY as u64 + 1) {
            commons.share(common(base));
        }

        assert_eq!(commons.known.len(), 11);
        assert!(Arc::ptr_eq(&kept[3], &commons.share(common(3))));
        assert!(commons.known.is_sorted());
    }
}
