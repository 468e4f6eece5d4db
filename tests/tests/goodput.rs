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
    let cut = Duration::from_secs(4);
    // 12 MiB: 12.6 s on this link, so three cuts at least. Four round trips of 4 s are 40 %, a pause of a second would be a quarter.
    let case = Case::new(terms(), 12 << 20, Duration::ZERO).cut_every(cut);

    let ours = goodput(&case, "");

    assert!(ours.connections >= 3, "{ours:?}");
    assert!(ours.part > 0.4, "{ours:?}");
}
