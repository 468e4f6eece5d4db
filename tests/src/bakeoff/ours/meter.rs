//! Crashes and battery drain, each device once in 24 h, of who runs the release and of who has not been offered it.

use std::collections::BTreeMap;

use tern_controller::core::rollout::evidence::{Arm, PairEvidence};
use tern_controller::core::rollout::gate::Pairs;

use super::super::device::{Traits, uniform};
use super::super::scenario::Defect;
use crate::sim::clock::{HOUR, Rng};

const DAY: u64 = 24 * HOUR;
/// Share of healthy devices that crash in a day, and of those with the defect.
const CRASHES: (f64, f64) = (0.02, 0.5);
/// Share of healthy devices that drain more than nine in ten did before, and of those with the defect.
const DRAINS: (f64, f64) = (0.10, 0.8);

/// What was measured.
pub(super) struct Meter {
    defect: Defect,
    /// Devices by the hour in which their next day ends.
    treated: BTreeMap<u64, Vec<(usize, u64)>>,
    hour: u64,
    evidence: PairEvidence,
}

impl Meter {
    pub(super) fn new(defect: Defect) -> Self {
        Self { defect, treated: BTreeMap::new(), hour: 0, evidence: PairEvidence::default() }
    }

    /// A device runs the release from now on.
    pub(super) fn confirmed(&mut self, d: usize, at: u64) {
        self.treated.entry((at + DAY) / HOUR).or_default().push((d, 1));
    }

    /// Tells whether a device has an event on one of its days; the same whichever rule asks.
    fn event(&self, device: &Traits, day: u64, runs: bool) -> bool {
        let (usual, affected) = match self.defect {
            Defect::Crash(_) => CRASHES,
            Defect::Battery(_) => DRAINS,
        };
        let rate = if runs && device.affected { affected } else { usual };
        uniform(&mut Rng::new(device.days.wrapping_add(day.wrapping_mul(0x9e37_79b9)))) < rate
    }

    /// Takes in the days that have ended since; returns what they add up to, when an hour is over.
    pub(super) fn read(
        &mut self,
        at: u64,
        fleet: &[Traits],
        control: impl Iterator<Item = bool>,
        ratio: f64,
    ) -> Option<Pairs> {
        let hour = at / HOUR;
        if hour <= self.hour {
            return None;
        }
        // Days of the control end all over the day: a twenty-fourth of it in every hour.
        let (since, day) = (self.hour, |hour: u64| 1000 + hour / 24);
        let mut aside = Arm::default();
        for (d, held_back) in control.enumerate() {
            let own = (d % 24) as u64;
            let ended = (since + 1..=hour).find(|hour| hour % 24 == own).filter(|_| held_back);
            if let Some(ended) = ended {
                aside.exposure += 1;
                aside.events += u64::from(self.event(&fleet[d], day(ended), false));
            }
        }
        let mut treated = Arm::default();
        let later = self.treated.split_off(&(hour + 1));
        for (_, devices) in std::mem::replace(&mut self.treated, later) {
            for (d, day) in devices {
                treated.exposure += 1;
                treated.events += u64::from(self.event(&fleet[d], day, true));
                self.treated.entry(hour + 24).or_default().push((d, day + 1));
            }
        }
        self.hour = hour;
        self.evidence.tick(treated, aside, ratio);
        let evidence = Some(self.evidence);
        Some(match self.defect {
            Defect::Crash(_) => Pairs { crash: evidence, ..Pairs::default() },
            Defect::Battery(_) => Pairs { battery: evidence, ..Pairs::default() },
        })
    }
}
