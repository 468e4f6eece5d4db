//! Waiting for the moment of a kill.

use std::time::Duration;

use tern_agent::core::state::State;
use tern_protocol::state::StateName;
use tern_tests::lab::Stopwatch;
use tern_tests::sim::clock::Rng;

use crate::world::{World, state_for};

/// The longest that a round waits for its moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the records are read.
const LOOK: Duration = Duration::from_micros(300);

/// Waits until some device is in a state of this rollout, and a little longer; the seed says which devices are
/// looked at first and how much longer. Returns the device.
pub(crate) fn reached(world: &mut World, state: StateName, rollout: &str, rng: &mut Rng) -> Option<usize> {
    let mut order: Vec<usize> = (0..world.devices.len()).collect();
    for place in (1..order.len()).rev() {
        let other = usize::try_from(rng.below(place as u64 + 1)).expect("a small number");
        order.swap(place, other);
    }
    let longer = Duration::from_micros(rng.below(dwell(state)));
    let chunks = u32::try_from(rng.below(16)).expect("a small number");
    let since = Stopwatch::start();
    while since.read() < PATIENCE {
        let found = order.iter().copied().find(|device| is_in(world, *device, state, rollout, chunks));
        if let Some(device) = found {
            std::thread::sleep(longer);
            return Some(device);
        }
        if state == StateName::Checking {
            // It lasts for one write: look without a pause, until it has passed everywhere.
            if order.iter().all(|device| is_past(world, *device)) {
                return None;
            }
            continue;
        }
        std::thread::sleep(LOOK);
    }
    None
}

fn is_past(world: &World, device: usize) -> bool {
    let journal = world.records[device].journal();
    let there = journal.is_some_and(|journal| state_for(&journal, world.rc).is_some());
    there || world.records[device].confirmed() == Some(world.rc)
}

fn is_in(world: &World, device: usize, state: StateName, rollout: &str, chunks: u32) -> bool {
    // The cheaper look first: it is the one that must not be late.
    if state == StateName::Checking && !world.records[device].trusts(rollout) {
        return false;
    }
    let Some(journal) = world.records[device].journal() else { return false };
    let there = state_for(&journal, world.rc);
    match state {
        // Before its turn in the rollout, or after it.
        StateName::Idle => journal.state.name() == StateName::Idle,
        // The offer is on the disk, the state that it leads to is not.
        StateName::Checking => there.is_none() && world.records[device].confirmed() != Some(world.rc),
        // Anywhere in the download, not at its beginning alone.
        StateName::Downloading => match &journal.state {
            State::Downloading { have, .. } => there == Some(state) && have.len() >= chunks,
            _ => false,
        },
        other => there == Some(other),
    }
}

/// Microseconds that a state lasts here, about: the kill falls anywhere in it.
fn dwell(state: StateName) -> u64 {
    match state {
        StateName::Idle => 300_000,
        StateName::Downloading => 20_000,
        StateName::PreUpdating | StateName::Rollback => 250_000,
        StateName::Verifying => 60_000,
        StateName::Updating => 30_000,
        StateName::VerifyPost => 900_000,
        StateName::Retry => 400_000,
        StateName::Failed => 100_000,
        StateName::Checking | StateName::Success => 1,
    }
}
