//! How a rollout's record grows: a phase or a wave opens, the control is let go, a new series begins.

use std::collections::BTreeSet;

use tern_protocol::id::{DeviceId, ModelId};

use super::control::Control;
use super::record::{PhaseRecord, Rollout};
use crate::core::fact::{Fact, Millis};

impl Rollout {
    /// Takes in that a phase or a wave opened, or that the control was let go. A repeated frame opens nothing twice.
    pub(in crate::core) fn widened(&mut self, fact: &Fact, at: Millis, observed: Millis) {
        match fact {
            Fact::PhaseOpened {
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
                ..
            } => {
                if *phase != self.phases.len() {
                    return;
                }
                self.because.clone_from(because);
                self.held_from = *held_from;
                let before = self.phases.iter().map(|phase| phase.included).sum();
                let whole = PhaseRecord::new(cuts.clone(), *devices, at, observed);
                let included = included.unwrap_or(*devices);
                self.listed.extend(listed.iter().cloned());
                self.promoted = key.clone().or(self.promoted.take());
                let named = listed.iter().cloned().collect();
                self.phases.push(PhaseRecord {
                    goal: goal.clone(),
                    included,
                    owed: *owed,
                    before,
                    listed: named,
                    ..whole
                });
                self.note_opening(observed, included, listed);
            }
            Fact::WaveOpened { wave, cuts, devices, step, owed, listed, held_from, key, because, .. } => {
                let next = |phase: &&mut PhaseRecord| match step {
                    0 => phase.waves + 1 == *wave,
                    step => (phase.waves, phase.steps + 1) == (*wave, *step),
                };
                let Some(phase) = self.phases.last_mut().filter(next) else { return };
                self.because.clone_from(because);
                self.held_from = *held_from;
                self.promoted = key.clone().or(self.promoted.take());
                phase.cuts.clone_from(cuts);
                phase.included += devices;
                (phase.waves, phase.steps, phase.owed) = (*wave, *step, *owed);
                phase.listed.extend(listed.iter().cloned());
                self.listed.extend(listed.iter().cloned());
                (phase.opened_at, phase.observed) = (at, observed);
                self.note_opening(observed, *devices, listed);
            }
            Fact::HoldBackEnded { devices, held_from, key, because, .. } => {
                self.promoted = key.clone().or(self.promoted.take());
                self.because.clone_from(because);
                self.held_from = *held_from;
                if !std::mem::replace(&mut self.let_go, true) {
                    let models: BTreeSet<ModelId> =
                        self.phases.iter().flat_map(|p| p.judged.keys().cloned()).collect();
                    self.compared =
                        models.into_iter().map(|model| (model.clone(), self.judged_of(&model))).collect();
                }
                self.note_opening(observed, *devices, &[]);
                if let Some(phase) = self.phases.last_mut() {
                    phase.devices += devices;
                    phase.included += devices;
                }
            }
            _ => {}
        }
    }

    fn note_opening(&mut self, observed: Millis, devices: u64, listed: &[DeviceId]) {
        if self.is_capped() {
            self.openings.add(observed, devices);
            self.note_reached(observed, listed);
        }
    }

    /// Begins a new series: what was counted stays for people to see, and is judged no more.
    pub fn resume(&mut self, at: Millis, observed: Millis) {
        self.series += 1;
        self.first.clear();
        self.first_bad.clear();
        self.outage = false;
        self.compared.clear();
        for control in self.control.values_mut() {
            let drained = std::mem::take(&mut control.drained).renewed();
            *control = Control { held: control.held, drained, ..Control::default() };
        }
        self.phases.iter_mut().for_each(|phase| phase.judged.clear());
        if let Some(phase) = self.phases.last_mut() {
            phase.opened_at = at;
            phase.observed = observed;
        }
    }
}
