//! A fleet of a million devices in one process: what a device costs in memory, how fast the pure core counts, and how
//! long a restart takes. Memory is how much the process grew, so every part is made once and in order.

mod facts;
mod keys;
mod restart;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use tern_controller::core::fact::{EntryRef, Fact, Millis};
use tern_controller::core::fleet::Fleet;
use tern_controller::core::fleet::attempts::Attempts;
use tern_controller::ledger::Ledger;
use tern_protocol::id::DeviceId;

use self::facts::{Part, STEP, founding, rollout};
use self::restart::restart;
use super::usage::{resident_kib, thread_cpu};
use crate::sim::clock::EPOCH;

pub use self::restart::{Restart, Timed};

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Scale {
    /// Devices in the fleet.
    pub devices: u32,
    /// Reports that were counted.
    pub reports: u64,
    /// Of those, what the pure core counts in a second of one core's time: fold, and judge once a step.
    pub per_core_second: f64,
    /// Bytes a device, by what they are for.
    pub bytes: Vec<(&'static str, f64)>,
    /// Bytes that the whole process has for each device in the end, whatever they are for.
    pub resident: f64,
    /// Records of the rollout that are kept whole, for something in them is unusual.
    pub whole: u64,
    /// Checkpoint, restart, replay; of a fleet that has a ledger.
    pub restart: Option<Restart>,
}

/// Builds the fleet in a folder of its own, and starts it again. Without a `ledger` it is only built: ten million devices
/// have nine hundred bytes of memory each, and three thousand of ledger.
pub fn scale(devices: u32, ledger: bool) -> Scale {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let (services, keys) = keys::key_cache();
    let (kept, index) = index(devices);
    let empty = resident();
    let mut world = World::found(ledger.then_some(folder.path()));
    let before = resident();
    world.take(&Part::KNOWN, devices);
    let known = resident();
    let (reports, cpu) = world.take(&Part::ROLLOUT, devices);
    let told = resident();
    // Until here: what it gave back would be used again unseen.
    drop((kept, services));
    assert_eq!(world.fleet.rollouts[&rollout()].total().good, u64::from(devices).div_ceil(2));
    let orderly = world.fleet.devices.values().all(|device| device.anomalies.is_empty());
    assert!(orderly, "the devices do what devices do");
    let World { fleet, ledger, .. } = world;
    let whole = fleet.devices.values().map(|device| device.attempts.unusual() as u64).sum();
    let resident = (told - empty) as f64 / f64::from(devices);
    let restarted = ledger.map(|mut ledger| {
        ledger.sync().expect("the ledger syncs");
        drop(ledger);
        restart(folder.path(), fleet)
    });
    let each = |bytes: u64| bytes as f64 / f64::from(devices);
    let [record, entry, map] = Attempts::SIZES.map(|size| size as f64);
    let mut bytes = vec![
        ("id index", index),
        ("device record, its map of attempts included", each(known - before) - index),
        ("attempt record of one rollout", record),
        ("the same with what leads to the rollout", entry),
        ("the same as the map of one rollout, in the device record", map),
        ("what the process grew by in the rollout", each(told - known)),
        ("key cache", keys),
    ];
    if let Some((_, deadlines)) = restarted {
        bytes.push(("open deadlines, of a device on trial", deadlines));
    }
    let restart = restarted.map(|(restart, _)| restart);
    let per_core_second = reports as f64 / cpu;
    Scale { devices, reports, per_core_second, bytes, resident, whole, restart }
}

/// What grows while facts are taken in.
struct World {
    fleet: Fleet,
    /// None: nothing is written.
    ledger: Option<Ledger>,
    at: Millis,
}

impl World {
    fn found(folder: Option<&Path>) -> Self {
        let open = |folder: &Path| Ledger::open(&folder.join("ledger")).expect("a new ledger opens").0;
        let ledger = folder.map(open);
        let fleet = Fleet::new("lab".parse().expect("a valid name"));
        let mut world = Self { fleet, ledger, at: EPOCH };
        for entry in founding() {
            world.at = world.at.max(entry.at);
            world.write(std::slice::from_ref(&entry.fact));
            world.fleet.apply(world.at, &entry.fact);
        }
        let phases = &world.fleet.rollouts[&rollout()].phases;
        assert!(!phases.is_empty(), "the rollout reaches everybody");
        world
    }

    /// Takes in some parts of every device; returns how many facts that were and the core's seconds for them.
    fn take(&mut self, parts: &[Part], devices: u32) -> (u64, f64) {
        let (mut count, mut cpu) = (0, 0.0);
        for part in parts {
            for first in (0..devices).step_by(STEP as usize) {
                let facts = part.facts(first..devices.min(first + STEP));
                // A step of the service lasts some milliseconds.
                self.at += 4;
                let began = thread_cpu();
                facts.iter().for_each(|fact| self.fleet.apply(self.at, fact));
                self.judge();
                cpu += (thread_cpu() - began).as_secs_f64();
                count += facts.len() as u64;
                self.write(&facts);
            }
        }
        (count, cpu)
    }

    /// Does what the service does once a step with every rollout that the step touched.
    fn judge(&self) {
        let rollout = self.fleet.rollouts[&rollout()].clone();
        let covered = rollout.total().started;
        std::hint::black_box(rollout.judgement(covered, self.fleet.reception.observed(self.at)));
    }

    fn write(&mut self, facts: &[Fact]) {
        let Some(ledger) = &mut self.ledger else { return };
        let entry = |fact| {
            serde_json::to_vec(&EntryRef { at: self.at, actor: None, fact }).expect("a fact serialises")
        };
        let frames: Vec<Vec<u8>> = facts.iter().map(entry).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        ledger.append(&frames).expect("the ledger takes its frames");
    }
}

/// A map from names to devices, and the bytes that it takes by itself, a device. It grows as the fleet's does.
fn index(devices: u32) -> (BTreeMap<DeviceId, u32>, f64) {
    let before = resident();
    let mut index = BTreeMap::new();
    for number in 0..devices {
        index.insert(facts::device(number), number);
    }
    let grown = resident() - before;
    (index, grown as f64 / f64::from(devices))
}

/// Returns the bytes that this process has in memory.
fn resident() -> u64 {
    resident_kib(std::process::id()) * 1024
}
