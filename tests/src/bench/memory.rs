//! What an agent keeps in memory: when idle, and at most in an update against the real service.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::usage::{most_resident_kib, resident_kib};
use crate::lab::{Lab, LabBridge, LabDevice, Making, made, wait};

/// How often the most is looked at: over files, an agent that boots becomes a new program, whose most begins anew.
const LOOK: Duration = Duration::from_millis(5);
/// An agent that has said what there was to say does nothing.
const IDLE: Duration = Duration::from_secs(5);

/// Resident memory of one agent.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Enrolled and idle, KiB.
    pub idle_kib: u64,
    /// The most from the offer to the confirmed release, KiB.
    pub most_kib: u64,
    /// Bytes of the release.
    pub image: usize,
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
    let over = AtomicBool::new(false);
    let most_kib = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(most_resident_kib(pid));
                std::thread::sleep(LOOK);
            }
            most
        });
        lab.publish(2, &release);
        lab.roll_out(2, "r2", "all", 0);
        lab.wait_for_status("r2", "completed", Duration::from_secs(300));
        over.store(true, Ordering::Relaxed);
        watch.join().expect("whoever looks does not panic")
    });
    Memory { idle_kib, most_kib, image }
}
