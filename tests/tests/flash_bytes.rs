//! What an update writes to flash, counted by the disk itself: flash wears by it, and so does a cheap card.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "the figures go into docs/performance.md")]

use std::sync::Arc;

use tern_agent::core::state::State;
use tern_tests::powercut::board::{Board, Kind};
use tern_tests::powercut::device::{Ended, Fate, Terminal};
use tern_tests::powercut::service::{Release, Service};

const CHUNK: usize = 65_536;
/// Two megabytes.
const IMAGE: usize = 32 * CHUNK;

/// Bytes that an update writes besides the slot, and all of them.
fn update(kind: Kind) -> (u64, u64) {
    let releases = [1, 2].map(|rc| Release::new(rc, IMAGE));
    let service = Service::new(&releases);
    let board = Board::with_capacity(kind, &service, IMAGE);
    let disk = board.factory(&releases[0]);
    let mut terminal = Terminal::new(Arc::clone(&board), disk, service);
    terminal.service.offer(2);
    terminal.begin(Fate::default());
    let ended = terminal.run(&|_, agent| {
        let durable = agent.durable();
        matches!(durable.state, State::Idle { not_before: None })
            && durable.outbox.pending().next().is_none()
            && agent.boot().is_some_and(|boot| boot.running == 2)
    });
    assert_eq!(ended, Ended::Done);
    let written = terminal.disk.written();
    let all: u64 = written.values().sum();
    println!("{kind:?}: {written:?}");
    (all - IMAGE as u64, all)
}

#[test]
fn an_update_writes_its_slot_once_and_little_besides() {
    for kind in [Kind::Files, Kind::Uboot, Kind::SystemdBoot] {
        let (besides, all) = update(kind);
        println!("{kind:?}: image {IMAGE} B, written {all} B, besides the slot {besides} B");
        assert!(all as f64 <= 1.05 * IMAGE as f64 + 1_000_000.0, "{kind:?}: {all}");
        // Small devices have small slots: what is besides must not depend on the image.
        assert!(besides < 600_000, "{kind:?}: {besides}");
    }
}
