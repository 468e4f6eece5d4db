use super::*;

const TODAY: u64 = 1_795_000_000;
const YEAR: u64 = 365 * DAY;

/// Seconds after the start of the agent, with a system clock.
fn at(seconds: u64, wall: u64) -> Now {
    Now { uptime: seconds * 1000, wall }
}

fn saved(learned: u64) -> Clock {
    started(TimeFloor { own: 0, learned })
}

fn started(floor: TimeFloor) -> Clock {
    let mut clock = Clock::new(floor);
    clock.start(at(0, 0));
    clock
}

#[test]
fn without_any_clock_time_goes_on_from_what_was_saved() {
    let clock = saved(TODAY);

    assert_eq!(clock.now(at(0, 0)), TODAY);
    assert_eq!(clock.now(at(7200, 7200)), TODAY + 7200);
    assert_eq!(started(TimeFloor::default()).now(at(60, 0)), BUILT + 60);
}

#[test]
fn a_system_clock_counts_forward_of_the_floor_and_never_before_it() {
    let clock = saved(TODAY);

    assert_eq!(clock.now(at(0, TODAY + DAY)), TODAY + DAY);
    assert_eq!(clock.now(at(0, TODAY - DAY)), TODAY);
    assert_eq!(clock.now(at(0, TODAY - 10 * YEAR)), TODAY);
}

#[test]
fn a_system_clock_far_ahead_counts_once_somebody_has_signed_a_time_near_it() {
    let mut clock = saved(TODAY);
    let ahead = TODAY + 31 * DAY;
    assert_eq!(clock.now(at(10, ahead)), TODAY + 10);
    assert_eq!(clock.now(at(10, TODAY + 10 * YEAR)), TODAY + 10);

    clock.answer(ahead - 3600, at(20, ahead));

    assert_eq!(clock.now(at(30, ahead + 100)), ahead + 100);
    // That very clock, not any.
    assert_eq!(clock.now(at(30, ahead + 2 * DAY)), TODAY + 30);
}

#[test]
fn a_system_clock_that_was_believed_once_does_not_vouch_for_its_next_leap() {
    let mut clock = saved(TODAY);
    let once = TODAY + 29 * DAY;
    let floor = clock.to_save(at(0, once)).unwrap();
    assert_eq!(floor.own, once);

    let clock = started(floor);

    assert_eq!(clock.now(at(0, once + 29 * DAY)), once);
}

#[test]
fn an_issue_time_moves_the_clock_of_a_device_without_one() {
    let mut clock = saved(TODAY);

    clock.issued(TODAY + YEAR, at(5, 1000));

    assert_eq!(clock.now(at(65, 1060)), TODAY + YEAR + 60);
    clock.issued(TODAY, at(70, 1065));
    assert_eq!(clock.now(at(70, 1065)), TODAY + YEAR + 65);
}

#[test]
fn a_clock_that_is_set_is_moved_a_day_past_itself_at_most_however_often() {
    let mut clock = saved(TODAY);
    for hour in 0..100 {
        let now = at(hour * 3600, TODAY + hour * 3600);
        clock.issued(TODAY + YEAR, now);
        clock.answer(TODAY + YEAR, now);
        assert!(clock.now(now) <= now.wall + DAY, "{hour}");
    }
}

#[test]
fn an_answer_moves_no_clock_and_shows_for_an_hour_what_is_over() {
    let mut clock = saved(TODAY);
    let end = TODAY + 3 * DAY;
    assert!(!clock.is_over(end, at(5, 0)) && clock.is_over(end, at(3 * DAY, 0)));

    clock.answer(TODAY + YEAR, at(5, 0));

    assert_eq!(clock.now(at(5, 0)), TODAY + 5);
    assert!(clock.is_over(end, at(5, 0)) && clock.is_over(end, at(5 + KNOWN_FOR, 0)));
    // Whoever answered may have lied.
    assert!(!clock.is_over(end, at(5 + KNOWN_FOR + 1, 0)));
}

#[test]
fn within_an_hour_of_an_answer_a_timestamp_from_the_day_after_next_is_refused() {
    let mut clock = saved(TODAY);
    assert_eq!((clock.shown(at(0, 0)), clock.latest_issue(at(0, 0))), (None, u64::MAX));

    clock.answer(TODAY + 40 * DAY, at(100, 0));

    assert_eq!(clock.shown(at(160, 0)), Some(TODAY + 40 * DAY + 60));
    assert_eq!(clock.latest_issue(at(160, 0)), TODAY + 41 * DAY + 60);
    assert_eq!(clock.latest_issue(at(100 + KNOWN_FOR + 1, 0)), u64::MAX);
}

#[test]
fn what_was_learned_from_a_key_goes_with_it_and_the_rest_stays() {
    let mut clock = started(TimeFloor { own: TODAY, learned: TODAY + 10 * YEAR });

    clock.forget_learned(at(50, 0));

    assert_eq!(clock.now(at(60, 0)), TODAY + 60);
    assert_eq!(clock.shown(at(60, 0)), None);
    assert_eq!(clock.to_save(at(60, 0)), Some(TimeFloor { own: TODAY + 60, learned: 0 }));
}

#[test]
fn the_clock_is_saved_once_an_hour_and_what_is_saved_never_falls() {
    let mut clock = saved(TODAY);
    let mut saves = Vec::new();
    for minute in 0..180 {
        // The system's clock leaps about meanwhile.
        let wall = [0, TODAY + minute * 60, TODAY + 20 * YEAR][(minute % 3) as usize];
        saves.extend(clock.to_save(at(minute * 60, wall)));
    }

    assert_eq!(saves.len(), 2, "{saves:?}");
    assert!(saves.is_sorted_by_key(|floor| floor.latest()) && saves[0].latest() >= TODAY);
}
