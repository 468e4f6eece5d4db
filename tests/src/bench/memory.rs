//! What an agent keeps in memory: when idle, and at most in an update against the real service.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Profile, encode};

use super::usage::{most_resident_kib, resident_kib};
use crate::lab::{Lab, LabBridge, LabDevice, MODEL, Making, made, moved, wait};

/// How often the most is looked at: over files, an agent that boots becomes a new program, whose most begins anew.
const LOOK: Duration = Duration::from_millis(5);
/// An agent that has said what there was to say does nothing.
const IDLE: Duration = Duration::from_secs(5);
/// Bytes of the release that a delta leads from.
const SMALL: usize = 2_000_000;
/// An update is over by then.
const MOST: Duration = Duration::from_secs(300);

/// Resident memory of one agent.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Enrolled and idle, KiB.
    pub idle_kib: u64,
    /// The most from the offer to the confirmed release, KiB.
    pub most_kib: u64,
    /// Bytes of the release.
    pub image: usize,
    /// The most from the offer of the next release to that, by a delta of the profile `linux`, KiB.
    pub delta_kib: u64,
    /// Bytes of that delta.
    pub delta: u64,
}

/// How an agent reaches its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Without TLS.
    Plain,
    /// Under TLS, with certificates on both sides.
    Tls,
}

const DEVICE: &str = "dev-1";

/// Takes an agent of another build through an update to an image of `image` bytes.
pub fn memory(program: &Path, link: Link, image: usize) -> Memory {
    let mut bridge = LabBridge::prepare();
    let lab = Lab::start_with(bridge.broker());
    let encrypted = bridge.configure_encrypted(&lab.data().join("images"), DEVICE, "hut");
    bridge.start();
    let (factory, release) = (lab.path("factory"), lab.path("image"));
    made(&factory, 50_000, 1);
    made(&release, image, 2);
    let making = Making { encrypted: (link == Link::Tls).then_some(encrypted), ..Making::default() };
    let mut device = LabDevice::make(&lab, DEVICE, &factory, &making);
    device.start_program(program);
    wait("the agent", Duration::from_secs(60), || {
        lab.json(&["device", "list"]).to_string().contains("\"enrolled\":true").then_some(())
    });
    std::thread::sleep(IDLE);
    let (pid, idle_kib) = (device.pid(), resident_kib(device.pid()));
    let most_kib = most_while(pid, || {
        lab.publish(2, &release);
        lab.roll_out(2, "whole", "all", 0);
        lab.wait_for_status("whole", "completed", MOST);
    });

    // What a delta takes depends on its profile, and not on the length of an image: one that is encoded in seconds.
    let small = lab.path("small");
    made(&small, SMALL, 3);
    lab.publish_with(3, &small, &[MODEL], "--no-deltas");
    lab.roll_out(3, "small", "all", 0);
    lab.wait_for_status("small", "completed", MOST);
    let delta = offer_delta(&lab, &small);
    // Over files the agent that booted is another program under the same number, and so is the most that it had.
    let delta_kib = most_while(device.pid(), || {
        lab.roll_out(4, "delta", "all", 0);
        lab.wait_for_status("delta", "completed", MOST);
    });
    assert!(device.log().contains("by=\"delta\""), "the last update did not come by its delta");
    Memory { idle_kib, most_kib, image, delta_kib, delta }
}

/// Publishes release 4, and offers what it differs in from release 3 by the profile that agents have unless told otherwise;
/// returns the bytes of that.
fn offer_delta(lab: &Lab, before: &Path) -> u64 {
    let old = std::fs::read(before).expect("the image of release 3");
    let new = moved(&old, 4);
    let image = lab.path("next");
    std::fs::write(&image, &new).expect("an image file");
    let delta = encode(&old, &new, Options::new(Profile::Linux));
    lab.publish_with(4, &image, &[MODEL], "--no-deltas");
    lab.offer_delta(&delta);
    delta.manifest.bytes
}

/// Returns the most memory that a process has while something is done.
fn most_while(pid: u32, work: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(most_resident_kib(pid));
                std::thread::sleep(LOOK);
            }
            most
        });
        work();
        over.store(true, Ordering::Relaxed);
        watch.join().expect("whoever looks does not panic")
    })
}
