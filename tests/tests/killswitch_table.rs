//! The kill switch in numbers: a short run of the table that `.ci/long killswitch` prints whole.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::Command;

use serde_json::Value;

fn rows(profile: &str, scenario: &str, runs: u64) -> Vec<Value> {
    let ran = Command::new(env!("CARGO_BIN_EXE_killswitch-table"))
        .args(["--json", "--profile", profile, "--scenario", scenario, "--runs", &runs.to_string()])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Few runs of each: the whole table has a hundred, and is held to a tenth.
#[test]
fn a_bad_release_harms_about_as_many_as_in_the_reference_and_a_healthy_one_lives() {
    for scenario in ["1%-x20", "brick-100%", "0.1%-x20"] {
        for row in rows("oracle", scenario, 4) {
            assert_eq!(row["killed"], 4, "{row}");
            let (harmed, reference) =
                (row["harmed_median"].as_f64().unwrap(), row["reference"][0].as_f64().unwrap());
            assert!((0.5..=1.5).contains(&(harmed / reference)), "{row}");
        }
    }
    for profile in ["oracle", "default"] {
        let healthy = rows(profile, "healthy-1%-bad-news-first", 1);
        assert_eq!((&healthy[0]["killed"], &healthy[0]["runs"]), (&0.into(), &10.into()), "{healthy:?}");
    }
}

/// The control: without a release before it the default policy allows 5 %, and is blind to what is twenty times as usual.
#[test]
fn a_baseline_kills_what_the_absolute_limit_allows() {
    let (known, first) = (&rows("default", "0.1%-x20", 2)[0], &rows("first", "0.1%-x20", 2)[0]);
    assert_eq!((&known["killed"], &first["killed"]), (&2.into(), &0.into()), "{known} {first}");
    let harmed = |row: &Value| row["harmed_median"].as_u64().unwrap();
    assert!(harmed(known) * 10 < harmed(first), "{known} {first}");
}

/// What people type to check a verdict by hand.
#[test]
fn the_evidence_of_the_published_vectors_is_printed_to_nine_digits() {
    for (words, ln_e) in [
        ("kill 812 37 0.009", "27.987279260"),
        ("kill 100000 1300 0.0125", "-15.442584749"),
        ("kill 50 50 0.2", "72.736348804"),
        ("gate 200 0 0.05", "9.745874679"),
        ("gate 1000 40 0.05", "-1.490927477"),
        ("pair 1.25 9,31,1000,10000 4,12,990,9970", "2.214737750"),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_evidence")).args(words.split(' ')).output().unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), ln_e, "{words}");
    }
}
