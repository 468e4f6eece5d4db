//! A download over a link with round trips and cuts makes use of it; with a window of one it would not. The figures at full
//! length are in docs/performance.md.

use std::time::Duration;

use tern_tests::bench::{Case, goodput};
use tern_tests::lab::Terms;

/// 8 Mbit/s, 400 ms there and back: six packs long.
fn terms() -> Terms {
    Terms::plain(8_000_000, Duration::from_millis(200))
}

#[test]
fn a_long_link_is_kept_busy_and_would_not_be_by_a_window_of_one() {
    let case = |megabytes: usize| Case::new(terms(), megabytes << 20, Duration::ZERO);

    let (ours, one) = std::thread::scope(|scope| {
        let one = scope.spawn(|| goodput(&case(1), "window = 1"));
        (goodput(&case(8), ""), one.join().expect("it is measured"))
    });

    assert!(ours.part > 0.7, "{ours:?}");
    assert!(one.part < 0.3, "{one:?}");
    // Nothing is fetched twice.
    assert!(ours.down < 1.03 && ours.up < 0.02, "{ours:?}");
}

#[test]
fn after_a_cut_it_goes_on_at_once_with_what_is_missing() {
    let cut = Duration::from_secs(6);
    // 12 MiB take 12.6 s on this link. A cut costs four round trips, TCP's among them, and the pause: with a quarter of a
    // second at most some 70 % are left, with two seconds 40 %.
    let case = Case::new(terms(), 12 << 20, Duration::ZERO).cut_every(cut);

    // A connection of so short a life has done its duty only beside a short silence.
    let ours = goodput(&case, "broker_silence = 1.5");

    assert!(ours.connections >= 3, "{ours:?}");
    assert!(ours.part > 0.5, "{ours:?}");
}
