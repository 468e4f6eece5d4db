//! A site whose devices update behind an edge, over a link that is counted: each pack crosses it once.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tern_protocol::message::SiteStatus;
use tern_tests::lab::{About, LabDevice, LabEdge, LabSite, MODEL, Uplink, Wan, wait};

const RELEASE: usize = 3_000_000;
/// Chunks of the release, and the piece that proves them.
const PARTS: u64 = 46 + 1;

/// What passes a link but reports: packs, what is asked for them, signed files, and what keeps the connection.
fn downloaded(wan: &Wan) -> u64 {
    [About::Packs, About::Bundles, About::Connection].into_iter().map(|kind| wan.bytes(kind)).sum()
}

/// Devices that connect there take release 2; returns once all run it.
fn update(site: &LabSite, count: usize, broker: SocketAddr) -> Vec<LabDevice> {
    let making = LabSite::behind(broker);
    let mut devices: Vec<_> = (0..count).map(|n| site.device(&format!("cam-{n}"), &making)).collect();
    devices.iter_mut().for_each(LabDevice::start);
    devices
}

fn roll_out(site: &LabSite, devices: &[LabDevice]) {
    site.lab.wait_for_hellos();
    let image = site.publish(2, RELEASE, &[MODEL]);
    site.roll_out(2, "second", &json!({}));
    let done = site.lab.wait_for_status("second", "completed", Duration::from_secs(300));
    assert_eq!(done["total"]["bad"].as_u64().unwrap_or(0), 0, "{done}");
    wait("every device to run the release", Duration::from_secs(60), || {
        devices.iter().all(|device| device.slot("b") == image).then_some(())
    });
}

#[test]
fn a_site_updates_over_one_copy_and_its_reports_arrive() {
    let count = std::env::var("TERN_EDGE_DEVICES").map_or(20, |count| count.parse().unwrap());
    let site = LabSite::start("");
    let mut devices = update(&site, count, site.edge.address());
    // One more, with a link of its own: what one device costs.
    let alone = Wan::to(site.lab.mqtt);
    let mut device = site.device("cam-alone", &LabSite::behind(alone.address));
    device.start();
    devices.push(device);

    roll_out(&site, &devices);

    let status = wait("the site to have said everything", Duration::from_secs(60), || {
        Some(site.edge.status()).filter(|status| status["queue"] == 0)
    });
    let (all, one) = (downloaded(&site.wan), downloaded(&alone));
    let text = format!(
        "{count} devices behind an edge: {all} B without reports, one device alone {one} B; reports {} B, of one device {} B; {status}\n",
        site.wan.bytes(About::Reports),
        alone.bytes(About::Reports)
    );
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
    assert!(one > RELEASE as u64, "{one}");
    assert!(all * 100 <= one * 105, "{all} against {one}");
    assert_eq!(site.wan.packs(), (PARTS, 0), "each part once");
    assert_eq!(status["seen"].as_array().unwrap().len(), count, "{status}");
    let figure = |name: &str| status["site"][name].as_u64().unwrap();
    assert!(figure("hits") >= (count as u64 - 1) * PARTS, "{status}");
    // And what was said of deltas: two answers, and two more after every minute.
    assert!((PARTS + 2..=PARTS + 12).contains(&figure("fetched")), "{status}");
    wait("the site to count what the link counts, but for what makes a connection", PATIENCE, || {
        let status = site.edge.status();
        let counted = status["site"]["down"].as_u64()? + status["site"]["up"].as_u64()?;
        let link = downloaded(&site.wan) + site.wan.bytes(About::Reports);
        (counted..counted + 512).contains(&link).then_some(())
    });
    let said = site.wan.sent().into_iter().rfind(|message| message.topic.ends_with("/status")).unwrap();
    let said: SiteStatus = serde_json::from_slice(&said.payload).unwrap();
    assert!(said.online && said.figures.is_some(), "{said:?}");
}

/// The same bound, without an edge: it does not hold, so it can be missed.
#[test]
fn should_find_devices_that_each_fetch_their_own_copy() {
    let site = LabSite::prepare(|users, upstream| LabEdge::make("hut", users, upstream, ""));
    let wan = Wan::to(site.lab.mqtt);
    let devices = update(&site, 3, wan.address);

    roll_out(&site, &devices);

    assert!(downloaded(&wan) > 3 * RELEASE as u64);
    assert_eq!(wan.packs(), (3 * PARTS, 2 * PARTS));
}

#[test]
fn over_tls_a_site_is_known_by_its_certificate_or_its_password_and_leans_on_nobody_else() {
    let (site, tls) = LabSite::encrypted();
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let file = |name: &str| format!("{:?}", tls.folder.join(name));
    let own = format!("certificate = {{ certificate = {}, key = {} }}", file("site.pem"), file("site.key"));
    let authority = format!("ca = {}", file("ca.pem"));
    let link = Uplink::to(at(tls.port));
    let mut edge = LabEdge::known("hut", link.address, &format!("{own}\n{authority}"));
    edge.start();
    let devices = update(&site, 3, edge.address());

    roll_out(&site, &devices);

    let [_, down] = link.bytes();
    let status = edge.status();
    assert!(down > RELEASE as u64 && down * 10 < RELEASE as u64 * 12, "{down} B, {status}");
    drop((devices, edge));

    // The same site by its password.
    let (_, users) = site.bridge.for_sites();
    let by_password = Uplink::to(at(tls.by_password));
    let mut edge = LabEdge::make("hut", &users, by_password.address, &authority);
    edge.start();
    connects(&edge);
    by_password.cut(true);
    wait("it to be cut off", PATIENCE, || edge.status()["site"]["outage"].as_u64());
    by_password.cut(false);
    connects(&edge);

    // Controls: a broker of another authority, a certificate that is no site's, one that is another site's.
    let foreign = format!("{own}\nca = {}", file("site.pem"));
    let device = own.replace("site.", "device.");
    for (name, lines, said) in [
        ("hut", foreign, "certificate"),
        ("cam", format!("{device}\n{authority}"), "refused with code 5"),
        ("barn", format!("{own}\n{authority}"), "refused with code 2"),
    ] {
        let mut edge = LabEdge::known(name, at(tls.port), &lines);
        edge.start();
        wait(&format!("{name} to say {said}"), PATIENCE, || {
            let log = edge.log();
            log.lines().any(|line| line.contains("is cut off") && line.contains(said)).then_some(())
        });
        assert!(!edge.log().contains("is connected to upstream"), "{}", edge.log());
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn connects(edge: &LabEdge) {
    wait("the edge to be connected", PATIENCE, || {
        let status = edge.status();
        (status["online"] == true && status["site"]["outage"].is_null()).then_some(())
    });
}
