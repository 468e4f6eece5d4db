//! Versions of components as devices report them. Thousands run the same, and share one list of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tern_protocol::limits::{COMPONENT_MAX, COMPONENTS_MAX, VERSION_MAX};

/// From so many lists on, those that no device refers to any more are looked for.
const MANY: usize = 1024;

/// Component to version.
pub type Versions = BTreeMap<String, String>;

static NONE: Versions = Versions::new();

/// The components of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Components(Option<Arc<Versions>>);

impl Components {
    /// Returns the version of each.
    pub fn versions(&self) -> &Versions {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Serialize for Components {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.versions().serialize(to)
    }
}

/// For itself alone, until it is shared.
impl<'de> Deserialize<'de> for Components {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let versions = Versions::deserialize(from)?;
        Ok(Self((!versions.is_empty()).then(|| Arc::new(versions))))
    }
}

/// All lists, each once; two fleets are the same fleet whoever shares what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory(BTreeSet<Arc<Versions>>);

impl PartialEq for Inventory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Inventory {
    /// Returns the list that all share. What is beyond the ceilings is left out and not refused: a report that is never
    /// acknowledged would silence the device.
    pub(crate) fn share(&mut self, reported: &Versions) -> Components {
        let sound = |(name, version): &(&String, &String)| {
            (1..=COMPONENT_MAX).contains(&name.len()) && version.len() <= VERSION_MAX
        };
        if reported.len() > COMPONENTS_MAX || !reported.iter().all(|one| sound(&one)) {
            let kept = reported.iter().filter(sound).take(COMPONENTS_MAX);
            return self.share(&kept.map(|(name, version)| (name.clone(), version.clone())).collect());
        }
        if reported.is_empty() {
            return Components::default();
        }
        if let Some(known) = self.0.get(reported) {
            return Components(Some(known.clone()));
        }
        if self.0.len() >= MANY && self.0.len().is_power_of_two() {
            self.0.retain(|known| Arc::strong_count(known) > 1);
        }
        let fresh = Arc::new(reported.clone());
        self.0.insert(fresh.clone());
        Components(Some(fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(list: &[(&str, &str)]) -> Versions {
        list.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn devices_that_run_the_same_share_one_list_and_it_goes_with_the_last_of_them() {
        let mut inventory = Inventory::default();
        let reported = versions(&[("modem", "4.2"), ("rootfs", "1.0")]);
        let (one, other) = (inventory.share(&reported), inventory.share(&reported));
        assert!(Arc::ptr_eq(one.0.as_ref().unwrap(), other.0.as_ref().unwrap()));

        for number in 0..MANY {
            inventory.share(&versions(&[("rootfs", &number.to_string())]));
        }

        assert_eq!(inventory.0.len(), 2, "what a device has, and the newest");
        assert_eq!(inventory.share(&reported), one);
        assert_eq!(inventory.share(&Versions::new()), Components::default());
    }

    #[test]
    fn what_is_beyond_the_ceilings_is_left_out() {
        let mut inventory = Inventory::default();
        let long = "9".repeat(VERSION_MAX + 1);
        let some = inventory.share(&versions(&[("modem", "4.2"), ("boot", &long), ("", "1"), (&long, "1")]));
        assert_eq!(some.versions(), &versions(&[("modem", "4.2")]));

        let many: Versions = (0..=COMPONENTS_MAX).map(|n| (format!("c{n:02}"), "1".to_owned())).collect();
        assert_eq!(inventory.share(&many).versions().len(), COMPONENTS_MAX);
    }

    #[test]
    fn components_read_as_they_were_written() {
        for list in [versions(&[]), versions(&[("modem", "4.2"), ("rootfs", "1.0")])] {
            let components = Inventory::default().share(&list);
            let bytes = postcard::to_allocvec(&components).unwrap();
            assert_eq!(postcard::from_bytes::<Components>(&bytes).unwrap(), components);
            let text = serde_json::to_string(&components).unwrap();
            assert_eq!(serde_json::from_str::<Components>(&text).unwrap(), components);
        }
    }
}
