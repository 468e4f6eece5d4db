//! Devices that a release does nothing for: it has no artifact for them, or requires what they do not run.

use std::collections::BTreeMap;

use tern_protocol::message::Registry;
use tern_protocol::offer::{Artifact, satisfied};

use super::components::Versions;
use super::device::Device;
use super::product::Release;

/// What a release would do with some devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfits {
    /// Devices for which a component has nothing, by which and for whom.
    pub no_variant: BTreeMap<String, u64>,
    /// Devices that would refuse it, by why.
    pub unmet: BTreeMap<String, u64>,
    /// Bytes of the images that a device takes, at most.
    pub bytes: u64,
}

impl Misfits {
    /// Judges devices as the registry and their reports have them.
    pub fn of<'a>(release: &'a Release, devices: impl Iterator<Item = &'a Device>) -> Self {
        // Few kinds of devices make many of them, so each kind is judged once.
        let mut kinds: BTreeMap<(&Registry, &Versions), u64> = BTreeMap::new();
        for device in devices {
            *kinds.entry((&device.registry, device.components.versions())).or_default() += 1;
        }
        let mut misfits = Self::default();
        for ((registry, components), count) in kinds {
            match release.for_device(registry) {
                Err(none) => {
                    let Registry { model, carrier, region, .. } = registry;
                    let component = none.component;
                    let why = format!("no {component} for model {model}, carrier {carrier}, region {region}");
                    *misfits.no_variant.entry(why).or_default() += count;
                }
                Ok(artifacts) => {
                    if let Err(unmet) = satisfied(&artifacts, components) {
                        *misfits.unmet.entry(unmet.to_string()).or_default() += count;
                    }
                    let bytes = artifacts.iter().map(|artifact: &Artifact| artifact.length).sum();
                    misfits.bytes = misfits.bytes.max(bytes);
                }
            }
        }
        misfits
    }
}

#[cfg(test)]
mod tests {
    use tern_protocol::digest::Digest;
    use tern_protocol::tuf::build::Named;
    use tern_protocol::tuf::content::ArtifactContent;

    use super::super::components::Inventory;
    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn device(model: &str, carrier: &str, components: &[(&str, &str)]) -> Device {
        let registry =
            Registry { product: name("cam"), model: name(model), carrier: name(carrier), region: name("eu") };
        let of = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        let components = Inventory::default().share(&components.iter().map(of).collect());
        Device { components, ..Device::new("04".into(), registry) }
    }

    /// A modem for carrier c1 and one for c2, each for its models, and an app that requires a boot loader.
    fn release() -> Release {
        let artifact = |part: &str, models: &[&str], length: u64| {
            let component = part.split('@').next().unwrap();
            let models = models.iter().map(|model| name(model)).collect();
            let mut content = ArtifactContent::new(7, "1", component, models, Digest([1; 32]));
            content.carriers = part.split_once('@').map(|(_, carrier)| name(carrier)).into_iter().collect();
            if part == "app" {
                content.requires = [("boot".to_owned(), name(">=3"))].into();
            }
            (Named { path: format!("cam/7/{part}"), length, sha256: Digest([1; 32]) }, content)
        };
        let artifacts = vec![
            artifact("app", &["m1", "m2"], 100),
            artifact("modem@c1", &["m1"], 10),
            artifact("modem@c2", &["m1", "m2"], 20),
        ];
        Release { rc: 7, version: "7".into(), artifacts }
    }

    #[test]
    fn devices_are_counted_by_why_a_release_does_nothing_for_them() {
        let fleet = [
            device("m1", "c1", &[("boot", "3.1")]),
            device("m1", "c2", &[("boot", "3.1")]),
            device("m1", "c1", &[("boot", "2.9")]),
            device("m2", "c2", &[]),
            device("m1", "none", &[("boot", "3.1")]),
            device("m1", "none", &[]),
            device("m2", "c1", &[("boot", "3.1")]),
        ];

        let misfits = Misfits::of(&release(), fleet.iter());

        let no_variant = [
            ("no modem for model m1, carrier none, region eu", 2),
            ("no modem for model m2, carrier c1, region eu", 1),
        ];
        assert_eq!(misfits.no_variant, no_variant.map(|(why, count)| (why.to_owned(), count)).into());
        let unmet = [
            ("app 1 requires boot >=3, running is \"2.9\"", 1),
            ("app 1 requires boot >=3, and no version of boot is known", 1),
        ];
        assert_eq!(misfits.unmet, unmet.map(|(why, count)| (why.to_owned(), count)).into());
        assert_eq!(misfits.bytes, 120, "the larger modem");
    }

    #[test]
    fn a_release_is_for_the_models_that_have_something_of_every_component() {
        let mut release = release();
        assert_eq!(release.models(), [name("m1"), name("m2")].into());
        release.artifacts.pop();
        assert_eq!(release.models(), [name("m1")].into());
    }
}
