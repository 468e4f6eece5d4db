//! The order in which reports arrive, and how often, changes no count; a ledger that is folded in two halves, with the
//! state written down in between, comes to the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tern_protocol::id::{DeviceId, ModelId};
use tern_protocol::message::{Attempt, Nonce, Registry, ReportKind};
use tern_protocol::position::{Cut, Salt};
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::tuf::content::EntryKind;

use super::super::counts::Counts;
use super::super::plan::Plan;
use crate::core::fact::{DeviceEntry, Fact, Millis};
use crate::core::fleet::Fleet;
use crate::core::fleet::product::Product;

const DEVICES: usize = 12;
const AT: Millis = 1_795_000_000_000;

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A fleet of two models in the only phase of a rollout.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(name("acme"));
    fleet.products.insert(name("cam"), Product::default());
    let registry = |d: usize| Registry {
        product: name("cam"),
        model: name(["b3", "b4"][d % 2]),
        carrier: name("none"),
        region: name("eu"),
    };
    let entry = |d| DeviceEntry { device: device(d), identity: "00".to_owned(), registry: registry(d) };
    let models: [ModelId; 2] = [name("b3"), name("b4")];
    let cuts = models.iter().map(|model| (model.clone(), Cut::ALL)).collect::<BTreeMap<_, _>>();
    fleet.apply(AT, &Fact::DevicesAdded { devices: (0..DEVICES).map(entry).collect(), by: None });
    let (rollout, product, plan) = (name("r2"), name("cam"), Plan::default());
    let (salt, kind) = (Salt([1; 16]), EntryKind::Update);
    fleet.apply(
        AT,
        &Fact::RolloutStarted {
            rollout,
            product,
            rc: 2,
            kind,
            attempt: 1,
            salt,
            plan,
            starter: None,
            from: Vec::new(),
            baseline: BTreeMap::new(),
            pooled: BTreeSet::new(),
            reserve: None,
        },
    );
    // No release file says whom release 2 is for.
    fleet.rollouts.get_mut(&name("r2")).unwrap().models = models.into_iter().collect();
    let because = String::new();
    fleet.apply(
        AT,
        &Fact::PhaseOpened {
            rollout: name("r2"),
            phase: 0,
            cuts,
            devices: 12,
            because,
            goal: BTreeMap::new(),
            included: None,
            owed: 0,
            held_from: None,
            listed: Vec::new(),
            key: None,
        },
    );
    fleet
}

fn device(d: usize) -> DeviceId {
    name(&format!("d-{d}"))
}

/// What device `d` says, in the order in which it makes it.
fn said(d: usize, end: Outcome) -> Vec<Fact> {
    let attempt = || Attempt { rc: 2, rollout: name("r2"), attempt: 1 };
    let (from, to) = (StateName::Updating, StateName::VerifyPost);
    let kinds = [
        ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempt() },
        ReportKind::Transition { attempt: attempt(), from, to, reason: None },
        ReportKind::Outcome { attempt: attempt(), outcome: end, reason: None },
    ];
    let report = |(n, report)| Fact::Reported { device: device(d), e: 1, n, low: 1, report };
    (1..).zip(kinds).map(report).collect()
}

fn counted(fleet: &Fleet) -> BTreeMap<ModelId, Counts> {
    fleet.rollouts[&name("r2")].phases[0].judged.clone()
}

fn ends() -> impl Strategy<Value = Vec<Outcome>> {
    let ends =
        [Outcome::Success, Outcome::Failed, Outcome::RolledBack, Outcome::Unreachable, Outcome::Recalled];
    proptest::collection::vec(proptest::sample::select(ends.to_vec()), DEVICES)
}

/// All reports of all devices, some of them again, in any order.
fn arrivals() -> impl Strategy<Value = (Vec<Fact>, Vec<Fact>)> {
    let facts =
        ends().prop_map(|ends| ends.into_iter().enumerate().flat_map(|(d, end)| said(d, end)).collect());
    facts.prop_flat_map(|facts: Vec<Fact>| {
        let again = proptest::sample::subsequence(facts.clone(), 0..=facts.len());
        let arrived = again.prop_map({
            let facts = facts.clone();
            move |again| [facts.clone(), again].concat()
        });
        (Just(facts), arrived.prop_shuffle())
    })
}

proptest! {
    #[test]
    fn neither_order_nor_repetition_of_reports_changes_a_count((made, arrived) in arrivals()) {
        let (mut orderly, mut other) = (fleet(), fleet());
        made.iter().for_each(|fact| orderly.apply(AT, fact));
        arrived.iter().for_each(|fact| other.apply(AT, fact));

        prop_assert_eq!(counted(&orderly).values().map(|counts| counts.started).sum::<u64>(), DEVICES as u64);
        prop_assert_eq!(counted(&other), counted(&orderly));
    }

    #[test]
    fn counts_of_two_halves_of_the_fleet_add_up_to_those_of_the_whole((made, _) in arrivals(), half in 0..DEVICES) {
        let (mut whole, mut left, mut right) = (fleet(), fleet(), fleet());
        for fact in &made {
            let Fact::Reported { device: id, .. } = fact else { unreachable!() };
            let is_left = (0..half).any(|d| device(d) == *id);
            whole.apply(AT, fact);
            (if is_left { &mut left } else { &mut right }).apply(AT, fact);
        }

        for (model, counts) in counted(&whole) {
            let of = |fleet: &Fleet| counted(fleet).get(&model).copied().unwrap_or_default();
            prop_assert_eq!(of(&left) + of(&right), counts);
        }
    }

    #[test]
    fn a_state_that_was_written_down_goes_on_like_the_one_that_was_not((_, arrived) in arrivals(), cut in 0usize..64) {
        let mut live = fleet();
        let (before, after) = arrived.split_at(cut.min(arrived.len()));
        before.iter().for_each(|fact| live.apply(AT, fact));

        let text = serde_json::to_string(&live).unwrap();
        let mut restored: Fleet = serde_json::from_str(&text).unwrap();
        for fact in after {
            live.apply(AT, fact);
            restored.apply(AT, fact);
        }

        prop_assert_eq!(&restored, &live);
        let verdict = |fleet: &Fleet| fleet.rollouts[&name("r2")].judge(DEVICES as u64, 1).to_string();
        prop_assert_eq!(verdict(&restored), verdict(&live));
    }
}
