//! Power cuts anywhere in an update of the real chain: what the guest wrote to its disk is logged by QEMU, and every
//! epoch between two flushes is cut in many ways. The agent's own code says what boots then; the real chain boots one
//! disk of each kind.

pub(crate) mod cuts;
pub(crate) mod medium;
pub(crate) mod write_log;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tern_tests::sim::clock::Rng;

use self::cuts::cuts;
use self::medium::{Copies, Finding, Replay};
use self::write_log::{Write, epochs};
use crate::device::Device;
use crate::disk::{COPY, Disk, SECOND};
use crate::image::Fault;
use crate::machine::Machine;

/// An update that was logged: the disk before it, and what was written.
pub(crate) struct Logged {
    pub(crate) base: Vec<u8>,
    /// The releases that were signed by its end.
    pub(crate) releases: Vec<u64>,
    pub(crate) epochs: Vec<Vec<Write>>,
}

/// Brings release `rc` to a board that runs the one before it, from power on until it has come to its end and the power
/// is off.
pub(crate) fn update(device: &Device, rc: u64, fault: Fault) -> Logged {
    let up = |rc: u64| format!("slot={} release={rc}", if rc.is_multiple_of(2) { "b" } else { "a" });
    let base = fs::read(&device.disk.path).unwrap();
    let log = device.lab.path("write.log");
    fs::write(&log, "").unwrap();
    let mut machine = device.power_on_logged(&log);
    assert_eq!(machine.hear("up"), up(rc - 1));
    device.roll_out(rc, fault);
    if fault != Fault::Kernel {
        assert_eq!(machine.hear("up"), up(rc));
    }
    if fault != Fault::None {
        assert_eq!(machine.hear("up"), up(rc - 1));
    }
    let attempt = device.outcome(rc);
    assert_eq!(attempt["outcome"] == "success", fault == Fault::None, "{attempt}");
    machine.power_off();
    Logged { base, releases: (1..=rc).collect(), epochs: epochs(&log) }
}

/// What a campaign has found.
#[derive(Default)]
pub(crate) struct Tally {
    /// Cuts that were looked at.
    pub(crate) cuts: usize,
    /// Cuts after which something does not hold, and what.
    pub(crate) broken: Vec<String>,
    /// Of each kind of disk one: its name, how often it came, what boots, where its bytes are kept.
    pub(crate) kinds: BTreeMap<String, (usize, Finding, PathBuf)>,
}

/// Cuts every epoch in up to `most` ways.
pub(crate) fn campaign(device: &Device, update: &Logged, most: usize, seed: u64) -> Tally {
    let mut replay = Replay::of(device, update.base.clone(), &update.releases);
    let mut tally = Tally::default();
    for (number, epoch) in update.epochs.iter().enumerate() {
        for cut in cuts(epoch, replay.bytes(), most, &mut Rng::of(seed, &format!("epoch {number}"))) {
            tally.cuts += 1;
            replay.after(epoch, &cut, |replay| {
                let found = replay.boot(Copies::Two).and_then(|boot| Ok((boot, replay.data()?)));
                match found {
                    Ok((finding, status)) => {
                        let said =
                            |pointer| status.pointer(pointer).map_or_else(String::new, ToString::to_string);
                        let kind = format!(
                            "active {} trial {} labels {} {} journal {}",
                            said("/active"),
                            said("/trial/tries_left"),
                            said("/slots/a/holds"),
                            said("/slots/b/holds"),
                            said("/state")
                        );
                        let next = tally.kinds.len();
                        tally.kinds.entry(kind).and_modify(|known| known.0 += 1).or_insert_with(|| {
                            let path = device.lab.path(&format!("kind-{next}.disk"));
                            replay.save(&path);
                            (1, finding, path)
                        });
                    }
                    Err(why) => tally
                        .broken
                        .push(format!("epoch {number} of {}, cut {cut:?}: {why}", update.epochs.len())),
                }
            });
        }
        replay.flush(epoch);
    }
    tally
}

/// Cuts an update in which something is missing; returns how many cuts there were, and how many break the boot.
pub(crate) fn control(device: &Device, update: &Logged, copies: Copies, most: usize) -> (usize, usize) {
    let mut replay = Replay::of(device, update.base.clone(), &update.releases);
    assert!(replay.boot(copies).is_ok(), "broken before anything is cut");
    let (mut count, mut broken) = (0, 0);
    for (number, epoch) in update.epochs.iter().enumerate() {
        for cut in cuts(epoch, replay.bytes(), most, &mut Rng::of(1, &format!("epoch {number}"))) {
            count += 1;
            broken += usize::from(replay.after(epoch, &cut, |replay| replay.boot(copies)).is_err());
        }
        replay.flush(epoch);
    }
    (count, broken)
}

/// The log of a board that has one copy of the environment: all that goes to the second one goes to the first.
pub(crate) fn with_one_copy(update: &Logged, disk: &Disk) -> Logged {
    let place = disk.partition("environment").range();
    let second = place.start + usize::try_from(SECOND).unwrap();
    let moved = |write: &Write| {
        let at = if (second..place.end).contains(&write.at) {
            write.at - (second - place.start)
        } else {
            write.at
        };
        Write { at, bytes: write.bytes.clone() }
    };
    let epochs = update.epochs.iter().map(|epoch| epoch.iter().map(moved).collect()).collect();
    let mut base = update.base.clone();
    // The factory's record stands in the second copy: of two that are equally old the agent keeps the first.
    base.copy_within(second..second + COPY, place.start);
    Logged { base, releases: update.releases.clone(), epochs }
}

/// The log of an agent that arms without a sync of the slot: its bytes, its label and the record are one epoch.
pub(crate) fn without_sync(update: &Logged, disk: &Disk) -> Logged {
    let touches = |epoch: &Vec<Write>, name: &str| {
        let place = disk.partition(name).range();
        epoch.iter().any(|write| place.contains(&write.at))
    };
    let from = update.epochs.iter().position(|epoch| touches(epoch, "slot-b")).unwrap();
    let to = from + update.epochs[from..].iter().position(|epoch| touches(epoch, "environment")).unwrap();
    let merged = update.epochs[from..=to].concat();
    let epochs = [&update.epochs[..from], &[merged], &update.epochs[to + 1..]].concat();
    Logged { base: update.base.clone(), releases: update.releases.clone(), epochs }
}

/// Boots the disk of a kind on the real chain, far from any service, and returns what is up.
pub(crate) fn boots(device: &Device, disk: &Path) -> (String, Value) {
    let disk = Disk {
        path: disk.to_owned(),
        code: device.disk.code.clone(),
        flash: device.disk.flash.clone(),
        layout: device.disk.layout,
    };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut machine = Machine::power_on(&disk, nowhere, &device.lab.path("console"), None);
    let up = machine.hear("up");
    let status = machine.status();
    machine.power_off();
    (up, status)
}
