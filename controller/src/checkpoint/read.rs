//! From the store to a fleet.

use tern_protocol::id::FleetId;

use super::directory::Directory;
use super::page;
use crate::core::fleet::Fleet;
use crate::core::fleet::roster::Roster;
use crate::store::{Key, Meta, Page, Prefix, Store, StoreError};

/// Entries of one page of a scan.
const PAGE: usize = 1000;
/// What stands in the store beside the devices.
const KINDS: [Prefix; 6] =
    [Prefix::Rollouts, Prefix::Products, Prefix::Pending, Prefix::Claims, Prefix::Factories, Prefix::Meta];

/// What a store gave, or why it is to be built again from the ledger.
pub type Read = Result<(Fleet, Directory), &'static str>;

/// Reads a checkpoint; an empty store is one of an empty fleet.
pub fn read(store: &dyn Store, id: &FleetId) -> Result<Read, StoreError> {
    let mut fleet = Fleet::new(id.clone());
    if store.get(&Key::Meta(Meta::Checkpointing))?.is_some() {
        return Ok(Err("was cut short"));
    }
    if store.recovered().applied_seq.is_none() {
        return Ok(Ok((fleet, Directory::default())));
    }
    // From before devices stood on pages, or from another version.
    let directory = store.get(&Key::Meta(Meta::Directory))?;
    let Some(directory) = directory.and_then(|bytes| Directory::from_bytes(&bytes)) else {
        return Ok(Err("has the form of another version"));
    };
    // Rollouts and the clock first: devices refer to them.
    for prefix in KINDS {
        let mut after = None;
        loop {
            let Page { entries, next } = store.scan(&prefix, after.as_ref(), PAGE)?;
            for (key, value) in entries {
                if !take(&mut fleet, key, &value) {
                    return Ok(Err("has an entry of another version"));
                }
            }
            match next {
                Some(key) => after = Some(key),
                None => break,
            }
        }
    }
    let mut pages = Vec::new();
    for (number, place) in directory.pages() {
        match page::from_parts(|part| store.get(&Key::Page { number, place, part }))? {
            Some(mut devices) => {
                // Page by page, for what they have in common is large while every device has it for itself.
                fleet.share(devices.iter_mut().map(|(_, device)| device));
                pages.push(devices);
            }
            None => return Ok(Err("has a page of devices that does not read")),
        }
    }
    let Some(devices) = Roster::of_pages(pages) else {
        return Ok(Err("has pages of devices that do not fit together"));
    };
    fleet.devices = devices;
    Ok(Ok((fleet, directory)))
}

/// Puts one value where it belongs; `false` if it does not read, as after a change of its shape.
fn take(fleet: &mut Fleet, key: Key, value: &[u8]) -> bool {
    fn put<K: Ord, V: serde::de::DeserializeOwned>(
        map: &mut std::collections::BTreeMap<K, V>,
        key: K,
        value: &[u8],
    ) -> bool {
        serde_json::from_slice(value).map(|value| map.insert(key, value)).is_ok()
    }
    match key {
        Key::Rollout(id) => put(&mut fleet.rollouts, id, value),
        Key::Product(id) => put(&mut fleet.products, id, value),
        Key::Pending(id) => put(&mut fleet.pending, id, value),
        Key::Claim(id) => put(&mut fleet.claims, id, value),
        Key::Factory(id) => put(&mut fleet.factories, id, value),
        Key::Meta(Meta::Access) => serde_json::from_slice(value).map(|a| fleet.access = a).is_ok(),
        Key::Meta(Meta::Reports) => serde_json::from_slice(value).map(|n| fleet.reports = n).is_ok(),
        Key::Meta(Meta::Reception) => {
            serde_json::from_slice(value).map(|reception| fleet.reception = reception).is_ok()
        }
        Key::Meta(Meta::Comparison) => {
            serde_json::from_slice(value).map(|comparison| fleet.comparison = comparison).is_ok()
        }
        Key::Meta(_) | Key::Device(_) | Key::Page { .. } | Key::Release(..) | Key::Counters(..) => true,
    }
}
