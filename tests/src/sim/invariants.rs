//! What must hold after every event, whatever the network, the power and the operator do.
//!
//! Device: it can always boot something it once confirmed; it never runs bytes it has not verified; it never
//! claims a release it does not run; its version floor never falls; whatever boots was approved, assigned to it and
//! not below its floor, and nothing that it has authenticated as halted is armed or confirmed. Fleet: a device that
//! was answered later than a kill arms no such release; no acknowledged report is lost or counted twice. And nobody
//! spins.

use std::collections::{BTreeMap, BTreeSet};

use tern_agent::core::SlotName;
use tern_agent::core::agent::Agent;
use tern_agent::core::durable::Durable;
use tern_agent::core::state::{State, UpdatingStep};
use tern_controller::core::fact::Fact;
use tern_controller::core::replay::{Found, Replay};
use tern_controller::core::rollout::counts::Counts;
use tern_protocol::id::RolloutId;
use tern_protocol::message::{AnswerKind, ReportKind};
use tern_protocol::state::{Outcome, StateName};

use super::Sim;

/// Wakes in one virtual second that no honest timer needs.
const WAKES_MAX: u32 = 200;

/// What the harness saw of one device.
#[derive(Debug, Default)]
pub struct Watched {
    /// The image that each slot held when it was confirmed.
    confirmed: BTreeMap<SlotName, usize>,
    pub(super) floor: u64,
    /// Releases that a halt file on its disk names, and since when.
    pub(super) halted: BTreeMap<u64, u64>,
    /// The ids of the halt keys that its targets name.
    pub(super) halt_keys: Option<Vec<String>>,
    /// Every report that the journal ever promised to deliver, hellos aside.
    pub(super) created: BTreeMap<u64, ReportKind>,
    waiting: BTreeSet<u64>,
    /// Step of the controller whose answer let the device arm.
    answered: Option<u64>,
    /// It lost its journal: below this epoch it does not know which numbers it has used.
    forgetful_below: u64,
    wakes: (u64, u32),
}

impl Watched {
    pub(super) fn came_up(&mut self) {
        // Reports that were never saved died with the process, and so did what they would have reported.
        self.waiting.clear();
    }
}

/// Tells whether the agent has decided to arm and not yet heard that it is done.
pub(super) fn is_arming(agent: &Agent) -> bool {
    matches!(agent.durable().state, State::Updating { step: UpdatingStep::Arm, .. })
}

fn waiting(durable: &Durable) -> BTreeSet<u64> {
    let lasting = |p: &&tern_agent::core::outbox::Pending| !matches!(p.kind, ReportKind::Hello(_));
    durable.outbox.pending().filter(lasting).map(|p| p.n).collect()
}

/// Leaves out what devices cannot tell: silence.
fn comparable(counts: Counts) -> Counts {
    let Counts { started, bad, good, unreachable, recalled, deferred, .. } = counts;
    Counts { started, bad, good, unreachable, recalled, deferred, ..Counts::default() }
}

impl Sim {
    pub(super) fn violated(&mut self, what: String) {
        self.note(|_| format!("VIOLATED: {what}"));
        self.violations.push(format!("t={} {what}", self.queue.now()));
    }

    pub(super) fn watch_provisioned(&mut self, d: usize) {
        self.devices[d].watched.confirmed.insert(SlotName::A, 0);
    }

    pub(super) fn watch_confirmed(&mut self, d: usize, slot: SlotName) {
        match self.image_in(d, slot) {
            Some(image) => {
                self.devices[d].watched.confirmed.insert(slot, image);
            }
            None => {
                let id = self.devices[d].id.clone();
                self.violated(format!("{id} confirmed slot {slot}, which holds no known image"));
            }
        }
    }

    /// Returns the image that a slot holds byte for byte, if it is one that was ever signed.
    pub(super) fn image_in(&self, d: usize, slot: SlotName) -> Option<usize> {
        let slot = self.devices[d].disk.slot(slot);
        self.images.iter().rposition(|image| slot.holds(&image.bytes))
    }

    fn running_release(&self, d: usize) -> Option<u64> {
        self.image_in(d, self.devices[d].running()).map(|image| self.images[image].rc)
    }

    pub(super) fn check_write(&mut self, d: usize, slot: SlotName) {
        let device = &self.devices[d];
        if slot == device.disk.record.active || slot == device.running() {
            let id = device.id.clone();
            self.violated(format!("{id} writes into slot {slot}, which it needs to boot"));
        }
        self.devices[d].watched.confirmed.remove(&slot);
    }

    pub(super) fn check_device(&mut self, d: usize) {
        let device = &self.devices[d];
        let id = device.id.clone();
        let active = device.disk.record.active;
        let confirmed = device.watched.confirmed.get(&active).copied();
        let bootable =
            confirmed.is_some_and(|image| device.disk.slot(active).holds(&self.images[image].bytes));
        let floor = device.agent().map(|agent| agent.durable().floor);
        if !bootable {
            self.violated(format!("{id} falls back to slot {active}, which it never confirmed as it is now"));
        }
        if let Some(floor) = floor {
            if floor < self.devices[d].watched.floor {
                self.violated(format!("{id} lowered its version floor to {floor}"));
            }
            self.devices[d].watched.floor = floor;
        }
    }

    pub(super) fn check_arm(&mut self, d: usize, rc: u64) {
        let id = self.devices[d].id.clone();
        match (self.devices[d].watched.answered, self.controller.killed.get(&rc)) {
            (None, _) => self.violated(format!("{id} arms release {rc} without an answer")),
            (Some(answered), Some(killed)) if answered >= *killed => {
                self.violated(format!("{id} arms release {rc}, answered after the kill"));
            }
            _ => {}
        }
    }

    /// Called after every input: which answer let the device arm, and what acks made it forget.
    pub(super) fn watch_answer(&mut self, d: usize, payload: Option<&[u8]>, answered: bool) {
        let id = self.devices[d].id.clone();
        let answer = payload.and_then(|payload| self.controller.open_answer(&id, payload));
        if answered {
            let step = answer.as_ref().and_then(|answer| match &answer.kind {
                AnswerKind::Answer { nonce, .. } => self.controller.answers.get(&nonce.0).copied(),
                _ => None,
            });
            self.devices[d].watched.answered = step;
        }
        let Some(agent) = &self.devices[d].agent else { return };
        let now = waiting(agent.durable());
        let before = std::mem::replace(&mut self.devices[d].watched.waiting, now);
        let device = &self.devices[d];
        // Of a device that lost its journal a number counts once it has been saved under an epoch that the controller granted:
        // what waited for the grant has a new one from then on.
        let promised =
            |n: &u64| device.watched.forgetful_below == 0 || device.watched.created.contains_key(n);
        let gone = before.difference(&device.watched.waiting).copied();
        for n in gone.filter(promised).collect::<Vec<_>>() {
            let key = (id.clone(), n);
            if !self.reported.contains_key(&key) && !self.lost.contains(&key) {
                self.violated(format!("{id} may forget report {n}, which is not in the ledger"));
            }
        }
    }

    pub(super) fn watch_saved(&mut self, d: usize, durable: &Durable) {
        if durable.epoch < self.devices[d].watched.forgetful_below {
            // It lost its journal and does not know its numbers; what it says waits for new ones, with its epoch.
            return;
        }
        let (mut claims, mut again) = (Vec::new(), Vec::new());
        let created = &mut self.devices[d].watched.created;
        for pending in durable.outbox.pending() {
            if matches!(pending.kind, ReportKind::Hello(_)) {
                continue;
            }
            if let Some(kind) = created.get(&pending.n) {
                if *kind != pending.kind {
                    again.push(pending.n);
                }
                continue;
            }
            created.insert(pending.n, pending.kind.clone());
            if let ReportKind::Outcome { outcome: Outcome::Success, attempt, .. } = &pending.kind {
                claims.push(attempt.rc);
            }
        }
        for rc in claims {
            self.check_claim(d, rc);
        }
        for n in again {
            let id = self.devices[d].id.clone();
            self.violated(format!("{id} uses report number {n} twice"));
        }
    }

    /// Forgets what a device promised: its journal is gone, and the number of its next report starts over.
    pub(super) fn watch_journal_lost(&mut self, d: usize) {
        let id = self.devices[d].id.clone();
        let watched = &mut self.devices[d].watched;
        watched.created.retain(|n, _| self.reported.contains_key(&(id.clone(), *n)));
        let known = self.controller.fleet().devices.get(&id).map_or(0, |device| device.epoch);
        self.devices[d].watched.forgetful_below = known + 1;
    }

    pub(super) fn watch_published(&mut self, d: usize, payload: &[u8]) {
        let id = self.devices[d].id.clone();
        if let Some(report) = self.controller.open_report(&id, payload)
            && let ReportKind::Hello(hello) = report.kind
        {
            self.check_claim(d, hello.running);
        }
    }

    fn check_claim(&mut self, d: usize, rc: u64) {
        let running = self.running_release(d);
        if running != Some(rc) {
            let id = self.devices[d].id.clone();
            self.violated(format!("{id} claims release {rc}, runs {running:?}"));
        }
    }

    pub(super) fn watch_wake(&mut self, d: usize) {
        let second = self.queue.now() / 1000;
        let wakes = &mut self.devices[d].watched.wakes;
        *wakes = if wakes.0 == second { (second, wakes.1 + 1) } else { (second, 1) };
        if wakes.1 == WAKES_MAX {
            let id = self.devices[d].id.clone();
            self.violated(format!("{id} spins: {WAKES_MAX} wakes within a second"));
        }
    }

    pub(super) fn watch_fact(&mut self, fact: &Fact) {
        if matches!(fact, Fact::PhaseOpened { .. }) {
            // A phase that opens on counts that no device vouches for is the harm that invented reports would do.
            self.check_not_more_than_the_truth();
        }
        let Fact::Reported { device, n, report, .. } = fact else { return };
        if matches!(report, ReportKind::Hello(_)) {
            return;
        }
        if self.reported.insert((device.clone(), *n), report.clone()).is_some() {
            self.violated(format!("report {n} of {device} is in the ledger twice"));
        }
        let created = self.devices.iter().find(|d| d.id == *device).and_then(|d| d.watched.created.get(n));
        if created != Some(report) {
            self.violated(format!(
                "report {n} of {device} is not what the device's journal holds: {report:?}"
            ));
        }
    }

    /// Tells whether no device has a report left that was not acknowledged.
    pub fn is_drained(&self) -> bool {
        self.devices.iter().all(|device| {
            device.agent().is_some_and(|agent| {
                let heard = |n: &u64| {
                    let key = (device.id.clone(), *n);
                    self.reported.contains_key(&key) || self.lost.contains(&key)
                };
                device.watched.created.keys().all(heard) && waiting(agent.durable()).is_empty()
            })
        })
    }

    /// Returns the counters that a rollout must have: every device's reports in the order of their numbers.
    pub fn truth(&self, rollout: &RolloutId) -> Counts {
        let mut counts = Counts::default();
        let fleet = self.controller.fleet();
        for device in &self.devices {
            let (mut started, mut ended) = (false, false);
            let record = fleet.devices.get(&device.id).and_then(|device| device.attempts.get(rollout));
            for (n, report) in &device.watched.created {
                if ended || report.attempt().is_none_or(|attempt| attempt.rollout != *rollout) {
                    continue;
                }
                let begins = matches!(
                    report,
                    ReportKind::Started { .. } | ReportKind::Transition { to: StateName::VerifyPost, .. }
                );
                if begins && !started {
                    started = true;
                    counts.started += 1;
                }
                let ReportKind::Outcome { outcome, .. } = report else { continue };
                let counted = u64::from(started);
                // Only the service knows whether it was there to be reached.
                let excused = record.as_ref().is_some_and(|record| record.excused.contains(n));
                let outcome = if excused { &Outcome::Deferred } else { outcome };
                match outcome {
                    Outcome::Success => counts.good += counted,
                    Outcome::Failed | Outcome::RolledBack => counts.bad += counted,
                    Outcome::Unreachable => counts.unreachable += counted,
                    Outcome::Recalled => counts.recalled += counted,
                    Outcome::Deferred => counts.deferred += counted,
                }
                ended = started && *outcome != Outcome::Deferred;
                started &= *outcome != Outcome::Deferred;
            }
        }
        counts
    }

    /// While reports are held back or lost, the controller may have counted less than the devices' own stories add
    /// up to, and never more.
    pub fn check_not_more_than_the_truth(&mut self) {
        let fleet = self.controller.fleet();
        let withdraws =
            self.controller.ledger.iter().any(|entry| {
                matches!(entry.fact, Fact::ComparisonBegan { .. } | Fact::StandingChanged { .. })
            });
        for rollout in fleet.rollouts.values() {
            let (counted, truth) = (rollout.total(), self.truth(&rollout.id));
            // What the service took back by itself may start again.
            let taken_back = counted.deferred.saturating_sub(truth.deferred);
            let more = counted.good > truth.good
                || counted.started > truth.started + taken_back
                || (taken_back > 0 && !withdraws)
                || counted.confirmed_bad() > truth.confirmed_bad()
                || counted.recalled > truth.recalled;
            if more {
                self.violated(format!("{} counts {counted:?}, the devices say only {truth:?}", rollout.id));
            }
        }
    }

    /// Compares the controller's counters with the devices' own stories; all reports must have arrived. Rollouts
    /// that were resumed are left out: their counters begin anew on purpose. So is everything once reports went with a
    /// lost data folder.
    pub fn check_counts(&mut self) {
        if !self.is_drained() {
            self.violated("reports are still on their way".to_owned());
        }
        let fleet = self.controller.fleet();
        let resumed: BTreeSet<&RolloutId> = self
            .controller
            .ledger
            .iter()
            .filter_map(|entry| match &entry.fact {
                Fact::Resumed { rollout, .. } => Some(rollout),
                _ => None,
            })
            .collect();
        let mut wrong = Vec::new();
        let whole = self.before.is_empty();
        for rollout in fleet.rollouts.values().filter(|r| whole && !resumed.contains(&r.id)) {
            let (counted, truth) = (comparable(rollout.total()), comparable(self.truth(&rollout.id)));
            // What a silent device says later is not counted.
            let told = rollout.total().silent == 0;
            if (told && counted != truth) || counted.started != truth.started || counted.good > truth.good {
                wrong.push(format!("{} counts {counted:?}, the devices say {truth:?}", rollout.id));
            }
        }
        let mut replay = Replay::new();
        let middle = self.controller.ledger.len() / 2;
        for (place, entry) in self.controller.ledger.iter().enumerate() {
            // As after frames were dropped: what they add up to was written down, and is read back.
            if place == middle {
                let kept = serde_json::to_vec(&replay).expect("a replay is plain data");
                let read = serde_json::from_slice(&kept).expect("it was written just now");
                if read != replay {
                    wrong.push(format!("the snapshot of frame {place} is not read back as it was"));
                }
                replay = read;
            }
            if let Found::Differs { ledger, replay, .. } = replay.take(entry) {
                wrong.push(format!("the ledger says {ledger}, a replay {replay}"));
            }
        }
        let differs = match &mut self.controller.apart {
            Some(apart) => !apart.is_same(),
            None => self.controller.live().is_some_and(|live| *live != fleet),
        };
        if differs {
            wrong.push("the running service differs from its ledger".to_owned());
        }
        wrong.into_iter().for_each(|what| self.violated(what));
    }
}
