//! `expires`: ISO 8601 in UTC, `YYYY-MM-DDTHH:MM:SSZ`, to and from unix seconds.

const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z, the last second that four digits of a year can say.
const LAST: u64 = 253_402_300_799;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const EPOCH: u64 = 719_468;
/// Days of 400 years.
const ERA: u64 = 146_097;

/// Writes a time; one beyond the year 9999 becomes its last second.
pub fn write(unix: u64) -> String {
    let unix = unix.min(LAST);
    let (days, second) = (unix / DAY + EPOCH, unix % DAY);
    // A year is counted from March, so that the leap day is its last (Howard Hinnant, "chrono-compatible
    // low-level date algorithms").
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a time. One before 1970 becomes 0, which is as expired; anything but the one form is `None`.
pub fn read(text: &str) -> Option<u64> {
    let b = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if b.len() != 20 || marks.iter().any(|(at, mark)| b[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (digits(&b[0..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
    let (hour, minute, second) = (digits(&b[11..13])?, digits(&b[14..16])?, digits(&b[17..19])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if day == 0 || day > length || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // January and February belong to the year before, counted from March.
    let (year, from_march) = if month > 2 {
        (year, month - 3)
    } else if year > 0 {
        (year - 1, month + 9)
    } else {
        return Some(0);
    };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    let seconds = hour * 3_600 + minute * 60 + second;
    Some(days.checked_sub(EPOCH).map_or(0, |days| days * DAY + seconds))
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `date -u -d @N +%FT%TZ`.
    #[test]
    fn times_match_the_fixed_vectors() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!((write(unix).as_str(), read(text)), (text, Some(unix)));
        }
        assert_eq!(write(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for day in 0..ERA + 1 {
            let unix = day * DAY + day % DAY;
            assert_eq!(read(&write(unix)), Some(unix));
        }
    }

    #[test]
    fn what_is_not_a_utc_second_is_refused() {
        for bad in [
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00+",
            "2026-01-01 00:00:00Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.5Z",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read("1969-12-31T23:59:59Z"), Some(0));
        assert_eq!(read("0000-01-01T00:00:00Z"), Some(0));
    }
}
