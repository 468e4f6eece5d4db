//! What is to be fetched from upstream, for whom, and when again. Pure: time arrives as an argument.
//!
//! ```text
//! want ──> queue of each asker ──turn by turn──> window ──came──> askers
//!              ▲                                    │ refused, late, overtaken, cut off
//!              └────────────── again ◀──────────────┘ given up after some tries: a device asks again by itself
//! ```
//! However many ask for one part, it is asked for once and answered to all. What there is of deltas is asked once: silence
//! is an answer too, for a chunk server may be older than deltas, and no device is to wait until it has found that out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tern_protocol::digest::Digest;
use tern_protocol::limits::{GET_PACKS_MAX, GET_WANTS_MAX};
use tern_protocol::message::Pack;

use super::key::Key;
use crate::chunks::pending::Part;

/// Who asked: the topic on which it waits for packs. The site itself has the empty one.
pub(crate) type Asker = Arc<str>;

/// Parts that may be wanted at once; beyond, a device is not heard and asks again.
const WANTS_MAX: usize = 8192;
/// Parts that one asker may have in its queue: as many as a chunk server keeps of one device.
const EACH_MAX: usize = 2 * (GET_PACKS_MAX as usize + GET_WANTS_MAX);
/// A part is asked for again when nothing at all has come for so long, doubling; milliseconds. Nothing is lost on a link that
/// stands, and over a slow one a pack takes ten seconds.
const REPEAT_FIRST: u64 = 20_000;
const REPEAT_MAX: u64 = 120_000;
/// Given up after so many times: what the server does not have it never answers.
const TRIES_MAX: u32 = 6;
/// What is false comes from a server whose files are damaged, or from a bad link: the third time an object's parts wait this
/// long, doubling; milliseconds.
const DOUBT_FIRST: u64 = 1_000;
const DOUBT_MAX: u64 = 60_000;
/// An asker that has not repeated itself for so long is gone; a device does within 10 minutes.
const FORGET: u64 = 900_000;

/// The wishes of a site's devices, and what of them is under way.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    window: usize,
    wants: HashMap<Key, Want>,
    queues: HashMap<Asker, VecDeque<Key>>,
    /// Askers with a queue, whose turn comes next first.
    turns: VecDeque<Asker>,
    again: VecDeque<Key>,
    flight: Vec<Key>,
    /// Questions about deltas that nobody answered, and who asked them.
    silent: Vec<(Key, Vec<Asker>)>,
    /// How often false parts of an object came since a true one, and until when none is asked for.
    doubted: HashMap<Digest, (u32, u64)>,
    /// The moment that was seen last.
    now: u64,
    /// Parts that came since the start, and when the last did.
    arrivals: u64,
    last: u64,
}

#[derive(Debug)]
struct Want {
    /// With the time at which each asked last.
    askers: Vec<(Asker, u64)>,
    sent: Option<Sent>,
    tries: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u64,
    arrivals: u64,
}

impl Fetch {
    /// Keeps at most `window` parts under way.
    pub(crate) fn new(window: usize) -> Self {
        Self { window: window.max(1), ..Self::default() }
    }

    /// Takes in that `asker` wants a part; tells whether it was heard.
    pub(crate) fn want(&mut self, asker: &Asker, key: Key, now: u64) -> bool {
        if let Some(want) = self.wants.get_mut(&key) {
            match want.askers.iter_mut().find(|(known, _)| known == asker) {
                Some((_, asked)) => *asked = now,
                None => want.askers.push((asker.clone(), now)),
            }
            return true;
        }
        if self.wants.len() >= WANTS_MAX {
            return false;
        }
        let queue = self.queues.entry(asker.clone()).or_default();
        if queue.len() >= EACH_MAX {
            return false;
        }
        if queue.is_empty() {
            self.turns.push_back(asker.clone());
        }
        match key.part {
            // Without it nothing that comes can be verified, or nothing is asked for.
            Part::Piece(_) | Part::Delta { .. } => queue.push_front(key.clone()),
            Part::Chunk(_) => queue.push_back(key.clone()),
        }
        self.wants.insert(key, Want { askers: vec![(asker.clone(), now)], sent: None, tries: 0 });
        true
    }

    /// Returns what to ask for now. `needs` names the piece without which a part could not be judged: it comes first.
    pub(crate) fn next(&mut self, now: u64, needs: impl Fn(&Key) -> Option<Key>) -> Vec<Key> {
        self.late(now);
        self.now = now;
        let room = self.window.saturating_sub(self.flight.len());
        // Few requests, each for several parts, unless the window would run dry.
        if room * 4 < self.window {
            return Vec::new();
        }
        let (mut out, mut blocked) = (Vec::new(), Vec::new());
        while out.len() < room.min(GET_PACKS_MAX as usize) {
            let Some(mut key) = self.pick() else { break };
            let doubted = self.doubted.get(&key.of).is_some_and(|(_, until)| *until > now);
            if doubted || self.flight.iter().any(|other| other.is_confused_with(&key)) {
                blocked.push(key);
                continue;
            }
            if let Some(piece) = needs(&key) {
                blocked.push(key);
                if self.wants.contains_key(&piece) {
                    continue;
                }
                let own = (Asker::from(""), now);
                self.wants.insert(piece.clone(), Want { askers: vec![own], sent: None, tries: 0 });
                key = piece;
            }
            if let Some(want) = self.wants.get_mut(&key) {
                want.sent = Some(Sent { at: now, arrivals: self.arrivals });
                self.flight.push(key.clone());
                out.push(key);
            }
        }
        blocked.into_iter().rev().for_each(|key| self.again.push_front(key));
        out
    }

    /// Returns the next key that is wanted and not under way: of each asker in turn.
    fn pick(&mut self) -> Option<Key> {
        if let Some(key) = self.again.pop_front() {
            return Some(key);
        }
        while let Some(asker) = self.turns.pop_front() {
            let queue = self.queues.get_mut(&asker)?;
            let key = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&asker);
            } else {
                self.turns.push_back(asker);
            }
            if let Some(key) = key.filter(|key| self.wants.get(key).is_some_and(|w| w.sent.is_none())) {
                return Some(key);
            }
        }
        None
    }

    /// Returns the part under way that a frame answers.
    pub(crate) fn find(&self, pack: &Pack) -> Option<Key> {
        self.flight.iter().find(|key| key.is_answered_by(pack)).cloned()
    }

    /// Takes in that a part is here, and returns who wants it.
    pub(crate) fn came(&mut self, key: &Key, now: u64) -> Vec<Asker> {
        self.arrived(now);
        self.doubted.remove(&key.of);
        self.end(key)
    }

    /// Forgets a part, and returns who wants it.
    fn end(&mut self, key: &Key) -> Vec<Asker> {
        self.flight.retain(|known| known != key);
        let askers = self.wants.remove(key).map(|want| want.askers).unwrap_or_default();
        askers.into_iter().map(|(asker, _)| asker).filter(|asker| !asker.is_empty()).collect()
    }

    /// Returns the questions about deltas that nobody has answered since it was asked last, and who waits for an answer.
    pub(crate) fn silent(&mut self) -> Vec<(Key, Vec<Asker>)> {
        std::mem::take(&mut self.silent)
    }

    /// Takes in that what came is not the part: it is asked for again, the third time after a while.
    pub(crate) fn refused(&mut self, key: &Key, now: u64) {
        self.unproven(key, now);
        if self.doubted.len() >= WANTS_MAX {
            self.doubted.clear();
        }
        let (count, until) = self.doubted.entry(key.of).or_default();
        *count += 1;
        if *count > 2 {
            *until = now + (DOUBT_FIRST << (*count - 3).min(6)).min(DOUBT_MAX);
        }
    }

    /// Takes in that what came cannot be judged yet: it is asked for again.
    pub(crate) fn unproven(&mut self, key: &Key, now: u64) {
        self.arrived(now);
        self.repeat(key);
    }

    /// Takes in that whatever is under way will not come.
    pub(crate) fn cut_off(&mut self) {
        for key in std::mem::take(&mut self.flight) {
            if let Some(want) = self.wants.get_mut(&key) {
                want.sent = None;
                self.again.push_back(key);
            }
        }
    }

    fn arrived(&mut self, now: u64) {
        self.arrivals += 1;
        self.last = now;
    }

    fn repeat(&mut self, key: &Key) {
        self.flight.retain(|known| known != key);
        let Some(want) = self.wants.get_mut(key) else { return };
        want.tries += 1;
        want.sent = None;
        if want.tries >= TRIES_MAX {
            self.wants.remove(key);
        } else {
            self.again.push_back(key.clone());
        }
    }

    /// Takes back what should be here by now, and forgets who has gone.
    fn late(&mut self, now: u64) {
        let overtaken = 2 * self.window as u64;
        let late: Vec<Key> = self
            .flight
            .iter()
            .filter(|key| {
                let Some((want, sent)) = self.wants.get(key).and_then(|w| Some((w, w.sent?))) else {
                    return true;
                };
                let patience = patience(want.tries);
                // On a slow link everything is late, and nothing is lost while something comes: in order.
                now >= sent.at.max(self.last) + patience
                    || (self.arrivals - sent.arrivals > overtaken && now >= sent.at + patience)
            })
            .cloned()
            .collect();
        for key in late {
            if let Part::Delta { .. } = key.part {
                let askers = self.end(&key);
                self.silent.push((key, askers));
            } else {
                self.repeat(&key);
            }
        }
        if self.wants.len() > WANTS_MAX / 2 {
            let flight = &self.flight;
            self.wants.retain(|key, want| {
                want.askers.retain(|(_, asked)| asked + FORGET > now);
                !want.askers.is_empty() || flight.contains(key)
            });
            self.again.retain(|key| self.wants.contains_key(key));
        }
    }

    /// Returns when [`Fetch::next`] may have something to repeat.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        let each = |key: &Key| {
            let want = self.wants.get(key)?;
            Some(want.sent?.at.max(self.last) + patience(want.tries))
        };
        let doubts = self.again.iter().filter_map(|key| self.doubted.get(&key.of)).map(|(_, until)| *until);
        self.flight.iter().filter_map(each).chain(doubts.filter(|until| *until > self.now)).min()
    }

    /// Returns how many parts are wanted.
    pub(crate) fn len(&self) -> usize {
        self.wants.len()
    }
}

fn patience(tries: u32) -> u64 {
    (REPEAT_FIRST << tries.min(10)).min(REPEAT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(index: u32) -> Key {
        Key { of: Digest::of(b"x"), part: Part::Chunk(index) }
    }

    fn asker(number: u32) -> Asker {
        format!("d/{number}").into()
    }

    fn proven(_: &Key) -> Option<Key> {
        None
    }

    #[test]
    fn a_part_that_many_want_is_asked_for_once_and_answered_to_all() {
        let mut fetch = Fetch::new(4);
        for device in 0..200 {
            fetch.want(&asker(device), chunk(7), 0);
        }
        assert_eq!(fetch.next(0, proven), [chunk(7)]);
        fetch.want(&asker(200), chunk(7), 1);
        assert_eq!(fetch.next(1, proven), []);

        assert_eq!(fetch.came(&chunk(7), 2).len(), 201);
        assert_eq!(fetch.len(), 0);
    }

    #[test]
    fn a_device_that_wants_much_does_not_keep_others_waiting_and_the_window_holds() {
        let mut fetch = Fetch::new(4);
        (0..90).for_each(|index| assert!(fetch.want(&asker(1), chunk(index), 0)));
        fetch.want(&asker(2), chunk(500), 0);

        assert_eq!(fetch.next(0, proven), [chunk(0), chunk(500), chunk(1), chunk(2)]);
        assert_eq!(fetch.next(0, proven), []);
        fetch.came(&chunk(1), 1);
        assert_eq!(fetch.next(1, proven), [chunk(3)]);
    }

    #[test]
    fn a_piece_goes_before_what_it_proves() {
        let mut fetch = Fetch::new(8);
        (0..3).for_each(|index| assert!(fetch.want(&asker(1), chunk(index), 0)));
        let piece = Key::piece(Digest::of(b"x"), 0, 0);
        let needs = |key: &Key| (*key != piece).then(|| piece.clone());

        assert_eq!(fetch.next(0, needs), vec![piece.clone()]);
        assert_eq!(fetch.next(1, needs), []);
        assert_eq!(fetch.came(&piece, 2), Vec::<Asker>::new());

        assert_eq!(fetch.next(3, proven), [chunk(0), chunk(1), chunk(2)]);
    }

    #[test]
    fn nothing_is_repeated_while_anything_comes_and_all_of_it_when_nothing_does() {
        let mut fetch = Fetch::new(8);
        (0..3).for_each(|index| assert!(fetch.want(&asker(1), chunk(index), 0)));
        fetch.next(0, proven);
        fetch.came(&chunk(0), REPEAT_FIRST - 1);
        assert_eq!(fetch.next(REPEAT_FIRST + 1, proven), []);
        assert_eq!(fetch.wake_at(), Some(2 * REPEAT_FIRST - 1));

        assert_eq!(fetch.next(2 * REPEAT_FIRST, proven), [chunk(1), chunk(2)]);
    }

    #[test]
    fn a_part_that_was_overtaken_is_lost_though_others_come() {
        let mut fetch = Fetch::new(4);
        (0..60).for_each(|index| assert!(fetch.want(&asker(1), chunk(index), 0)));
        let mut now = 0;
        let mut again = 0;
        let mut flight = fetch.next(now, proven);
        for _ in 0..40 {
            now += 1000;
            if let Some(place) = flight.iter().position(|key| *key != chunk(0)) {
                fetch.came(&flight.remove(place), now);
            }
            let more = fetch.next(now, proven);
            again += more.iter().filter(|key| **key == chunk(0)).count();
            flight.extend(more);
        }
        assert!((1..=3).contains(&again), "{again}");
    }

    #[test]
    fn what_never_comes_is_given_up_and_what_is_false_asked_for_again() {
        let mut fetch = Fetch::new(4);
        fetch.want(&asker(1), chunk(0), 0);
        let (mut now, mut asked) = (0, 0);
        while fetch.len() > 0 {
            let next = fetch.next(now, proven);
            asked += next.len();
            next.iter().for_each(|key| fetch.refused(key, now));
            now += 1000;
        }
        assert_eq!(asked, TRIES_MAX as usize);
    }

    #[test]
    fn a_server_whose_files_are_damaged_is_not_asked_as_fast_as_it_answers() {
        let mut fetch = Fetch::new(4);
        let piece = Key::piece(Digest::of(b"x"), 0, 0);
        let needs = |key: &Key| (*key != piece).then(|| piece.clone());
        let (mut now, mut asked) = (0, 0);
        while now < 3_600_000 {
            (0..8).for_each(|index| assert!(fetch.want(&asker(1), chunk(index), now)));
            let next = fetch.next(now, needs);
            asked += next.len();
            next.iter().for_each(|key| fetch.refused(key, now + 50));
            let wake = fetch.wake_at().unwrap_or(now + 1000);
            assert!(wake > now, "it spins");
            now = wake;
        }
        assert!((40..120).contains(&asked), "asked {asked} times in an hour");
        // What is true ends the doubt.
        fetch.next(now + DOUBT_MAX, needs);
        fetch.came(&piece, now + DOUBT_MAX);
        assert_eq!(fetch.next(now + DOUBT_MAX, proven).len(), 4);
    }

    fn delta(profiles: &[u8]) -> Key {
        let part = Part::Delta { from: Digest::of(b"old"), profiles: profiles.to_vec() };
        Key { of: Digest::of(b"x"), part }
    }

    #[test]
    fn what_nobody_says_about_a_delta_is_heard_by_all_who_asked_and_not_asked_again() {
        let mut fetch = Fetch::new(4);
        (1..4).for_each(|device| assert!(fetch.want(&asker(device), delta(&[1]), 0)));
        assert_eq!(fetch.next(0, proven), [delta(&[1])]);

        assert_eq!(fetch.next(REPEAT_FIRST - 1, proven), []);
        assert_eq!(fetch.silent(), []);
        assert_eq!(fetch.next(REPEAT_FIRST, proven), []);

        assert_eq!(fetch.silent(), [(delta(&[1]), vec![asker(1), asker(2), asker(3)])]);
        assert_eq!((fetch.len(), fetch.silent().len(), fetch.wake_at()), (0, 0, None));
    }

    #[test]
    fn questions_whose_answers_look_alike_are_asked_one_after_the_other() {
        let mut fetch = Fetch::new(4);
        [&[1][..], &[1, 4]].into_iter().for_each(|of| assert!(fetch.want(&asker(1), delta(of), 0)));
        fetch.want(&asker(2), chunk(0), 0);

        assert_eq!(fetch.next(0, proven), [delta(&[1, 4]), chunk(0)]);
        assert_eq!(fetch.next(1, proven), []);
        fetch.came(&delta(&[1, 4]), 2);

        assert_eq!(fetch.next(2, proven), [delta(&[1])]);
    }

    #[test]
    fn after_a_cut_what_was_under_way_is_asked_for_again() {
        let mut fetch = Fetch::new(2);
        (0..3).for_each(|index| assert!(fetch.want(&asker(1), chunk(index), 0)));
        assert_eq!(fetch.next(0, proven), [chunk(0), chunk(1)]);
        fetch.came(&chunk(0), 1);

        fetch.cut_off();

        assert_eq!(fetch.next(2, proven), [chunk(1), chunk(2)]);
    }

    #[test]
    fn however_much_is_wanted_a_bounded_number_is_remembered() {
        let mut fetch = Fetch::new(2);
        for device in 0..100 {
            (0..300).for_each(|n| {
                fetch.want(&asker(device), chunk(device * 300 + n), 0);
            });
        }
        assert!(fetch.len() <= WANTS_MAX);
        assert!(fetch.queues.values().all(|queue| queue.len() <= EACH_MAX));
    }
}
