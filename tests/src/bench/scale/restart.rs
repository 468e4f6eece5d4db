//! The same fleet three times: live, from the ledger alone, and from a checkpoint. What is timed is what `tern serve`
//! does before it can answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use tern_controller::core::fleet::Fleet;
use tern_controller::core::service::{Lives, Service};
use tern_controller::engine::{self, Message, Pace, Works};
use tern_controller::ledger::Ledger;
use tern_controller::state::{self, Opened};

use super::resident;
use crate::bench::usage::Usage;

/// How long something took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timed {
    /// Seconds on the wall.
    pub wall: f64,
    /// CPU seconds of this process.
    pub cpu: f64,
}

/// Checkpoint, restart, replay.
#[derive(Debug, Clone, Serialize)]
pub struct Restart {
    /// Reading and adding up the whole ledger, with no checkpoint.
    pub replay: Timed,
    /// A checkpoint of all devices, at a stop.
    pub checkpoint: Timed,
    /// Bytes of the store's folder after it.
    pub store: u64,
    /// Of a restart: walking the ledger, every frame's hash.
    pub walk: Timed,
    /// Of a restart: everything until the fleet is there, the walk included.
    pub open: Timed,
    /// Of a restart: the service, with its deadlines.
    pub service: Timed,
    /// Frames of the ledger and their bytes.
    pub ledger: (u64, u64),
}

/// Starts the folder's fleet again and again; returns the bytes of open deadlines for each device on trial, too.
pub(super) fn restart(folder: &Path, live: Fleet) -> (Restart, f64) {
    let (opened, replay) = timed(|| open(folder, &live));
    assert!(opened.fleet == live, "the ledger alone gives the fleet that was live");
    let waiting = live.devices.values().flat_map(|d| d.attempts.values());
    let waiting = waiting.filter(|a| a.watch.is_some()).count();
    let before = resident();
    let Opened { fleet, ledger, notary, checkpoint: kept, term, .. } = opened;
    let service = serving(fleet);
    let deadlines = (resident() - before) as f64 / waiting.max(1) as f64;
    drop(live);

    let (outgoing, _to_broker) = tokio::sync::mpsc::channel(1);
    let pace = Pace::default();
    let works = Works { pace, service, ledger, notary, checkpoint: kept, term, outgoing };
    let (handle, inbox) = engine::channel();
    let ((), checkpoint) = timed(|| {
        let (done, stopped) = tokio::sync::oneshot::channel();
        assert!(handle.offer(Message::Stop(done)), "the engine's queue has room");
        engine::run(works, &inbox).expect("the engine stops when it is told to");
        stopped.blocking_recv().expect("it says so");
    });

    let (frames, walk) = timed(|| {
        let (ledger, _) = Ledger::open(&folder.join("ledger")).expect("the ledger opens");
        ledger.next()
    });
    let fleet = Fleet::new("lab".parse().expect("a valid name"));
    let ((restarted, checkpointed), opening) = timed(|| {
        // The rest is let go of: the ledger's lock above all.
        let Opened { fleet, checkpoint, .. } = open(folder, &fleet);
        (fleet, checkpoint.next())
    });
    assert_eq!(checkpointed, frames, "the checkpoint has every frame");
    let store = size(&folder.join("store"));
    std::fs::remove_dir_all(folder.join("store")).expect("the checkpoint may be deleted");
    let replayed = open(folder, &fleet);
    assert!(replayed.fleet == restarted, "the ledger alone gives the fleet of the checkpoint");
    drop(replayed);
    let (_service, service) = timed(|| serving(restarted));
    let ledger = (frames, size(&folder.join("ledger")));
    (Restart { replay, checkpoint, store, walk, open: opening, service, ledger }, deadlines)
}

fn open(folder: &Path, fleet: &Fleet) -> Opened {
    let opened = state::open(folder, &fleet.id).expect("the data folder opens");
    let usual = ["was open to everybody", "has a key from now on"];
    let unwanted = |note: &&String| !usual.iter().any(|usual| note.contains(usual));
    assert_eq!(opened.notes.iter().find(unwanted), None, "nothing is wrong with the folder");
    opened
}

fn serving(fleet: Fleet) -> Service {
    Service::new(fleet, BTreeMap::new(), Lives::default(), [7; 32])
}

/// Returns the bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("the folder can be listed");
        let meta = entry.metadata().expect("its files can be measured");
        if meta.is_dir() { size(&entry.path()) } else { meta.len() }
    };
    entries.map(size).sum()
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn timed<T>(run: impl FnOnce() -> T) -> (T, Timed) {
    let own = std::process::id();
    let (began, before) = (Instant::now(), Usage::of(own));
    let result = run();
    (result, Timed { wall: began.elapsed().as_secs_f64(), cpu: Usage::of(own).since(before) })
}
