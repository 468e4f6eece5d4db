//! Which deltas a release wants: from what devices run, the most frequent first, and from nothing.

use std::collections::BTreeMap;

use tern_protocol::delta::ImageId;
use tern_protocol::digest::Digest;
use tern_protocol::message::Registry;
use tern_protocol::offer::Artifact;

use crate::core::fleet::product::Release;

/// An image below this is sent as it is: asking for a delta and its pieces takes as much as it would save.
pub const LEAST: u64 = 16 * 1024;
/// Deltas of one release for one profile.
pub const PAIRS_MAX: usize = 256;

/// Two images between which a delta leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Part of the device.
    pub component: String,
    /// Release that the old image is of; none: the whole image.
    pub from: Option<u64>,
    /// What devices run; none: nothing that helps.
    pub old: Option<ImageId>,
    /// What they should run.
    pub new: ImageId,
    /// Devices that would take it; of a whole image 0.
    pub devices: u64,
}

/// Works out the pairs of a release out of what devices run, by the release and variant of each.
pub fn pairs<'a>(
    releases: &BTreeMap<u64, Release>,
    rc: u64,
    devices: impl Iterator<Item = (u64, &'a Registry)>,
    from: usize,
    whole: bool,
) -> Vec<Pair> {
    let Some(release) = releases.get(&rc) else { return Vec::new() };
    let mut alike: BTreeMap<(u64, [&str; 3]), (&Registry, u64)> = BTreeMap::new();
    for (running, registry) in devices.filter(|(running, _)| *running != rc) {
        let kind = [registry.model.as_str(), registry.carrier.as_str(), registry.region.as_str()];
        alike.entry((running, kind)).or_insert((registry, 0)).1 += 1;
    }
    let mut counted: BTreeMap<(Digest, Digest), Pair> = BTreeMap::new();
    for ((running, _), (registry, count)) in &alike {
        let there = releases.get(running).and_then(|release| release.for_device(registry).ok());
        let (Some(there), Ok(wanted)) = (there, release.for_device(registry)) else { continue };
        for new in wanted {
            let Some(old) = there.iter().find(|old| old.component == new.component) else { continue };
            if old.root == new.root || new.length < LEAST {
                continue;
            }
            let pair = counted.entry((old.root, new.root)).or_insert_with(|| Pair {
                component: new.component.clone(),
                from: Some(*running),
                old: Some(image(old)),
                new: image(&new),
                devices: 0,
            });
            pair.devices += count;
        }
    }
    let mut pairs: Vec<Pair> = counted.into_values().collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse((pair.devices, pair.from)));
    let mut taken: BTreeMap<Digest, usize> = BTreeMap::new();
    pairs.retain(|pair| {
        let count = taken.entry(pair.new.root).or_default();
        *count += 1;
        *count <= from
    });
    if whole {
        pairs.extend(wholes(release));
    }
    pairs.truncate(PAIRS_MAX);
    pairs
}

fn wholes(release: &Release) -> Vec<Pair> {
    let mut found: BTreeMap<Digest, Pair> = BTreeMap::new();
    for (named, content) in release.artifacts.iter().filter(|(named, _)| named.length >= LEAST) {
        let new = ImageId { length: named.length, root: content.root };
        let component = content.component.clone();
        found.entry(new.root).or_insert(Pair { component, from: None, old: None, new, devices: 0 });
    }
    found.into_values().collect()
}

fn image(artifact: &Artifact) -> ImageId {
    ImageId { length: artifact.length, root: artifact.root }
}
