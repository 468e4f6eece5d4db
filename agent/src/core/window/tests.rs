//! The window over links that are made up: every rate, round trip, loss and stall that a device may meet.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const CEILING: u32 = 96;

/// A link that keeps order: packs wait, go out one after the other, and take their time.
#[derive(Debug, Clone)]
struct Link {
    /// Microseconds for one pack.
    pack: u64,
    /// Milliseconds there and back.
    round_trip: u64,
    /// Each pack of these, in the order of sending, is lost.
    lost: BTreeSet<u64>,
    /// From when to when nothing moves, ms.
    stalls: Vec<(u64, u64)>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// When the last pack was here, ms.
    took: u64,
    /// Packs that came twice.
    twice: u32,
    requests: u32,
    /// The most that was on its way.
    most: usize,
    /// How many were on their way at the end, at most.
    size: u32,
}

/// Fetches `packs` packs with `window`.
fn fetch(link: &Link, window: &mut Window, packs: u32) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut here, mut next, mut sent) = (BTreeSet::new(), 0, 0u64);
    // Requests on their way: when they are at the server, in µs, and for what. Packs on their way: when here.
    let mut up: VecDeque<(u64, Vec<u32>)> = VecDeque::new();
    let mut down: VecDeque<(u64, u32)> = VecDeque::new();
    let (mut now, mut free) = (0u64, 0u64);
    for _ in 0..1_000_000 {
        let uptime = now / 1000;
        let mut asks = window.lost(uptime);
        asks.iter().for_each(|pack| window.asked(*pack, uptime));
        let lost = asks.len();
        for _ in 0..window.may_ask() {
            while next < packs && (here.contains(&next) || window.is_open(next) || asks.contains(&next)) {
                next += 1;
            }
            // What was forgotten lies behind.
            let open = |pack: &u32| here.contains(pack) || window.is_open(*pack) || asks.contains(pack);
            let Some(pack) = (next..packs).chain(0..next.min(packs)).find(|pack| !open(pack)) else { break };
            asks.push(pack);
        }
        asks.iter().skip(lost).for_each(|pack| window.asked(*pack, uptime));
        outcome.most = outcome.most.max(window.open.len());
        if !asks.is_empty() {
            outcome.requests += 1;
            up.push_back((now + link.round_trip * 500, asks));
        }
        while let Some((at, asked)) = up.pop_front() {
            for pack in asked {
                free = after_stalls(link, free.max(at)) + link.pack;
                sent += 1;
                if !link.lost.contains(&sent) {
                    down.push_back((after_stalls(link, free) + link.round_trip * 500, pack));
                }
            }
        }
        if here.len() == packs as usize {
            outcome.took = uptime;
            outcome.size = window.size();
            return outcome;
        }
        let due = window.due().saturating_mul(1000);
        match down.front().copied() {
            Some((at, pack)) if at <= due => {
                now = now.max(at);
                down.pop_front();
                window.arrived(pack, now / 1000);
                outcome.twice += u32::from(!here.insert(pack));
            }
            _ => {
                assert_ne!(due, u64::MAX, "nothing is on its way and nothing is waited for");
                now = now.max(due);
            }
        }
    }
    panic!("it never ends: {outcome:?}, {window:?}");
}

fn after_stalls(link: &Link, at: u64) -> u64 {
    link.stalls.iter().fold(
        at,
        |at, (from, to)| {
            if (from * 1000..to * 1000).contains(&at) { to * 1000 } else { at }
        },
    )
}

fn clean(pack: u64, round_trip: u64) -> Link {
    Link { pack, round_trip, lost: BTreeSet::new(), stalls: Vec::new() }
}

fn window() -> Window {
    Window::new(CEILING, 10_000, 600_000)
}

/// The time that the link itself would need, ms.
fn least(link: &Link, packs: u32) -> u64 {
    link.round_trip + u64::from(packs) * link.pack / 1000
}

#[test]
fn it_is_as_large_as_the_link_is_long_and_no_larger() {
    // 64 kbit/s, 1 and 50 Mbit/s at 600 ms; a LAN.
    for (pack, round_trip, packs, sizes) in [
        (8_200_000, 600, 40, 2..=4),
        (525_000, 600, 200, 4..=8),
        (10_500, 600, 4000, 90..=96),
        (600, 1, 4000, 90..=96),
        (33_000_000, 2000, 100, 2..=8),
    ] {
        let link = clean(pack, round_trip);
        let outcome = fetch(&link, &mut window(), packs);

        assert!(sizes.contains(&outcome.size), "{link:?}: {outcome:?}");
        let part = least(&link, packs) as f64 / outcome.took as f64;
        assert!(part > 0.97, "{link:?}: {part}");
    }
}

#[test]
fn a_window_of_one_would_leave_a_long_link_idle() {
    let link = clean(10_500, 600);
    let outcome = fetch(&link, &mut Window::new(1, 10_000, 600_000), 200);

    assert!(outcome.took > 20 * least(&link, 200), "{outcome:?}");
}

#[test]
fn a_stall_loses_nothing_and_is_asked_into_hardly_at_all() {
    let mut link = clean(10_500, 600);
    link.stalls = vec![(5_000, 25_000)];
    let outcome = fetch(&link, &mut window(), 4000);

    assert!(outcome.twice <= 4, "{outcome:?}");
    let part = (least(&link, 4000) + 20_000) as f64 / outcome.took as f64;
    assert!(part > 0.97, "{part}, {outcome:?}");
}

#[test]
fn what_is_overtaken_is_asked_for_again_within_a_round_trip() {
    let mut link = clean(525_000, 600);
    link.lost = BTreeSet::from([30]);
    let outcome = fetch(&link, &mut window(), 100);

    assert_eq!(outcome.twice, 0);
    let late = outcome.took - least(&link, 100);
    assert!(late < 1_500, "{late} ms late: {outcome:?}");
}

#[test]
fn when_all_that_was_on_its_way_is_lost_it_begins_small_and_gets_there() {
    let mut link = clean(10_500, 600);
    link.lost = (500..595).collect();
    let outcome = fetch(&link, &mut window(), 4000);

    assert!(outcome.took < least(&link, 4000) + 25_000, "{outcome:?}");
    assert!(outcome.twice <= 2, "{outcome:?}");
}

#[test]
fn after_a_cut_it_goes_on_with_the_size_that_it_had() {
    let link = clean(10_500, 600);
    let mut window = window();
    fetch(&link, &mut window, 500);
    window.asked(1000, 10_000_000);
    window.cut();

    assert_eq!((window.may_ask(), window.due(), window.is_open(1000)), (96, u64::MAX, false));
}

#[test]
fn silence_is_waited_out_longer_each_time_and_counted() {
    let mut window = window();
    window.asked(7, 0);
    let mut at = Vec::new();
    for _ in 0..9 {
        at.push(window.due() / 1000);
        assert!(window.lost(window.due() - 1).is_empty());
        let due = window.due();
        assert_eq!(window.lost(due), [7]);
        window.asked(7, due);
    }

    assert_eq!(at, [10, 30, 70, 150, 310, 630, 1230, 1830, 2430]);
    assert_eq!((window.silences(), window.size()), (9, 1));
    window.arrived(7, 3_000_000);
    assert_eq!(window.silences(), 0);
}

#[test]
fn a_piece_that_is_lost_is_asked_for_again_though_packs_come() {
    let mut window = window();
    window.asked_ahead(1000, 0);
    (0..8).for_each(|pack| window.asked(pack, 0));
    (0..3).for_each(|pack| assert!(window.arrived(pack, 700)));

    assert_eq!(window.lost(700), [1000]);
    window.asked_ahead(1000, 700);
    window.arrived(1000, 1300);
    assert!(window.lost(1300).is_empty(), "what goes ahead overtakes nothing");
}

proptest! {
    #[test]
    fn every_link_is_kept_busy(pack in 600u64..10_000_000, round_trip in 1u64..1000) {
        let link = clean(pack, round_trip);
        let packs = 400;
        // Above the ceiling it is the ceiling that limits: 96 packs a round trip.
        let full = (round_trip * 1000 + pack) * u64::from(packs) / u64::from(CEILING) / 1000;
        let outcome = fetch(&link, &mut window(), packs);

        let part = (least(&link, packs).max(full) + 2 * round_trip) as f64 / outcome.took as f64;
        prop_assert!(part > 0.93, "{part}: {outcome:?}");
        prop_assert!(outcome.most <= CEILING as usize && outcome.twice <= 2, "{outcome:?}");
    }

    #[test]
    fn everything_comes_in_the_end_whatever_is_lost(
        pack in 600u64..10_000_000,
        round_trip in 1u64..1000,
        ceiling in 1u32..=96,
        lost in prop::collection::btree_set(1u64..300, 0..150),
        stalls in prop::collection::vec((0u64..100_000, 0u64..30_000), 0..4),
    ) {
        let dropped = u32::try_from(lost.len()).unwrap();
        let stalls = stalls.into_iter().map(|(from, length)| (from, from + length)).collect();
        let link = Link { pack, round_trip, lost, stalls };
        let outcome = fetch(&link, &mut Window::new(ceiling, 10_000, 600_000), 200);

        prop_assert!(outcome.most <= ceiling as usize);
        prop_assert!(outcome.twice <= 12 + dropped, "{outcome:?}");
    }

    #[test]
    fn whatever_it_is_told_it_stays_within_its_bounds(
        ceiling in 0u32..200,
        events in prop::collection::vec((0u8..6, 0u32..300, 0u64..5_000), 0..400),
    ) {
        let mut window = Window::new(ceiling, 1000, 60_000);
        let mut uptime = 0;
        for (kind, pack, wait) in events {
            uptime += wait;
            match kind {
                0 => window.asked(pack, uptime),
                1 => window.asked_ahead(pack, uptime),
                2 => _ = window.arrived(pack, uptime),
                3 => drop(window.lost(uptime)),
                4 => window.cut(),
                _ => (0..window.may_ask()).for_each(|next| window.asked(1000 + next, uptime)),
            }
            prop_assert!((1..=ceiling.max(1)).contains(&window.size()));
            prop_assert!(window.may_ask() <= window.size());
            prop_assert!(window.open.is_empty() || window.due() <= uptime + 60_000);
        }
    }
}
