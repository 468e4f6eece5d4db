//! What must hold after every round.

use tern_agent::core::state::State;
use tern_protocol::state::Outcome;
use tern_tests::lab::Sum;

use crate::world::World;

/// Returns the false claims of a device's slots. Called while its agent is dead, and after every round.
pub(crate) fn claims(world: &World, device: usize) -> Vec<String> {
    let name = &world.devices[device].name;
    let wrong = world.records[device].false_claims(|rc| world.images.get(&rc).copied());
    wrong.into_iter().map(|what| format!("{name}: {what}")).collect()
}

/// Checks everything after a round.
///
/// # Panics
/// When something does not hold.
pub(crate) fn check(world: &mut World, rollout: &str) {
    let journals = world.look();
    world.heard.read(&world.lab);
    let heard = &world.heard;
    for device in 0..world.devices.len() {
        assert_eq!(claims(world, device), Vec::<String>::new(), "a slot claims what it does not hold");
    }
    assert_eq!(heard.doubled, Vec::new(), "a report is in the ledger twice");
    assert_eq!(heard.broken_walks(), Vec::<String>::new(), "a report is lost, or counted under two numbers");
    for ((device, n), kind) in &world.promised {
        // Nothing waits any more, so all of them were acknowledged.
        let found = heard.reports.get(&(device.clone(), *n));
        assert_eq!(found, Some(kind), "report {n} of {device} was acknowledged and is not in the ledger so");
    }
    let view = world.lab.rollout(rollout);
    let total = |key: &str| view["total"][key].as_u64().unwrap_or_else(|| panic!("no {key} in {view}"));
    let counted = Sum {
        started: total("started") - total("deferred"),
        good: total("good"),
        bad: total("bad"),
        recalled: total("recalled"),
    };
    assert_eq!(counted, heard.sum(rollout), "the service counts other than its ledger: {view}");
    for (device, journal) in journals.iter().enumerate() {
        let name = &world.devices[device].name;
        // A gap that a late report filled afterwards stays on the screen; one that nothing filled is a lost report.
        let anomalies = world.lab.device(name)["anomalies"].clone();
        let noted = anomalies.as_array().map_or(0, Vec::len) as u64;
        let overtaken = heard.overtaken.get(name).copied().unwrap_or_default();
        assert!(noted <= overtaken, "{name} has {overtaken} reports that were overtaken, but {anomalies}");
        let part = heard.parts.get(rollout).and_then(|parts| parts.get(name)).copied().unwrap_or_default();
        let runs = world.records[device].confirmed() == Some(world.rc);
        assert_eq!(part.outcome == Some(Outcome::Success), runs, "{name} runs it: {runs}; reported {part:?}");
        let failed =
            matches!(&journal.state, State::Failed { work, .. } if work.offer.attempt.rc == world.rc);
        let said = matches!(part.outcome, Some(Outcome::Failed | Outcome::RolledBack));
        // A device that rolls back because of a kill has failed too, and reports it as recalled.
        let recalled = part.outcome == Some(Outcome::Recalled);
        assert!(said == failed || recalled, "{name} is in {}; reported {part:?}", journal.state.name());
    }
}
