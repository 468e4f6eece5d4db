//! Which release a device should run, read from verified metadata.
//!
//! The first entry of the rollout role that includes the device, is not halted, and names artifacts that the
//! release role approves: all of both roles are compared, and of each component the device takes one ([`pick`]).
//! Whether the step is possible now (running rc, floor, power, space, other components: [`satisfied`]) is the agent's.

mod approved;
mod pick;
mod requirement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::approved::{approved, own};
pub use self::pick::{Candidate, NoneFits, Variant, pick};
pub use self::requirement::{Found, Unmet, contradiction, satisfied};

use crate::digest::Digest;
use crate::id::{CarrierId, DeviceId, ModelId, ProductId, RegionId, RolloutId};
use crate::message::Attempt;
use crate::position::{Cut, Position, Salt, position};
use crate::tuf::client::Current;
use crate::tuf::content::{Arm, ArtifactContent, Entry, EntryKind, Schedule, Urgency, listed};
use crate::version::Range;

/// What decides about a device's offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device<'a> {
    /// The device.
    pub id: &'a DeviceId,
    /// Product that the controller acknowledged.
    pub product: &'a ProductId,
    /// Model that the controller acknowledged.
    pub model: &'a ModelId,
    /// Carrier that the controller acknowledged.
    pub carrier: &'a CarrierId,
    /// Region that the controller acknowledged.
    pub region: &'a RegionId,
    /// The release that it runs.
    pub running: u64,
}

/// A release that a device should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Release, rollout and attempt.
    pub attempt: Attempt,
    /// What the entry is for; says whether rc may fall.
    pub kind: EntryKind,
    /// Version for people.
    pub version: String,
    /// All of them are installed, or none, in this order; one for each component.
    pub artifacts: Vec<Artifact>,
    /// Models that every artifact may run on.
    pub models: Vec<ModelId>,
    /// Lowest running rc from which the step is supported: the highest that an artifact asks for.
    pub min_from: u64,
    /// Floor to be raised to after confirming: the highest that an artifact names.
    pub floor: u64,
    /// When the device may arm.
    pub arm: Arm,
    /// The device waits hash × spread seconds before its first `get`.
    pub spread: u32,
    /// A revert is for devices that run one of these; empty: whatever they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<u64>,
    /// When it reports health while others are held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Whether windows and consent hold it back.
    #[serde(default, skip_serializing_if = "Urgency::is_soft")]
    pub urgency: Urgency,
}

/// One payload of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Which part of the device it is for.
    pub component: String,
    /// Length of the image in bytes.
    pub length: u64,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// Merkle root over its chunks.
    pub root: Digest,
    /// Its version; empty where a record of before this field has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// What has to run, or to come with it, of other components.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, Range>,
    /// When it is installed: lower first, equal ones by component.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub order: u8,
}

fn is_zero(order: &u8) -> bool {
    *order == 0
}

impl Artifact {
    /// Describes an image and nothing more: no version, no requirement.
    pub fn new(component: impl Into<String>, length: u64, sha256: Digest, root: Digest) -> Self {
        let (version, requires) = (String::new(), BTreeMap::new());
        Self { component: component.into(), length, sha256, root, version, requires, order: 0 }
    }

    /// Describes what a release approves.
    pub fn approved(content: &ArtifactContent, length: u64, sha256: Digest) -> Self {
        Self {
            version: content.version.clone(),
            requires: content.requires.clone(),
            order: content.order,
            ..Self::new(content.component.clone(), length, sha256, content.root)
        }
    }
}

/// What the metadata says to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Run this.
    Offer(Offer),
    /// Held back from this, to be compared with those that are not.
    Control(Offer),
    /// Nothing to run.
    Nothing(NothingBecause),
}

/// Why there is no offer: the reason of the entry that came closest to being one. Later variants are closer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NothingBecause {
    /// The rollout role has no entry.
    NoEntry,
    /// The entry leaves out the device's region, model or carrier.
    NotCovered {
        /// The entry's rollout.
        rollout: RolloutId,
    },
    /// The entry's release is dead.
    Halted {
        /// The release.
        rc: u64,
    },
    /// Release and rollout roles do not name the same artifacts, or artifacts that cannot be installed.
    NotApproved {
        /// The release.
        rc: u64,
    },
    /// An artifact may not run on the device's model.
    NotForModel {
        /// The release.
        rc: u64,
    },
    /// No artifact of a component is for the device's carrier and region.
    NoVariant {
        /// The release.
        rc: u64,
        /// The component.
        component: String,
    },
    /// The rollout has not widened to the device yet.
    NotIncluded {
        /// The entry's rollout.
        rollout: RolloutId,
    },
}

/// Reads off what `device` should run.
pub fn select(current: &Current<'_>, device: &Device<'_>) -> Selection {
    select_by(current, device, |salt| position(salt, device.id))
}

/// The same for who remembers where the device stands under a salt: `position` gives it.
pub fn select_by(
    current: &Current<'_>,
    device: &Device<'_>,
    mut position: impl FnMut(Salt) -> Position,
) -> Selection {
    let mut closest = NothingBecause::NoEntry;
    for entry in &current.rollout.content.entries {
        match judge(current, device, entry, &mut position) {
            Ok(selection) => return selection,
            Err(because) => closest = closest.max(because),
        }
    }
    Selection::Nothing(closest)
}

fn judge(
    current: &Current<'_>,
    device: &Device<'_>,
    entry: &Entry,
    position: &mut impl FnMut(Salt) -> Position,
) -> Result<Selection, NothingBecause> {
    let rc = entry.rc;
    let covered = covers(&entry.regions, device.region)
        && covers(&entry.models, device.model)
        && covers(&entry.carriers, device.carrier);
    let concerned = entry.from.is_empty() || entry.from.contains(&device.running);
    if !covered || !concerned {
        return Err(NothingBecause::NotCovered { rollout: entry.rollout.clone() });
    }
    if current.halt.content.halted.contains(&rc) {
        return Err(NothingBecause::Halted { rc });
    }
    let approved = approved(current, device.product, rc).ok_or(NothingBecause::NotApproved { rc })?;
    let own = own(approved, device).map_err(|because| because.of(rc))?;
    match place(entry, device, position) {
        Place::Included => Ok(Selection::Offer(offer(entry, own))),
        Place::HeldBack => Ok(Selection::Control(offer(entry, own))),
        Place::Beyond => Err(NothingBecause::NotIncluded { rollout: entry.rollout.clone() }),
    }
}

fn covers<T: PartialEq>(filter: &[T], own: &T) -> bool {
    filter.is_empty() || filter.contains(own)
}

enum Place {
    Included,
    HeldBack,
    Beyond,
}

fn place(entry: &Entry, device: &Device<'_>, position: &mut impl FnMut(Salt) -> Position) -> Place {
    if entry.list.contains(&listed(device.id)) {
        return Place::Included;
    }
    let cut = entry.cuts.get(device.model).copied().unwrap_or(Cut::NONE);
    if cut == Cut::NONE {
        return Place::Beyond;
    }
    if cut == Cut::ALL && entry.hold_back.is_none() {
        // Spares the thousand hashes of a position on the path that most devices take most of the time.
        return Place::Included;
    }
    let position = position(entry.salt);
    // Before the cut: the control group is exposed beside the first wave, wherever its range lies.
    if entry.hold_back.is_some_and(|(from, to)| from <= position && position < to) {
        return Place::HeldBack;
    }
    if cut.includes(position) { Place::Included } else { Place::Beyond }
}

fn offer(entry: &Entry, own: Vec<(Artifact, &ArtifactContent)>) -> Offer {
    let contents = || own.iter().map(|(_, content)| *content);
    let first = contents().next();
    let models = first.map_or(&[][..], |content| &content.models);
    let in_all = |model: &&ModelId| contents().all(|content| content.models.contains(model));
    Offer {
        attempt: Attempt { rc: entry.rc, rollout: entry.rollout.clone(), attempt: entry.attempt },
        kind: entry.kind,
        version: first.map(|content| content.release_version().to_owned()).unwrap_or_default(),
        models: models.iter().filter(in_all).cloned().collect(),
        min_from: contents().map(|content| content.min_from).max().unwrap_or(0),
        floor: contents().map(|content| content.floor).max().unwrap_or(0),
        artifacts: own.iter().map(|(artifact, _)| artifact.clone()).collect(),
        arm: entry.arm,
        urgency: entry.urgency,
        spread: entry.spread,
        schedule: entry.schedule,
        from: entry.from.clone(),
    }
}
