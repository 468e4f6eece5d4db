//! A release of several components and variants, from its draft to what each device makes of the signed files.

use tern_protocol::id::DeviceId;
use tern_protocol::offer::{Device, NothingBecause, Selection, select};
use tern_protocol::tuf::{Role, Trusted};

use super::*;

impl Scene {
    fn add_on(&mut self, name: &str, carrier: &str) {
        let registry = Registry {
            product: self.product.clone(),
            model: "b3".parse().unwrap(),
            carrier: carrier.parse().unwrap(),
            region: "eu".parse().unwrap(),
        };
        let key = p256::SecretKey::from_slice(&[9; 32]).unwrap();
        let identity = tern_protocol::tuf::content::point_hex(&key.public_key());
        let devices = vec![DeviceEntry { device: name.parse().unwrap(), identity, registry }];
        self.command(Command::AddUnsignedDevices { devices }).unwrap();
    }

    /// An artifact whose image is so many bytes long, and which is for one carrier.
    fn part(&self, component: &str, carrier: Option<&str>, length: usize) -> NewArtifact {
        let image = self.home.path().join("image");
        std::fs::write(&image, vec![7; length]).unwrap();
        let image = measure(&image, |_| {}).unwrap();
        NewArtifact {
            variant: carrier.map(|carrier| carrier.parse().unwrap()),
            carriers: carrier.into_iter().map(|carrier| carrier.parse().unwrap()).collect(),
            ..NewArtifact::new(component, vec!["b3".parse().unwrap()], image)
        }
    }

    fn signed_parts(&self, rc: u64, artifacts: Vec<NewArtifact>) -> String {
        let published = &self.service.fleet().products[&self.product].files[&Role::Release];
        let previous = ReleaseDocument::read("previous", published.as_bytes()).unwrap();
        let expires = (NOW + 100 * DAY) / 1000;
        let (product, version) = (self.product.clone(), "2026.4".to_owned());
        let new = NewRelease { product, rc, version, min_from: 0, floor: 0, artifacts, expires };
        let (bytes, _) = draft(&previous, &new).unwrap();
        let key = keys::load_signer(&self.home.path().join("offline/release.pem")).unwrap();
        String::from_utf8(sign(&bytes, &key).unwrap()).unwrap()
    }

    /// What a registered device makes of all that is signed.
    fn selects(&self, name: &str) -> Selection {
        let fleet = self.service.fleet();
        let id: DeviceId = name.parse().unwrap();
        let registry = &fleet.devices[&id].registry;
        let trusted = Trusted::restore(&fleet.products[&self.product].signed(&Role::ALL)).unwrap();
        let device = Device {
            id: &id,
            product: &registry.product,
            model: &registry.model,
            carrier: &registry.carrier,
            region: &registry.region,
            running: 1,
        };
        select(&trusted.current().unwrap(), &device)
    }

    /// The lengths of the images that it takes, in the order of installation.
    fn takes(&self, name: &str) -> Vec<u64> {
        match self.selects(name) {
            Selection::Offer(offer) => offer.artifacts.iter().map(|artifact| artifact.length).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_device_of_a_rollout_takes_the_variants_of_its_own_carrier_and_all_of_the_release() {
    let mut scene = Scene::new();
    for (name, carrier) in [("cam-2", "acme"), ("cam-3", "best")] {
        scene.add_on(name, carrier);
    }
    let mut app = scene.part("app", None, 1000);
    app.order = 1;
    let modems = [(Some("acme"), 3000), (Some("best"), 4000), (None, 5000)];
    let mut artifacts = vec![app];
    artifacts.extend(modems.map(|(carrier, length)| scene.part("modem", carrier, length)));

    scene.publish(&scene.signed_parts(2, artifacts)).unwrap();
    scene.start("r2", 2).unwrap();

    assert_eq!(scene.takes("cam-1"), [5000, 1000], "carrier none, to which no variant is bound");
    assert_eq!(scene.takes("cam-2"), [3000, 1000]);
    assert_eq!(scene.takes("cam-3"), [4000, 1000]);
    let Selection::Offer(offer) = scene.selects("cam-1") else { panic!("no offer") };
    assert_eq!(offer.version, "2026.4");
}

#[test]
fn a_device_that_no_variant_is_for_is_offered_nothing_and_the_others_all() {
    let mut scene = Scene::new();
    scene.add_on("cam-2", "acme");
    let artifacts = vec![scene.part("app", None, 1000), scene.part("modem", Some("acme"), 3000)];

    scene.publish(&scene.signed_parts(2, artifacts)).unwrap();
    scene.start("r2", 2).unwrap();

    assert_eq!(scene.takes("cam-2"), [1000, 3000]);
    let none = NothingBecause::NoVariant { rc: 2, component: "modem".into() };
    assert_eq!(scene.selects("cam-1"), Selection::Nothing(none));
}

#[test]
fn a_condition_is_part_of_what_was_published_under_a_counter() {
    let mut scene = Scene::new();
    let one = |scene: &Scene, carrier| vec![scene.part("modem", carrier, 3000)];
    scene.publish(&scene.signed_parts(2, one(&scene, Some("acme")))).unwrap();
    let file: serde_json::Value =
        serde_json::from_str(&scene.service.fleet().products[&scene.product].files[&Role::Release]).unwrap();
    let mut signed = file["signed"].clone();
    signed["version"] = (signed["version"].as_u64().unwrap() + 1).into();
    signed["targets"]["cam/2/modem@acme"]["custom"]["carriers"] = serde_json::json!(["acme", "best"]);
    let key = keys::load_signer(&scene.home.path().join("offline/release.pem")).unwrap();
    let wider = tern_protocol::tuf::sign::sign(signed, &[&key]).unwrap();

    let refused = scene.publish(&String::from_utf8(wider).unwrap()).unwrap_err();

    assert!(refused.what.contains("other bytes or conditions"), "{refused}");
}
