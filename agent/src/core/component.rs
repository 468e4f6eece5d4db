//! Components beside the slots: peripherals, applications, files. All of a release is installed, or nothing.
//!
//! ```text
//! Updating ── answered ──► install one after the other ── all in ──► asked once more ──► arm ──► trial ──► confirmed: keep
//!                                │ one fails                              │ halted, …       └──────────► rolled back ┐
//!                                └──────────────► take back, last first ◄─┴─────────────────────────────────────────┘
//! ```
//! The slot comes last, because it alone is undone by a boot. What of a component is not for good yet is durable on its
//! side before its first byte changes, so what has to be taken back is known whatever becomes of the journal: a component
//! whose release is the confirmed one is kept, any other is taken back.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::offer::{Artifact, Offer, satisfied};

use super::SlotName;
use super::agent::{Agent, Job};
use super::machine::INSTALL_TRIES;
use super::port::{BootFacts, Held};
use super::state::{Event, State, UpdatingStep};
use super::timing::Now;

/// Where an artifact is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A slot.
    Slot(SlotName),
    /// The free place of a component.
    Component(String),
}

impl From<SlotName> for Target {
    fn from(slot: SlotName) -> Self {
        Self::Slot(slot)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Component(name) => write!(f, "component {name}"),
        }
    }
}

/// What is known of a component.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComponentFacts {
    /// Bytes that a package may have.
    pub capacity: u64,
    /// Version that is installed; empty where nobody knows it.
    pub version: String,
    /// What is installed, if it came from us.
    pub installed: Option<Held>,
    /// The package that waits whole in the free place.
    pub held: Option<Held>,
    /// The release whose package is, or may be, installed and is not for good yet.
    pub unsettled: Option<u64>,
}

/// What the agent remembers of components while its process lives.
#[derive(Debug, Default)]
pub(super) struct Components {
    /// Installed in this state.
    installed: BTreeSet<String>,
    /// Could not be taken back, or kept, however often it was tried.
    given_up: BTreeMap<String, GivenUp>,
}

/// A component that rests until it is tried again.
#[derive(Debug, Clone, Copy)]
struct GivenUp {
    /// Uptime, ms.
    at: u64,
    /// How often in a row.
    times: u32,
}

/// Longest rest, ms: each try may write to flash that nobody can exchange.
const REST_MOST: u64 = 24 * 60 * 60 * 1000;

/// How often a component that cannot be taken back, or kept, is tried before the rest goes on.
pub(super) const COMPONENT_TRIES: u32 = 3;

/// Returns an offer as this device takes it: what the slots hold first, and nothing that is installed already. `running` are
/// the versions of its components.
pub fn fitted(
    mut offer: Offer,
    component: &str,
    boot: &BootFacts,
    running: &BTreeMap<String, String>,
) -> Offer {
    let version = offer.version.clone();
    offer.artifacts.sort_by_key(|artifact| artifact.component != component);
    if satisfied(&offer.artifacts, running).is_err() {
        // It will be refused, and whoever judges it has to see why: what is installed already has requirements, too.
        return offer;
    }
    offer.artifacts.retain(|artifact| {
        let facts = boot.components.get(&artifact.component).filter(|_| artifact.component != component);
        // The same bytes under another version are another package to whoever asks for that version.
        !facts.is_some_and(|it| {
            let is_same =
                it.installed == Some(Held::of(artifact)) && it.version == *named(artifact, &version);
            it.unsettled.is_none() && is_same
        })
    });
    offer
}

/// Tells whether a job changes a component: it is waited for, whatever comes, because half a modem is none.
pub(super) fn changes_component(job: &Job) -> bool {
    matches!(job, Job::Install { .. } | Job::Revert(_) | Job::Keep(_))
}

/// Returns where an artifact of an attempt is written: the first is the slot's.
pub(super) fn target(slot: SlotName, artifacts: &[Artifact], at: usize) -> Target {
    match artifacts.get(at) {
        Some(artifact) if at > 0 => Target::Component(artifact.component.clone()),
        _ => Target::Slot(slot),
    }
}

impl Agent {
    /// Sees that all components are in, or starts the next.
    pub(super) fn installed(&mut self, now: Now) -> Option<Event> {
        let State::Updating { work, step: UpdatingStep::Install } = &self.durable.state else { return None };
        let rc = work.offer.attempt.rc;
        let rest = work.offer.artifacts.get(1..).unwrap_or_default();
        let next = rest.iter().find(|artifact| !self.components.installed.contains(&artifact.component));
        let Some(next) = next else { return Some(Event::Installed) };
        let component = next.component.clone();
        let job = Job::Install { component: component.clone(), rc };
        if let Some(facts) = self.boot.as_mut().and_then(|boot| boot.components.get_mut(&component)) {
            // Whatever comes of it: what was begun has to be taken back.
            facts.unsettled = Some(rc);
            facts.version.clear();
        }
        self.note_versions();
        self.start(job, now);
        None
    }

    /// Takes what is known of a component after something was done with it.
    pub(super) fn component_is(&mut self, name: &str, facts: ComponentFacts, now: Now) {
        if facts.unsettled.is_some() {
            self.components.installed.insert(name.to_owned());
        }
        self.components.given_up.remove(name);
        if facts.unsettled.is_none() && self.durable.hooks.components.remove(name).is_some() {
            self.saved = false;
        }
        if let Some(boot) = &mut self.boot {
            boot.components.insert(name.to_owned(), facts);
        }
        if self.note_versions() {
            self.greet_again(now);
        }
    }

    /// Concludes from a component that is not to be installed now. Those that are in are taken back until it may: each time
    /// costs them two writes, so it is not for ever.
    pub(super) fn install_postponed(&mut self, component: &str, reason: &str) -> Event {
        let others = self.components.installed.iter().any(|name| name != component);
        if others && let State::Updating { work, .. } = &mut self.durable.state {
            work.tries.installs += 1;
            self.saved = false;
            if work.tries.installs >= INSTALL_TRIES {
                return Event::InstallFailed(format!(
                    "component {component}: {reason}; those before it were taken back for that, {INSTALL_TRIES} times"
                ));
            }
        }
        Event::InstallPostponed(format!("component {component}: {reason}"))
    }

    /// Another state begins.
    pub(super) fn forget_installed(&mut self) {
        self.components.installed.clear();
    }

    /// Notes the versions that run; tells whether they are others than before.
    pub(super) fn note_versions(&mut self) -> bool {
        let Some(boot) = &self.boot else { return false };
        let known = |(name, facts): (&String, &ComponentFacts)| {
            (!facts.version.is_empty()).then(|| (name.clone(), facts.version.clone()))
        };
        let mut versions: BTreeMap<_, _> = boot.components.iter().filter_map(known).collect();
        versions.insert(self.settings.component.clone(), boot.running_version.clone());
        if self.durable.components == versions {
            return false;
        }
        self.durable.components = versions;
        self.saved = false;
        true
    }

    /// Returns the next component to be taken back, or kept, where nothing is open or everything is undone.
    pub(super) fn component_owed(&self) -> Option<Job> {
        let boot = self.boot.as_ref()?;
        let unsettled = |(name, facts): (&String, &ComponentFacts)| {
            let rest = |times: u32| self.settings.timing.deferral.saturating_mul(1 << (times - 1).min(20));
            let over = |GivenUp { at, times }: &GivenUp| at.saturating_add(rest(*times).min(REST_MOST));
            let rests = self.components.given_up.get(name).is_some_and(|it| self.looked_at.uptime < over(it));
            let rc = facts.unsettled.filter(|_| !rests)?;
            Some((name.clone(), rc))
        };
        let mut owed: Vec<_> = boot.components.iter().filter_map(unsettled).collect();
        // The last to be installed is the first to go.
        let order = |name: &String| {
            let artifacts = self.durable.state.work().map(|work| &work.offer.artifacts);
            artifacts.and_then(|all| all.iter().position(|artifact| artifact.component == *name))
        };
        owed.sort_by_key(|(name, _)| std::cmp::Reverse(order(name)));
        let (name, rc) = owed.into_iter().next()?;
        if boot.running != rc {
            return Some(Job::Revert(name));
        }
        // It runs. On trial, or about to be left, nothing is settled yet.
        let is_over = matches!(self.durable.state, State::Idle { .. } | State::Failed { .. });
        (is_over && boot.active == boot.slot && boot.trial.is_none()).then_some(Job::Keep(name))
    }

    /// Goes on without what cannot be taken back; it is tried again after a deferral, and then after twice as long each time.
    pub(super) fn give_up(&mut self, job: &Job, why: &str, now: Now) {
        if let Job::Revert(name) | Job::Keep(name) = job {
            let times = self.components.given_up.get(name).map_or(0, |it| it.times) + 1;
            self.components.given_up.insert(name.clone(), GivenUp { at: now.uptime, times });
            self.durable.hooks.components.insert(name.clone(), why.to_owned());
            self.saved = false;
        }
    }

    /// Returns a component that could not be settled.
    pub(super) fn unsettled(&self) -> Option<&String> {
        let boot = self.boot.as_ref()?;
        boot.components.iter().find(|(_, facts)| facts.unsettled.is_some()).map(|(name, _)| name)
    }
}

/// Returns the version of an artifact.
pub(super) fn version(artifact: &Artifact, offer: &Offer) -> String {
    named(artifact, &offer.version).clone()
}

fn named<'a>(artifact: &'a Artifact, release: &'a String) -> &'a String {
    if artifact.version.is_empty() { release } else { &artifact.version }
}
