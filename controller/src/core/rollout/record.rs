//! One rollout as the ledger tells it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tern_protocol::id::{DeviceId, ModelId, ProductId, RolloutId};
use tern_protocol::message::Registry;
use tern_protocol::position::{Cut, Position, Salt};
use tern_protocol::tuf::content::{Entry, EntryKind, listed};

use super::baseline::Baseline;
use super::control::Control;
use super::counts::Counts;
use super::phase;
use super::plan::{Approval, Plan};
use super::room::{Openings, Reached};
use super::times::AtEnd;
use crate::core::access::TokenName;
use crate::core::fact::Millis;

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Offering; widening by itself.
    Running,
    /// Not offering; may be resumed.
    Paused,
    /// Taken back for ever.
    Killed,
    /// Everybody it covers has come to an end.
    Completed,
}

/// One phase that was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseRecord {
    /// How far it reaches.
    pub cuts: BTreeMap<ModelId, Cut>,
    /// Devices that it newly includes, when all its waves are open.
    pub devices: u64,
    /// How far it will reach then; empty when it has from the beginning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub goal: BTreeMap<ModelId, Cut>,
    /// Devices that it newly included so far.
    #[serde(default)]
    pub included: u64,
    /// Devices that it includes by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub listed: BTreeSet<DeviceId>,
    /// Devices that were included before it.
    #[serde(default)]
    pub before: u64,
    /// Waves that are open.
    #[serde(default)]
    pub waves: u64,
    /// Devices of the last wave for whom there was no room yet.
    #[serde(default)]
    pub owed: u64,
    /// Parts in which that wave has opened since it began.
    #[serde(default)]
    pub steps: u64,
    /// When its last wave opened, or when the rollout was last resumed in it.
    pub opened_at: Millis,
    /// The same on the clock of reception: its soak runs on that.
    #[serde(default)]
    pub observed: Millis,
    /// What its own devices did, by model.
    pub counts: BTreeMap<ModelId, Counts>,
    /// The part of it that the present series judges: devices that started since the last resumption.
    #[serde(default)]
    pub judged: BTreeMap<ModelId, Counts>,
}

/// How long devices may take from the offer to the start, ms, before they count as away: as a rule they fetch in between.
const BEGINNING: Millis = 60 * 60 * 1000;

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its name.
    pub id: RolloutId,
    /// The product.
    pub product: ProductId,
    /// The release.
    pub rc: u64,
    /// What for.
    pub kind: EntryKind,
    /// Attempt number.
    pub attempt: u32,
    /// Shuffles the devices.
    pub salt: Salt,
    /// Parameters.
    pub plan: Plan,
    /// A revert takes back these releases.
    #[serde(default)]
    pub from: Vec<u64>,
    /// Where it stands.
    pub status: Status,
    /// Phases opened so far; the last one is the present one.
    pub phases: Vec<PhaseRecord>,
    /// Models that the release is for.
    pub models: BTreeSet<ModelId>,
    /// Raised by every resumption: counters, hard stop and budget start over.
    #[serde(default)]
    pub series: u32,
    /// Starts in this series, by model.
    pub first: BTreeMap<ModelId, u64>,
    /// Bad ones among the first.
    pub first_bad: BTreeMap<ModelId, u64>,
    /// Positions from here on are held back as control.
    #[serde(default)]
    pub held_from: Option<Position>,
    /// The control speaks no more: who is still held back only waits for room.
    #[serde(default)]
    pub let_go: bool,
    /// When devices were included lately, where that is capped.
    #[serde(default, skip_serializing_if = "Openings::is_empty")]
    pub openings: Openings,
    /// How far it reached lately, where that is capped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<Reached>,
    /// Positions from here on are in no phase before the last.
    #[serde(default)]
    pub reserve: Option<Position>,
    /// What the held-back devices show beside the others, by model.
    #[serde(default)]
    pub control: BTreeMap<ModelId, Control>,
    /// What the control has spoken about, by model: without it silence is judged of those that come later.
    #[serde(default)]
    pub compared: BTreeMap<ModelId, Counts>,
    /// How the last good release fared, by model.
    #[serde(default)]
    pub baseline: BTreeMap<ModelId, Baseline>,
    /// Models that it covers few devices of; they are judged together.
    #[serde(default)]
    pub pooled: BTreeSet<ModelId>,
    /// Devices that its phases so far include by name.
    #[serde(default)]
    pub listed: BTreeSet<DeviceId>,
    /// Phases that a second person has agreed to.
    #[serde(default)]
    pub approved: BTreeSet<usize>,
    /// Whose token started it.
    #[serde(default)]
    pub starter: Option<TokenName>,
    /// The request that promoted it last.
    #[serde(default)]
    pub promoted: Option<String>,
    /// In this series other devices went away as the silent ones did.
    #[serde(default)]
    pub outage: bool,
    /// It was killed, and a revert that its plan asked for was refused.
    #[serde(default)]
    pub revert_refused: bool,
    /// The how-many-th rollout of the fleet it is. Clocks are set back; the ledger's order stands.
    #[serde(default)]
    pub order: u64,
    /// When it started.
    pub started_at: Millis,
    /// When it was killed or completed.
    pub ended_at: Option<Millis>,
    /// The last decision, in words.
    pub because: String,
}

impl PhaseRecord {
    /// Opens a phase at once, `observed` on the clock of reception.
    pub fn new(cuts: BTreeMap<ModelId, Cut>, devices: u64, at: Millis, observed: Millis) -> Self {
        Self {
            cuts,
            devices,
            goal: BTreeMap::new(),
            included: devices,
            listed: BTreeSet::new(),
            before: 0,
            waves: 1,
            owed: 0,
            steps: 0,
            opened_at: at,
            observed,
            counts: BTreeMap::new(),
            judged: BTreeMap::new(),
        }
    }

    /// Returns how many devices it includes by hash.
    pub fn chosen(&self) -> u64 {
        self.devices.saturating_sub(self.listed.len() as u64)
    }

    /// Tells whether all its waves are open.
    pub fn is_open(&self) -> bool {
        self.owed == 0 && (self.goal.is_empty() || self.goal == self.cuts)
    }
}

impl Rollout {
    /// An update that has opened no phase yet: first attempt, first of its fleet, started at 0.
    pub fn new(
        id: RolloutId,
        product: ProductId,
        rc: u64,
        salt: Salt,
        plan: Plan,
        models: BTreeSet<ModelId>,
    ) -> Self {
        Self {
            id,
            product,
            rc,
            kind: EntryKind::Update,
            attempt: 1,
            salt,
            plan,
            from: Vec::new(),
            status: Status::Running,
            phases: Vec::new(),
            models,
            series: 0,
            first: BTreeMap::new(),
            first_bad: BTreeMap::new(),
            held_from: None,
            let_go: false,
            openings: Openings::default(),
            reached: Vec::new(),
            reserve: None,
            control: BTreeMap::new(),
            compared: BTreeMap::new(),
            baseline: BTreeMap::new(),
            pooled: BTreeSet::new(),
            listed: BTreeSet::new(),
            approved: BTreeSet::new(),
            starter: None,
            promoted: None,
            outage: false,
            revert_refused: false,
            order: 0,
            started_at: 0,
            ended_at: None,
            because: String::new(),
        }
    }

    /// Returns the number of the present phase.
    pub fn phase(&self) -> usize {
        self.phases.len().saturating_sub(1)
    }

    /// Returns how far it has widened.
    pub fn cuts(&self) -> BTreeMap<ModelId, Cut> {
        self.phases.last().map(|phase| phase.cuts.clone()).unwrap_or_default()
    }

    /// Returns the phase that first included a device at `position`; `None` if none has yet.
    pub fn phase_of(&self, id: &DeviceId, registry: &Registry, position: Position) -> Option<usize> {
        let models: Vec<_> = self.models.iter().cloned().collect();
        let covered = registry.product == self.product && phase::covers(&self.plan, &models, registry);
        let listed = |phase: &PhaseRecord| phase.listed.contains(id);
        if covered && let Some(phase) = self.phases.iter().position(listed) {
            return Some(phase);
        }
        let covered = covered && !self.holds(position);
        let includes =
            |phase: &PhaseRecord| phase.cuts.get(&registry.model).is_some_and(|cut| cut.includes(position));
        if !covered || !self.phases.last().is_some_and(includes) {
            return None;
        }
        self.phases.iter().position(includes)
    }

    /// Tells whether a device that runs this release has anything to do with it: a revert takes back what it names.
    pub fn concerns(&self, running: u64) -> bool {
        self.from.is_empty() || self.from.contains(&running)
    }

    /// Tells whether a second person has to agree before a phase, from 0, may open, and has not.
    pub fn awaits_approval(&self, phase: usize) -> bool {
        let needed = match self.plan.approval {
            Approval::None => false,
            Approval::Start => phase == 0,
            Approval::Phases => true,
        };
        needed && !self.approved.contains(&phase)
    }

    /// Tells whether a position is held back.
    pub fn holds(&self, position: Position) -> bool {
        self.held_from.is_some_and(|from| from <= position)
    }

    /// Tells whether a device is held back as control: it is covered, and so is its model by the waves so far.
    pub fn is_control(&self, registry: &Registry, position: Position) -> bool {
        let models: Vec<_> = self.models.iter().cloned().collect();
        let covered = registry.product == self.product && phase::covers(&self.plan, &models, registry);
        let reached = self.cuts().get(&registry.model).is_some_and(|cut| *cut != Cut::NONE);
        covered && reached && self.holds(position)
    }

    /// Tells whether the present phase includes everybody whom the plan covers, newcomers as well.
    pub fn reaches_all(&self) -> bool {
        let cuts = self.cuts();
        self.held_from.is_none() && !cuts.is_empty() && cuts.values().all(|cut| *cut == Cut::ALL)
    }

    /// Tells whether it reaches everybody, and all who have begun have ended.
    pub fn is_settled(&self) -> bool {
        self.reaches_all() && self.total().pending() == 0
    }

    /// Tells whether devices that were offered it last may still be about to begin: as a rule they fetch first.
    pub fn may_begin(&self, now: Millis) -> bool {
        let Some(phase) = self.phases.last() else { return false };
        let spread = Millis::from(self.plan.spread).saturating_mul(1000);
        // Clocks are set back: then it only takes longer.
        now < phase.opened_at.saturating_add(spread).saturating_add(BEGINNING)
    }

    /// Tells whether it reaches nobody more and all who have begun have ended: it reaches everybody, or stays as it is since
    /// its time is over. It makes room for what comes after it where nobody is about to begin ([`Fleet::makes_room`]).
    ///
    /// [`Fleet::makes_room`]: crate::core::fleet::Fleet::makes_room
    pub fn reaches_no_more(&self, now: Millis) -> bool {
        let running = self.status == Status::Running;
        running && (self.is_settled() || (self.has_stayed(now) && self.total().pending() == 0))
    }

    /// Tells whether its time is over and its plan wants it to stay as it is.
    pub fn has_stayed(&self, now: Millis) -> bool {
        self.plan.times.at_end == AtEnd::Stay && self.plan.times.is_over(now)
    }

    /// Tells whether devices are offered its release: a completed rollout stays as the base of its regions.
    pub fn offers(&self) -> bool {
        matches!(self.status, Status::Running | Status::Completed)
    }

    /// Returns its entry in the rollout role.
    pub fn entry(&self) -> Entry {
        let kind = match self.kind {
            EntryKind::Revert => EntryKind::Revert,
            _ if self.reaches_all() => EntryKind::Base,
            kind => kind,
        };
        Entry {
            rollout: self.id.clone(),
            rc: self.rc,
            kind,
            attempt: self.attempt,
            regions: self.plan.regions.clone(),
            models: self.plan.models.clone(),
            carriers: self.plan.carriers.clone(),
            salt: self.salt,
            cuts: self.cuts(),
            hold_back: self.held_from.map(|from| (from, Position(Cut::ALL.0))),
            schedule: self.held_from.map(|_| self.plan.schedule()),
            from: self.from.clone(),
            list: self.listed.iter().map(listed).collect(),
            spread: self.plan.spread,
            arm: self.plan.arm,
            urgency: self.plan.urgency,
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "order_tests.rs"]
mod order;
