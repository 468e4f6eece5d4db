//! Devices by name, each with a number that it keeps: its place in the order of registration.
//!
//! The number says on which page of the checkpoint a device stands. It follows from the ledger alone, so a replay gives
//! every device the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, RangeBounds};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tern_protocol::id::DeviceId;

use super::device::Device;

/// Devices on one page.
pub const PAGE: usize = 1024;
const PAGE_U32: u32 = 1024;

/// The devices of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    numbers: BTreeMap<DeviceId, u32>,
    /// Every page but the last is full. Page by page, so that no growth ever needs the memory of all devices twice.
    pages: Vec<Vec<Device>>,
}

impl Roster {
    /// Puts pages together again; none if a name stands there twice or a page before the last is not full.
    pub fn of_pages(pages: Vec<Vec<(DeviceId, Device)>>) -> Option<Self> {
        let full = pages.len().saturating_sub(1);
        if pages.iter().take(full).any(|page| page.len() != PAGE) || pages.iter().any(|p| p.len() > PAGE) {
            return None;
        }
        let mut names = Vec::with_capacity(pages.iter().map(Vec::len).sum());
        let mut records = Vec::with_capacity(pages.len());
        for page in pages {
            let mut on_page = Vec::with_capacity(PAGE);
            for (id, device) in page {
                names.push((id, number(names.len())));
                on_page.push(device);
            }
            records.push(on_page);
        }
        let count = names.len();
        // At once: sorted names fill the tree's nodes, which one by one would stay half empty.
        let numbers: BTreeMap<_, _> = names.into_iter().collect();
        (numbers.len() == count).then_some(Self { numbers, pages: records })
    }

    /// Counts the devices.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Tells whether there is a device of this name.
    pub fn contains_key(&self, id: &DeviceId) -> bool {
        self.numbers.contains_key(id)
    }

    /// Returns a device.
    pub fn get(&self, id: &DeviceId) -> Option<&Device> {
        self.numbers.get(id).map(|number| self.at(*number))
    }

    /// Returns a device, to be changed.
    pub fn get_mut(&mut self, id: &DeviceId) -> Option<&mut Device> {
        let number = *self.numbers.get(id)? as usize;
        self.pages.get_mut(number / PAGE)?.get_mut(number % PAGE)
    }

    /// Returns a device, registering `fresh` under its name first if there is none.
    pub fn get_or_insert_with(&mut self, id: &DeviceId, fresh: impl FnOnce() -> Device) -> &mut Device {
        let count = self.numbers.len();
        let number = *self.numbers.entry(id.clone()).or_insert_with(|| number(count)) as usize;
        if number == count {
            if count.is_multiple_of(PAGE) {
                self.pages.push(Vec::with_capacity(PAGE));
            }
            self.pages[number / PAGE].push(fresh());
        }
        &mut self.pages[number / PAGE][number % PAGE]
    }

    /// Walks the devices in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.numbers.iter().map(|(id, number)| (id, self.at(*number)))
    }

    /// Walks the devices of a range of names, in their order.
    pub fn range(&self, range: impl RangeBounds<DeviceId>) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.numbers.range(range).map(|(id, number)| (id, self.at(*number)))
    }

    /// Walks the names in their order.
    pub fn keys(&self) -> impl Iterator<Item = &DeviceId> {
        self.numbers.keys()
    }

    /// Walks the devices in the order of their numbers, which is that of memory.
    pub fn values(&self) -> impl Iterator<Item = &Device> {
        self.pages.iter().flatten()
    }

    /// Walks the devices in the order of their numbers, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.pages.iter_mut().flatten()
    }

    /// Counts the pages.
    pub fn pages(&self) -> u32 {
        number(self.pages.len())
    }

    /// Returns the page on which a device stands.
    pub fn page_of(&self, id: &DeviceId) -> Option<u32> {
        self.numbers.get(id).map(|number| number / PAGE_U32)
    }

    /// Returns some pages, each with its number: names and devices in the order of the devices' numbers.
    pub fn on_pages(&self, wanted: &BTreeSet<u32>) -> Vec<(u32, Vec<(&DeviceId, &Device)>)> {
        // Names stand in their own order, so one walk over all of them finds those of every page.
        let mut names: Vec<Vec<(u32, &DeviceId)>> = vec![Vec::new(); self.pages.len()];
        for (id, number) in &self.numbers {
            if wanted.contains(&(number / PAGE_U32)) {
                names[*number as usize / PAGE].push((*number, id));
            }
        }
        let pages = (0..self.pages()).zip(names).filter(|(page, _)| wanted.contains(page));
        pages
            .map(|(page, mut names)| {
                names.sort_unstable_by_key(|(number, _)| *number);
                (page, names.into_iter().map(|(number, id)| (id, self.at(number))).collect())
            })
            .collect()
    }

    fn at(&self, number: u32) -> &Device {
        &self.pages[number as usize / PAGE][number as usize % PAGE]
    }
}

impl Index<&DeviceId> for Roster {
    type Output = Device;

    fn index(&self, id: &DeviceId) -> &Device {
        self.get(id).expect("a device of this name")
    }
}

/// In the order of the numbers, which follow from it.
impl Serialize for Roster {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let pages = self.on_pages(&(0..self.pages()).collect());
        to.collect_seq(pages.into_iter().flat_map(|(_, page)| page))
    }
}

impl<'de> Deserialize<'de> for Roster {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut devices = Vec::<(DeviceId, Device)>::deserialize(from)?.into_iter().peekable();
        let mut pages = Vec::new();
        while devices.peek().is_some() {
            pages.push(devices.by_ref().take(PAGE).collect());
        }
        Self::of_pages(pages).ok_or_else(|| D::Error::custom("a device is there twice"))
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a fleet has fewer than 2^32 devices")
}

#[cfg(test)]
mod tests {
    use tern_protocol::message::Registry;

    use super::*;

    fn device(n: usize) -> (DeviceId, Device) {
        let (product, model) = (name("ap"), name("m1"));
        let registry = Registry { product, model, carrier: name("none"), region: name("eu") };
        // Names that do not come in the order of their registration.
        (name(&format!("d-{:05}", (n * 7919) % 10_007)), Device::new(format!("{n}"), registry))
    }

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn roster(count: usize) -> Roster {
        let mut roster = Roster::default();
        for (id, fresh) in (0..count).map(device) {
            roster.get_or_insert_with(&id, || fresh);
        }
        roster
    }

    #[test]
    fn a_device_keeps_its_number_and_its_page() {
        let mut roster = roster(2 * PAGE + 5);
        let (id, fresh) = device(PAGE);

        roster.get_or_insert_with(&id, || unreachable!("it is there already")).running = 3;

        assert_eq!((roster.len(), roster.pages(), roster.page_of(&id)), (2 * PAGE + 5, 3, Some(1)));
        assert_eq!((roster[&id].identity.as_str(), roster[&id].running), (fresh.identity.as_str(), 3));
        assert!(roster.iter().map(|(id, _)| id).is_sorted(), "by name");
        assert_eq!(roster.values().nth(PAGE).unwrap().running, 3, "by number");
    }

    #[test]
    fn a_roster_is_put_together_from_its_pages() {
        let roster = roster(2 * PAGE + 5);
        let taken = roster.on_pages(&(0..9).collect());
        let owned = |(_, page): &(u32, Vec<(&DeviceId, &Device)>)| {
            page.iter().map(|(id, device)| ((*id).clone(), (*device).clone())).collect::<Vec<_>>()
        };
        let pages: Vec<_> = taken.iter().map(owned).collect();

        assert_eq!(Roster::of_pages(pages.clone()).as_ref(), Some(&roster));
        let only = roster.on_pages(&[1].into());
        assert_eq!((only.len(), only[0].0, owned(&only[0])), (1, 1, pages[1].clone()));

        let written = serde_json::to_string(&roster).unwrap();
        assert_eq!(serde_json::from_str::<Roster>(&written).unwrap(), roster);

        let mut twice = pages.clone();
        twice[2][0] = twice[0][0].clone();
        assert!(Roster::of_pages(twice).is_none(), "a name stands there twice");
        let mut torn = pages;
        torn[0].pop();
        assert!(Roster::of_pages(torn).is_none(), "a page is not full");
    }
}
