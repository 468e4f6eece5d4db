//! A story played on a medium that is not what it was: a read that fails, a sector that is worn out, a copy that is gone.
//!
//! Where is drawn from a seed. Whatever it is, the device keeps what it once confirmed, claims nothing that it does not run,
//! and comes to an end that it reports; only what was the single copy of something may be lost with it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use tern_agent::core::SlotName;

use super::board::Kind;
use super::device::{Ended, Terminal};
use super::disk::FakeDisk;
use super::outcome::Outcome;
use super::story::Story;

/// What is wrong with the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// The read with this number fails, and the next one succeeds.
    Read(u64),
    /// From the read with this number on its sector can never be read again.
    Sector(u64),
    /// The power fails before this operation, and when it is back a copy is gone.
    Copy {
        /// The operation.
        operation: u64,
        /// Drawn: which of the outcomes of the power cut, which copy, and how it is gone.
        drawn: u64,
    },
}

/// A copy of something that is kept twice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Copy(PathBuf, Range<usize>);

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.0.display(), self.1.start)
    }
}

/// Numbers from a seed; SplitMix64.
#[derive(Debug, Clone)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }
}

/// Plays the story with `seeds`, one flaw each; returns how many runs there were, and everything that must not be.
pub fn flawed(story: Story, kind: Kind, seeds: Range<u64>) -> (u64, Vec<String>) {
    let begin = story.begins(kind);
    let mut whole = begin.with_disk(begin.disk.shut_down());
    if story.goes_on(&mut whole) != Ended::Done {
        return (0, vec!["without a flaw it comes to no end".into()]);
    }
    let (reads, operations) = (whole.disk.reads(), whole.disk.done());
    let (mut runs, mut seen) = (0, Vec::new());
    for seed in seeds {
        let mut draw = Draw(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let flaw = match seed % 3 {
            0 => Flaw::Read(1 + draw.below(reads)),
            1 => Flaw::Sector(1 + draw.below(reads)),
            _ => Flaw::Copy { operation: 1 + draw.below(operations), drawn: draw.next() },
        };
        runs += 1;
        if let Some(what) = play(story, &begin, &flaw) {
            seen.push(format!("seed {seed}, {flaw:?}: {what}"));
        }
    }
    (runs, seen)
}

/// Plays it once; returns what must not be.
fn play(story: Story, begin: &Terminal, flaw: &Flaw) -> Option<String> {
    let mut terminal = begin.with_disk(begin.disk.shut_down());
    let mut cuts = 0;
    match flaw {
        Flaw::Read(number) => terminal.disk.fail_read(*number, false),
        Flaw::Sector(number) => terminal.disk.fail_read(*number, true),
        Flaw::Copy { operation, drawn } => {
            terminal.disk.cut_before(*operation);
            if story.goes_on(&mut terminal) != Ended::Cut {
                return Some("it did not come to that operation".into());
            }
            cuts = 1;
            let mut draw = Draw(*drawn);
            let futures = terminal.disk.futures(&Outcome::few());
            let chosen = draw.below(futures.len() as u64);
            let (outcome, medium) = futures.into_iter().nth(usize::try_from(chosen).unwrap_or(0))?;
            terminal = terminal.with_disk(medium);
            let copies = copies(&terminal);
            let copy = copies.get(usize::try_from(draw.below(copies.len() as u64)).unwrap_or(0))?;
            let vanishes = draw.below(2) == 0;
            // What the power has torn is lost already: with the other copy both are.
            if is_torn(&terminal.disk, copy, &copies) {
                return None;
            }
            terminal.disk.lose(&copy.0, copy.1.clone(), vanishes);
            let ended = story.goes_on(&mut terminal);
            return judged(story, &mut terminal, &ended, cuts)
                .map(|what| format!("{outcome:?}, lost {copy}, {vanishes}: {what}"));
        }
    }
    let ended = story.goes_on(&mut terminal);
    let place = terminal.disk.failed_read();
    judged(story, &mut terminal, &ended, cuts).map(|what| format!("{place:?}: {what}"))
}

fn judged(story: Story, terminal: &mut Terminal, ended: &Ended, cuts: u32) -> Option<String> {
    match ended {
        Ended::Done => story.judge_flawed(terminal, cuts),
        Ended::Broken(why) if stops_for_a_person(terminal, why) => None,
        other => Some(format!("{other:?}")),
    }
}

/// What no device of its kind can do without, and has once only: then it stops, and what it confirmed is still there as far
/// as the flaw left it.
fn stops_for_a_person(terminal: &Terminal, why: &str) -> bool {
    let board = &terminal.board;
    let Some((place, _)) = terminal.disk.failed_read() else { return false };
    let stands = why.contains("nothing boots") || why.contains("recovery needed");
    // Its only system slot, or the bytes that it confirmed: they lie in one place.
    let is_alone =
        SlotName::BOTH.into_iter().any(|slot| place == board.slot(slot) || place == board.runs_from(slot));
    // A single slot goes back by two changes of a record that can no longer be changed.
    let is_record = board.kind == Kind::Single && board.environment().is_some_and(|(path, _)| place == path);
    let is_kept = || {
        let whole = |slot| {
            terminal
                .disk
                .bytes(&board.slot(slot))
                .is_some_and(|bytes| terminal.service.release_in(&bytes).is_some())
        };
        SlotName::BOTH.into_iter().any(whole)
    };
    stands && (is_alone || (is_record && is_kept()))
}

/// Every copy that has a twin on this disk.
fn copies(terminal: &Terminal) -> Vec<Copy> {
    let is_copy = |path: &PathBuf| path.extension().is_some_and(|number| number == "0" || number == "1");
    let files = terminal.disk.files();
    let has_twin =
        |path: &PathBuf| ["0", "1"].iter().all(|number| files.contains(&path.with_extension(number)));
    let mut copies: Vec<Copy> = files
        .iter()
        .filter(|path| is_copy(path) && has_twin(path))
        .map(|path| Copy(path.clone(), 0..usize::MAX))
        .collect();
    if let Some((path, ranges)) = terminal.board.environment() {
        copies.extend(ranges.map(|range| Copy(path.to_owned(), range)));
    }
    copies
}

/// Tells whether the power has torn the twin of a copy.
fn is_torn(disk: &FakeDisk, copy: &Copy, copies: &[Copy]) -> bool {
    let twin = copies.iter().find(|other| match copy.1.end {
        usize::MAX => other.0 != copy.0 && other.0.with_extension("") == copy.0.with_extension(""),
        _ => other.0 == copy.0 && other.1 != copy.1,
    });
    let Some(twin) = twin else { return false };
    let Some(bytes) = disk.bytes(&twin.0) else { return true };
    match copy.1.end {
        usize::MAX => !tern_agent::record::is_whole(&bytes),
        _ => tern_agent::boot::uboot::environment::Environment::decode(&bytes[twin.1.clone()]).is_none(),
    }
}
