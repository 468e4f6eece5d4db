//! What happens to a device, and what must be true whenever it boots and when it is over.

use std::sync::Arc;

use tern_agent::core::SlotName;
use tern_agent::core::agent::Agent;
use tern_agent::core::state::State;
use tern_protocol::message::ReportKind;
use tern_protocol::state::Outcome;

use super::board::{Board, COMPONENTS, Kind};
use super::device::{Ended, Fate, Terminal};
use super::service::{Release, Service};

/// Bytes of an image: two chunks and a part of one that ends in no block.
const IMAGE: usize = 2 * 65_536 + 1234;

/// Packs that may have to be fetched again after a power cut: those in memory, and those that were not synced.
const WINDOW: u32 = 8 + 1 + 4;

/// What is wrong with a record that nobody disarmed.
pub(super) const ON_TRIAL: &str = "is still on trial";

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A good release comes and stays.
    Update,
    /// A second one comes after it, into the slot that a factory filled.
    Second,
    /// A third one, into a slot that was filled like this before.
    Third,
    /// A good release comes by a delta from what runs.
    ByDelta,
    /// The same, and the delta was made for another base than it says.
    Mended,
    /// A release that is not well on trial.
    Rollback,
    /// A release that is killed on trial.
    Recall,
    /// A release that is killed when it is armed, before the device goes down for it.
    Disarm,
    /// A good release with packages for two components.
    Parts,
    /// A second one after it.
    PartsSecond,
    /// A third one, whose packages take the places of longer ones.
    PartsThird,
    /// The same, and it is not well on trial.
    PartsBack,
    /// The same, and the second component says that it failed when it had done its work.
    PartsFail,
}

impl Story {
    /// Those of a device that has slots alone.
    pub const ALL: [Self; 6] =
        [Self::Update, Self::Second, Self::Third, Self::Rollback, Self::Recall, Self::Disarm];

    /// Those of a device that has components, too.
    pub const PARTS: [Self; 4] = [Self::Parts, Self::PartsThird, Self::PartsBack, Self::PartsFail];

    /// Every one.
    pub const EVERY: [Self; 10] = [
        Self::Update,
        Self::Second,
        Self::Third,
        Self::Rollback,
        Self::Recall,
        Self::Disarm,
        Self::Parts,
        Self::PartsThird,
        Self::PartsBack,
        Self::PartsFail,
    ];

    fn fate(self) -> Fate {
        Fate {
            sick: matches!(self, Self::Rollback | Self::PartsBack),
            killed: matches!(self, Self::Recall | Self::Disarm),
            stays_up: self == Self::Disarm,
            jams: self == Self::PartsFail,
        }
    }

    /// The release that is offered.
    fn rc(self) -> u64 {
        match self {
            Self::Second | Self::PartsSecond => 3,
            Self::Third | Self::PartsThird => 4,
            _ => 2,
        }
    }

    /// The outcome that it has when the power stays.
    fn outcome(self) -> Outcome {
        match self {
            Self::Update | Self::Second | Self::Third => Outcome::Success,
            Self::ByDelta | Self::Mended => Outcome::Success,
            Self::Parts | Self::PartsSecond | Self::PartsThird => Outcome::Success,
            Self::Rollback | Self::PartsBack => Outcome::RolledBack,
            Self::Recall | Self::Disarm => Outcome::Recalled,
            Self::PartsFail => Outcome::Failed,
        }
    }

    /// Returns the device as the story finds it.
    pub fn begins(self, kind: Kind) -> Terminal {
        let releases =
            [1, 2, 3, 4].map(|rc| Release::new(rc, IMAGE - 500 * usize::try_from(rc).unwrap_or(0)));
        let releases = match self {
            Self::Parts | Self::PartsBack | Self::PartsFail => releases.map(Release::with_packages),
            Self::ByDelta | Self::Mended => {
                let [first, ..] = releases;
                let by = if self == Self::Mended { Release::with_wrong_delta } else { Release::with_deltas };
                let second = by(Release::after(&first), &first);
                let third = Release::after(&second);
                [first, second, third.clone(), Release::after(&third)]
            }
            _ => releases,
        };
        let service = Service::new(&releases);
        let board = Board::new(kind, &service);
        let disk = board.factory(&releases[0]);
        let mut terminal = Terminal::new(Arc::clone(&board), disk, service);
        let before = match self {
            Self::Second => Some(Self::Update),
            Self::Third => Some(Self::Second),
            Self::PartsSecond => Some(Self::Parts),
            Self::PartsThird => Some(Self::PartsSecond),
            _ => None,
        };
        if let Some(before) = before {
            terminal = before.begins(kind);
            let ended = terminal.run(&|terminal, agent| before.is_over(terminal, agent));
            assert_eq!(ended, Ended::Done, "the story before");
            let medium = terminal.disk.shut_down();
            terminal = terminal.with_disk(medium);
            (terminal.taken, terminal.left) = (None, None);
        }
        terminal.service.offer(self.rc());
        terminal.begin(self.fate());
        terminal
    }

    /// Tells whether the device is at rest, and the service knows how it ended.
    pub fn is_over(self, terminal: &Terminal, agent: &Agent) -> bool {
        let durable = agent.durable();
        let at_rest = matches!(durable.state, State::Idle { not_before: None } | State::Failed { .. });
        let settled =
            agent.boot().is_none_or(|boot| boot.components.values().all(|it| it.unsettled.is_none()));
        at_rest
            && settled
            && durable.outbox.pending().next().is_none()
            && !outcomes(terminal, self.rc()).is_empty()
    }

    /// Plays it on from wherever the power failed.
    pub fn goes_on(self, terminal: &mut Terminal) -> Ended {
        terminal.run(&|terminal, agent| self.is_over(terminal, agent))
    }

    /// Returns what is wrong with the end; `cuts` is how often the power failed.
    pub fn judge(self, terminal: &mut Terminal, cuts: u32) -> Option<String> {
        if let Some(number) = terminal.service.reused {
            return Some(format!("number {number} was used for two reports"));
        }
        if let Some(what) = self.wasted(terminal, cuts) {
            return Some(what);
        }
        let found = outcomes(terminal, self.rc());
        // Two cuts in one soak use up both boots of a trial; then it goes back, and says so.
        let allowed = match self {
            _ if found == [self.outcome()] => true,
            Self::PartsFail => false,
            _ => cuts > 1 && found == [Outcome::RolledBack],
        };
        if !allowed {
            return Some(format!("outcomes {found:?}"));
        }
        let expected = match found.as_slice() {
            [Outcome::Success] => self.rc(),
            _ => self.rc() - 1,
        };
        self.stays(terminal, expected)
    }

    /// Returns what was fetched in vain: by a delta no pack comes twice but those in memory, or unsynced, when the power went,
    /// and no chunk but in place of what the delta does not give.
    fn wasted(self, terminal: &Terminal, cuts: u32) -> Option<String> {
        let (packs, chunks) = terminal.service.sent_again();
        let most = match self {
            Self::ByDelta => 0,
            // The rest of a pack, and what was moved, in each of two tries at most.
            Self::Mended => 2 * (cuts + 1),
            _ => return None,
        };
        if self == Self::Mended && chunks == 0 {
            return Some("nothing was mended, so nothing was wrong".into());
        }
        if terminal.service.sent.is_empty() || packs > cuts * WINDOW || chunks > most {
            return Some(format!("{packs} packs came again, and {chunks} chunks"));
        }
        None
    }

    /// The same on a medium that is not what it was: it may also have been given up, for a reason that is told.
    pub fn judge_flawed(self, terminal: &mut Terminal, cuts: u32) -> Option<String> {
        let given_up = |found: &[Outcome]| matches!(found, [Outcome::Failed | Outcome::RolledBack]);
        let what = match outcomes(terminal, self.rc()) {
            // A record that can no longer be changed: what was put into the single slot stays, and that is said.
            found if found == [Outcome::Failed] && is_kept(terminal, self.rc()) => {
                self.stays(terminal, self.rc())
            }
            found if given_up(&found) && found != [self.outcome()] => self.stays(terminal, self.rc() - 1),
            _ => self.judge(terminal, cuts),
        };
        // A record that can no longer be changed keeps the trial; no boot of it can be taken, so none is made.
        what.filter(|what| !(what.contains(ON_TRIAL) && is_worn(terminal)))
    }

    /// One more night without power, and one more day: what was reported is what boots.
    fn stays(self, terminal: &mut Terminal, expected: u64) -> Option<String> {
        let medium = terminal.disk.shut_down();
        let mut terminal = terminal.with_disk(medium);
        let ended = terminal.run(&|_, _| true);
        if ended != Ended::Done {
            return Some(format!("afterwards: {ended:?}"));
        }
        if terminal.runs != Some(expected) {
            return Some(format!("afterwards it runs {:?}, not {expected}", terminal.runs));
        }
        if !terminal.board.config.components.is_empty() {
            for name in COMPONENTS {
                let packages = &terminal.service.release(expected).packages;
                let package = packages.iter().find(|(of, _)| *of == name).map(|(_, it)| it.image.clone());
                // The factory has put release 1 into the slot, and its own into the components.
                let due = if expected == 1 { terminal.board.factory_component(name) } else { package };
                if terminal.component(name) != due {
                    return Some(format!("afterwards component {name} is not that of release {expected}"));
                }
            }
        }
        let armed = trial_of(&terminal);
        armed.map(|slot| format!("afterwards slot {slot} {ON_TRIAL}"))
    }
}

/// Every outcome that the service heard of a release.
fn outcomes(terminal: &Terminal, rc: u64) -> Vec<Outcome> {
    let of = |kind: &ReportKind| match kind {
        ReportKind::Outcome { attempt, outcome, .. } if attempt.rc == rc => Some(*outcome),
        _ => None,
    };
    // A deferred start was taken back: it is no end.
    terminal.service.heard.values().filter_map(of).filter(|outcome| *outcome != Outcome::Deferred).collect()
}

/// Tells whether a copy of the environment cannot be read any more.
fn is_worn(terminal: &Terminal) -> bool {
    let environment = terminal.board.environment().map(|(path, _)| path.to_owned());
    terminal.disk.failed_read().is_some_and(|(path, _)| Some(path) == environment)
}

/// Tells whether the service heard that the device could not go back.
fn is_kept(terminal: &Terminal, rc: u64) -> bool {
    terminal.service.heard.values().any(|kind| match kind {
        ReportKind::Outcome { attempt, reason: Some(reason), .. } => {
            attempt.rc == rc && reason.ends_with("there is nothing to go back to")
        }
        _ => false,
    })
}

fn trial_of(terminal: &Terminal) -> Option<SlotName> {
    let disk: tern_agent::storage::Disk = Arc::new(terminal.disk.clone());
    let device = tern_agent::device::Device::on(&disk, &terminal.board.config).ok()?;
    device.facts().ok()?.trial
}
