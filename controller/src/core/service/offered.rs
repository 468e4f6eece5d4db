//! Which cohorts were told about a rollout, and which have to be told again.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{DeviceId, ModelId, RegionId};
use tern_protocol::position::{Cohort, Cut, Position};

use super::Service;
use crate::core::rollout::phase::{self, Place};
use crate::core::rollout::record::Rollout;

/// What a rollout's cohort topics say.
#[derive(Debug, Clone, Default)]
pub(super) struct Offered {
    /// Topics that hold something.
    pub(super) topics: BTreeSet<(RegionId, Cohort)>,
    cuts: BTreeMap<ModelId, Cut>,
    listed: BTreeSet<DeviceId>,
    held_from: Option<Position>,
}

/// What a rollout says to a device.
#[derive(PartialEq, Eq)]
enum Said {
    Nothing,
    Update,
    HoldBack,
}

impl Offered {
    /// Works out what the topics of a rollout should hold as it stands.
    pub(super) fn of(rollout: &Rollout, places: &[Place]) -> Self {
        let (cuts, listed) = (rollout.cuts(), rollout.listed.clone());
        let mut offered = Self { topics: BTreeSet::new(), cuts, listed, held_from: rollout.held_from };
        let told = places.iter().filter(|place| offered.says(place) != Said::Nothing);
        offered.topics = told.map(topic).collect();
        offered
    }

    /// Returns the topics of devices to which something else is said than `before`: the only ones that get a message.
    pub(super) fn news(&self, before: &Self, places: &[Place]) -> BTreeSet<(RegionId, Cohort)> {
        let mut news: BTreeSet<_> =
            places.iter().filter(|place| self.says(place) != before.says(place)).map(topic).collect();
        // A newcomer within what is open already is told by a topic that held nothing.
        news.extend(self.topics.difference(&before.topics).cloned());
        news
    }

    fn says(&self, place: &Place) -> Said {
        let reached = self.cuts.get(&place.model).is_some_and(|cut| *cut != Cut::NONE);
        if self.listed.contains(&place.device) {
            Said::Update
        } else if reached && self.held_from.is_some_and(|from| from <= place.position) {
            Said::HoldBack
        } else if phase::includes(&self.cuts, place) {
            Said::Update
        } else {
            Said::Nothing
        }
    }
}

fn topic(place: &Place) -> (RegionId, Cohort) {
    (place.region.clone(), Cohort::of(&place.device))
}

impl Service {
    /// Places the devices that a rollout covers.
    pub(super) fn places(&mut self, rollout: &Rollout) -> Vec<Place> {
        let models: Vec<_> = rollout.models.iter().cloned().collect();
        let shuffle = self.fleet.shuffles.of(&rollout.id, rollout.salt).clone();
        let devices = self
            .fleet
            .devices
            .iter()
            .filter(|(_, d)| d.registry.product == rollout.product && d.is_active())
            .filter(|(_, d)| rollout.concerns(d.running))
            .map(|(id, d)| (id, &d.registry));
        phase::places(&rollout.plan, &models, &shuffle, devices)
    }
}
