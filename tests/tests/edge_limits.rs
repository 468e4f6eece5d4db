//! A site's edge that is killed, lied to, and short of room.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use serde_json::json;
use tern_tests::lab::{LabDevice, LabEdge, LabSite, MODEL, SmallDisk, wait};

/// A release of `chunks` chunks is rolled out to one device.
fn offered(site: &LabSite, chunks: usize, count: usize) -> (Vec<LabDevice>, Vec<u8>) {
    let making = site.making();
    let mut devices: Vec<_> = (0..count).map(|n| site.device(&format!("cam-{n}"), &making)).collect();
    devices.iter_mut().for_each(LabDevice::start);
    site.lab.wait_for_hellos();
    let image = site.publish(2, chunks * 65_536 - 7, &[MODEL]);
    site.roll_out(2, "second", &json!({}));
    (devices, image)
}

fn completes(site: &LabSite, devices: &[LabDevice], image: &[u8]) {
    let done = site.lab.wait_for_status("second", "completed", Duration::from_secs(240));
    assert_eq!(done["total"]["bad"].as_u64().unwrap_or(0), 0, "{done}");
    wait("every device to run the release", Duration::from_secs(60), || {
        devices.iter().all(|device| device.slot("b") == image).then_some(())
    });
}

#[test]
fn an_edge_that_is_killed_at_every_pack_fetches_none_again_that_it_had() {
    const CHUNKS: usize = 10;
    const WINDOW: u64 = 2;
    let mut site = LabSite::start(&format!("window = {WINDOW}"));
    // A machine that is fast enough has the whole image before anybody has looked twice.
    site.wan.delay(Duration::from_millis(300));
    let (devices, image) = offered(&site, CHUNKS, 1);
    let mut kills = 0;
    let mut seen = 0;
    loop {
        let passed = wait("another pack, or the end", Duration::from_secs(90), || {
            let passed = site.wan.passed().len();
            (passed > seen || devices[0].slot("b") == image).then_some(passed)
        });
        if devices[0].slot("b") == image {
            break;
        }
        seen = passed;
        site.edge.kill();
        kills += 1;
        let (had, _) = site.edge.cached();
        let before = site.wan.passed().len();
        site.edge.start();
        wait("one more pack, or the end", Duration::from_secs(90), || {
            (site.wan.passed().len() > before || devices[0].slot("b") == image).then_some(())
        });
        let again: Vec<_> = site.wan.passed().drain(before..).filter(|part| had.contains(part)).collect();
        assert_eq!(again, [], "after kill {kills}: the edge had {had:?}");
    }

    completes(&site, &devices, &image);
    let (all, twice) = site.wan.packs();
    assert!(kills >= 3 && twice <= WINDOW * kills, "{kills} kills, {twice} of {all} twice");
}

#[test]
fn a_pack_that_is_spoilt_on_the_link_is_refused_and_fetched_again() {
    const SPOILT: u32 = 5;
    let site = LabSite::start("");
    site.wan.spoil(2, SPOILT);
    let (devices, image) = offered(&site, 20, 2);

    completes(&site, &devices, &image);

    assert_eq!((site.wan.spoilt(), site.wan.packs().1), (2 + SPOILT, 0));
    let refused = wait("the count", Duration::from_secs(30), || {
        Some(site.edge.status()["site"]["refused"].as_u64()?).filter(|refused| *refused > 0)
    });
    assert_eq!(refused, u64::from(SPOILT));
}

#[test]
fn a_part_that_was_damaged_on_the_disk_is_not_served() {
    let mut site = LabSite::start("");
    let (mut devices, image) = offered(&site, 8, 1);
    completes(&site, &devices, &image);
    site.edge.kill();
    let mut damaged = 0;
    for shelf in std::fs::read_dir(site.edge.folder().join("cache")).unwrap().flatten() {
        for file in std::fs::read_dir(shelf.path()).into_iter().flatten().flatten() {
            let mut bytes = std::fs::read(file.path()).unwrap();
            bytes[0] ^= 1;
            std::fs::write(file.path(), bytes).unwrap();
            damaged += 1;
        }
    }
    site.edge.start();

    let mut late = site.device("cam-late", &site.making());
    late.start();
    devices.push(late);

    wait("the late device to run the release", Duration::from_secs(180), || {
        (devices[1].slot("b") == image).then_some(())
    });
    assert_eq!(damaged, 8 + 1);
    assert_eq!(site.wan.packs(), (18, 9), "all of it once more, and nothing a third time");
}

#[test]
fn the_cache_stays_below_its_bound_while_more_than_it_holds_passes() {
    const BOUND: u64 = 1 << 20;
    let site = LabSite::start(&format!("cache_bytes = {BOUND}"));
    let (devices, image) = offered(&site, 40, 2);

    completes(&site, &devices, &image);

    let (parts, bytes) = site.edge.cached();
    assert!(bytes <= BOUND && parts.len() >= 14, "{bytes} B in {} parts", parts.len());
}

#[test]
fn an_edge_whose_disk_is_full_passes_packs_and_reports_through() {
    let mount = tempfile::tempdir().unwrap();
    let folder = mount.path().join("site");
    let Some(disk) = SmallDisk::mount(&folder, 4096) else { return };
    let mut site = LabSite::prepare(|users, upstream| {
        LabEdge::make_in(tempfile::tempdir().unwrap(), folder, "hut", users, upstream, "")
    });
    site.edge.start();
    disk.fill();

    let (devices, image) = offered(&site, 12, 2);
    completes(&site, &devices, &image);

    assert!(site.edge.log().contains("packs pass through memory"), "{}", site.edge.log());
    assert!(site.edge.cached().0.len() < 12);
    disk.free();
    let status = wait("the site to be able to say how it is", Duration::from_secs(30), || {
        Some(site.edge.status()).filter(|status| status["queue"] == 0)
    });
    assert_eq!(status["site"]["dropped"], 0, "{status}");
}
