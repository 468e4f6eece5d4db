//! A story played with the power cut before every operation, and with each sync taken away.

use std::collections::BTreeSet;

use super::board::Kind;
use super::device::{Ended, Terminal};
use super::disk::{Lie, Operation};
use super::outcome::Outcome;
use super::story::Story;

/// What a campaign came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Operations of the story when the power stays.
    pub operations: u64,
    /// Runs to the end.
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
        write!(f, "{} (power cut {})", self.what, self.cuts.join(", then "))
    }
}

/// Plays the story once with the power on; returns the operations in order.
pub fn trace(story: Story, kind: Kind, lie: Option<Lie>) -> Result<Vec<(Operation, String)>, Violation> {
    let mut terminal = story.begins(kind);
    terminal.disk.lie(lie);
    let broken = |what| Violation { cuts: vec!["never".into()], what };
    match story.goes_on(&mut terminal) {
        Ended::Done => {}
        other => return Err(broken(format!("{other:?}"))),
    }
    let operations = terminal.disk.trace();
    match story.judge(&mut terminal, 0) {
        None => Ok(operations),
        Some(what) => Err(broken(what)),
    }
}

/// Cuts the power once before every operation of the story, with every outcome that may have, and plays it to its end.
/// `share` takes every n-th operation, from a first one on.
pub fn single(
    story: Story,
    kind: Kind,
    lie: Option<&Lie>,
    outcomes: &[Outcome],
    share: (usize, usize),
) -> Result<Tally, Violation> {
    let begin = story.begins(kind);
    begin.disk.lie(lie.cloned());
    let mut tally = Tally::default();
    let mut number = 1;
    loop {
        let mut terminal = begin.with_disk(begin.disk.shut_down());
        terminal.disk.cut_before(number);
        let ended = story.goes_on(&mut terminal);
        match ended {
            Ended::Cut => {}
            Ended::Done => {
                tally.operations = number - 1;
                return Ok(tally);
            }
            Ended::Broken(what) => return Err(Violation { cuts: vec![place(number, &terminal)], what }),
        }
        let is_ours = usize::try_from(number).unwrap_or(0) % share.1 == share.0 % share.1;
        if is_ours {
            for (outcome, medium) in terminal.disk.futures(outcomes) {
                let mut reborn = terminal.with_disk(medium);
                let cut = || vec![format!("{}, {outcome:?}", place(number, &terminal))];
                tally.runs += 1;
                match story.goes_on(&mut reborn) {
                    Ended::Done => {}
                    other => return Err(Violation { cuts: cut(), what: format!("{other:?}") }),
                }
                // An entry that is lost with the power counts as a second cut.
                let cuts = if outcome.can_take_an_entry() { 2 } else { 1 };
                if let Some(what) = story.judge(&mut reborn, cuts) {
                    return Err(Violation { cuts: cut(), what });
                }
            }
        }
        number += 1;
    }
}

/// Cuts the power twice, before every pair of operations: the first of this story, the second of what comes after it.
pub fn pairs(
    story: Story,
    kind: Kind,
    outcomes: &[Outcome],
    share: (usize, usize),
    mut progress: impl FnMut(u64, &Tally),
) -> Result<Tally, Violation> {
    let begin = story.begins(kind);
    let mut tally = Tally::default();
    let mut number = 1;
    loop {
        let mut terminal = begin.with_disk(begin.disk.shut_down());
        terminal.disk.cut_before(number);
        match story.goes_on(&mut terminal) {
            Ended::Cut => {}
            Ended::Done => {
                tally.operations = number - 1;
                return Ok(tally);
            }
            Ended::Broken(what) => return Err(Violation { cuts: vec![place(number, &terminal)], what }),
        }
        if usize::try_from(number).unwrap_or(0) % share.1 == share.0 % share.1 {
            for (outcome, medium) in terminal.disk.futures(outcomes) {
                let first = format!("{}, {outcome:?}", place(number, &terminal));
                second(story, &terminal.with_disk(medium), outcomes, &first, &mut tally)?;
            }
            progress(number, &tally);
        }
        number += 1;
    }
}

fn second(
    story: Story,
    begin: &Terminal,
    outcomes: &[Outcome],
    first: &str,
    tally: &mut Tally,
) -> Result<(), Violation> {
    let mut number = 1;
    loop {
        let mut terminal = begin.with_disk(begin.disk.shut_down());
        terminal.disk.cut_before(number);
        let cuts = |terminal: &Terminal| vec![first.to_owned(), place(number, terminal)];
        match story.goes_on(&mut terminal) {
            Ended::Cut => {}
            Ended::Done => return Ok(()),
            Ended::Broken(what) => return Err(Violation { cuts: cuts(&terminal), what }),
        }
        for (outcome, medium) in terminal.disk.futures(outcomes) {
            let mut reborn = terminal.with_disk(medium);
            tally.runs += 1;
            let what = match story.goes_on(&mut reborn) {
                Ended::Done => story.judge(&mut reborn, 2),
                other => Some(format!("{other:?}")),
            };
            if let Some(what) = what {
                let mut cuts = cuts(&terminal);
                cuts.push(format!("{outcome:?}"));
                return Err(Violation { cuts, what });
            }
        }
        number += 1;
    }
}

fn place(number: u64, terminal: &Terminal) -> String {
    let trace = terminal.disk.trace();
    let last =
        trace.last().map_or("the first".to_owned(), |(operation, class)| format!("{operation:?} {class}"));
    format!("before operation {number}, after {last}")
}

/// Every sync of a story that can be taken out.
pub fn syncs(trace: &[(Operation, String)]) -> Vec<(Operation, String)> {
    let is_sync = |operation: &Operation| matches!(operation, Operation::Sync | Operation::SyncFolder);
    let syncs: BTreeSet<_> = trace.iter().filter(|(operation, _)| is_sync(operation)).cloned().collect();
    syncs.into_iter().collect()
}

/// Every pair of syncs of different places that follow one another: the order of two writes.
pub fn orders(trace: &[(Operation, String)]) -> Vec<Lie> {
    let is_sync =
        |(operation, _): &&(Operation, String)| matches!(operation, Operation::Sync | Operation::SyncFolder);
    let syncs: Vec<_> = trace.iter().filter(is_sync).collect();
    let mut orders = Vec::new();
    for pair in syncs.windows(2) {
        let [(first, a), (second, b)] = pair else { continue };
        let order = Lie::After(*first, a.clone(), *second, b.clone());
        if a != b && !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}
