//! The power fails before every operation of an update, a second update, a rollback and a recall.

use tern_tests::powercut::board::Kind;
use tern_tests::powercut::campaign::{single, trace};
use tern_tests::powercut::outcome::Outcome;
use tern_tests::powercut::story::Story;

fn every_cut(kind: Kind) {
    for story in Story::ALL {
        let operations =
            trace(story, kind, None).unwrap_or_else(|violation| panic!("{story:?}: {violation}"));
        let tally = single(story, kind, None, &Outcome::all(), (0, 1))
            .unwrap_or_else(|violation| panic!("{story:?}: {violation}"));
        println!(
            "{kind:?} {story:?}: {} operations, {} runs ({})",
            tally.operations,
            tally.runs,
            operations.len()
        );
        assert!(tally.operations > 50 && tally.runs > tally.operations);
    }
}

#[test]
fn files_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Files);
}

#[test]
fn partitions_and_an_environment_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Uboot);
}
