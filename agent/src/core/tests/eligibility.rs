//! What the floor and the direction of an offer forbid, whoever signed it.

use tern_protocol::offer::Offer;
use tern_protocol::tuf::content::EntryKind;

use super::super::eligibility::{Facts, judge};
use super::super::state::Event;
use super::offer;

fn judged(offer: &Offer, running: u64, floor: u64) -> Event {
    let model = "B3".parse().unwrap();
    judge(
        offer,
        &Facts { running, floor, model: &model, component: "rootfs", capacity: 1 << 20, inactive: None },
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
