//! Sizes, times and rates as people read them.

use tern_protocol::tuf::time;

use crate::core::rollout::hold_back::HoldBack;

/// "64.0 MiB".
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// "90 s", "45 min", "24 h", "4 h 30 min", "7 d"; rounded down to minutes, after three days to hours.
pub(super) fn seconds(count: u64) -> String {
    match count {
        s if s < 120 => format!("{s} s"),
        s if s < 2 * 3600 => format!("{} min", s / 60),
        s if s < 72 * 3600 => both(s / 3600, "h", s % 3600 / 60, "min"),
        s => both(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

fn both(large: u64, unit: &str, small: u64, part: &str) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {part}") }
}

/// Reads "90m", "12h", "30d" as seconds.
pub(super) fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time; write a number and s, m, h or d, such as 30d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

/// The same, none at all included; a number without a unit is seconds, as in plan files.
pub(super) fn wait(text: &str) -> Result<u64, String> {
    let count = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or(text);
    match count.parse() {
        Ok(0) => Ok(0),
        Ok(seconds) if count == text => Ok(seconds),
        _ => duration(text),
    }
}

/// The same for what counts to 2³² at most.
pub(super) fn short_wait(text: &str) -> Result<u32, String> {
    u32::try_from(wait(text)?).map_err(|_| format!("{text:?} is longer than a century"))
}

/// Reads a moment such as "2026-12-24T02:00:00Z" as Unix seconds.
pub(super) fn instant(text: &str) -> Result<u64, String> {
    time::read(text).ok_or_else(|| format!("{text:?} is no moment in UTC; write 2026-12-24T02:00:00Z"))
}

/// Reads "2", "0.5%" or "none" as a control.
pub(super) fn hold_back(text: &str) -> Result<HoldBack, String> {
    if text == "none" {
        return Ok(HoldBack::OFF);
    }
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse();
    let percent: f64 = percent.map_err(|_| format!("{text:?} is no percentage; write a number, or none"))?;
    if !(percent > 0.0 && percent <= 10.0) {
        return Err(format!(
            "{text} % cannot be held back; write more than 0 and at most 10, such as 2 or 0.5, or none to hold nobody back"
        ));
    }
    Ok(HoldBack { percent, ..HoldBack::default() })
}

/// Unix milliseconds as a date and time, UTC.
pub(super) fn moment(ms: u64) -> String {
    time::write(ms / 1000)
}

/// The same where there may be none.
pub(super) fn maybe(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), moment)
}

/// "1 device", "7 devices".
pub(super) fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// "4.6 %".
pub(super) fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    let text = if percent < 1.0 { format!("{percent:.2}") } else { format!("{percent:.1}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_at_a_glance() {
        assert_eq!([bytes(0), bytes(1023), bytes(64 << 20)], ["0 B", "1023 B", "64.0 MiB"]);
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!([count(0, "device"), count(1, "device")], ["0 devices", "1 device"]);
        assert_eq!(
            [duration("90m"), duration("12h"), duration("30d")],
            [Ok(5400), Ok(43_200), Ok(2_592_000)]
        );
        for wrong in ["", "d", "30", "0d", "-1d", "30 d", "1.5h", "7ä", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            ["5s", "30m", "12h", "0", "0s", "600"].map(wait),
            [Ok(5), Ok(1800), Ok(43_200), Ok(0), Ok(0), Ok(600)]
        );
        for wrong in ["", "s", "-1", "5x", "1.5h", "5 s", "+5s5", "99999999999999999999"] {
            assert!(wait(wrong).is_err(), "{wrong:?}");
        }
        assert!(short_wait("50000d").is_err_and(|why| why.contains("century")));
        assert_eq!([seconds(90), seconds(3600), seconds(86_400)], ["90 s", "60 min", "24 h"]);
        assert_eq!(
            [seconds(4 * 3600), seconds(4 * 3600 + 1800), seconds(75 * 3600)],
            ["4 h", "4 h 30 min", "3 d 3 h"]
        );
        assert_eq!(hold_back("10").map(|held| held.percent), Ok(10.0));
        for wrong in ["50", "0", "-1", "nan"] {
            let said = hold_back(wrong).unwrap_err();
            assert!(said.contains("at most 10") && said.contains("none"), "{said}");
        }
        assert_eq!([percent(0.05), percent(0.0034), percent(1.0)], ["5 %", "0.34 %", "100 %"]);
    }
}
