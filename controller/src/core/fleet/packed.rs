//! What most devices did in a rollout, in 47 bytes: nothing is lost, for whatever does not fit is not packed.
//!
//! | bytes | what |
//! |---|---|
//! | 3 | attempt, phase, series |
//! | 1 | state and outcome |
//! | 6 + 4 | when it reported last, and how long before that it started |
//! | 5 + 1 + 4 + 4 | its watch: since, gaps, missed, epoch |
//! | 1 | whether it is watched, was heard, and what both deadlines found |
//! | 2 | the last window of its health |
//! | 4 + 4 | rank, number of the report that said the state |
//! | 4 + 1 + 1 | numbers of three starts and ends, each but the first by its distance from the one before |
//! | 2 | what those say |

use tern_protocol::state::{Outcome, StateName};

use super::device::AttemptRecord;
use super::tale::{Event, Tale};
use crate::core::fact::Millis;
use crate::core::rollout::silence::Watch;

/// Bytes of a packed record; one more tells it from others.
const SIZE: usize = 47;
/// Starts and ends that fit: a start, coming up again, an outcome.
const EVENTS: usize = 3;
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
    pub(super) fn of(record: &AttemptRecord) -> Option<Self> {
        let AttemptRecord { attempt, phase, started_at, rank, series, state, state_n, tale, .. } = record;
        let AttemptRecord { outcome, reason, halted_at, halted_in, changed_at, watch, .. } = record;
        let AttemptRecord { excused, health, beside, withdrawn, lost, .. } = record;
        let halted = halted_at.is_some() || halted_in.is_some();
        if reason.is_some() || halted || !excused.is_empty() || beside.is_some() || *withdrawn || *lost {
            return None;
        }
        let mut out = Writer { bytes: [0; SIZE], at: 0 };
        out.put(u64::from(*attempt), 1)?;
        out.put(*phase as u64, 1)?;
        out.put(u64::from(*series), 1)?;
        let state = StateName::ALL.iter().position(|known| known == state)?;
        out.put((state << 4) as u64 | outcome_code(*outcome), 1)?;
        out.put(*changed_at, 6)?;
        // One more than the distance; 0 is no start.
        out.put(started_at.map_or(Some(0), |at| Some(changed_at.checked_sub(at)? + 1))?, 4)?;
        let Watch { since, gaps, missed, epoch, .. } = watch.unwrap_or(NOBODY);
        out.put(since, 5)?;
        out.put(gaps, 1)?;
        out.put(missed, 4)?;
        out.put(epoch, 4)?;
        let watched =
            watch.map_or(0, |w| 1 | u64::from(w.heard) << 1 | found(w.early) << 2 | found(w.last) << 4);
        out.put(watched, 1)?;
        out.put(health.map_or(Some(0), |window| window.checked_add(1))?, 2)?;
        out.put(*rank, 4)?;
        out.put(*state_n, 4)?;
        let events = tale.events();
        if events.len() > EVENTS {
            return None;
        }
        let (mut said, mut before) = (u64::from(tale.begun()), 0);
        for place in 0..EVENTS {
            let distance = match events.get(place) {
                Some((n, event)) => {
                    said |= event_code(*event) << (1 + 3 * place);
                    n - std::mem::replace(&mut before, *n)
                }
                None => 0,
            };
            out.put(distance, if place == 0 { 4 } else { 1 })?;
        }
        out.put(said, 2)?;
        Some(Self(out.bytes))
    }

    /// Unpacks the record.
    pub(super) fn record(&self) -> AttemptRecord {
        let mut from = Reader { bytes: &self.0 };
        let [attempt, phase, series, codes] = [1; 4].map(|length| from.take(length));
        let (changed_at, started) = (from.take(6), from.take(4));
        let [since, gaps, missed, epoch, watched] = [5, 1, 4, 4, 1].map(|length| from.take(length));
        let (health, rank, state_n) = (from.take(2), from.take(4), from.take(4));
        let distances: [u64; EVENTS] = [4, 1, 1].map(|length| from.take(length));
        let said = from.take(2);
        let mut n = 0;
        let events = distances.into_iter().enumerate().map_while(|(place, distance)| {
            n += distance;
            Some((n, event_of(said >> (1 + 3 * place) & 7)?))
        });
        let tale = Tale::of(events.collect(), said & 1 == 1);
        let (heard, early, last) = (watched & 2 != 0, found_of(watched >> 2), found_of(watched >> 4));
        let watch = Watch { since, gaps, missed, epoch, heard, early, last };
        AttemptRecord {
            started_at: started.checked_sub(1).map(|distance| changed_at - distance),
            rank,
            series: narrow(series),
            state: StateName::ALL[narrow(codes >> 4) as usize],
            state_n,
            tale,
            outcome: (codes & 7).checked_sub(1).map(|code| OUTCOMES[narrow(code) as usize]),
            watch: (watched & 1 == 1).then_some(watch),
            health: health.checked_sub(1),
            ..AttemptRecord::fresh(narrow(attempt), narrow(phase) as usize, changed_at)
        }
    }
}

/// Stands where nobody is watched.
const NOBODY: Watch = Watch { since: 0, gaps: 0, missed: 0, epoch: 0, heard: false, early: None, last: None };

fn outcome_code(outcome: Option<Outcome>) -> u64 {
    let place = |outcome| OUTCOMES.iter().position(|known| *known == outcome);
    outcome.and_then(place).map_or(0, |place| place as u64 + 1)
}

/// 0 is no event, 1 a start, from 2 on how it ended.
fn event_code(event: Event) -> u64 {
    match event {
        Event::Begun => 1,
        Event::Ended(outcome) => outcome_code(Some(outcome)) + 1,
    }
}

fn event_of(code: u64) -> Option<Event> {
    match code {
        0 => None,
        1 => Some(Event::Begun),
        code => OUTCOMES.get(narrow(code - 2) as usize).copied().map(Event::Ended),
    }
}

fn found(silent: Option<bool>) -> u64 {
    silent.map_or(0, |silent| 1 + u64::from(silent))
}

fn found_of(code: u64) -> Option<bool> {
    (code & 3).checked_sub(1).map(|silent| silent == 1)
}

/// A number of at most four bytes.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("it was read from fewer bytes")
}

struct Writer {
    bytes: [u8; SIZE],
    at: usize,
}

impl Writer {
    /// Puts a number into so many bytes; none if it does not fit.
    fn put(&mut self, number: Millis, length: usize) -> Option<()> {
        let bytes = number.to_le_bytes();
        let fits = bytes[length..].iter().all(|byte| *byte == 0);
        self.bytes[self.at..self.at + length].copy_from_slice(&bytes[..length]);
        self.at += length;
        fits.then_some(())
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> u64 {
        let (head, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(head);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::rollout::silence::Beside;

    fn usual() -> AttemptRecord {
        let mut tale = Tale::default();
        tale.tell(3, Event::Begun);
        tale.tell(5, Event::Begun);
        tale.tell(6, Event::Ended(Outcome::Success));
        let watch = Watch {
            since: 86_400_000,
            gaps: 2,
            missed: 9,
            epoch: 1,
            heard: true,
            early: Some(false),
            last: None,
        };
        AttemptRecord {
            started_at: Some(1_790_000_000_000),
            rank: 9_999_999,
            series: 1,
            state: StateName::VerifyPost,
            state_n: 5,
            tale,
            outcome: Some(Outcome::Success),
            watch: Some(watch),
            health: Some(400),
            ..AttemptRecord::fresh(1, 4, 1_790_000_600_000)
        }
    }

    #[test]
    fn what_is_usual_fits() {
        let fresh = AttemptRecord::fresh(1, 0, 0);
        for record in [usual(), fresh] {
            assert_eq!(Packed::of(&record).map(|packed| packed.record()), Some(record));
        }
        assert_eq!(size_of::<Packed>(), 47);
    }

    #[test]
    fn what_is_unusual_is_not_packed() {
        let beside = Some(Beside::new(1, 2, 3));
        let unusual = [
            AttemptRecord { reason: Some("probe".to_owned()), ..usual() },
            AttemptRecord { halted_at: Some(1), ..usual() },
            AttemptRecord { halted_in: Some(StateName::Idle), ..usual() },
            AttemptRecord { excused: vec![1], ..usual() },
            AttemptRecord { beside, ..usual() },
            AttemptRecord { withdrawn: true, ..usual() },
            AttemptRecord { lost: true, ..usual() },
            // The clock was set back after its start.
            AttemptRecord { changed_at: 1_789_999_999_999, ..usual() },
            AttemptRecord { health: Some(u64::MAX), ..usual() },
        ];
        for record in unusual {
            assert_eq!(Packed::of(&record), None, "{record:?}");
        }
    }

    /// Small numbers mostly, large ones now and then.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![4 => 0u64..300, 2 => 0u64..1 << 41, 1 => any::<u64>()]
    }

    fn event() -> impl Strategy<Value = (u64, Event)> {
        let event = prop_oneof![
            Just(Event::Begun),
            proptest::sample::select(OUTCOMES.to_vec()).prop_map(Event::Ended)
        ];
        (number(), event)
    }

    proptest! {
        #[test]
        fn whatever_is_packed_is_unpacked_as_it_was(
            numbers in proptest::array::uniform9(number()),
            (attempt, series) in (0u32..300, 0u32..300),
            phase in 0usize..300,
            state in proptest::sample::select(StateName::ALL.to_vec()),
            outcome in proptest::option::of(proptest::sample::select(OUTCOMES.to_vec())),
            (started, watched, heard) in (any::<bool>(), any::<bool>(), any::<bool>()),
            (early, last) in (any::<Option<bool>>(), any::<Option<bool>>()),
            health in proptest::option::of(number()),
            events in proptest::collection::vec(event(), 0..5),
        ) {
            let [changed_at, began, since, gaps, missed, epoch, rank, state_n, _] = numbers;
            let mut tale = Tale::default();
            for (n, event) in events {
                tale.tell(n, event);
            }
            let record = AttemptRecord {
                started_at: started.then_some(began),
                rank,
                series,
                state,
                state_n,
                tale,
                outcome,
                watch: watched.then_some(Watch { since, gaps, missed, epoch, heard, early, last }),
                health,
                ..AttemptRecord::fresh(attempt, phase, changed_at)
            };

            if let Some(packed) = Packed::of(&record) {
                prop_assert_eq!(packed.record(), record);
            }
        }
    }
}
