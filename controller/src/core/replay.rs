//! Works every verdict of a ledger out again, from nothing but the facts before it.
//!
//! A verdict's frame says what was decided and with which numbers. Here the frames before it are folded, the same
//! pure judgement is asked, and its line must be the one in the ledger, to the last digit.

use serde::{Deserialize, Serialize};
use tern_protocol::id::{FleetId, RolloutId};

use super::fact::{Entry, Fact};
use super::fleet::Fleet;
use super::rollout::record::Rollout;

/// Changes whenever the same facts are counted or judged otherwise than before: a verdict is worked out again by the rules
/// that it was found by, or not at all.
///
/// | rules | since then |
/// |---|---|
/// | 0 | what is not listed |
/// | 1 | crashes and drain in quarters of a window, each device until its first event |
pub const RULES: u32 = 1;

/// A ledger that is being replayed. Written down, it is what a ledger goes on from whose first frames were dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    fleet: Fleet,
    /// The last phase that opened: a phase that includes nobody hands its reason on to the next.
    opened: Option<(RolloutId, u64, String)>,
    /// The rules of the service that runs.
    #[serde(default)]
    rules: u32,
}

/// What replaying one frame found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No verdict: a report, a command, a signature.
    NoVerdict,
    /// A person decided; there is nothing to work out.
    ByHand,
    /// The same verdict, with the same numbers.
    Same {
        /// The rollout.
        rollout: RolloutId,
        /// The line.
        verdict: String,
    },
    /// Another verdict.
    Differs {
        /// The rollout.
        rollout: RolloutId,
        /// What the ledger says.
        ledger: String,
        /// What follows from the frames before it.
        replay: String,
    },
}

impl Replay {
    /// Starts before the first frame.
    pub fn new() -> Self {
        let id: FleetId = "replay".parse().expect("a valid name");
        Self { fleet: Fleet::new(id), opened: None, rules: 0 }
    }

    /// Returns the rules of the service that decided last.
    pub fn rules(&self) -> u32 {
        self.rules
    }

    /// Returns what the frames so far add up to; the fleet's name is not among it.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Gives the fleet back that the frames so far add up to, under its own name.
    pub fn into_fleet(self, id: FleetId) -> Fleet {
        let mut fleet = Fleet { id, ..self.fleet };
        fleet.share_all();
        fleet
    }

    /// Takes the next frame.
    pub fn take(&mut self, entry: &Entry) -> Found {
        let found = match &entry.fact {
            Fact::Killed { rollout, because } | Fact::Paused { rollout, because } => {
                self.compare(entry.at, rollout, because)
            }
            Fact::WaveOpened { rollout, because, .. } | Fact::HoldBackEnded { rollout, because, .. } => {
                self.compare(entry.at, rollout, because)
            }
            Fact::PhaseOpened { rollout, because, .. } => {
                let handed_on = (rollout.clone(), 0, because.clone());
                if self.opened.as_ref() == Some(&handed_on) {
                    Found::NoVerdict
                } else {
                    self.compare(entry.at, rollout, because)
                }
            }
            _ => Found::NoVerdict,
        };
        if let Fact::PhaseOpened { rollout, devices, because, .. } = &entry.fact {
            self.opened = Some((rollout.clone(), *devices, because.clone()));
        }
        if let Fact::ServiceStarted { rules, .. } = &entry.fact {
            self.rules = *rules;
        }
        self.fleet.apply(entry.at, &entry.fact);
        found
    }

    fn compare(&self, at: u64, id: &RolloutId, because: &str) -> Found {
        // "KILL: by ann", "PROMOTED by ann; …", "started by ann": who did it is the reason.
        let by_itself = because.split_once(": ").filter(|(head, _)| {
            let word = head.split(' ').next().unwrap_or_default();
            ["KILL", "PAUSE", "ADVANCE"].contains(&word)
        });
        let judged = self.fleet.rollouts.get(id).filter(|rollout| !rollout.phases.is_empty());
        let (Some((_, reason)), Some(rollout)) = (by_itself, judged) else { return Found::ByHand };
        if reason.starts_with("by ") {
            return Found::ByHand;
        }
        let replay = self.verdict(at, rollout);
        let rollout = id.clone();
        if replay == because {
            Found::Same { rollout, verdict: replay }
        } else {
            Found::Differs { rollout, ledger: because.to_owned(), replay }
        }
    }

    fn verdict(&self, at: u64, rollout: &Rollout) -> String {
        let (covered, observed) = (self.fleet.covered(rollout), self.fleet.reception.observed(at));
        rollout.judgement_with(covered, observed, self.fleet.named(rollout)).to_string()
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}
