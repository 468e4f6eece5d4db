//! Updates by delta through real processes: what they cost, a base that is damaged, kills at every pack, forged packs.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::time::Duration;

use p256::ecdsa::SigningKey;
use tern_agent::core::state::State;
use tern_agent::core::way::Way;
use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Decoder, Delta, Profile, encode};
use tern_tests::lab::{Lab, LabDevice, Making, Records, Uplink, made, moved, wait};

/// Bytes of the images: enough for several windows of packs.
const LENGTH: usize = 3_000_000;
/// Packs that a device may have to fetch again after a kill: those in memory, and those that were not synced.
const WINDOW: u64 = 8 + 1 + 4;
const PACK: usize = 16 * 1024;
const MOST: Duration = Duration::from_secs(120);

/// A lab with release 2, a device that runs release 1 behind an uplink, and a delta from one to the other.
struct Scene {
    lab: Lab,
    uplink: Uplink,
    device: LabDevice,
    old: Vec<u8>,
    new: Vec<u8>,
    delta: Delta,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::start();
        let (factory, image) = (lab.path("old.img"), lab.path("new.img"));
        made(&factory, LENGTH, 1);
        let old = std::fs::read(&factory).unwrap();
        let new = moved(&old, 2);
        std::fs::write(&image, &new).unwrap();
        let uplink = Uplink::to(lab.mqtt);
        let making = Making { broker: Some(uplink.address), ..Making::default() };
        let device = LabDevice::make(&lab, "dev-1", &factory, &making);
        lab.publish(2, &image);
        let options = Options { pack: PACK, ..Options::new(Profile::SmallLinux) };
        let delta = encode(&old, &new, options);
        Self { lab, uplink, device, old, new, delta }
    }

    /// Starts the device, and waits until it is connected.
    fn start(&mut self) {
        self.device.start();
        self.lab.wait_for_hellos();
    }

    /// Waits until the rollout is over, and looks at what is there.
    fn ends(&self) {
        self.lab.wait_for_status("r2", "completed", MOST);
        assert_eq!(self.device.status()["active"], "b");
        assert!(self.device.slot("b")[..] == self.new[..], "slot b is not the new image");
    }

    /// What the agent has logged about a way.
    fn fetched(&self) -> Vec<String> {
        let log = self.device.log();
        log.lines().filter(|line| line.contains("fetched")).map(str::to_owned).collect()
    }

    fn damage(&self, places: impl Iterator<Item = usize>) -> Vec<u8> {
        let path = self.device.dir.join("slots/a.img");
        let mut bytes = self.old.clone();
        places.for_each(|at| bytes[at] ^= 0xff);
        write_through(&path, &bytes);
        bytes
    }
}

/// Changes a file that others have open, in its place.
fn write_through(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

#[test]
fn an_update_by_delta_costs_what_the_delta_weighs() {
    let mut scene = Scene::new();
    scene.lab.offer_delta(&scene.delta);
    scene.start();
    let before = scene.uplink.bytes();

    scene.lab.roll_out(2, "r2", "all", 0);
    scene.ends();

    let after = scene.uplink.bytes();
    let [up, down] = [after[0] - before[0], after[1] - before[1]];
    let delta = scene.delta.manifest.bytes;
    println!("delta {delta} B in {} packs; {down} B down, {up} B up", scene.delta.packs.len());
    assert!(scene.fetched()[0].contains("by=\"delta\""), "{:?}", scene.fetched());
    // Reports, signed files and two boots are in it.
    assert!(down > delta && down < delta + delta / 20 + 20_000, "{down} B down for a delta of {delta} B");
}

#[test]
fn a_base_that_is_damaged_is_repaired_with_few_bytes() {
    let mut scene = Scene::new();
    scene.lab.offer_delta(&scene.delta);
    scene.start();
    // After it came up: the boot loader of files looks at what it boots.
    let base = scene.damage([1_000_000, 2_400_000].into_iter());
    let unrepaired = decoded(&scene.delta, &base);

    scene.lab.roll_out(2, "r2", "all", 0);
    scene.ends();

    assert!(unrepaired.is_none_or(|bytes| bytes != scene.new), "the damage would have done no harm");
    println!("{:?}", scene.fetched());
    let [_, down] = scene.uplink.bytes();
    let delta = scene.delta.manifest.bytes;
    assert!(down < delta + 1_000_000, "{down} B down for a delta of {delta} B and two places");
}

/// What the packs make of this base, without any repair.
fn decoded(delta: &Delta, base: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(&delta.manifest);
    let mut slot = Vec::new();
    delta.packs.iter().try_for_each(|pack| decoder.decode(pack, &base, &mut slot).map(|_| ())).ok()?;
    Some(slot)
}

#[test]
fn whatever_is_killed_at_a_pack_goes_on_there() {
    let mut scene = Scene::new();
    scene.lab.offer_delta(&scene.delta);
    scene.start();
    let records = Records::of(&scene.device);
    scene.lab.roll_out(2, "r2", "all", 0);
    let (mut kills, mut at) = (0, 0);
    let before = scene.uplink.bytes()[1];
    loop {
        let decoded = wait("another pack, or the end", MOST, || match records.journal()?.state {
            State::Downloading { way: Way::Delta(course), .. } if course.decoded > at => {
                Some(Some(course.decoded))
            }
            State::Downloading { .. } | State::Checking { .. } | State::Idle { .. } => None,
            _ => Some(None),
        });
        let Some(decoded) = decoded else { break };
        assert!(decoded > at, "it lost what it had");
        at = decoded;
        scene.device.kill();
        kills += 1;
        scene.device.start();
    }
    scene.ends();

    let down = scene.uplink.bytes()[1] - before;
    let delta = scene.delta.manifest.bytes;
    println!("{kills} kills, {down} B down for {delta} B in {} packs", scene.delta.packs.len());
    assert!(kills >= 3, "{kills} kills in {} packs", scene.delta.packs.len());
    // A start costs files and reports beside the packs of its window.
    let most = delta + delta / 20 + 30_000 + kills * (WINDOW * (PACK as u64 + 100) + 20_000);
    assert!(down < most, "{down} B down, at most {most}");
}

#[test]
fn a_delta_that_others_signed_or_that_is_none_is_not_followed() {
    let mut scene = Scene::new();
    let mut broken = scene.delta.clone();
    broken.packs.iter_mut().for_each(|pack| {
        let length = pack.len();
        pack[11..length].reverse();
    });
    let leaves: Vec<_> = broken.packs.iter().map(|pack| tern_protocol::chunk::leaf(pack)).collect();
    broken.manifest.root = tern_protocol::chunk::root(&leaves);
    // What the thief of the service's keys makes: signed as it should be, and no delta.
    scene.lab.offer_delta(&broken);
    let foreign = SigningKey::from_slice(&[3; 32]).unwrap();
    let whole = encode(&[], &scene.new, Options::new(Profile::SmallLinux));
    scene.lab.offer_delta_signed(&whole, &foreign);

    scene.start();
    scene.lab.roll_out(2, "r2", "all", 0);
    scene.ends();

    assert!(
        scene.fetched()[0].contains("by=\"repair\"") || scene.fetched()[0].contains("mended="),
        "{:?}",
        scene.fetched()
    );
    assert!(!scene.fetched()[0].contains("coded"), "{:?}", scene.fetched());
}

/// A disk that rots where the service keeps its deltas: the service says so, and devices do without.
#[test]
fn a_pack_that_is_damaged_where_it_lies_is_not_served_and_the_device_takes_chunks() {
    let mut scene = Scene::new();
    scene.lab.offer_delta(&scene.delta);
    let packs = files_named(&scene.lab.data(), ".packs");
    let [packs] = &packs[..] else { panic!("{packs:?}") };
    let mut bytes = std::fs::read(packs).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write_through(packs, &bytes);

    scene.start();
    scene.lab.roll_out(2, "r2", "all", 0);
    scene.ends();

    assert!(scene.fetched()[0].contains("by=\"repair\""), "{:?}", scene.fetched());
    let log = scene.lab.log();
    let told = log.lines().filter(|line| line.contains("ERROR") && line.contains("is damaged")).count();
    assert_eq!(told, 1, "{log}");
}

fn files_named(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_named(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// What a real pair of images costs in bytes, memory and time: `TERN_DELTA_PAIR=OLD,NEW`, `TERN_AGENT=PROGRAM`, and a
/// profile's name in `TERN_DELTA_PROFILE`.
#[test]
fn a_real_pair_of_images_within_the_memory_of_a_device() {
    let Ok(pair) = std::env::var("TERN_DELTA_PAIR") else { return };
    let (old, new) = pair.split_once(',').unwrap();
    let name = std::env::var("TERN_DELTA_PROFILE").unwrap_or_else(|_| "linux".into());
    let profile = Profile::named(&name).unwrap();
    let lab = Lab::start();
    let sections = format!("[transfer]\nprofile = {name:?}");
    let uplink = Uplink::to(lab.mqtt);
    let making = Making { broker: Some(uplink.address), sections, capacity: 1 << 30, ..Making::default() };
    let mut device = LabDevice::make(&lab, "dev-1", Path::new(old), &making);
    lab.publish(2, Path::new(new));
    let delta = {
        let (old, new) = (std::fs::read(old).unwrap(), std::fs::read(new).unwrap());
        encode(&old, &new, Options { threads: 2, ..Options::new(profile) })
    };
    lab.offer_delta(&delta);

    device.start_program(Path::new(&std::env::var("TERN_AGENT").unwrap()));
    lab.wait_for_hellos();
    let line = |what: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", device.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    let idle = line("VmRSS");
    let before = uplink.bytes();
    lab.roll_out(2, "r2", "all", 0);
    let (mut most, mut ticks) = (0, 0);
    wait("the download", Duration::from_secs(600), || {
        most = most.max(line("VmHWM"));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", device.pid())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        if device.log().contains("fetched") {
            return Some(());
        }
        ticks = number(11) + number(12);
        None
    });
    lab.wait_for_status("r2", "completed", Duration::from_secs(600));

    let after = uplink.bytes();
    println!(
        "{name}: {} B in {} packs, {} B down, {} B up, idle {idle} kB, most {most} kB, {} s CPU",
        delta.manifest.bytes,
        delta.packs.len(),
        after[1] - before[1],
        after[0] - before[0],
        ticks as f64 / 100.0
    );
    assert!(device.log().contains("by=\"delta\""));
    assert!(most < 12_000, "{most} kB resident");
}
