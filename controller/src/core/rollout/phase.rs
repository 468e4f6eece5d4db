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

/// Chooses the cuts of a phase. `before` are the cuts so far; a cut never shrinks. The wanted number is shared
/// among the models in proportion, at least one device of each while there is one, so that a canary sees every
/// model.
pub fn cuts(
    reach: Reach,
    places: &[Place],
    models: &BTreeSet<ModelId>,
    before: &BTreeMap<ModelId, Cut>,
) -> BTreeMap<ModelId, Cut> {
    let total = places.len() as u64;
    let included = places.iter().filter(|p| includes(before, p)).count() as u64;
    let wanted = match reach {
        Reach::All => return models.iter().map(|model| (model.clone(), Cut::ALL)).collect(),
        // Never a canary without devices.
        Reach::Percent(percent) => whole((total as f64 * percent / 100.0).ceil()).max(1),
        Reach::Devices(more) => included.saturating_add(more),
    }
    .min(total);
    let mut by_model: BTreeMap<&ModelId, Vec<Position>> = BTreeMap::new();
    for place in places {
        by_model.entry(&place.model).or_default().push(place.position);
    }
    let shares = share(wanted, by_model.values().map(|positions| positions.len() as u64).collect());
    let mut cuts = before.clone();
    for ((model, positions), count) in by_model.into_iter().zip(shares) {
        let cut = match usize::try_from(count).ok().and_then(|count| positions.get(count)) {
            _ if count == 0 => Cut::NONE,
            Some(next) => Cut(next.0),
            None => positions.last().map_or(Cut::NONE, |last| Cut(last.0 + 1)),
        };
        let entry = cuts.entry(model.clone()).or_insert(Cut::NONE);
        *entry = (*entry).max(cut);
    }
    cuts
}

/// Returns a count that was worked out as a fraction; a plan's percentages keep it below the fleet's size.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded just before, and never negative or beyond a fleet"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

/// Shares `wanted` among groups in proportion to their sizes, by largest remainder, at least one each while it
/// lasts.
fn share(wanted: u64, sizes: Vec<u64>) -> Vec<u64> {
    let total: u64 = sizes.iter().sum();
    if total == 0 {
        return sizes;
    }
    let exact: Vec<f64> = sizes.iter().map(|size| wanted as f64 * *size as f64 / total as f64).collect();
    let mut shares: Vec<u64> =
        exact.iter().zip(&sizes).map(|(e, size)| whole(e.floor()).max(1).min(*size)).collect();
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

    fn count(places: &[Place], cuts: &BTreeMap<ModelId, Cut>) -> usize {
        places.iter().filter(|p| includes(cuts, p)).count()
    }

    #[test]
    fn a_phase_includes_exactly_the_devices_that_were_asked_for() {
        let (places, models) = fleet(&[("m1", 120), ("m2", 80)]);
        let first = cuts(Reach::Devices(34), &places, &models, &BTreeMap::new());
        let second = cuts(Reach::Devices(64), &places, &models, &first);
        let all = cuts(Reach::All, &places, &models, &second);
        assert_eq!((count(&places, &first), count(&places, &second), count(&places, &all)), (34, 98, 200));
    }

    #[test]
    fn a_canary_sees_every_model_and_is_never_empty() {
        let (places, models) = fleet(&[("common", 500), ("rare", 3)]);
        let canary = cuts(Reach::Percent(1.0), &places, &models, &BTreeMap::new());
        let rare = places.iter().filter(|p| p.model.as_str() == "rare" && includes(&canary, p)).count();
        assert_eq!(rare, 1);
        let (tiny, models) = fleet(&[("m", 5)]);
        assert_eq!(count(&tiny, &cuts(Reach::Percent(0.1), &tiny, &models, &BTreeMap::new())), 1);
    }

    #[test]
    fn only_newly_included_cohorts_get_a_message() {
        let (places, models) = fleet(&[("m", 50)]);
        let first = cuts(Reach::Devices(10), &places, &models, &BTreeMap::new());
        let second = cuts(Reach::Devices(10), &places, &models, &first);
        assert!(new_cohorts(&places, &first, &first).is_empty());
        assert!(new_cohorts(&places, &first, &second).len() <= 10);
    }
}
