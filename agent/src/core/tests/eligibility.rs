//! What the floor and the direction of an offer forbid, whoever signed it.

use tern_protocol::offer::{Artifact, Offer};
use tern_protocol::tuf::content::EntryKind;

use super::super::SlotName;
use super::super::component::{ComponentFacts, fitted};
use super::super::eligibility::{Facts, judge};
use super::super::port::{BootFacts, Held};
use super::super::reconcile::Content;
use super::super::state::Event;
use super::offer;

fn judged(offer: &Offer, running: u64, floor: u64) -> Event {
    judged_with(offer, running, floor, &[("rootfs", "1.0")])
}

fn judged_with(offer: &Offer, running: u64, floor: u64, components: &[(&str, &str)]) -> Event {
    let model = "B3".parse().unwrap();
    let components =
        &components.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
    let (capacity, inactive) = (1 << 20, None);
    let others =
        &[("modem".to_owned(), ComponentFacts { capacity: 1000, ..ComponentFacts::default() })].into();
    judge(
        offer,
        &Facts {
            running,
            floor,
            model: &model,
            component: "rootfs",
            components,
            others,
            unsettled: None,
            capacity,
            inactive,
        },
    )
}

#[test]
fn a_revert_goes_back_to_the_floor_and_never_below_it() {
    let revert = |rc| Offer { kind: EntryKind::Revert, ..offer(rc, 1) };

    let (below, at) = (judged(&revert(2), 4, 3), judged(&revert(3), 4, 3));

    assert!(
        matches!(&below, Event::Ineligible(why) if why.contains("below the version floor 3")),
        "{below:?}"
    );
    assert_eq!(at, Event::Eligible { present: false });
}

#[test]
fn an_update_that_goes_back_is_none() {
    let judged = judged(&offer(3, 1), 4, 0);

    assert!(matches!(judged, Event::Ineligible(_)), "{judged:?}");
}

#[test]
fn a_release_waits_for_the_baseband_that_it_requires_and_a_revert_does_so_too() {
    let mut needs = offer(5, 1);
    needs.artifacts[0].version = "2.0".into();
    needs.artifacts[0].requires = [("baseband".to_owned(), ">=3, <4".parse().unwrap())].into();
    let revert = Offer { kind: EntryKind::Revert, ..needs.clone() };

    for (offer, running) in [(&needs, 4), (&revert, 6)] {
        let runs = |baseband| judged_with(offer, running, 0, &[("rootfs", "1.0"), ("baseband", baseband)]);
        assert_eq!(runs("3.2"), Event::Eligible { present: false });
        let why = "release 5: rootfs 2.0 requires baseband >=3, <4, running is \"4.0\"";
        assert_eq!(runs("4.0"), Event::Ineligible(why.into()));
        let Event::Ineligible(why) = judged(offer, running, 0) else { panic!("no baseband is known") };
        assert!(why.contains("no version of baseband is known"), "{why}");
    }
}

#[test]
fn all_components_of_a_release_are_the_devices_and_fit_or_nothing_is_begun() {
    let with = |name: &str, length| {
        let mut offer = offer(2, 1);
        let digest = offer.artifacts[0].root;
        offer.artifacts.push(Artifact::new(name, length, digest, digest));
        judged(&offer, 1, 0)
    };
    let why = |event| if let Event::Ineligible(reason) = event { reason } else { format!("{event:?}") };

    assert_eq!(with("modem", 1000), Event::Eligible { present: false });
    assert_eq!(
        why(with("baseband", 10)),
        "release 2 is for component baseband too, which this device does not have"
    );
    for length in [0, 1001] {
        let said = why(with("modem", length));
        assert_eq!(said, format!("the package for modem has {length} B, its place holds 1 to 1000 B"));
    }
}

#[test]
fn what_is_installed_already_is_not_fetched_and_its_requirements_hold_all_the_same() {
    let mut offer = offer(2, 1);
    let digest = offer.artifacts[0].root;
    let requires = [("baseband".to_owned(), ">=3".parse().unwrap())].into();
    offer
        .artifacts
        .insert(0, Artifact { version: "7".into(), requires, ..Artifact::new("modem", 9, digest, digest) });
    let installed = Some(Held { root: digest, length: 9 });
    let modem =
        ComponentFacts { capacity: 1000, version: "7".into(), installed, ..ComponentFacts::default() };
    let boot = BootFacts {
        slot: SlotName::A,
        boot_id: "boot".into(),
        active: SlotName::A,
        trial: None,
        running: 1,
        running_version: "1.0".into(),
        floor: 0,
        capacity: 1 << 20,
        contents: [Content::Unknown; 2],
        components: [("modem".to_owned(), modem)].into(),
    };
    let judged_as_fitted = |baseband: &str| {
        let runs = [("rootfs", "1.0"), ("modem", "7"), ("baseband", baseband)];
        let running = runs.map(|(name, version)| (name.to_owned(), version.to_owned())).into();
        let fitted = fitted(offer.clone(), "rootfs", &boot, &running);
        (judged_with(&fitted, 1, 0, &runs), fitted.artifacts.len())
    };

    assert_eq!(judged_as_fitted("3.2"), (Event::Eligible { present: false }, 1));
    let why = "release 2: modem 7 requires baseband >=3, running is \"2\"";
    assert_eq!(judged_as_fitted("2"), (Event::Ineligible(why.into()), 2));
}
