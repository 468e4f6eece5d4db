//! A story played with the power cut before every operation, and with each sync taken away.

use std::collections::HashMap;

use tern_protocol::digest::Digest;

use super::board::Kind;
use super::device::{Cut, Ended, Terminal};
use super::disk::{Lie, Moment, Operation, Step};
use super::lie::{AT_START, LOADERS};
use super::outcome::Outcome;
use super::story::Story;

/// What a campaign came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Operations of the story when the power stays.
    pub operations: u64,
    /// Power cuts: every operation with every different outcome.
    pub cuts: u64,
    /// Runs to the end, one from each different state that these left.
    pub runs: u64,
}

/// A run that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where the power failed: the number of the operation before which it did, and what that was.
    pub cuts: Vec<String>,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cuts = if self.cuts.is_empty() { "never".to_owned() } else { self.cuts.join(", then ") };
        write!(f, "{} (power cut {cuts})", self.what)
    }
}

/// Plays the story once with the power on; returns the operations in order.
pub fn trace(story: Story, kind: Kind) -> Result<Vec<Step>, Violation> {
    let mut begin = begin(story, kind, None);
    begin.plays(story)?;
    Ok(begin.terminal.disk.trace())
}

/// States that have been played to the end, and how many power cuts were allowed for.
///
/// What a device does comes from its state alone ([`Terminal::state`]), so one run from each is enough, however the power
/// has failed before; one that was judged with fewer cuts is judged for more.
#[derive(Debug, Default)]
struct Played(HashMap<Digest, u32>);

impl Played {
    fn is_new(&mut self, terminal: &Terminal, cuts: u32) -> bool {
        let state = terminal.state();
        let is_judged = self.0.get(&state).is_some_and(|judged| *judged <= cuts);
        if !is_judged {
            self.0.insert(state, cuts);
        }
        !is_judged
    }
}

/// A device that comes up after power cuts.
#[derive(Debug)]
struct Reborn {
    terminal: Terminal,
    /// How many there were; an entry that is lost with the power counts as one more.
    cuts: u32,
    places: Vec<String>,
}

impl Reborn {
    /// Plays the story to its end; returns every moment at which the power could have failed again.
    fn plays(&mut self, story: Story) -> Result<Vec<Cut>, Violation> {
        let (ended, cuts) = self.terminal.recorded(|terminal| story.goes_on(terminal));
        self.judge(story, &ended).map(|()| cuts)
    }

    /// The same, where the power does not fail again.
    fn ends(&mut self, story: Story) -> Result<(), Violation> {
        let ended = story.goes_on(&mut self.terminal);
        self.judge(story, &ended)
    }

    fn judge(&mut self, story: Story, ended: &Ended) -> Result<(), Violation> {
        let what = match (ended, &self.terminal.lost) {
            (Ended::Done, Some(lost)) => Some(format!("it noted as written what was not: {lost}")),
            (Ended::Done, None) => story.judge(&mut self.terminal, self.cuts),
            (other, _) => Some(format!("{other:?}")),
        };
        what.map_or(Ok(()), |what| Err(Violation { cuts: self.places.clone(), what }))
    }

    /// Returns what the cut leaves that was not played yet.
    fn after(&self, cut: &Cut, outcomes: &[Outcome], played: &mut Played, tally: &mut Tally) -> Vec<Self> {
        let mut reborn = Vec::new();
        for (outcome, terminal) in cut.futures(outcomes) {
            tally.cuts += 1;
            let cuts = self.cuts + if outcome.can_take_an_entry() { 2 } else { 1 };
            if played.is_new(&terminal, cuts) {
                let mut places = self.places.clone();
                places.push(format!("{}, {outcome:?}", place(&cut.moment)));
                reborn.push(Self { terminal, cuts, places });
            }
        }
        reborn
    }
}

/// Cuts the power once before every operation of the story, with every outcome that may have, and plays it to its end.
pub fn single(story: Story, kind: Kind, lie: Option<&Lie>, outcomes: &[Outcome]) -> Result<Tally, Violation> {
    let (mut tally, mut played): (Tally, Played) = Default::default();
    let mut begin = begin(story, kind, lie);
    let mut cuts = begin.plays(story)?;
    tally.operations = cuts.len() as u64;
    if lie.is_some() {
        // What was taken out is missed for a while: it is found soonest by looking here and there.
        cuts.sort_by_key(|cut| cut.moment.number.reverse_bits());
    }
    for cut in cuts {
        for mut reborn in begin.after(&cut, outcomes, &mut played, &mut tally) {
            tally.runs += 1;
            reborn.ends(story)?;
        }
    }
    Ok(tally)
}

/// Cuts the power twice, before every pair of operations: the first of this story, the second of what comes after it.
/// `share` takes every n-th of the states that the first one leaves, from a first one on.
pub fn pairs(
    story: Story,
    kind: Kind,
    outcomes: &[Outcome],
    share: (usize, usize),
    mut progress: impl FnMut(u64, &Tally),
) -> Result<Tally, Violation> {
    let (mut tally, mut played, mut first): (Tally, Played, usize) = Default::default();
    let mut begin = begin(story, kind, None);
    let cuts = begin.plays(story)?;
    tally.operations = cuts.len() as u64;
    for cut in cuts {
        // What the first cuts leave is counted once, and in every share.
        for mut reborn in begin.after(&cut, outcomes, &mut played, &mut Tally::default()) {
            first += 1;
            if first % share.1 != share.0 % share.1 {
                continue;
            }
            tally.runs += 1;
            for second in reborn.plays(story)? {
                for mut again in reborn.after(&second, outcomes, &mut played, &mut tally) {
                    tally.runs += 1;
                    again.ends(story)?;
                }
            }
        }
        progress(cut.moment.number, &tally);
    }
    Ok(tally)
}

/// Kills the agent before every operation of the story, and then cuts the power before every one of what its next start
/// does, or every one of the first `reach`: what the dead one had written and not synced may still be lost, and the next
/// one cannot know of it.
pub fn kills(
    story: Story,
    kind: Kind,
    lie: Option<&Lie>,
    outcomes: &[Outcome],
    reach: u64,
) -> Result<Tally, Violation> {
    let (mut tally, mut played): (Tally, Played) = Default::default();
    tally.operations = trace(story, kind)?.len() as u64;
    for number in 1..=tally.operations {
        let mut begin = begin(story, kind, lie);
        begin.terminal.disk.kill_before(number);
        begin.places.push(format!("not at all, the agent killed before operation {number}"));
        if let Some(end) = number.checked_add(reach) {
            // What comes behind that is not looked at: this one need not live to see it.
            begin.terminal.disk.cut_before(end);
        }
        let (ended, cuts) = begin.terminal.recorded(|terminal| story.goes_on(terminal));
        // Beside files the agent is its own boot loader: one that dies as that takes a try with it.
        begin.cuts = u32::from(kind == Kind::Files && begin.terminal.died_starting);
        if ended != Ended::Cut {
            begin.judge(story, &ended)?;
        }
        for cut in cuts.iter().filter(|cut| cut.moment.number >= number) {
            for mut reborn in begin.after(cut, outcomes, &mut played, &mut tally) {
                tally.runs += 1;
                reborn.ends(story)?;
            }
        }
    }
    Ok(tally)
}

fn begin(story: Story, kind: Kind, lie: Option<&Lie>) -> Reborn {
    let terminal = story.begins(kind);
    let terminal = terminal.with_disk(terminal.disk.shut_down());
    terminal.disk.lie(lie.cloned());
    Reborn { terminal, cuts: 0, places: Vec::new() }
}

fn place(moment: &Moment) -> String {
    let behind = moment.behind.as_ref();
    let last = behind.map_or("the first".to_owned(), |(operation, class)| format!("{operation:?} {class}"));
    format!("before operation {}, after {last}", moment.number)
}

/// Everything that can be taken out, each with the stories in which it comes: every sync of a place; where that comes behind
/// different operations, each of these alone; and the order of each two of different places that follow one another.
///
/// What a start makes durable has no order, and is taken out for each place as a whole. Two syncs with no change between
/// them have none either: a power cut before the first may have kept whatever the second does.
pub fn lies(kind: Kind, stories: &[Story]) -> Result<Vec<(Lie, Vec<Story>)>, Violation> {
    let mut lies: Vec<(Lie, Vec<Story>)> = Vec::new();
    for story in stories {
        for lie in lies_of(&trace(*story, kind)?) {
            match lies.iter_mut().find(|(known, _)| *known == lie) {
                Some((_, stories)) => stories.push(*story),
                None => lies.push((lie, vec![*story])),
            }
        }
    }
    let place = |lie: &Lie| match lie {
        Lie::NeverBehind(operation, class, _) => Some((*operation, class.clone())),
        Lie::Never(..) | Lie::After(..) => None,
    };
    let places: Vec<_> = lies.iter().filter_map(|(lie, _)| place(lie)).collect();
    // Where a sync comes in one way only, that is the whole of it.
    let is_more = |it: Step| places.iter().filter(|place| **place == it).count() > 1;
    lies.retain(|(lie, _)| place(lie).is_none_or(is_more));
    Ok(lies)
}

fn lies_of(trace: &[Step]) -> Vec<Lie> {
    let is_ours = |step: &Step| !step.1.starts_with(LOADERS);
    let is_of_a_start = |step: &Step| step.1.ends_with(AT_START);
    let is_sync = |step: &Step| matches!(step.0, Operation::Sync | Operation::SyncFolder);
    let syncs: Vec<(usize, &Step)> = trace.iter().enumerate().filter(|(_, step)| is_sync(step)).collect();
    let mut lies = Vec::new();
    for (at, step) in syncs.iter().filter(|(_, step)| is_ours(step)) {
        let (operation, class) = step;
        lies.push(Lie::Never(*operation, class.clone()));
        if let Some(before) = at.checked_sub(1).filter(|_| !is_of_a_start(step)) {
            lies.push(Lie::NeverBehind(*operation, class.clone(), trace[before].0.as_place()));
        }
    }
    for pair in syncs.windows(2) {
        if let [(at, first), (then, second)] = pair
            && first.1 != second.1
            && then - at > 1
            && [first, second].iter().all(|step| is_ours(step) && !is_of_a_start(step))
        {
            lies.push(Lie::After(first.0, first.1.clone(), second.0, second.1.clone()));
        }
    }
    let mut once = Vec::new();
    for lie in lies {
        if !once.contains(&lie) {
            once.push(lie);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is recorded on the way is what a device is left with whose power did fail there.
    #[test]
    fn a_recorded_moment_is_what_a_power_cut_leaves() {
        for (story, kind) in [(Story::Recall, Kind::SystemdBoot), (Story::PartsBack, Kind::Files)] {
            let outcomes = Outcome::all();
            let mut whole = begin(story, kind, None).terminal;
            let (ended, recorded) = whole.recorded(|terminal| story.goes_on(terminal));
            assert_eq!(ended, Ended::Done);
            for cut in recorded.iter().step_by(7) {
                let mut terminal = begin(story, kind, None).terminal;
                terminal.disk.cut_before(cut.moment.number);
                assert_eq!(story.goes_on(&mut terminal), Ended::Cut);

                let left = terminal.disk.futures(&outcomes).into_iter();
                let left: Vec<_> = left.map(|(_, medium)| terminal.with_disk(medium).state()).collect();

                let recorded = cut.futures(&outcomes);
                let recorded: Vec<_> = recorded.iter().map(|(_, terminal)| terminal.state()).collect();
                assert_eq!(recorded, left, "{story:?} {kind:?} {}", place(&cut.moment));
            }
        }
    }
}
