//! Widening: the next wave, the next phase, and in the end the control.

use std::collections::BTreeMap;

use tern_protocol::position::Position;

use super::{Fact, Service};
use crate::core::rollout::phase::{self, Place};
use crate::core::rollout::record::Rollout;
use crate::core::rollout::{hold_back, plan::Reach};

impl Service {
    /// Does what the judgement allows next.
    pub(super) fn widen(&mut self, rollout: &Rollout, because: String) {
        if rollout.phases.last().is_some_and(|phase| !phase.is_open()) {
            self.open_wave(rollout, because);
        } else {
            self.advance(rollout, because);
        }
    }

    /// Opens the next phase; after the last one it lets the control go.
    pub(super) fn advance(&mut self, rollout: &Rollout, because: String) {
        if rollout.phases.len() >= rollout.plan.phases.len() {
            return self.end_hold_back(rollout, because);
        }
        let mut rollout = rollout.clone();
        while rollout.phases.len() < rollout.plan.phases.len() {
            self.open_phase(&rollout, rollout.phases.len(), because.clone());
            let Some(opened) = self.fleet.rollouts.get(&rollout.id) else { return };
            // A phase that includes nobody new can prove nothing, and would wait for its first start for ever.
            if opened.phases.last().is_none_or(|phase| phase.devices > 0) {
                return;
            }
            rollout = opened.clone();
        }
    }

    pub(super) fn open_phase(&mut self, rollout: &Rollout, phase: usize, because: String) {
        let places = self.places(rollout);
        let fleet = places.len() as u64;
        let before = rollout.cuts();
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
        let cuts =
            if sizes.len() > 1 { phase::wave(first, open, &goal.cuts, &before) } else { goal.cuts.clone() };
        let held_from = rollout.reserve.and(self.held_from(rollout, &places, held(first)));
        let waves = match sizes.len() {
            0 | 1 => String::new(),
            waves => format!(", {first} of them in the first of {waves} waves"),
        };
        let devices = goal.devices;
        self.note(format!(
            "rollout {}: phase {} opens for {devices} devices{waves}: {because}",
            rollout.id,
            phase + 1
        ));
        let (goal, included) =
            if sizes.len() > 1 { (goal.cuts, Some(first)) } else { (BTreeMap::new(), None) };
        self.record(Fact::PhaseOpened {
            rollout: rollout.id.clone(),
            phase,
            cuts,
            devices,
            goal,
            included,
            held_from,
            because,
        });
    }

    fn open_wave(&mut self, rollout: &Rollout, because: String) {
        let Some(phase) = rollout.phases.last() else { return };
        let places = self.places(rollout);
        let before = rollout.cuts();
        let sizes = rollout.plan.waves.sizes(phase.devices, phase.before);
        let number = rollout.phase();
        // Devices that came or went since have changed the numbers; the last wave takes whoever is left.
        let next = usize::try_from(phase.waves).ok().and_then(|wave| sizes.get(wave)).copied();
        let last = phase.waves + 1 >= sizes.len() as u64;
        let open = below(&places, rollout.held_from.or(rollout.reserve));
        let open = match rollout.plan.phases[number.min(rollout.plan.phases.len() - 1)].reach {
            Reach::All => open,
            _ => below(&places, rollout.reserve),
        };
        let cuts = match next {
            Some(size) if !last => phase::wave(size, open, &phase.goal, &before),
            _ => phase.goal.clone(),
        };
        let new = |place: &&Place| phase::includes(&cuts, place) && !phase::includes(&before, place);
        let devices = open.iter().filter(new).count() as u64;
        let held = rollout.plan.hold_back.size(places.len() as u64, number, phase.included + devices);
        let held_from = rollout.reserve.and(self.held_from(rollout, &places, held));
        let (rollout, wave) = (rollout.id.clone(), phase.waves + 1);
        self.note(format!("rollout {rollout}: wave {wave} opens for {devices} devices: {because}"));
        self.record(Fact::WaveOpened { rollout, wave, cuts, devices, held_from, because });
    }

    fn end_hold_back(&mut self, rollout: &Rollout, because: String) {
        if rollout.held_from.is_none() {
            return;
        }
        let places = self.places(rollout);
        let devices = places.iter().filter(|place| rollout.holds(place.position)).count() as u64;
        let rollout = rollout.id.clone();
        self.note(format!("rollout {rollout}: its control of {devices} devices is let go: {because}"));
        self.record(Fact::HoldBackEnded { rollout, devices, because });
    }

    /// Returns from where on `held` devices are held back, never below what was kept for them.
    fn held_from(&self, rollout: &Rollout, places: &[Place], held: u64) -> Option<Position> {
        let from = hold_back::from(places, held)?;
        Some(rollout.reserve.map_or(from, |reserve| from.max(reserve)))
    }
}

/// Returns the places before a position.
fn below(places: &[Place], end: Option<Position>) -> &[Place] {
    let end = end.map_or(places.len(), |end| places.partition_point(|place| place.position < end));
    &places[..end]
}
