//! The policy bake-off in small: what must hold of every rule, and that ours would show if it were broken.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use tern_tests::bakeoff::contest::{Contest, Contestant, Row};
use tern_tests::bakeoff::ours::Profile;
use tern_tests::bakeoff::scenario::{Defect, SCENARIOS, Scenario};

const OURS: Contestant = Contestant::Ours(Profile::Default);
const DEAF: Contestant = Contestant::Ours(Profile::Deaf);
const BLIND: Contestant = Contestant::Ours(Profile::Blind);

/// Few: the service is slow without optimisation.
const RUNS: u64 = 1;

fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap()
}

fn play(name: &str, devices: usize, contestants: &[Contestant], threads: usize) -> Vec<Row> {
    let contestants = contestants.to_vec();
    Contest { runs: RUNS, devices, seed: 20_261_126, contestants, threads }.play(scenario(name))
}

#[test]
fn nobody_stops_a_healthy_release_but_those_who_look_at_the_first_failures() {
    let rules = [Contestant::TimeOnly, Contestant::HawkBit, Contestant::AwsCareful, OURS];
    for name in ["healthy", "own-outage"] {
        let rows = play(name, 400, &rules, 1);
        assert_eq!((rows[0].stopped, rows[0].full_hours_median), (0, Some(72.0)), "{:?}", rows[0]);
        assert!(rows[1].full_hours_median.unwrap() < 24.0, "hawkBit does not wait: {:?}", rows[1]);
        assert_eq!(rows[3].stopped, 0, "{:?}", rows[3]);
        assert_eq!(rows[3].full_hours_median, None, "ten canaries cannot pass a gate at 5 %: {:?}", rows[3]);
    }
    let rows = play("healthy-bad-first", 20_000, &[Contestant::AwsCareful], 1);
    assert!(rows[0].stopped > 0, "five percent of the first ten, when bad news comes first: {:?}", rows[0]);
}

#[test]
fn silence_is_heard_by_ours_alone_and_not_by_a_deaf_variant_of_it() {
    let rules = [Contestant::TimeOnly, Contestant::HawkBit5, Contestant::Aws, Contestant::OpenMv, OURS, DEAF];
    let rows = play("brick-100", 20_000, &rules, 1);
    let [time, hawkbit, aws, openmv, ours, deaf] = &rows[..] else { panic!("six rows") };
    for peer in [time, hawkbit, aws, openmv, deaf] {
        assert_eq!(peer.stopped, 0, "{peer:?}");
    }
    assert_eq!(
        (time.harmed_median, aws.harmed_median, openmv.harmed_median),
        (20_000, 20_000, 20_000),
        "{rows:?}"
    );
    // hawkBit opens no second group, and says nothing: all of its first lies bricked. So does ours without deadlines.
    assert_eq!((hawkbit.harmed_median, deaf.harmed_median), (200, 200), "{rows:?}");
    assert!(ours.stopped == RUNS && ours.harmed_median < 200, "{ours:?}");
}

#[test]
fn failures_that_everybody_can_see_hold_ours_and_never_a_blind_variant_of_it() {
    let rows = play("fails-20", 400, &[Contestant::TimeOnly, OURS, BLIND], 1);
    let [time, ours, blind] = &rows[..] else { panic!("three rows") };

    assert_eq!((ours.full_hours_median, blind.stopped, time.stopped), (None, 0, 0), "{rows:?}");
    assert!(ours.harmed_p95 * 10 < time.harmed_median, "{rows:?}");
    assert!(blind.harmed_median * 10 > time.harmed_median * 9, "{rows:?}");
}

#[test]
fn one_bad_model_of_twenty_and_a_tiny_fleet_are_seen_too() {
    let rows = play("bad-model", 20_000, &[Contestant::HawkBit5, Contestant::OpenMv, OURS], 1);
    let [hawkbit, openmv, ours] = &rows[..] else { panic!("three rows") };
    assert_eq!((hawkbit.stopped, ours.full_hours_median), (0, None), "diluted twenty times: {rows:?}");
    assert!(ours.harmed_median < hawkbit.harmed_median / 5, "{rows:?} {openmv:?}");

    let tiny = &play("tiny-bad", 100, &[OURS], 1)[0];
    assert_eq!((tiny.devices, tiny.stopped), (40, RUNS), "{tiny:?}");
}

/// One model, or nobody would be compared in so small a canary.
#[test]
fn crashes_and_battery_drain_are_compared_with_devices_that_wait() {
    let stopped = |defect: Option<Defect>, devices: usize| {
        let scenario = Scenario { models: 1, defect, ..*scenario("slow-crash") };
        let contestants = vec![Contestant::HawkBit, OURS];
        let contest = Contest { runs: RUNS, devices, seed: 20_261_126, contestants, threads: 1 };
        let rows = contest.play(&scenario);
        let because: Vec<String> = rows[1].because.keys().cloned().collect();
        (rows[0].stopped, rows[1].stopped, because.join(" "))
    };

    let [crash, battery] =
        [Defect::Crash(1.0), Defect::Battery(1.0)].map(|defect| stopped(Some(defect), 20_000));

    assert_eq!((crash.0, crash.1, battery.0, battery.1), (0, RUNS, 0, RUNS), "{crash:?} {battery:?}");
    assert_ne!(crash.2, battery.2);
    assert_eq!(stopped(None, 1000), (0, 0, String::new()), "the same without a defect");
}

#[test]
fn the_same_seed_gives_the_same_rows_whatever_the_threads() {
    let rules = [Contestant::AwsTimeout, Contestant::OpenMv, OURS];
    assert_eq!(play("fails-5", 300, &rules, 1), play("fails-5", 300, &rules, 2));
}
