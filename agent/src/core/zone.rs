//! Where a device's clock on the wall stands beside UTC.

use tz::timezone::TimeZoneSettings;

/// A time zone, as its rules were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(tz::TimeZone);

impl Zone {
    /// No time zone at all.
    pub fn utc() -> Self {
        Self(tz::TimeZone::utc())
    }

    /// Reads a file of the time zone database (TZif).
    pub fn of_file(bytes: &[u8]) -> Result<Self, String> {
        tz::TimeZone::from_tz_data(bytes).map(Self).map_err(|error| error.to_string())
    }

    /// Reads a POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub fn of_rule(rule: &str) -> Result<Self, String> {
        // The library looks for a file of that name first; there is none.
        let settings = TimeZoneSettings::new(&[], |_| Err("no files".into()));
        settings.parse_posix_tz(rule).map(Self).map_err(|error| error.to_string())
    }

    /// Returns how many seconds local time is ahead of UTC at a Unix time; 0 where the rules say nothing.
    pub fn offset(&self, time: u64) -> i64 {
        let time = i64::try_from(time).unwrap_or(i64::MAX);
        self.0.find_local_time_type(time).map_or(0, |found| i64::from(found.ut_offset()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-03-29 01:00 UTC: clocks in Berlin go from 2 to 3.
    const SPRING: u64 = 1_774_746_000;

    #[test]
    fn a_rule_and_a_file_of_the_database_say_the_same() {
        let rule = Zone::of_rule("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!((rule.offset(SPRING - 1), rule.offset(SPRING)), (3600, 7200));
        // Where there is no database the rule stands alone.
        if let Ok(bytes) = std::fs::read("/usr/share/zoneinfo/Europe/Berlin") {
            let file = Zone::of_file(&bytes).unwrap();
            for hour in 0..24 * 366 {
                let time = SPRING + hour * 3600 - 1;
                assert_eq!(file.offset(time), rule.offset(time), "{time}");
            }
        }
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        for rule in ["", "Nowhere/City", "CET-1CEST,M3.5", "CET-99"] {
            assert!(Zone::of_rule(rule).is_err(), "{rule}");
        }
        for bytes in [&b""[..], b"TZif", &[0; 44]] {
            assert!(Zone::of_file(bytes).is_err());
        }
    }
}
