//! Who is included: from the wish of a phase to one cut per hardware model.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{DeviceId, ModelId, RegionId};
use tern_protocol::message::Registry;
use tern_protocol::position::{Cohort, Cut, Position, Shuffle};

use super::plan::{Plan, Reach};

/// A covered device and where it stands.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device.
    pub device: DeviceId,
    /// Its hardware model.
    pub model: ModelId,
    /// Its region.
    pub region: RegionId,
    /// Its position.
    pub position: Position,
}

/// Tells whether a plan for a release of these models covers a device.
pub fn covers(plan: &Plan, models: &[ModelId], registry: &Registry) -> bool {
    let admits = |empty: bool, contains: bool| empty || contains;
    admits(plan.regions.is_empty(), plan.regions.contains(&registry.region))
        && admits(plan.models.is_empty(), plan.models.contains(&registry.model))
        && admits(plan.carriers.is_empty(), plan.carriers.contains(&registry.carrier))
        && models.contains(&registry.model)
}

/// Places the covered devices, sorted by position.
pub fn places<'a>(
    plan: &Plan,
    models: &[ModelId],
    shuffle: &Shuffle,
    devices: impl Iterator<Item = (&'a DeviceId, &'a Registry)>,
) -> Vec<Place> {
    let mut places: Vec<Place> = devices
        .filter(|(_, registry)| covers(plan, models, registry))
        .map(|(device, registry)| Place {
            device: device.clone(),
            model: registry.model.clone(),
            region: registry.region.clone(),
            position: shuffle.position(device),
        })
        .collect();
    places.sort_by(|a, b| (a.position, &a.device).cmp(&(b.position, &b.device)));
    places
}

/// How many devices a phase newly includes and how far it must reach for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// How far, by model.
    pub cuts: BTreeMap<ModelId, Cut>,
    /// Devices that it newly includes.
    pub devices: u64,
}

/// Works out how far a phase reaches; a cut never shrinks. `open` are the places that are not held back, of `fleet`
/// covered ones. The wanted number is shared among the models in proportion, at least `model_min` of each while there
/// are so many, so that a canary sees every model.
pub fn goal(
    plan: &Plan,
    phase: usize,
    (open, fleet): (&[Place], u64),
    models: &BTreeSet<ModelId>,
    before: &BTreeMap<ModelId, Cut>,
) -> Goal {
    let included = open.iter().filter(|p| includes(before, p)).count() as u64;
    let cuts = match plan.phases[phase].reach {
        Reach::All => models.iter().map(|model| (model.clone(), Cut::ALL)).collect(),
        Reach::Percent(percent) => {
            let share = whole((fleet as f64 * percent / 100.0).ceil());
            // Never a canary without devices, nor one that takes more than half of a tiny fleet for its least.
            let least = if phase == 0 { plan.canary_min.min(fleet / 2) } else { 0 };
            cuts(share.max(least).max(1), open, plan.model_min, before)
        }
        Reach::Devices(more) => cuts(included.saturating_add(more), open, plan.model_min, before),
    };
    let reached = open.iter().filter(|p| includes(&cuts, p)).count() as u64;
    Goal { cuts, devices: reached - included }
}

/// Works out how far a wave of `size` more devices reaches on the way to a goal.
pub fn wave(
    size: u64,
    open: &[Place],
    goal: &BTreeMap<ModelId, Cut>,
    before: &BTreeMap<ModelId, Cut>,
) -> BTreeMap<ModelId, Cut> {
    let within: Vec<Place> = open.iter().filter(|p| includes(goal, p)).cloned().collect();
    let included = within.iter().filter(|p| includes(before, p)).count() as u64;
    let wanted = included.saturating_add(size);
    if wanted >= within.len() as u64 {
        return goal.clone();
    }
    cuts(wanted, &within, 1, before)
}

/// Works out how far exactly `size` more devices reach on the way to a goal, so that the models keep pace with one
/// another and each has its first ones early.
pub fn step(
    size: u64,
    open: &[Place],
    goal: &BTreeMap<ModelId, Cut>,
    before: &BTreeMap<ModelId, Cut>,
) -> BTreeMap<ModelId, Cut> {
    let mut by_model: BTreeMap<&ModelId, Vec<&Place>> = BTreeMap::new();
    for place in open.iter().filter(|place| includes(goal, place)) {
        by_model.entry(&place.model).or_default().push(place);
    }
    // Who comes when: the share of its model that comes before it.
    let mut next: Vec<(u128, &ModelId)> = Vec::new();
    for (model, places) in &by_model {
        let turn = |index: usize| ((index as u128) << 64) / places.len() as u128;
        let fresh = places.iter().enumerate().filter(|(_, place)| !includes(before, place));
        next.extend(fresh.map(|(index, _)| (turn(index), *model)));
    }
    if next.len() as u64 <= size {
        return goal.clone();
    }
    next.sort();
    let mut taken: BTreeMap<&ModelId, usize> = BTreeMap::new();
    next.iter().take(usize::try_from(size).unwrap_or(usize::MAX)).for_each(|(_, model)| {
        *taken.entry(model).or_default() += 1;
    });
    let mut cuts = before.clone();
    for (model, most) in goal {
        let cut = cuts.entry(model.clone()).or_insert(Cut::NONE);
        let places = by_model.get(model).map_or(&[][..], Vec::as_slice);
        let included = places.iter().filter(|place| includes(before, place)).count();
        let wanted = included + taken.get(model).copied().unwrap_or(0);
        if wanted > included {
            let positions: Vec<Position> = places.iter().map(|place| place.position).collect();
            *cut = beyond(&positions, wanted).map_or(*most, |next| Cut(next.0));
        }
    }
    cuts
}

/// Chooses cuts that include `wanted` of the places, at least `least` of each model.
fn cuts(
    wanted: u64,
    places: &[Place],
    least: u64,
    before: &BTreeMap<ModelId, Cut>,
) -> BTreeMap<ModelId, Cut> {
    let wanted = wanted.min(places.len() as u64);
    let mut by_model: BTreeMap<&ModelId, Vec<Position>> = BTreeMap::new();
    for place in places {
        by_model.entry(&place.model).or_default().push(place.position);
    }
    let shares = share(wanted, least, by_model.values().map(|positions| positions.len() as u64).collect());
    let mut cuts = before.clone();
    for ((model, positions), count) in by_model.into_iter().zip(shares) {
        let cut = match usize::try_from(count).ok().and_then(|count| beyond(&positions, count)) {
            _ if count == 0 => Cut::NONE,
            Some(next) => Cut(next.0),
            None => positions.last().map_or(Cut::NONE, |last| Cut(last.0 + 1)),
        };
        let entry = cuts.entry(model.clone()).or_insert(Cut::NONE);
        *entry = (*entry).max(cut);
    }
    cuts
}

/// Returns the first position beyond that of the last of `count` ones, which are sorted. Devices at the same position go
/// together: a cut between them would include none of them.
pub fn beyond(positions: &[Position], count: usize) -> Option<Position> {
    let last = count.checked_sub(1).and_then(|last| positions.get(last));
    positions.get(count..)?.iter().find(|position| last.is_none_or(|last| last < *position)).copied()
}

/// Returns a count that was worked out as a fraction; a plan's percentages keep it below the fleet's size.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded just before, and never negative or beyond a fleet"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

/// Shares `wanted` among groups in proportion to their sizes, by largest remainder, at least `least` each while it
/// lasts.
fn share(wanted: u64, least: u64, sizes: Vec<u64>) -> Vec<u64> {
    let total: u64 = sizes.iter().sum();
    if total == 0 || wanted == 0 {
        return vec![0; sizes.len()];
    }
    let exact: Vec<f64> = sizes.iter().map(|size| wanted as f64 * *size as f64 / total as f64).collect();
    let mut shares: Vec<u64> =
        exact.iter().zip(&sizes).map(|(e, size)| whole(e.floor()).max(least).min(*size)).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|a, b| (exact[*b].fract()).total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    while shares.iter().sum::<u64>() < wanted {
        let Some(index) = order.iter().copied().find(|i| shares[*i] < sizes[*i]) else { break };
        shares[index] += 1;
        // Go round, so that no group takes all that is left.
        let at = order.iter().position(|i| *i == index).unwrap_or(0);
        let moved = order.remove(at);
        order.push(moved);
    }
    shares
}

/// Tells whether the cuts include a place.
pub fn includes(cuts: &BTreeMap<ModelId, Cut>, place: &Place) -> bool {
    cuts.get(&place.model).is_some_and(|cut| cut.includes(place.position))
}

/// Returns the cohorts, by region, that `after` includes somebody of and `before` did not include wholly: the
/// only ones that get a message.
pub fn new_cohorts(
    places: &[Place],
    before: &BTreeMap<ModelId, Cut>,
    after: &BTreeMap<ModelId, Cut>,
) -> BTreeSet<(RegionId, Cohort)> {
    places
        .iter()
        .filter(|place| includes(after, place) && !includes(before, place))
        .map(|place| (place.region.clone(), Cohort::of(&place.device)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::plan::Phase;
    use crate::core::rollout::policy::PhaseRule;
    use tern_protocol::position::Salt;

    fn fleet(models: &[(&str, u32)]) -> (Vec<Place>, BTreeSet<ModelId>) {
        let names: Vec<ModelId> = models.iter().map(|(name, _)| name.parse().unwrap()).collect();
        let devices: Vec<(DeviceId, Registry)> = models
            .iter()
            .flat_map(|(model, count)| (0..*count).map(move |i| (model, i)))
            .map(|(model, i)| {
                let registry = Registry {
                    product: "ap".parse().unwrap(),
                    model: model.parse().unwrap(),
                    carrier: "none".parse().unwrap(),
                    region: "eu".parse().unwrap(),
                };
                (format!("{model}-{i}").parse().unwrap(), registry)
            })
            .collect();
        let shuffle = Shuffle::new(Salt([3; 16]));
        let placed = places(&Plan::default(), &names, &shuffle, devices.iter().map(|(d, r)| (d, r)));
        (placed, names.into_iter().collect())
    }

    fn planned(reaches: &[Reach]) -> Plan {
        let phase = |reach: &Reach| Phase::new(*reach, PhaseRule::default());
        Plan { phases: reaches.iter().map(phase).collect(), ..Plan::default() }
    }

    #[test]
    fn waves_lead_to_the_goal_and_each_includes_as_many_as_it_should() {
        let (places, models) = fleet(&[("m1", 120), ("m2", 80)]);
        let goal = goal(&planned(&[Reach::Devices(70)]), 0, (&places, 200), &models, &BTreeMap::new());
        let (mut cuts, mut counts) = (BTreeMap::new(), Vec::new());
        for size in [10, 20, 40] {
            cuts = wave(size, &places, &goal.cuts, &cuts);
            counts.push(count(&places, &cuts));
        }
        assert_eq!((goal.devices, counts), (70, vec![10, 30, 70]));
        assert_eq!(cuts, goal.cuts);
    }

    #[test]
    fn a_step_includes_exactly_as_many_as_there_is_room_for_whatever_the_models_are() {
        let (places, models) = fleet(&[("common", 500), ("odd", 40), ("rare", 3)]);
        let goal = goal(&planned(&[Reach::All]), 0, (&places, 543), &models, &BTreeMap::new()).cuts;
        let (mut cuts, mut included) = (BTreeMap::new(), 0);
        for size in [0u64, 1, 2, 5, 30, 1, 400, 103, 1] {
            cuts = step(size, &places, &goal, &cuts);
            included += usize::try_from(size).unwrap();
            assert_eq!(count(&places, &cuts), included);
            if included == 8 {
                let seen: BTreeSet<_> =
                    places.iter().filter(|p| includes(&cuts, p)).map(|p| &p.model).collect();
                assert_eq!(seen.len(), 3, "a few devices are of every model");
            }
        }
        assert_eq!(cuts, goal);
    }

    fn count(places: &[Place], cuts: &BTreeMap<ModelId, Cut>) -> usize {
        places.iter().filter(|p| includes(cuts, p)).count()
    }

    #[test]
    fn a_phase_includes_exactly_the_devices_that_were_asked_for() {
        let (places, models) = fleet(&[("m1", 120), ("m2", 80)]);
        let plan = planned(&[Reach::Devices(34), Reach::Devices(64), Reach::All]);
        let first = goal(&plan, 0, (&places, 200), &models, &BTreeMap::new()).cuts;
        let second = goal(&plan, 1, (&places, 200), &models, &first).cuts;
        let all = goal(&plan, 2, (&places, 200), &models, &second).cuts;
        assert_eq!((count(&places, &first), count(&places, &second), count(&places, &all)), (34, 98, 200));
    }

    #[test]
    fn a_canary_sees_every_model_and_is_never_empty() {
        let (places, models) = fleet(&[("common", 500), ("rare", 3)]);
        let plan = planned(&[Reach::Percent(1.0)]);
        let canary = goal(&plan, 0, (&places, 503), &models, &BTreeMap::new()).cuts;
        assert_eq!(count(&places, &canary), 10, "1 % would be six");
        let rare = places.iter().filter(|p| p.model.as_str() == "rare" && includes(&canary, p)).count();
        assert_eq!(rare, 1);
        let (tiny, few) = fleet(&[("m", 5)]);
        assert_eq!(goal(&plan, 0, (&tiny, 5), &few, &BTreeMap::new()).devices, 2, "half of them");
        let generous = Plan { model_min: 3, ..plan };
        let canary = goal(&generous, 0, (&places, 503), &models, &BTreeMap::new()).cuts;
        let rare = places.iter().filter(|p| p.model.as_str() == "rare" && includes(&canary, p)).count();
        assert_eq!(rare, 3);
    }

    #[test]
    fn devices_at_the_same_position_are_included_together() {
        let (mut places, models) = fleet(&[("m", 10)]);
        for (index, place) in places.iter_mut().enumerate() {
            place.position = Position(100 + (index as u64).saturating_sub(1).min(6));
        }
        let all = goal(&planned(&[Reach::All]), 0, (&places, 10), &models, &BTreeMap::new()).cuts;
        let (mut cuts, mut counts) = (BTreeMap::new(), Vec::new());
        while cuts != all {
            cuts = step(1, &places, &all, &cuts);
            counts.push(count(&places, &cuts));
        }
        assert_eq!(counts, [2, 3, 4, 5, 6, 7, 10]);
        let few = planned(&[Reach::Devices(1), Reach::Devices(7)]);
        let first = goal(&few, 0, (&places, 10), &models, &BTreeMap::new());
        assert_eq!((first.devices, count(&places, &first.cuts)), (2, 2));
        assert_eq!(goal(&few, 1, (&places, 10), &models, &first.cuts).devices, 8);
    }

    #[test]
    fn only_newly_included_cohorts_get_a_message() {
        let (places, models) = fleet(&[("m", 50)]);
        let plan = planned(&[Reach::Devices(10), Reach::Devices(10)]);
        let first = goal(&plan, 0, (&places, 50), &models, &BTreeMap::new()).cuts;
        let second = goal(&plan, 1, (&places, 50), &models, &first).cuts;
        assert!(new_cohorts(&places, &first, &first).is_empty());
        assert!(new_cohorts(&places, &first, &second).len() <= 10);
    }
}
