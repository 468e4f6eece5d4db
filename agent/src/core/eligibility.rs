//! May this device run that release, now?

use std::collections::BTreeMap;

use tern_protocol::chunk::chunks_of;
use tern_protocol::digest::Digest;
use tern_protocol::id::ModelId;
use tern_protocol::offer::{Offer, satisfied};
use tern_protocol::tuf::content::EntryKind;

use super::component::ComponentFacts;
use super::port::Held;
use super::state::Event;

/// What an offer is judged against.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The running release counter.
    pub running: u64,
    /// Lowest accepted release counter.
    pub floor: u64,
    /// Hardware model that the device itself is set up as. The offer was chosen by the registry's word, and whoever
    /// speaks for the registry must not be able to put another board's image on this one.
    pub model: &'a ModelId,
    /// The component that the slots hold.
    pub component: &'a str,
    /// Versions of the components that it runs.
    pub components: &'a BTreeMap<String, String>,
    /// The components beside the slots.
    pub others: &'a BTreeMap<String, ComponentFacts>,
    /// A component that could not be taken back.
    pub unsettled: Option<&'a String>,
    /// Bytes that the inactive slot can hold.
    pub capacity: u64,
    /// Root and length of the image in the inactive slot, if it holds one whole.
    pub inactive: Option<(Digest, u64)>,
}

/// Judges an offer; the event carries the reason.
pub fn judge(offer: &Offer, facts: &Facts<'_>) -> Event {
    let no = |reason: String| Event::Ineligible(reason);
    let rc = offer.attempt.rc;
    if rc < facts.floor {
        return no(format!("release {rc} is below the version floor {}", facts.floor));
    }
    if !matches!(offer.kind, EntryKind::Revert) && rc <= facts.running {
        return no(format!("release {rc} does not raise the running release {}", facts.running));
    }
    if !offer.models.contains(facts.model) {
        return no(format!("release {rc} is not for model {}, which this device is set up as", facts.model));
    }
    if facts.running < offer.min_from && !matches!(offer.kind, EntryKind::Revert) {
        let (from, running) = (offer.min_from, facts.running);
        return no(format!("release {rc} can be installed from release {from} on, running is {running}"));
    }
    // Of a revert as well: a baseband does not go back with the release that needs it.
    if let Err(unmet) = satisfied(&offer.artifacts, facts.components) {
        return no(format!("release {rc}: {unmet}"));
    }
    let Some((artifact, others)) = offer.artifacts.split_first() else {
        return no(format!("release {rc} has nothing for this device"));
    };
    if artifact.component != facts.component {
        let (found, component) = (&artifact.component, facts.component);
        return no(format!(
            "release {rc} is for component {found}, and has nothing for {component} in the slots"
        ));
    }
    if artifact.length == 0 || chunks_of(artifact.length).is_none() {
        return no(format!("an image of {} B is outside what a slot can take", artifact.length));
    }
    if artifact.length > facts.capacity {
        let (length, capacity) = (artifact.length, facts.capacity);
        return no(format!("the image has {length} B, the inactive slot holds {capacity} B"));
    }
    let mut present = facts.inactive == Some((artifact.root, artifact.length));
    for artifact in others {
        let name = &artifact.component;
        let Some(other) = facts.others.get(name) else {
            return no(format!("release {rc} is for component {name} too, which this device does not have"));
        };
        if artifact.length == 0 || artifact.length > other.capacity || chunks_of(artifact.length).is_none() {
            let (length, capacity) = (artifact.length, other.capacity);
            return no(format!("the package for {name} has {length} B, its place holds 1 to {capacity} B"));
        }
        present &= other.held == Some(Held::of(artifact));
    }
    if let Some(name) = facts.unsettled {
        return Event::Postponed(format!("component {name}, which is still to be taken back"));
    }
    Event::Eligible { present }
}
