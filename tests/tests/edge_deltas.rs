//! Devices behind a site's edge that update by delta: what there is of deltas is asked once, and each pack crosses once.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tern_agent::core::state::State;
use tern_agent::core::way::Way;
use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Delta, Profile, encode};
use tern_protocol::digest::Digest;
use tern_tests::lab::{About, LabDevice, LabSite, MODEL, Making, Records, Wan, made, moved, wait};

const LENGTH: usize = 2_000_000;
const MOST: Duration = Duration::from_secs(120);

/// A site whose devices run release 1, and release 2, of which the service makes no deltas.
struct Scene {
    site: LabSite,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        Self::with("", LENGTH)
    }

    /// With lines more about the edge's upstream, and images of `length` bytes.
    fn with(lines: &str, length: usize) -> Self {
        let site = LabSite::start(lines);
        let (factory, image) = (site.lab.path("factory.img"), site.lab.path("new.img"));
        made(&factory, length, 1);
        let old = std::fs::read(&factory).unwrap();
        let new = moved(&old, 2);
        std::fs::write(&image, &new).unwrap();
        site.lab.publish_with(2, &image, &[MODEL], "--no-deltas");
        Self { site, old, new }
    }

    /// Has the chunk server offer a delta from release 1 to release 2.
    fn offer(&self) -> Delta {
        let options = Options { pack: 16 * 1024, ..Options::new(Profile::SmallLinux) };
        let delta = encode(&self.old, &self.new, options);
        self.site.lab.offer_delta(&delta);
        delta
    }

    /// Starts devices, and waits until they are enrolled.
    fn devices(&self, count: usize, name: &str, making: &Making) -> Vec<LabDevice> {
        let device = |n| self.site.device(&format!("{name}-{n}"), making);
        let mut devices: Vec<_> = (0..count).map(device).collect();
        devices.iter_mut().for_each(LabDevice::start);
        self.site.lab.wait_for_hellos();
        devices
    }

    /// Waits until all hold the release, and have fetched it in this way.
    fn all_hold<'a>(&self, devices: impl IntoIterator<Item = &'a LabDevice>, by: &str) {
        for device in devices {
            let found = wait(&format!("{} to hold the release", device.name), MOST, || {
                way(device).filter(|_| device.slot("b") == self.new)
            });
            assert_eq!(found, by, "{}", device.name);
        }
    }

    fn completes(&self) {
        let done = self.site.lab.wait_for_status("second", "completed", MOST);
        assert_eq!(done["total"]["bad"].as_u64().unwrap_or(0), 0, "{done}");
    }
}

/// By which way a device has fetched its release.
fn way(device: &LabDevice) -> Option<String> {
    let log = device.log();
    let (_, rest) = log.split_once("by=\"")?;
    Some(rest.split('"').next()?.to_owned())
}

fn downloaded(wan: &Wan) -> u64 {
    wan.bytes(About::Packs) + wan.bytes(About::Bundles)
}

/// How often each question about deltas went up.
fn asked(wan: &Wan) -> BTreeMap<(String, Digest), usize> {
    wan.questions().into_iter().fold(BTreeMap::new(), |mut asked, question| {
        *asked.entry(question).or_default() += 1;
        asked
    })
}

#[test]
fn a_site_updates_by_one_copy_of_a_delta_and_has_it_while_it_is_cut_off() {
    let mut scene = Scene::new();
    let delta = scene.offer();
    let parts = delta.packs.len() as u64 + 1;
    let site = &scene.site;
    let behind = scene.devices(4, "cam", &site.making());
    let mut late = scene.devices(1, "late", &site.making());
    late[0].kill();
    // The control: two devices that have no edge share a link, on which the same bounds are missed.
    let link = Wan::to(site.lab.mqtt);
    let direct = scene.devices(2, "direct", &LabSite::behind(link.address));

    site.roll_out(2, "second", &json!({"arm": "fresh"}));
    scene.all_hold(behind.iter().chain(&direct), "delta");

    let (all, one) = (downloaded(&site.wan), downloaded(&link) / 2);
    let text = format!(
        "delta {} B in {} packs: 4 devices behind an edge {all} B downloaded, one without {one} B\n",
        delta.manifest.bytes,
        delta.packs.len()
    );
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
    assert!(one > delta.manifest.bytes && one < delta.manifest.bytes * 3 / 2, "{one}");
    assert!(all * 100 <= one * 105, "{all} against {one}");
    assert_eq!((site.wan.packs(), link.packs()), ((parts, 0), (2 * parts, parts)));
    let questions = asked(&site.wan);
    assert_eq!(questions.len(), 2, "from what runs, and from nothing: {questions:?}");
    assert!(questions.values().all(|times| *times == 1), "{questions:?}");
    assert_eq!(asked(&link).len(), 2 * 2);

    // What is known of the delta survives the process too.
    site.wan.cut(true);
    scene.site.edge.kill();
    scene.site.edge.start();
    late[0].start();
    scene.all_hold(&late, "delta");
    scene.site.wan.cut(false);
    scene.completes();
}

#[test]
fn a_device_that_asks_when_its_site_is_cut_off_waits_for_the_delta_and_takes_it() {
    let scene = Scene::new();
    let delta = scene.offer();
    let site = &scene.site;
    let inside = Wan::to(site.edge.address());
    let devices = scene.devices(1, "cam", &LabSite::behind(inside.address));
    site.wan.delay(Duration::from_secs(3));
    site.roll_out(2, "second", &json!({}));
    wait("the question", MOST, || (!asked(&inside).is_empty()).then_some(()));

    site.wan.cut(true);

    // Twice unanswered was once enough for the image as it is, whose bytes then came over the link.
    wait("it to ask again and again", MOST, || {
        asked(&inside).values().all(|times| *times >= 4).then_some(())
    });
    assert_eq!(way(&devices[0]), None);
    site.wan.delay(Duration::ZERO);
    site.wan.cut(false);
    scene.all_hold(&devices, "delta");
    assert!(site.wan.bytes(About::Packs) < delta.manifest.bytes * 11 / 10);
    scene.completes();
}

#[test]
fn that_there_is_no_delta_is_asked_once_and_nobody_waits_for_it() {
    let scene = Scene::new();
    let site = &scene.site;
    let inside = Wan::to(site.edge.address());
    // A device that is not answered within 10 s asks again.
    let making = Making {
        usual_waits: true,
        timing: "heartbeat = 4.0\nretained_wait = 1.0\nresend_first = 1.0".into(),
        ..LabSite::behind(inside.address)
    };
    let devices = scene.devices(3, "cam", &making);

    site.roll_out(2, "second", &json!({}));
    scene.all_hold(&devices, "chunks");

    let (outside, inside) = (asked(&site.wan), asked(&inside));
    assert_eq!((inside.len(), inside.values().sum::<usize>()), (6, 6), "{inside:?}");
    assert_eq!((outside.len(), outside.values().sum::<usize>()), (2, 2), "{outside:?}");
}

#[test]
fn a_chunk_server_that_says_nothing_of_deltas_keeps_one_device_waiting_and_no_other() {
    let scene = Scene::new();
    let site = &scene.site;
    site.wan.mute_deltas();
    let (first, others) = (Wan::to(site.edge.address()), Wan::to(site.edge.address()));
    let mut late = scene.devices(2, "late", &LabSite::behind(others.address));
    late.iter_mut().for_each(LabDevice::kill);
    let early = scene.devices(1, "early", &LabSite::behind(first.address));

    site.roll_out(2, "second", &json!({}));
    scene.all_hold(&early, "chunks");
    wait("the site to take silence for an answer", MOST, || {
        site.edge.log().contains("says nothing about a delta").then_some(())
    });
    late.iter_mut().for_each(LabDevice::start);
    scene.all_hold(&late, "chunks");

    let [first, others] = [asked(&first), asked(&others)];
    // The control: whoever is not answered asks twice.
    assert_eq!((first.len(), first.values().sum::<usize>()), (2, 4), "{first:?}");
    assert_eq!((others.len(), others.values().sum::<usize>()), (4, 4), "{others:?}");
    assert_eq!(asked(&site.wan).values().sum::<usize>(), 2);
    scene.completes();
}

/// An edge that is killed whenever a pack of the delta has passed its link.
#[test]
fn an_edge_that_is_killed_at_every_pack_of_a_delta_fetches_none_again_that_it_had() {
    const WINDOW: u64 = 2;
    let mut scene = Scene::with(&format!("window = {WINDOW}"), 700_000);
    let delta = scene.offer();
    // A machine that is fast enough has the whole delta before anybody has looked twice.
    scene.site.wan.delay(Duration::from_millis(300));
    let devices = scene.devices(1, "cam", &scene.site.making());
    scene.site.roll_out(2, "second", &json!({}));

    let (mut kills, mut seen) = (0, 0);
    loop {
        let passed = wait("another pack, or the end", MOST, || {
            let passed = scene.site.wan.passed().len();
            (passed > seen || devices[0].slot("b") == scene.new).then_some(passed)
        });
        if devices[0].slot("b") == scene.new {
            break;
        }
        seen = passed;
        scene.site.edge.kill();
        kills += 1;
        let (had, _) = scene.site.edge.cached();
        scene.site.edge.start();
        wait("one more pack, or the end", MOST, || {
            (scene.site.wan.passed().len() > seen || devices[0].slot("b") == scene.new).then_some(())
        });
        let again: Vec<_> = scene.site.wan.passed().drain(seen..).filter(|part| had.contains(part)).collect();
        assert_eq!(again, [], "after kill {kills}: the edge had {had:?}");
    }

    scene.all_hold(&devices, "delta");
    scene.completes();
    let (all, twice) = scene.site.wan.packs();
    println!("{kills} kills, {twice} of {all} twice, {} packs", delta.packs.len());
    assert!(
        kills >= delta.packs.len() as u64 / 2 && twice <= WINDOW * kills,
        "{kills} kills, {twice} of {all} twice"
    );
}

/// An agent that is killed whenever it has decoded another pack: what it had decoded it never asks for again.
#[test]
fn an_agent_that_is_killed_at_every_pack_of_a_delta_fetches_none_again_that_it_had() {
    let scene = Scene::new();
    let delta = scene.offer();
    let of = delta.manifest.root.short();
    let wan = Wan::to(scene.site.lab.mqtt);
    wan.delay(Duration::from_millis(100));
    let mut device = scene.devices(1, "cam", &LabSite::behind(wan.address)).remove(0);
    let records = Records::of(&device);
    scene.site.roll_out(2, "second", &json!({}));
    let decoded = || match records.journal()?.state {
        State::Downloading { way: Way::Delta(course), .. } => Some(course.decoded),
        _ => None,
    };
    let packs = |from: usize| {
        let passed = wan.passed().split_off(from);
        passed.into_iter().filter(|(root, level, _)| (*root, *level) == (of, 9)).map(|(.., index)| index)
    };

    let (mut kills, mut at) = (Vec::new(), 0);
    while wait("another pack, or the end", MOST, || match decoded() {
        Some(decoded) if decoded > at => Some(true),
        _ => (device.slot("b") == scene.new).then_some(false),
    }) {
        device.kill();
        at = decoded().unwrap_or(at);
        kills.push((wan.passed().len(), at));
        device.start();
    }

    scene.all_hold([&device], "delta");
    scene.completes();
    for (passed, at) in &kills {
        let again: Vec<u32> = packs(*passed).filter(|index| index < at).collect();
        assert!(again.is_empty(), "killed with {at} decoded, it had these again: {again:?}");
    }
    let (count, all) = (delta.packs.len(), packs(0).count());
    let twice = all - packs(0).collect::<BTreeSet<_>>().len();
    println!("{} kills, {twice} of {all} twice, {count} packs", kills.len());
    // Those that were in memory or not synced, and one on the link.
    const WINDOW: usize = 8 + 4 + 1;
    assert!(
        kills.len() >= 3 && twice <= WINDOW * kills.len(),
        "{} kills, {twice} of {all} twice",
        kills.len()
    );
}
