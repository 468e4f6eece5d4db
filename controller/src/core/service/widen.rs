//! Widening: the next wave, the next phase, and in the end the control.

use std::collections::BTreeMap;

use tern_protocol::id::DeviceId;
use tern_protocol::limits::LIST_MAX;
use tern_protocol::position::Position;

use super::{Fact, Service};
use crate::core::rollout::hold_back;
use crate::core::rollout::phase::{self, Place};
use crate::core::rollout::plan::Reach;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::times::AtEnd;

impl Service {
    /// Does what the judgement allows next.
    pub(super) fn widen(&mut self, rollout: &Rollout, because: String) {
        if self.waits(rollout).is_some() || self.gathers(rollout) {
            return;
        }
        if rollout.phases.last().is_some_and(|phase| !phase.is_open()) {
            self.open_wave(rollout, None, because);
        } else {
            self.advance(rollout, None, because);
        }
    }

    /// Tells whether there is no room yet for so many that it is worth while to open a part for them.
    fn gathers(&mut self, rollout: &Rollout) -> bool {
        let owed = rollout.phases.last().map_or(0, |phase| phase.owed);
        let observed = self.fleet.reception.observed(self.now);
        let worth = rollout.worth_while();
        let Some(room) = self.room(rollout, worth) else { return false };
        room == 0 || (room < worth && (owed == 0 || room < owed) && rollout.opened_lately(observed))
    }

    /// Returns what a rollout waits for that is not evidence; `None` if it may widen.
    pub fn waits(&self, rollout: &Rollout) -> Option<String> {
        let next = rollout.phases.len();
        let whole = rollout.phases.last().is_none_or(|phase| phase.is_open());
        if whole && next < rollout.plan.phases.len() && rollout.awaits_approval(next) {
            let (id, phase) = (&rollout.id, next + 1);
            return Some(format!("waits for a second person: `tern rollout approve {id} --phase {phase}`"));
        }
        rollout.plan.times.wait(self.now)
    }

    /// Opens the first phases of rollouts that were made earlier, when nothing is left to wait for, and ends what has
    /// come to its time.
    pub(super) fn keep_hours(&mut self) {
        let active = |r: &&Rollout| r.status == Status::Running;
        let rollouts: Vec<Rollout> = self.fleet.rollouts.values().filter(active).cloned().collect();
        for rollout in rollouts {
            let times = &rollout.plan.times;
            if times.at_end == AtEnd::Pause && times.is_over(self.now) && !rollout.is_settled() {
                let because = "PAUSE: by its plan; its time is over".to_owned();
                self.note(format!("rollout {}: {because}", rollout.id));
                self.record(Fact::Paused { rollout: rollout.id.clone(), because });
            } else if rollout.phases.is_empty() && self.waits(&rollout).is_none() {
                self.advance(&rollout, None, "started by its plan".to_owned());
            } else if stands_empty(&rollout) && self.waits(&rollout).is_none() {
                // It was passed over up to what had to be waited for: no evidence will ever come from it.
                self.advance(&rollout, None, "the phase before it includes nobody".to_owned());
            }
        }
    }

    /// Opens the next phase; after the last one it lets the control go.
    pub(super) fn advance(&mut self, rollout: &Rollout, key: Option<String>, because: String) {
        if rollout.phases.len() >= rollout.plan.phases.len() {
            // The control is let go last, when nothing is left to compare.
            return match rollout.phases.last() {
                Some(phase) if !phase.is_open() => self.open_wave(rollout, key, because),
                _ => self.end_hold_back(rollout, key, because),
            };
        }
        let mut rollout = rollout.clone();
        while rollout.phases.len() < rollout.plan.phases.len() {
            self.open_phase(&rollout, rollout.phases.len(), key.clone(), because.clone());
            let Some(opened) = self.fleet.rollouts.get(&rollout.id) else { return };
            // A phase that includes nobody new can prove nothing, and would wait for its first start for ever.
            if opened.phases.last().is_none_or(|phase| phase.devices > 0) {
                return;
            }
            rollout = opened.clone();
            if self.waits(&rollout).is_some() {
                return;
            }
        }
    }

    pub(super) fn open_phase(
        &mut self,
        rollout: &Rollout,
        phase: usize,
        key: Option<String>,
        because: String,
    ) {
        let mut places = self.places(rollout);
        let fleet = places.len() as u64;
        let before = rollout.cuts();
        let mut listed = self.named(rollout, phase, &places);
        places.retain(|place| !rollout.listed.contains(&place.device) && !listed.contains(&place.device));
        let fresh = listed.len() as u64;
        let held = |devices| rollout.plan.hold_back.size(fleet, phase, devices);
        // The last phase keeps from the others only those whom it holds back itself.
        let kept = match rollout.plan.phases[phase].reach {
            Reach::All => rollout.reserve.and(self.held_from(rollout, &places, held(fleet))),
            _ => rollout.reserve,
        };
        let open = below(&places, kept);
        let goal = phase::goal(&rollout.plan, phase, (open, fleet), &rollout.models, &before);
        let included: u64 = rollout.phases.iter().map(|phase| phase.included).sum();
        let sizes = rollout.plan.waves.sizes(goal.devices, included);
        let first = sizes.first().copied().unwrap_or(0);
        let granted = self.granted(rollout, first + fresh);
        let owed = first + fresh - granted;
        // Those by name come before those whom chance has chosen.
        listed.truncate(usize::try_from(granted).unwrap_or(usize::MAX));
        let first = granted - listed.len() as u64;
        let whole = sizes.len() <= 1 && owed == 0;
        let cuts = match whole {
            true => goal.cuts.clone(),
            false if rollout.is_capped() => phase::step(first, open, &goal.cuts, &before),
            false => phase::wave(first, open, &goal.cuts, &before),
        };
        let held_from = rollout.reserve.and(self.held_from(rollout, &places, held(first)));
        let held_from = held_from.or(rollout.held_from);
        let waves = match sizes.len() {
            0 | 1 if owed == 0 => String::new(),
            0 | 1 => format!(", {granted} of them now"),
            waves => format!(", {granted} of them in the first of {waves} waves"),
        };
        let devices = goal.devices + fresh;
        self.note(format!(
            "rollout {}: phase {} opens for {devices} devices{waves}: {because}",
            rollout.id,
            phase + 1
        ));
        let (goal, included) = if whole { (BTreeMap::new(), None) } else { (goal.cuts, Some(granted)) };
        self.record(Fact::PhaseOpened {
            rollout: rollout.id.clone(),
            phase,
            cuts,
            devices,
            goal,
            included,
            owed,
            held_from,
            listed,
            key,
            because,
        });
    }

    /// Returns the devices that a phase includes by name and that are covered, as many as devices accept.
    fn named(&self, rollout: &Rollout, number: usize, places: &[Place]) -> Vec<DeviceId> {
        let step = &rollout.plan.phases[number];
        let tagged = |id: &DeviceId| {
            let device = self.fleet.devices.get(id);
            device.is_some_and(|device| step.tags.iter().any(|tag| device.tags.contains(tag)))
        };
        let room = LIST_MAX.saturating_sub(rollout.listed.len());
        let named =
            places.iter().map(|place| &place.device).filter(|id| step.list.contains(*id) || tagged(id));
        let cuts = rollout.cuts();
        let included =
            |id: &DeviceId| places.iter().any(|place| place.device == *id && phase::includes(&cuts, place));
        let named = named.filter(|id| !rollout.listed.contains(*id) && !included(id));
        let mut named: Vec<DeviceId> = named.cloned().collect();
        named.sort();
        named.truncate(room);
        named
    }

    fn open_wave(&mut self, rollout: &Rollout, key: Option<String>, because: String) {
        let Some(phase) = rollout.phases.last() else { return };
        let mut places = self.places(rollout);
        let fleet = places.len() as u64;
        let number = rollout.phase();
        // There was no room for them when the phase opened.
        let mut listed = if phase.owed > 0 { self.named(rollout, number, &places) } else { Vec::new() };
        let wanted = phase.devices.saturating_sub(phase.included);
        listed.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        places.retain(|place| !rollout.listed.contains(&place.device) && !listed.contains(&place.device));
        let before = rollout.cuts();
        let chosen = phase.chosen().saturating_sub(listed.len() as u64);
        let sizes = rollout.plan.waves.sizes(chosen, phase.before);
        // Devices that came or went since have changed the numbers; the last wave takes whoever is left.
        let next = usize::try_from(phase.waves).ok().and_then(|wave| sizes.get(wave)).copied();
        let last = phase.waves + u64::from(phase.owed == 0) >= sizes.len() as u64;
        let open = below(&places, rollout.held_from.or(rollout.reserve));
        let open = match rollout.plan.phases[number.min(rollout.plan.phases.len() - 1)].reach {
            Reach::All => open,
            _ => below(&places, rollout.reserve),
        };
        let (cuts, owed) = if rollout.is_capped() {
            let left =
                |place: &&Place| phase::includes(&phase.goal, place) && !phase::includes(&before, place);
            let size = match next {
                _ if last => open.iter().filter(left).count() as u64 + listed.len() as u64,
                _ if phase.owed > 0 => phase.owed,
                next => next.unwrap_or(0),
            };
            let granted = self.granted(rollout, size);
            listed.truncate(usize::try_from(granted).unwrap_or(usize::MAX));
            (phase::step(granted - listed.len() as u64, open, &phase.goal, &before), size - granted)
        } else {
            let cuts = match next {
                Some(size) if !last => phase::wave(size, open, &phase.goal, &before),
                _ => phase.goal.clone(),
            };
            (cuts, 0)
        };
        let new = |place: &&Place| phase::includes(&cuts, place) && !phase::includes(&before, place);
        let devices = open.iter().filter(new).count() as u64 + listed.len() as u64;
        if devices == 0 && owed > 0 {
            return;
        }
        let held = rollout.plan.hold_back.size(fleet, number, phase.included + devices);
        let held_from = rollout.reserve.and(self.held_from(rollout, &places, held));
        // A fleet that has become tiny meanwhile keeps the control that it has: only its end, which is a fact, lets it go.
        let held_from = held_from.or(rollout.held_from);
        let (rollout, wave, step, verb) = match phase.owed {
            0 => (rollout.id.clone(), phase.waves + 1, 0, "opens"),
            _ => (rollout.id.clone(), phase.waves, phase.steps + 1, "goes on"),
        };
        self.note(format!("rollout {rollout}: wave {wave} {verb} for {devices} devices: {because}"));
        self.record(Fact::WaveOpened {
            rollout,
            wave,
            cuts,
            devices,
            step,
            owed,
            listed,
            held_from,
            key,
            because,
        });
    }

    fn end_hold_back(&mut self, rollout: &Rollout, key: Option<String>, because: String) {
        if rollout.held_from.is_none() {
            return;
        }
        let places = self.places(rollout);
        let held = |place: &&Place| rollout.holds(place.position) && !rollout.listed.contains(&place.device);
        let held: Vec<&Place> = places.iter().filter(held).collect();
        let devices = self.granted(rollout, held.len() as u64);
        if devices == 0 && !held.is_empty() {
            return;
        }
        let positions: Vec<Position> = held.iter().map(|place| place.position).collect();
        let next = usize::try_from(devices).ok();
        let held_from = next.and_then(|next| phase::beyond(&positions, next));
        // Those at the same position go together.
        let devices =
            held_from.map_or(positions.len(), |from| positions.partition_point(|p| *p < from)) as u64;
        let rollout = rollout.id.clone();
        self.note(format!("rollout {rollout}: its control of {devices} devices is let go: {because}"));
        self.record(Fact::HoldBackEnded { rollout, devices, held_from, key, because });
    }

    /// Returns from where on `held` devices are held back, never below what was kept for them.
    fn held_from(&self, rollout: &Rollout, places: &[Place], held: u64) -> Option<Position> {
        let from = hold_back::from(places, held)?;
        Some(rollout.reserve.map_or(from, |reserve| from.max(reserve)))
    }
}

/// Tells whether a rollout stands in a phase that includes nobody, before another one.
fn stands_empty(rollout: &Rollout) -> bool {
    let empty = rollout.phases.last().is_some_and(|phase| phase.devices == 0);
    empty && rollout.phases.len() < rollout.plan.phases.len()
}

/// Returns the places before a position.
fn below(places: &[Place], end: Option<Position>) -> &[Place] {
    let end = end.map_or(places.len(), |end| places.partition_point(|place| place.position < end));
    &places[..end]
}
