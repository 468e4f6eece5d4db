//! How many packs to have on their way, and which of them to ask for again.
//!
//! A chunk server answers in the order in which it is asked, over a connection that keeps order. So a pack is lost when
//! packs that were asked for after it come before it; and what comes says how fast the link is and how far the server.
//!
//! ```text
//! size = 2 × (shortest way there and back + PAUSE) / shortest time from pack to pack, 1 to the ceiling
//! nothing comes ──► ask for the oldest once more ──► still nothing: for the next oldest, each time after twice the wait
//!                        └──► it comes, then nothing again: all that was open is lost
//! ```
//! Too many on their way fill the queues between here and the server, and a kill waits behind them; with too few the link
//! stands still. Twice what the link holds keeps it busy though its delay varies as much again.
//!
//! To use it: ask for what [`Window::lost`] names, then for [`Window::may_ask`] packs more, and say so with
//! [`Window::asked`]; say what has [`arrived`](Window::arrived); come back at [`Window::due`]. Packs are named by any
//! number, in the order in which they are asked for. Times are milliseconds of uptime.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::timing::Backoff;

/// Packs on their way before anything is known of the link: 1 MiB.
const START: u32 = 16;
/// A flash that syncs for so long must not stop the link.
const PAUSE: u64 = 100;
/// Packs that overtake one before it counts as lost.
const OVERTAKEN: u32 = 3;
/// Times from pack to pack that are measured as one: single ones say more of the last buffer than of the link.
const TRAIN: usize = 4;
/// The part of the size that is asked for at once: a request for each pack would cost the way up more than it gives.
const BATCH: u32 = 8;
/// The part by which the shortest time from pack to pack grows with each that was longer.
const FADE: u64 = 16;

/// Packs that are on their way, and what is known of the way.
#[derive(Debug, Clone)]
pub struct Window {
    ceiling: u32,
    open: BTreeMap<u32, Asked>,
    /// Lost and not here yet: an older answer may still come.
    repeats: BTreeSet<u32>,
    /// Packs asked for so far, repeats included.
    order: u64,
    /// At most so many while the way is known to lose packs: grows by one with each that comes, above `calm` with each
    /// `most` of them.
    most: u32,
    calm: u32,
    grown: u32,
    /// Losses of packs asked for before this were answered for.
    answered: u64,
    pace: Pace,
    /// The last time that something came, or that something was asked for when nothing was open.
    heard: u64,
    /// From when on the present wait counts.
    quiet_since: u64,
    wait: Backoff,
    probe: Probe,
    silences: u32,
}

/// A pack that is on its way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: u64,
    order: u64,
    overtaken: u32,
    /// Served before what waits: it tells nothing of order or pace.
    ahead: bool,
    /// Which of its answers comes nobody knows, so it tells nothing of the time.
    again: bool,
}

/// What became of the pack that was asked for again because nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    None,
    /// `most` was this before.
    Sent(u32),
    Answered,
}

impl Window {
    /// Knows nothing yet. At most `ceiling` packs are on their way; an answer is waited for `first` at first, later a
    /// quarter of it at least, and `longest` at most.
    pub fn new(ceiling: u32, first: u64, longest: u64) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            ceiling,
            open: BTreeMap::new(),
            repeats: BTreeSet::new(),
            order: 0,
            most: ceiling,
            calm: ceiling,
            grown: 0,
            answered: 0,
            pace: Pace::default(),
            heard: 0,
            quiet_since: 0,
            wait: Backoff::new(first, longest),
            probe: Probe::None,
            silences: 0,
        }
    }

    /// Knows nothing any more: what comes from now on comes by another way.
    pub(super) fn renewed(&self) -> Self {
        Self::new(self.ceiling, self.wait.first(), self.wait.most())
    }

    /// Takes note that `pack` is not on its way any more, and why is known; tells whether it was.
    pub(super) fn forget_one(&mut self, pack: u32) -> bool {
        self.open.remove(&pack).is_some()
    }

    /// Returns how many packs should be on their way.
    pub fn size(&self) -> u32 {
        self.wished().min(self.most).max(1)
    }

    /// Returns how many packs would keep the link busy.
    fn wished(&self) -> u32 {
        self.pace.fills().unwrap_or(START).min(self.ceiling)
    }

    /// Returns how many packs may be asked for now, beside those that are lost: none until a request is worth its bytes.
    pub fn may_ask(&self) -> u32 {
        let size = self.size();
        let open = self.open.values().filter(|asked| !asked.ahead).count();
        let free = size.saturating_sub(u32::try_from(open).unwrap_or(u32::MAX));
        if free >= (size / BATCH).max(1) { free } else { 0 }
    }

    /// Tells whether `pack` is on its way.
    pub fn is_open(&self, pack: u32) -> bool {
        self.open.contains_key(&pack)
    }

    /// Takes note that `pack` was asked for.
    pub fn asked(&mut self, pack: u32, uptime: u64) {
        self.ask(pack, uptime, false);
    }

    /// Takes note that something small was asked for, which the server sends before the packs that wait. It counts for
    /// nothing but that it is asked for again when it is lost.
    pub fn asked_ahead(&mut self, name: u32, uptime: u64) {
        self.ask(name, uptime, true);
    }

    fn ask(&mut self, pack: u32, uptime: u64, ahead: bool) {
        if self.open.is_empty() {
            (self.heard, self.quiet_since) = (uptime, uptime);
        }
        self.order += 1;
        let again = self.repeats.remove(&pack);
        self.open.insert(pack, Asked { at: uptime, order: self.order, overtaken: 0, ahead, again });
    }

    /// Takes note that `pack` has come; tells whether it was on its way.
    pub fn arrived(&mut self, pack: u32, uptime: u64) -> bool {
        self.repeats.remove(&pack);
        let Some(asked) = self.open.remove(&pack) else { return false };
        let quiet = uptime.saturating_sub(self.heard);
        (self.heard, self.quiet_since) = (uptime, uptime);
        self.silences = 0;
        self.wait.reset();
        if asked.ahead {
            return true;
        }
        self.probe = match self.probe {
            // It was on its way before all was silent: the link stood still, and lost nothing.
            Probe::Sent(most) if !asked.again => {
                self.most = most;
                Probe::None
            }
            Probe::Answered if !asked.again => Probe::None,
            _ if self.open.is_empty() => Probe::None,
            Probe::Sent(_) => Probe::Answered,
            other => other,
        };
        let way = (!asked.again).then(|| uptime.saturating_sub(asked.at));
        self.pace.arrived(uptime, way, quiet, self.open.is_empty());
        for other in self.open.values_mut().filter(|other| other.order < asked.order && !asked.again) {
            other.overtaken += 1;
        }
        self.grow();
        true
    }

    fn grow(&mut self) {
        self.grown += 1;
        if self.most < self.calm || self.grown >= self.most {
            self.grown = 0;
            self.most = (self.most + 1).min(self.ceiling);
        }
    }

    /// Returns when [`Window::lost`] should be asked, if nothing comes before.
    pub fn due(&self) -> u64 {
        if self.open.is_empty() {
            u64::MAX
        } else if self.has_overtaken() {
            self.quiet_since
        } else {
            self.quiet_since.saturating_add(self.patience())
        }
    }

    fn has_overtaken(&self) -> bool {
        self.open.values().any(|asked| asked.overtaken >= OVERTAKEN)
    }

    /// Returns how long nothing may come.
    fn patience(&self) -> u64 {
        let measured = self.pace.patience().map(|wait| wait.max(self.wait.first() / 4));
        // What was measured counts until the first silence, and doubles from there on as the rest does.
        let doubled = |wait: u64| wait.saturating_mul(1 << self.silences.min(16));
        measured.map_or(self.wait.present(), doubled).min(self.wait.most())
    }

    /// Returns what to ask for again now, whatever [`Window::may_ask`] says. It is not on its way any more.
    pub fn lost(&mut self, uptime: u64) -> Vec<u32> {
        if uptime < self.due() {
            return Vec::new();
        }
        if self.has_overtaken() {
            return self.overtaken();
        }
        self.silences += 1;
        self.wait.step();
        self.quiet_since = uptime;
        self.pace.pause();
        if self.probe == Probe::Answered {
            self.lessen(self.wished() / 2, 1);
            let first = self.oldest();
            self.forget();
            return first.into_iter().collect();
        }
        if self.probe == Probe::None {
            self.probe = Probe::Sent(self.most);
            self.most = 1;
        }
        let oldest = self.oldest();
        if let Some(pack) = oldest {
            self.open.remove(&pack);
            self.repeats.insert(pack);
        }
        oldest.into_iter().collect()
    }

    fn oldest(&self) -> Option<u32> {
        self.open.iter().min_by_key(|(_, asked)| (!asked.ahead, asked.order)).map(|(pack, _)| *pack)
    }

    fn forget(&mut self) {
        self.repeats.extend(self.open.keys());
        self.open.clear();
        self.probe = Probe::None;
    }

    fn overtaken(&mut self) -> Vec<u32> {
        let is_lost = |asked: &Asked| asked.overtaken >= OVERTAKEN;
        let lost: Vec<(u32, Asked)> = self
            .open
            .iter()
            .filter(|(_, asked)| is_lost(asked))
            .map(|(pack, asked)| (*pack, *asked))
            .collect();
        self.open.retain(|_, asked| !is_lost(asked));
        self.repeats.extend(lost.iter().map(|(pack, _)| *pack));
        // Those that were asked for together are lost together, and answered for once.
        if lost.iter().any(|(_, asked)| asked.order > self.answered) {
            let half = self.size() / 2;
            self.lessen(half, half);
        }
        lost.into_iter().map(|(pack, _)| pack).collect()
    }

    /// Goes down to `most`, and up again: fast as far as `calm`, slowly from there.
    fn lessen(&mut self, calm: u32, most: u32) {
        (self.calm, self.most) = (calm.max(2), most.max(1));
        self.grown = 0;
        self.answered = self.order;
    }

    /// Returns how often in a row nothing has come when something should have.
    pub fn silences(&self) -> u32 {
        self.silences
    }

    /// Takes note that the connection is gone, and with it all that was on its way. What is known of the pace stays until
    /// the next connection knows better.
    pub fn cut(&mut self) {
        if let Probe::Sent(most) = self.probe {
            self.most = most;
        }
        self.forget();
        self.silences = 0;
        self.wait.reset();
        self.answered = self.order;
        self.pace.cut();
    }
}

/// How fast packs come.
#[derive(Debug, Clone, Default)]
struct Pace {
    /// Shortest time from asking to a pack in this connection: the way there and back and one pack.
    way: Option<u64>,
    /// The same of the connection before.
    way_before: Option<u64>,
    /// Shortest time from pack to pack, microseconds; fades.
    gap: Option<u64>,
    /// When the last packs came, without a pause in between.
    train: VecDeque<u64>,
    /// Time in which nothing came, smoothed, and its deviation.
    quiet: Option<(u64, u64)>,
}

impl Pace {
    /// Takes note of a pack that came `way` after it was asked for, when nothing had come for `quiet`; `last` if no other
    /// is on its way.
    fn arrived(&mut self, uptime: u64, way: Option<u64>, quiet: u64, last: bool) {
        if let Some(way) = way {
            self.way = Some(self.way.map_or(way, |before| before.min(way)));
        }
        self.quiet = Some(match self.quiet {
            None => (quiet, quiet / 2),
            Some((mean, spread)) => ((7 * mean + quiet) / 8, (3 * spread + mean.abs_diff(quiet)) / 4),
        });
        self.train.push_back(uptime);
        if self.train.len() > TRAIN {
            let began = self.train.pop_front().unwrap_or(uptime);
            // The clock's own step is half a millisecond on average.
            let gap = (uptime.saturating_sub(began) * 1000).max(500) / TRAIN as u64;
            self.gap = Some(self.gap.map_or(gap, |before| gap.min(before + before / FADE)));
        }
        if last {
            self.pause();
        }
    }

    /// Starts a new train: what comes next does not come right behind.
    fn pause(&mut self) {
        self.train.clear();
    }

    fn cut(&mut self) {
        self.way_before = self.way.take().or(self.way_before);
        self.pause();
    }

    /// Returns how many packs keep the link busy.
    fn fills(&self) -> Option<u32> {
        let way = self.way.or(self.way_before)?;
        let packs = (2000 * (way + PAUSE)).div_ceil(self.gap?);
        Some(u32::try_from(packs).unwrap_or(u32::MAX))
    }

    /// Returns how long nothing may come before something is wrong.
    fn patience(&self) -> Option<u64> {
        let (mean, spread) = self.quiet?;
        let way = self.way.or(self.way_before).unwrap_or(0);
        Some((mean + 4 * spread).max(2 * way))
    }
}

#[cfg(test)]
mod tests;
