//! Conditions against surroundings, moment by moment.

use tern_protocol::tuf::content::Urgency;

use super::super::conditions::{
    Awaited, Conditions, Consent, Power, Stage, Surroundings, Wait, Window, judge,
};
use super::super::zone::Zone;

/// 2026-11-26 00:00 UTC, a Thursday.
const THURSDAY: u64 = 1_795_651_200;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn window(days: &str, from: (u16, u16), to: (u16, u16)) -> Window {
    let on = |at: usize| days.is_empty() || days.as_bytes()[at] == b'x';
    Window { days: std::array::from_fn(on), from: from.0 * 60 + from.1, to: to.0 * 60 + to.1 }
}

fn nights(windows: &[Window]) -> Conditions {
    Conditions { windows: windows.to_vec(), ..Conditions::default() }
}

fn install(
    conditions: &Conditions,
    around: &Surroundings,
    now: Option<u64>,
    urgency: Urgency,
) -> Result<(), Wait> {
    judge(conditions, Stage::Install, around, now, urgency)
}

fn opens(conditions: &Conditions, now: u64) -> Option<Option<u64>> {
    install(conditions, &Surroundings::default(), Some(now), Urgency::Soft).err().map(|wait| wait.until)
}

#[test]
fn a_window_is_open_from_its_first_minute_to_the_one_before_its_end_on_its_days() {
    let thursday = nights(&[window("---x---", (2, 0), (4, 30))]);
    let at = |day: u64, hour: u64, minute: u64| THURSDAY + day * DAY + hour * HOUR + minute * 60;
    for (now, until) in [
        (at(0, 1, 59), Some(at(0, 2, 0))),
        (at(0, 2, 0), None),
        (at(0, 4, 29), None),
        (at(0, 4, 30), Some(at(7, 2, 0))),
        (at(1, 3, 0), Some(at(7, 2, 0))),
        (at(6, 3, 0), Some(at(7, 2, 0))),
        (at(7, 3, 0), None),
    ] {
        assert_eq!(opens(&thursday, now), until.map(Some), "{now}");
    }
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
    let late = nights(&[window("---x---", (23, 0), (1, 0))]);
    for (hours, open) in [(22, false), (23, true), (24, true), (25, false), (47, false), (0, false)] {
        assert_eq!(opens(&late, THURSDAY + hours * HOUR).is_none(), open, "{hours}");
    }
    let always = nights(&[window("", (5, 0), (5, 0))]);
    assert!((0..48).all(|hours| opens(&always, THURSDAY + hours * HOUR).is_none()));
}

#[test]
fn windows_follow_local_time_through_a_change_of_the_clocks() {
    let zone = Zone::of_rule("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let night = Conditions { zone, ..nights(&[window("", (2, 0), (3, 0)), window("", (12, 0), (13, 0))]) };
    // In winter 2:00 in Berlin is 1:00 UTC.
    assert_eq!(opens(&night, THURSDAY + HOUR / 2), Some(Some(THURSDAY + HOUR)));
    // On 2026-03-29 there is no 2:30 in Berlin: the next window is at noon, which is 10:00 UTC in summer.
    let sunday = 1_774_742_400;
    assert_eq!(opens(&night, sunday + HOUR / 2), Some(Some(sunday + 10 * HOUR)));
    assert_eq!(opens(&night, sunday + HOUR), Some(Some(sunday + 10 * HOUR)));
    // On 2026-10-25 there are two: 0:00 and 1:00 UTC both are 2:00.
    let sunday = 1_792_886_400;
    for (minutes, open) in [(29, true), (30 + 60, true), (121, false)] {
        assert_eq!(opens(&night, sunday + minutes * 60).is_none(), open, "{minutes}");
    }
}

#[test]
fn every_moment_at_which_a_window_is_said_to_open_it_does_and_none_before() {
    let zone = Zone::of_rule("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let windows = [window("x-x----", (1, 15), (2, 30)), window("-----xx", (22, 0), (3, 45))];
    let conditions = Conditions { zone, ..nights(&windows) };
    // Ten days around each change of the clocks of 2026, every quarter of an hour.
    for start in [1_774_742_400 - 5 * DAY, 1_792_886_400 - 5 * DAY] {
        for now in (start..start + 10 * DAY).step_by(900) {
            let Some(until) = opens(&conditions, now) else { continue };
            let until = until.expect("they open every week");
            assert_eq!(opens(&conditions, until), None, "{now}: {until}");
            let before = (now..until).step_by(900).find(|at| opens(&conditions, *at).is_none());
            assert_eq!(before, None, "{now}: open before {until}");
        }
    }
}

#[test]
fn without_a_clock_a_window_stays_closed_unless_the_owner_says_otherwise() {
    let night = nights(&[window("", (2, 0), (3, 0))]);
    let around = Surroundings::default();
    let wait = install(&night, &around, None, Urgency::Soft).unwrap_err();
    assert_eq!((wait.awaited, wait.until), (Awaited::Clock, None));
    assert!(wait.reason.contains("clock"), "{}", wait.reason);

    let goes = Conditions { without_clock: true, ..night.clone() };
    assert_eq!(install(&goes, &around, None, Urgency::Soft), Ok(()));
    assert!(install(&goes, &around, Some(THURSDAY), Urgency::Soft).is_err(), "with a clock it counts");
    assert_eq!(install(&night, &around, None, Urgency::Forced), Ok(()));
    // Whether the moment has come nobody knows.
    assert!(install(&night, &around, None, Urgency::ForcedFrom(1)).is_err());
}

#[test]
fn a_deadline_is_soft_before_its_moment_and_forced_from_it_on() {
    let conditions = Conditions { consent: true, battery_min: Some(40), ..Conditions::default() };
    let around = Surroundings { consent: Consent::NotYet, ..Surroundings::default() };
    let deadline = Urgency::ForcedFrom(THURSDAY);

    let wait = install(&conditions, &around, Some(THURSDAY - 1), deadline).unwrap_err();

    assert_eq!((wait.awaited, wait.until), (Awaited::Consent, Some(THURSDAY)));
    assert_eq!(install(&conditions, &around, Some(THURSDAY), deadline), Ok(()));
    let capped = Conditions { allow_forced: false, ..conditions.clone() };
    let wait = install(&capped, &around, Some(THURSDAY), deadline).unwrap_err();
    assert_eq!((wait.awaited, wait.until), (Awaited::Consent, None));
    let empty = Surroundings { power: Power::Battery(39), ..around };
    let wait = install(&conditions, &empty, Some(THURSDAY), deadline).unwrap_err();
    assert_eq!(wait.awaited, Awaited::Power);
}

#[test]
fn every_unmet_condition_is_named_with_its_numbers() {
    let conditions = Conditions { consent: true, battery_min: Some(40), load: true, ..Conditions::default() };
    let well = Surroundings::default;
    for (around, reason) in [
        (Surroundings { power: Power::Battery(23), ..well() }, "battery 23 % of 40 %"),
        (Surroundings { power: Power::Unknown("no gauge".into()), ..well() }, "power: no gauge"),
        (Surroundings { consent: Consent::NotYet, ..well() }, "consent"),
        (Surroundings { consent: Consent::Refused("exit code 1".into()), ..well() }, "consent: exit code 1"),
        (Surroundings { busy: Some("in a call".into()), ..well() }, "an idle device: in a call"),
    ] {
        let wait = install(&conditions, &around, Some(THURSDAY), Urgency::Soft).unwrap_err();
        assert_eq!(wait.reason, reason);
        // What nobody asked for holds nothing back.
        assert_eq!(install(&Conditions::default(), &around, None, Urgency::Soft), Ok(()));
    }
    for power in [Power::Mains, Power::Battery(40), Power::Battery(100)] {
        let around = Surroundings { power, ..well() };
        assert_eq!(install(&conditions, &around, Some(THURSDAY), Urgency::Soft), Ok(()));
    }
}

#[test]
fn a_metered_link_takes_small_images_at_any_time_and_large_ones_in_its_windows() {
    let download = |conditions: &Conditions, bytes, metered, now| {
        let around = Surroundings { metered, ..Surroundings::default() };
        judge(conditions, Stage::Download(bytes), &around, now, Urgency::Forced).map_err(|wait| wait.awaited)
    };
    let small = Conditions { metered_max: Some(1000), ..Conditions::default() };
    assert_eq!(download(&small, 1000, true, None), Ok(()));
    assert_eq!(download(&small, 1001, false, None), Ok(()));
    assert_eq!(download(&small, 1001, true, None), Err(Awaited::Link));
    let cheap = Conditions { metered_windows: vec![window("", (0, 0), (6, 0))], ..small };
    assert_eq!(download(&cheap, 1001, true, Some(THURSDAY + HOUR)), Ok(()));
    assert_eq!(download(&cheap, 1001, true, Some(THURSDAY + 7 * HOUR)), Err(Awaited::Window));
    assert_eq!(download(&cheap, 1001, true, None), Err(Awaited::Clock));
    assert_eq!(download(&Conditions::default(), 1001, true, None), Ok(()));
}

#[test]
fn windows_count_for_a_download_only_where_the_owner_says_so() {
    let night = nights(&[window("", (2, 0), (3, 0))]);
    let download = |conditions: &Conditions| {
        judge(conditions, Stage::Download(1), &Surroundings::default(), Some(THURSDAY), Urgency::Soft).is_ok()
    };
    assert!(download(&night) && !night.apply(Stage::Download(1)));
    let both = Conditions { windows_for_download: true, ..night };
    assert!(!download(&both) && both.apply(Stage::Download(1)));
}
