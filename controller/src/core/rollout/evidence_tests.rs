use proptest::prelude::*;

use super::*;

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "found {found:.12}, expected {expected:.12}");
}

/// From an independent Python (numpy) computation of the same formulae; never change these.
#[test]
fn kill_evidence_matches_the_fixed_vectors() {
    near(kill_evidence(812, 37, 0.009), 27.987_279_260);
    near(kill_evidence(10, 3, 0.02), 4.506_868_815);
    near(kill_evidence(5, 5, 0.02), 17.377_897_368);
    near(kill_evidence(1000, 10, 0.0125), -3.420_601_857);
    near(kill_evidence(100_000, 1300, 0.0125), -15.442_584_749);
    near(silence_evidence(50, 50, 0.2), 72.736_348_804);
}

#[test]
fn gate_evidence_matches_the_fixed_vectors() {
    near(gate_evidence(200, 0, 0.05), 9.745_874_679);
    near(gate_evidence(1000, 40, 0.05), -1.490_927_477);
    near(gate_evidence(100, 0, 0.05), 4.761_130_676);
}

#[test]
fn pair_evidence_matches_the_fixed_vector_and_merges_by_addition() {
    let tick = |xt, xc, et, ec| {
        let mut pair = PairEvidence::default();
        pair.tick(Arm { events: xt, exposure: et }, Arm { events: xc, exposure: ec }, 1.25);
        pair
    };

    let mut pair = tick(9, 31, 1000, 10_000);
    pair.merge(&tick(4, 12, 990, 9970));

    near(pair.ln_e(), 2.214_737_750);
    assert_eq!(pair.treated(), Arm { events: 13, exposure: 1990 });
    assert_eq!(pair.control(), Arm { events: 43, exposure: 19_970 });
}

#[test]
fn a_tick_without_a_control_says_nothing() {
    let mut pair = PairEvidence::default();
    pair.tick(Arm { events: 9, exposure: 10 }, Arm::default(), 2.0);
    near(pair.ln_e(), 0.0);
}

#[test]
fn a_small_fleet_needs_as_many_bad_devices_as_the_table_says() {
    let bad_needed =
        |n: u64, alpha: f64| (1..=n).find(|f| kill_evidence(n, *f, 0.02) >= kill_threshold(alpha, 0.5));
    let table: [(u64, [Option<u64>; 3]); 9] = [
        (2, [None, Some(2), Some(2)]),
        (3, [Some(3), Some(3), Some(2)]),
        (5, [Some(4), Some(3), Some(3)]),
        (10, [Some(4), Some(4), Some(3)]),
        (20, [Some(6), Some(5), Some(4)]),
        (50, [Some(8), Some(7), Some(6)]),
        (100, [Some(11), Some(10), Some(9)]),
        (200, [Some(16), Some(14), Some(13)]),
        (1000, [Some(44), Some(41), Some(38)]),
    ];
    for (n, expected) in table {
        assert_eq!([0.001, 0.01, 0.05].map(|alpha| bad_needed(n, alpha)), expected, "{n} started");
    }
}

#[test]
fn clean_devices_prove_what_the_table_says() {
    let table = [
        (2, 0.82),
        (3, 0.68),
        (5, 0.49),
        (10, 0.29),
        (20, 0.16),
        (50, 0.064),
        (100, 0.033),
        (200, 0.017),
        (1000, 0.0034),
    ];
    for (n, below) in table {
        let bound = upper_bound(n, 0, 0.05);
        assert!(bound < below * 1.02 && bound > below * 0.9, "{n} clean devices: {bound}");
    }
    assert!((upper_bound(0, 0, 0.05) - 1.0).abs() < 1e-12);
}

#[test]
fn promotion_needs_as_many_devices_as_the_table_says() {
    for (p_max, expected) in
        [(0.05, [64, 136, 187, 306, 480]), (0.02, [163, 345, 472, 774, 1211]), (0.10, [32, 67, 92, 151, 236])]
    {
        let found = [0, 1, 2, 5, 10].map(|bad| fewest_to_pass(bad, p_max, 0.05, 20_000));
        assert_eq!(found, expected.map(Some), "gate at {p_max}");
    }
    assert_eq!(fewest_to_pass(0, 0.05, 0.05, 63), None);
}

#[test]
fn rates_at_the_edge_keep_every_figure_finite() {
    for p in [0.0, 1e-12, 0.5, 0.95, 1.0] {
        for (n, f) in [(0, 0), (1, 1), (10, 0), (1_000_000, 1_000_000), (3, 9)] {
            assert!(kill_evidence(n, f, p).is_finite(), "kill {n} {f} {p}");
            assert!(gate_evidence(n, f, p).is_finite(), "gate {n} {f} {p}");
        }
    }
}

proptest! {
    #[test]
    fn one_more_bad_device_never_helps_a_release(n in 1u64..5000, f in 0u64..5000, p in 0.001f64..0.5) {
        let f = f.min(n - 1);
        prop_assert!(kill_evidence(n, f + 1, p) > kill_evidence(n, f, p));
        prop_assert!(gate_evidence(n, f + 1, p) < gate_evidence(n, f, p));
    }

    #[test]
    fn one_more_good_device_never_harms_a_release(n in 1u64..5000, f in 0u64..5000, p in 0.001f64..0.5) {
        let f = f.min(n);
        prop_assert!(kill_evidence(n + 1, f, p) < kill_evidence(n, f, p));
        prop_assert!(gate_evidence(n + 1, f, p) > gate_evidence(n, f, p));
    }

    #[test]
    fn what_is_proven_lies_above_what_was_seen(n in 1u64..5000, f in 0u64..5000) {
        let f = f.min(n);
        let bound = upper_bound(n, f, 0.05);
        prop_assert!(bound >= f as f64 / n as f64 && bound <= 1.0);
    }

    #[test]
    fn written_evidence_survives_json(value in -1e4f64..1e4) {
        let value = rounded(value);
        let text = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), value.to_bits());
    }
}
