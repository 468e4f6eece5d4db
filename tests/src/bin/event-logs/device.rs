//! What one device sends, in the order in which it makes it, and when that arrives.

use tern_protocol::id::DeviceId;
use tern_protocol::state::Outcome;
use tern_tests::sim::clock::{HOUR, MINUTE, Rng, SECOND};

use crate::log::{Line, Said};
use crate::moments::Moments;

/// What becomes of a device that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Confirms.
    Good,
    /// Boots the release and goes back.
    Bad,
    /// Cannot arm: says so from the boot in which it started.
    CannotArm,
    /// Never speaks again.
    Brick,
    /// Comes up, and never says how it ended.
    Limbo,
    /// Went back because it reached nobody.
    Unreachable,
    /// Takes its start back, begins again after a while, and confirms.
    Defers,
    /// Comes up after the early deadline and ends after the last one, badly: that is too late to count.
    Late,
}

/// What may happen to its reports on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In order.
    Straight,
    /// Outcome and trial change places.
    Swapped,
    /// The start is heard last, in the next boot.
    StartLast,
    /// The first report of the next boot, or the outcome, arrives exactly at its deadline.
    OnTheDot,
    /// The same a millisecond later.
    JustLate,
}

/// Draws what a device sends: it starts about `start`, and ends at least `slow` after its boot. `copies`: chance that a
/// report arrives once more.
pub(crate) fn lines(
    device: &DeviceId,
    (fate, way): (Fate, Way),
    (start, slow): (u64, u64),
    copies: f64,
    (rng, moments): (&mut Rng, &mut Moments),
) -> Vec<Line> {
    let start = moments.take(start, true);
    let boot = start + MINUTE + rng.below(3 * MINUTE);
    let end = boot + slow + rng.below(20 * MINUTE);
    let outcome = |outcome| Said::Outcome { outcome };
    let (early, last) = (moments.early, moments.last);
    // Numbers are given when a report is made; `said` is in that order, with the epoch and the time of arrival.
    let mut said: Vec<(u64, u64, Said)> = vec![(start - SECOND, 1, Said::Hello), (start, 1, Said::Started)];
    match fate {
        Fate::Brick => {}
        Fate::CannotArm => said.push((start + 30 * SECOND, 1, outcome(Outcome::Failed))),
        Fate::Defers => {
            let again = start + 20 * MINUTE;
            said.push((start + 2 * MINUTE, 1, outcome(Outcome::Deferred)));
            said.push((again, 1, Said::Started));
            said.push((again + MINUTE, 2, Said::Hello));
            said.push((again + MINUTE + SECOND, 2, Said::Trial));
            said.push((again + 10 * MINUTE, 2, outcome(Outcome::Success)));
        }
        Fate::Late => {
            said.push((start + early + 5 * MINUTE, 2, Said::Hello));
            said.push((start + early + 6 * MINUTE, 2, Said::Trial));
            said.push((start + last + 20 * MINUTE, 3, Said::Hello));
            said.push((start + last + 20 * MINUTE + SECOND, 3, outcome(Outcome::RolledBack)));
        }
        Fate::Good | Fate::Limbo => {
            said.push((boot, 2, Said::Hello));
            said.push((boot + SECOND, 2, Said::Trial));
            if fate == Fate::Good {
                said.push((end, 2, outcome(Outcome::Success)));
            }
        }
        Fate::Bad | Fate::Unreachable => {
            said.push((boot, 2, Said::Hello));
            said.push((boot + SECOND, 2, Said::Trial));
            said.push((end, 3, Said::Hello));
            let how = if fate == Fate::Bad { Outcome::RolledBack } else { Outcome::Unreachable };
            said.push((end + SECOND, 3, outcome(how)));
        }
    }
    on_the_way(&mut said, way, (start, early, last));
    let mut lines: Vec<Line> = Vec::new();
    for (n, (at, e, said)) in (1..).zip(said) {
        // Only what is exactly on its own deadline may share the moment with it.
        let on_the_dot = way == Way::OnTheDot && (at == start + early || at == start + last);
        let taken = at == start && said == Said::Started;
        let at = if taken || on_the_dot { at } else { moments.take(at, said.is_start()) };
        lines.push(Line { at, device: device.clone(), e, n, said });
    }
    for line in lines.clone() {
        if line.said != Said::Hello && rng.chance(copies) {
            let at = moments.take(line.at + 1 + rng.below(HOUR / 2), line.said.is_start());
            // A device sends its outbox again after a boot; a broker repeats what it had.
            let now =
                lines.iter().filter(|other| other.at <= at && other.said == Said::Hello).map(|l| l.e).max();
            let e = if rng.chance(0.5) { now.unwrap_or(line.e).max(line.e) } else { line.e };
            lines.push(Line { at, e, ..line });
        }
    }
    lines
}

fn on_the_way(said: &mut [(u64, u64, Said)], way: Way, (start, early, last): (u64, u64, u64)) {
    let place =
        |said: &[(u64, u64, Said)], wanted: fn(&Said) -> bool| said.iter().position(|(.., s)| wanted(s));
    let trial = place(said, |s| *s == Said::Trial);
    let ended = place(said, |s| matches!(s, Said::Outcome { .. }));
    match way {
        Way::Straight => {}
        Way::Swapped => {
            // Whoever cannot arm was never on trial.
            let Some(end) = ended else { return };
            let before = trial.unwrap_or(1);
            // What is sent again after a boot has the epoch of that boot.
            (said[before].0, said[before].1) = (said[end].0 + SECOND, said[end].1);
        }
        Way::StartLast => {
            let (Some(trial), Some(end)) = (trial, ended) else { return };
            let (at, e, _) = said[trial.max(end)];
            (said[1].0, said[1].1) = (at + 5 * SECOND, e);
        }
        Way::OnTheDot | Way::JustLate => {
            let late = u64::from(way == Way::JustLate);
            let (Some(trial), Some(end)) = (trial, ended) else { return };
            // Everything that it says after its boot is late as well.
            said[trial - 1].0 = start + early + late;
            said[trial].0 = start + early + MINUTE;
            said[trial + 1..].iter_mut().for_each(|(at, ..)| *at += early);
            if said[end].2 == (Said::Outcome { outcome: Outcome::Success }) {
                said[end].0 = start + last + late;
            }
        }
    }
}
