//! What most devices did in a rollout, in 15 bytes: nothing is lost, for whatever does not fit is not packed.
//!
//! | bits | what |
//! |---|---|
//! | 4 + 3 | state, outcome |
//! | 1 | whether it started in the [common](super::common) series |
//! | 27 | when it reported last, after the common base |
//! | 24 | how long before that it started, and 1; 0: it did not |
//! | 19 | the smallest report number among those that follow |
//! | 3 | distance of the report that said the state; 7: none did |
//! | 2 + 3 + 3 | distances of up to three starts and ends, each but the first from the one before |
//! | 2 + 3 + 1 | how many those are, which of them are the outcome, whether a start stood before them |
//! | 5 | whether it is watched, was heard, and what both deadlines found |
//! | 14 | the epoch in which it started |
//! | 6 | the last window of its health after the common one, and 1; 0: none, 63: it is compared no more |
//!
//! The rest is common, or follows: a device is watched since it started. Rank, reason and whatever else is unusual make
//! a record one that is kept whole.

use tern_protocol::state::{Outcome, StateName};

use super::common::Common;
use super::device::{AttemptRecord, SPENT};
use super::tale::{Event, Tale};
use crate::core::fact::Millis;
use crate::core::rollout::silence::Watch;

/// Bytes of a packed record; one more tells it from others.
const SIZE: usize = 15;
/// Starts and ends that fit: a start, coming up again, an outcome.
const EVENTS: usize = 3;
/// Stands where no report has said the state.
const UNSAID: u64 = 7;
/// Stands where its health is compared no more.
const NO_MORE: u64 = 63;
const OUTCOMES: [Outcome; 6] = [
    Outcome::Success,
    Outcome::Failed,
    Outcome::RolledBack,
    Outcome::Unreachable,
    Outcome::Recalled,
    Outcome::Deferred,
];

/// A record of a device that does nothing unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed([u8; SIZE]);

impl Packed {
    /// Packs a record; none if something in it does not fit.
    pub(super) fn of(record: &AttemptRecord, common: &Common) -> Option<Self> {
        let AttemptRecord { attempt, phase, started_at, rank, series, state, state_n, tale, .. } = record;
        let AttemptRecord { outcome, reason, halted_at, halted_in, changed_at, watch, .. } = record;
        let AttemptRecord { excused, health, beside, withdrawn, lost, .. } = record;
        let halted = halted_at.is_some() || halted_in.is_some();
        if reason.is_some() || halted || !excused.is_empty() || beside.is_some() || *withdrawn || *lost {
            return None;
        }
        if *rank != 0 || (*attempt, *phase) != (common.attempt, common.phase) {
            return None;
        }
        let mut out = Writer::default();
        out.put(StateName::ALL.iter().position(|known| known == state)? as u64, 4)?;
        out.put(code(*outcome)?, 3)?;
        let begun = *series == common.series;
        out.put(u64::from(begun), 1)?;
        if !begun && *series != 0 {
            return None;
        }
        out.put(changed_at.checked_sub(common.base)?, 27)?;
        // One more than the distance; 0 is no start.
        out.put(started_at.map_or(Some(0), |at| Some(changed_at.checked_sub(at)? + 1))?, 24)?;
        put_numbers(&mut out, *state_n, tale, *outcome)?;
        out.put(watch.map_or(0, watch_code), 5)?;
        if let Some(watch) = watch {
            let since = started_at.as_ref()?.checked_sub(common.behind)?;
            if (watch.since, watch.gaps, watch.missed) != (since, common.gaps, common.missed) {
                return None;
            }
        }
        out.put(watch.map_or(0, |watch| watch.epoch), 14)?;
        out.put(health_code(*health, common)?, 6)?;
        Some(out.packed())
    }

    /// Unpacks the record.
    pub(super) fn record(&self, common: &Common) -> AttemptRecord {
        let mut from = Reader::of(self);
        let state = StateName::ALL[place(from.take(4))];
        let outcome = from.take(3).checked_sub(1).map(|code| OUTCOMES[place(code)]);
        let series = if from.take(1) == 1 { common.series } else { 0 };
        let changed_at = common.base + from.take(27);
        let started_at = from.take(24).checked_sub(1).map(|distance| changed_at - distance);
        let (state_n, tale) = take_numbers(&mut from, outcome);
        let (watch, epoch) = (from.take(5), from.take(14));
        let health = match from.take(6) {
            0 => None,
            NO_MORE => Some(SPENT),
            code => Some(common.window + code - 1),
        };
        let watch = watch.checked_sub(1).map(|code| Watch {
            since: started_at.unwrap_or(common.behind) - common.behind,
            gaps: common.gaps,
            missed: common.missed,
            epoch,
            heard: code / 9 == 1,
            early: found_of(code / 3 % 3),
            last: found_of(code % 3),
        });
        AttemptRecord {
            started_at,
            series,
            state,
            state_n,
            tale,
            outcome,
            watch,
            health,
            ..AttemptRecord::fresh(common.attempt, common.phase, changed_at)
        }
    }
}

fn health_code(health: Option<u64>, common: &Common) -> Option<u64> {
    match health {
        None => Some(0),
        Some(SPENT) => Some(NO_MORE),
        Some(window) => window.checked_sub(common.window)?.checked_add(1).filter(|code| *code < NO_MORE),
    }
}

/// Report numbers of a device lie close together: the smallest one, and distances from it.
fn put_numbers(out: &mut Writer, state_n: u64, tale: &Tale, outcome: Option<Outcome>) -> Option<()> {
    let events = tale.events();
    if events.len() > EVENTS {
        return None;
    }
    let first = events.first().map(|(n, _)| *n);
    let smallest = match first {
        Some(first) if state_n == 0 => first,
        Some(first) => first.min(state_n),
        None => state_n,
    };
    out.put(smallest, 19)?;
    let distance = if state_n == 0 { UNSAID } else { state_n - smallest };
    if state_n != 0 && distance == UNSAID {
        return None;
    }
    out.put(distance, 3)?;
    out.put(first.unwrap_or(smallest) - smallest, 2)?;
    for place in 1..EVENTS {
        let distance = events.get(place).map_or(0, |(n, _)| n - events[place - 1].0);
        out.put(distance, 3)?;
    }
    out.put(events.len() as u64, 2)?;
    for place in 0..EVENTS {
        let ended = match events.get(place) {
            Some((_, Event::Ended(ended))) if Some(*ended) == outcome => 1,
            Some((_, Event::Ended(_))) => return None,
            _ => 0,
        };
        out.put(ended, 1)?;
    }
    out.put(u64::from(tale.begun()), 1)
}

fn take_numbers(from: &mut Reader, outcome: Option<Outcome>) -> (u64, Tale) {
    let smallest = from.take(19);
    let state_n = match from.take(3) {
        UNSAID => 0,
        distance => smallest + distance,
    };
    let distances: [u64; EVENTS] = [2, 3, 3].map(|bits| from.take(bits));
    let count = place(from.take(2));
    let ended: [bool; EVENTS] = [(); EVENTS].map(|()| from.take(1) == 1);
    let begun = from.take(1) == 1;
    let mut n = smallest;
    let events = distances.into_iter().zip(ended).take(count).map(|(distance, ended)| {
        n += distance;
        (n, outcome.filter(|_| ended).map_or(Event::Begun, Event::Ended))
    });
    (state_n, Tale::of(events.collect(), begun))
}

/// 0 is none.
fn code(outcome: Option<Outcome>) -> Option<u64> {
    let Some(outcome) = outcome else { return Some(0) };
    OUTCOMES.iter().position(|known| *known == outcome).map(|place| place as u64 + 1)
}

fn watch_code(watch: Watch) -> u64 {
    let found = |silent: Option<bool>| silent.map_or(0, |silent| 1 + u64::from(silent));
    1 + 9 * u64::from(watch.heard) + 3 * found(watch.early) + found(watch.last)
}

/// A place in a list, from a few bits.
fn place(code: u64) -> usize {
    usize::try_from(code).expect("it was read from a few bits")
}

fn found_of(code: u64) -> Option<bool> {
    code.checked_sub(1).map(|silent| silent == 1)
}

#[derive(Default)]
struct Writer {
    bits: u128,
    at: u32,
}

impl Writer {
    /// Puts a number into so many bits; none if it does not fit.
    fn put(&mut self, number: Millis, length: u32) -> Option<()> {
        self.bits |= u128::from(number) << self.at;
        self.at += length;
        (number >> length == 0).then_some(())
    }

    fn packed(&self) -> Packed {
        debug_assert_eq!(self.at as usize, 8 * SIZE, "every bit has a meaning");
        let bytes = self.bits.to_le_bytes();
        Packed(std::array::from_fn(|place| bytes[place]))
    }
}

struct Reader {
    bits: u128,
}

impl Reader {
    fn of(packed: &Packed) -> Self {
        let mut bytes = [0; 16];
        bytes[..SIZE].copy_from_slice(&packed.0);
        Self { bits: u128::from_le_bytes(bytes) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "fewer than 64 bits are taken")]
    fn take(&mut self, length: u32) -> u64 {
        let number = (self.bits & ((1 << length) - 1)) as u64;
        self.bits >>= length;
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::rollout::silence::Beside;

    const NOON: Millis = 1_790_000_000_000;

    fn common() -> Common {
        Common {
            attempt: 1,
            phase: 4,
            series: 1,
            base: NOON,
            behind: NOON - 86_400_000,
            gaps: 2,
            missed: 9,
            window: 380,
            ..Common::unknown("r".parse().unwrap())
        }
    }

    /// A device that was updated: its start, coming up, its end, and what both deadlines found.
    fn usual() -> AttemptRecord {
        let mut tale = Tale::default();
        for (n, event) in
            [(70_003, Event::Begun), (70_005, Event::Begun), (70_006, Event::Ended(Outcome::Success))]
        {
            tale.tell(n, event);
        }
        let started = NOON + 600_000;
        let watch = Watch {
            since: started - common().behind,
            gaps: 2,
            missed: 9,
            epoch: 4000,
            heard: true,
            early: Some(false),
            last: Some(false),
        };
        AttemptRecord {
            started_at: Some(started),
            series: 1,
            state: StateName::VerifyPost,
            state_n: 70_005,
            tale,
            outcome: Some(Outcome::Success),
            watch: Some(watch),
            health: Some(400),
            ..AttemptRecord::fresh(1, 4, started + 3_600_000)
        }
    }

    #[test]
    fn what_is_usual_fits() {
        let fresh = AttemptRecord::fresh(1, 4, NOON + 5);
        let loading = AttemptRecord { state: StateName::Downloading, state_n: 3, ..fresh.clone() };
        let on_trial = AttemptRecord {
            outcome: None,
            health: None,
            tale: Tale::of(usual().tale.events()[..2].to_vec(), false),
            ..usual()
        };
        let crashed = AttemptRecord { health: Some(SPENT), ..usual() };
        for record in [usual(), fresh, loading, on_trial, crashed] {
            let packed = Packed::of(&record, &common());
            assert_eq!(packed.map(|packed| packed.record(&common())), Some(record));
        }
        assert_eq!(size_of::<Packed>(), 15);
    }

    #[test]
    fn what_is_unusual_is_not_packed() {
        let beside = Some(Beside::new(1, 2, 3));
        let other = |change: fn(&mut Watch)| {
            let mut record = usual();
            record.watch.as_mut().map(change);
            record
        };
        let unusual = [
            AttemptRecord { reason: Some("probe".to_owned()), ..usual() },
            AttemptRecord { halted_at: Some(1), ..usual() },
            AttemptRecord { halted_in: Some(StateName::Idle), ..usual() },
            AttemptRecord { excused: vec![1], ..usual() },
            AttemptRecord { beside, ..usual() },
            AttemptRecord { withdrawn: true, ..usual() },
            AttemptRecord { lost: true, ..usual() },
            // One of the first of its model.
            AttemptRecord { rank: 3, ..usual() },
            AttemptRecord { attempt: 2, ..usual() },
            AttemptRecord { phase: 3, ..usual() },
            AttemptRecord { series: 2, ..usual() },
            // The clock was set back after its start.
            AttemptRecord { changed_at: NOON, ..usual() },
            AttemptRecord { health: Some(379), ..usual() },
            AttemptRecord { health: Some(380 + 62), ..usual() },
            AttemptRecord { outcome: Some(Outcome::Recalled), ..usual() },
            AttemptRecord { started_at: None, ..usual() },
            AttemptRecord { state_n: 70_010, ..usual() },
            // It started after an outage that the others did not see.
            other(|watch| watch.since -= 1),
            other(|watch| watch.gaps += 1),
            other(|watch| watch.missed += 1),
            other(|watch| watch.epoch = 1 << 14),
        ];
        for record in unusual {
            assert_eq!(Packed::of(&record, &common()), None, "{record:?}");
        }
    }

    /// Near what is usual mostly, far from it now and then.
    fn near(usual: u64) -> impl Strategy<Value = u64> {
        prop_oneof![
            6 => (0u64..12).prop_map(move |distance| usual + distance),
            2 => (0u64..1 << 28).prop_map(move |distance| usual + distance),
            1 => any::<u64>()
        ]
    }

    fn event() -> impl Strategy<Value = (u64, Event)> {
        let event = prop_oneof![
            Just(Event::Begun),
            proptest::sample::select(OUTCOMES.to_vec()).prop_map(Event::Ended)
        ];
        (near(70_000), event)
    }

    proptest! {
        #[test]
        fn whatever_is_packed_is_unpacked_as_it_was(
            (changed_at, began, state_n) in (near(NOON), near(NOON), prop_oneof![Just(0), near(70_000)]),
            (since, gaps, missed, epoch) in (near(86_400_000), near(2), near(9), near(1)),
            (exact, series) in (any::<bool>(), 0u32..3),
            state in proptest::sample::select(StateName::ALL.to_vec()),
            outcome in proptest::option::of(proptest::sample::select(OUTCOMES.to_vec())),
            (started, watched, heard) in (any::<bool>(), any::<bool>(), any::<bool>()),
            (early, last) in (any::<Option<bool>>(), any::<Option<bool>>()),
            health in proptest::option::of(prop_oneof![4 => near(380), 1 => Just(SPENT)]),
            events in proptest::collection::vec(event(), 0..5),
        ) {
            let mut tale = Tale::default();
            for (n, event) in events {
                let event = match event {
                    Event::Ended(other) if exact => Event::Ended(outcome.unwrap_or(other)),
                    event => event,
                };
                tale.tell(n, event);
            }
            let since = if exact { began.saturating_sub(common().behind) } else { since };
            let (gaps, missed) = if exact { (2, 9) } else { (gaps, missed) };
            let record = AttemptRecord {
                started_at: started.then_some(began),
                series,
                state,
                state_n,
                tale,
                outcome,
                watch: watched.then_some(Watch { since, gaps, missed, epoch, heard, early, last }),
                health,
                ..AttemptRecord::fresh(1, 4, changed_at)
            };

            if let Some(packed) = Packed::of(&record, &common()) {
                prop_assert_eq!(packed.record(&common()), record);
            }
        }
    }
}
