//! A site whose devices update behind an edge, over a link that is counted: each pack crosses it once.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_tests::lab::{About, Lab, LabBridge, LabDevice, LabEdge, Making, Wan, made, wait};

const RELEASE: usize = 3_000_000;

struct Scene {
    devices: Vec<LabDevice>,
    edge: LabEdge,
    wan: Wan,
    lab: Lab,
    _bridge: LabBridge,
}

fn making(broker: std::net::SocketAddr) -> Making {
    Making { broker: Some(broker), capacity: 8 * 1024 * 1024, ..Making::default() }
}

/// A service, the fleet's broker, and a site with devices that have said hello.
fn scene(devices: usize, more: &str) -> Scene {
    let mut bridge = LabBridge::prepare();
    let lab = Lab::start_with(bridge.broker());
    bridge.configure(&lab.data().join("images"));
    bridge.start();
    let (upstream, users) = bridge.for_sites();
    let wan = Wan::to(upstream);
    let mut edge = LabEdge::make("hut", &users, wan.address, more);
    edge.start();
    let factory = lab.path("factory.img");
    made(&factory, 200_000, 1);
    let make = |number| LabDevice::make(&lab, &format!("cam-{number}"), &factory, &making(edge.address()));
    let mut devices: Vec<_> = (0..devices).map(make).collect();
    devices.iter_mut().for_each(LabDevice::start);
    lab.wait_for_hellos();
    Scene { devices, edge, wan, lab, _bridge: bridge }
}

impl Scene {
    fn publish(&self, length: usize) {
        let image = self.lab.path("new.img");
        made(&image, length, 2);
        self.lab.publish(2, &image);
    }
}

#[test]
fn a_site_updates_over_one_copy_and_its_reports_arrive() {
    let count = if std::env::var_os("TERN_EDGE_DEVICES").is_some() { 200 } else { 20 };
    let mut scene = scene(count, "");
    // One more, with a link of its own: what one device costs.
    let alone = Wan::to(scene.lab.mqtt);
    let factory = scene.lab.path("factory.img");
    let mut device = LabDevice::make(&scene.lab, "cam-alone", &factory, &making(alone.address));
    device.start();
    scene.lab.wait_for_hellos();
    let own = |wan: &Wan| wan.bytes(About::Packs) + wan.bytes(About::Bundles);
    let before = (own(&scene.wan), own(&alone));

    scene.publish(RELEASE);
    scene.lab.roll_out(2, "second", "100%", 1);

    let done = scene.lab.wait_for_status("second", "completed", Duration::from_secs(300));
    assert_eq!(done["counts"]["bad"].as_u64().unwrap_or(0), 0, "{done}");
    let (site, one) = (own(&scene.wan) - before.0, own(&alone) - before.1);
    assert!(one as usize > RELEASE, "{one}");
    assert!(site as f64 <= 1.05 * one as f64, "the site took {site} B, one device {one} B");
    assert_eq!(scene.wan.packs().1, 0, "no pack twice");
    let image = std::fs::read(scene.lab.path("new.img")).unwrap();
    wait("every device to run the release", Duration::from_secs(60), || {
        scene.devices.iter().all(|device| device.slot("b") == image).then_some(())
    });
    let status = wait("the site to have said everything", Duration::from_secs(30), || {
        Some(scene.edge.status())
            .filter(|status| status["queue"] == 0 && status["seen"].as_array().unwrap().len() == count)
    });
    assert!(status["site"]["hits"].as_u64().unwrap() >= 19 * 46, "{status}");
    assert_eq!(status["site"]["refused"], 0, "{status}");
    let text = format!(
        "{count} devices: {site} B for the site, {one} B for one device alone; reports {} B, one device {} B\n",
        scene.wan.bytes(About::Reports),
        alone.bytes(About::Reports)
    );
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
}
