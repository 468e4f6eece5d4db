//! The order of versions by examples and by its laws, and ranges.

use std::cmp::Ordering::{self, Equal, Less};

use proptest::prelude::*;

use super::*;

fn compare(a: &str, b: &str) -> Ordering {
    Version::read(a).unwrap().cmp(&Version::read(b).unwrap())
}

fn contains(range: &str, version: &str) -> bool {
    range.parse::<Range>().unwrap().contains(Version::read(version).unwrap())
}

#[test]
fn versions_stand_in_the_order_that_people_expect() {
    let ascending = [
        "1",
        "1^git2",
        "1a",
        "1.0~rc1",
        "1.0",
        "1.0^git3",
        "1.0.rc1",
        "1.0.1",
        "1.2",
        "1.10",
        "1.10a",
        "2.0~alpha",
        "2.0~beta2",
        "2.0~beta10",
        "2.0",
        "2.0-rc1",
        "10",
        "20261126",
    ];
    for pair in ascending.windows(2) {
        assert_eq!(compare(pair[0], pair[1]), Less, "{} < {}", pair[0], pair[1]);
    }
    for (a, b) in [("1.0", "1_00"), ("1.0", "1-0."), ("MPSS.4.3", "MPSS_4_3"), ("007", "7"), ("0", "000")] {
        assert_eq!(compare(a, b), Equal, "{a} = {b}");
    }
    let long = "9".repeat(VERSION_MAX);
    assert_eq!(compare(&long[1..], &long), Less, "no number overflows");
}

#[test]
fn what_cannot_be_compared_is_no_version() {
    let long = "1".repeat(VERSION_MAX + 1);
    for text in ["", "...", "~", "1\n", "1.ä", long.as_str()] {
        assert!(Version::read(text).is_none(), "{text:?}");
    }
    for text in ["1", "RG500Q EAAA 01.001", &long[1..]] {
        assert!(Version::read(text).is_some(), "{text:?}");
    }
}

#[test]
fn a_range_admits_what_all_its_parts_admit() {
    for inside in ["1.2", "1.2.0", "1.10", "2~rc1"] {
        assert!(contains(">=1.2, <2", inside), "{inside}");
    }
    for outside in ["1.1.9", "1.2~rc1", "2", "2.0", "10"] {
        assert!(!contains(">=1.2, <2", outside), "{outside}");
    }
    assert!(contains("=3.1", "3.01") && !contains("=3.1", "3.1.0"));
    assert!(contains(">3.1,<=3.2", "3.2") && !contains(">3.1,<=3.2", "3.1"));
    assert!(contains(" * ", "anything at all"));
}

#[test]
fn a_range_reads_as_it_was_written() {
    for (text, written) in [(" >= 1.2,<2 ", ">=1.2, <2"), ("*", "*"), ("=3.1~rc1", "=3.1~rc1")] {
        let range: Range = text.parse().unwrap();
        assert_eq!(range.to_string(), written);
        let json = serde_json::to_string(&range).unwrap();
        assert_eq!(serde_json::from_str::<Range>(&json).unwrap(), range);
    }
}

#[test]
fn a_slip_in_a_range_is_refused_with_what_to_write() {
    let said = |text: &str| text.parse::<Range>().unwrap_err().to_string();
    assert!(said("3.1").contains("=3.1, >=3.1 or <3.1"), "{}", said("3.1"));
    assert!(said(">=1,").contains("does not say"), "{}", said(">=1,"));
    for text in [">=", ">= 1 2", "==1", ">=1.*", "=~", ">=1, *"] {
        assert!(text.parse::<Range>().is_err(), "{text}");
    }
    assert_eq!(">1".repeat(RANGE_MAX).parse::<Range>(), Err(RangeError::Long));
    let parts = |count: usize| vec![">1"; count].join(",");
    assert!(parts(RANGE_PARTS_MAX).parse::<Range>().is_ok());
    assert_eq!(parts(RANGE_PARTS_MAX + 1).parse::<Range>(), Err(RangeError::Long));
    assert!(serde_json::from_str::<Range>("\"3.1\"").is_err());
}

#[test]
fn a_range_that_nothing_is_in_says_so() {
    for text in [">=2, <1", ">1, <=1", "=1, =2", "=1, >1", "<1.0, >=1_00"] {
        assert!(text.parse::<Range>().unwrap().is_contradiction(), "{text}");
    }
    for text in ["*", ">=1, <2", ">=1, <=1", "=1.0, >=1_00", "<1, <2"] {
        assert!(!text.parse::<Range>().unwrap().is_contradiction(), "{text}");
    }
}

/// Texts that differ little, so that equal beginnings and equal versions are common.
fn versions() -> impl Strategy<Value = String> {
    "[0-2ab.~^_-]{0,6}[01a]"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_order_is_total_antisymmetric_and_transitive(a in versions(), b in versions(), c in versions()) {
        prop_assert_eq!(compare(&a, &a), Equal);
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        let mut sorted = [&a, &b, &c];
        sorted.sort_by(|x, y| compare(x, y));
        prop_assert!(compare(sorted[0], sorted[2]).is_le(), "{:?}", sorted);
        if compare(&a, &b).is_eq() {
            prop_assert_eq!(compare(&a, &c), compare(&b, &c), "equal ones are equal to everything");
        }
    }

    #[test]
    fn the_order_stays_when_more_is_written_behind(a in versions(), b in versions()) {
        // Digits and letters may grow into each other; behind a dot nothing does.
        let (longer_a, longer_b) = (format!("{a}.1"), format!("{b}.1"));
        if compare(&a, &b).is_eq() {
            prop_assert_eq!(compare(&longer_a, &longer_b), Equal);
        }
        prop_assert_eq!(compare(&a, &longer_a), Less);
        prop_assert_eq!(compare(&format!("{a}~rc"), &a), Less);
    }

    #[test]
    fn a_version_is_below_at_or_above_another_and_ranges_say_the_same(a in versions(), b in versions()) {
        let admitted = ["<", "=", ">"].map(|sign| contains(&format!("{sign}{b}"), &a));
        prop_assert_eq!(admitted.iter().filter(|yes| **yes).count(), 1);
        prop_assert_eq!(contains(&format!("<={b}"), &a), admitted[0] || admitted[1]);
        prop_assert_eq!(contains(&format!(">={b}"), &a), admitted[1] || admitted[2]);
    }

    #[test]
    fn nothing_is_in_a_contradiction(a in versions(), b in versions(), c in versions(), signs in (0..5usize, 0..5usize)) {
        let (one, other) = (Bound::ALL[signs.0].0, Bound::ALL[signs.1].0);
        let range = format!("{one}{a}, {other}{b}");
        if range.parse::<Range>().unwrap().is_contradiction() {
            prop_assert!(!contains(&range, &c), "{} holds {}", range, c);
        }
    }

    #[test]
    fn no_text_makes_a_range_panic(text in "\\PC{0,40}") {
        if let Ok(range) = text.parse::<Range>() {
            prop_assert_eq!(range.to_string().parse::<Range>().unwrap(), range);
        }
    }
}
