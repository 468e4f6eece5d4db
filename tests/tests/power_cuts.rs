//! The power fails before every operation of an update, a second update, a rollback and a recall.

use tern_tests::powercut::board::Kind;
use tern_tests::powercut::campaign::{orders, single, syncs, trace};
use tern_tests::powercut::disk::Lie;
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

#[test]
fn a_single_slot_and_its_recovery_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Single);
}

/// Each sync taken out in turn, and the order of each two that follow one another turned round: the campaign must see it.
#[test]
#[ignore = "minutes of work: .ci/long power-cuts"]
fn every_sync_and_every_order_of_two_writes_is_needed() {
    let mut survived = Vec::new();
    for kind in [Kind::Files, Kind::Uboot, Kind::Single] {
        let mut lies = Vec::new();
        for story in Story::ALL {
            let operations = trace(story, kind, None).unwrap_or_else(|violation| panic!("{violation}"));
            let never = syncs(&operations).into_iter().map(|(operation, class)| Lie::Never(operation, class));
            for lie in never.chain(orders(&operations)) {
                if !lies.contains(&lie) {
                    lies.push(lie);
                }
            }
        }
        for lie in lies {
            let seen = Story::ALL.into_iter().find_map(|story| {
                single(story, kind, Some(&lie), &Outcome::all(), (0, 1)).err().map(|seen| (story, seen))
            });
            match seen {
                Some((story, violation)) => println!("seen      {kind:?} {lie:?}: {story:?}: {violation}"),
                None => {
                    println!("SURVIVED  {kind:?} {lie:?}");
                    survived.push(format!("{kind:?} {lie:?}"));
                }
            }
        }
    }
    println!("{} survived", survived.len());
}
