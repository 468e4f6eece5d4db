//! When a rollout may widen: not before its start, in its windows, not after its end. Stopping knows no hours.

use serde::{Deserialize, Serialize};

use crate::core::fact::Millis;

/// Windows of one plan.
const WINDOWS_MAX: usize = 16;
const MINUTE: Millis = 60_000;
const DAY_MINUTES: i64 = 24 * 60;

/// When a rollout may widen; times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// Nothing is offered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// At this time it comes to what `at_end` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// What happens at the end.
    pub at_end: AtEnd,
    /// Phases and waves open only in these; none: at any time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

/// What happens at a rollout's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtEnd {
    /// It pauses: nobody more is offered the release until somebody resumes it.
    #[default]
    Pause,
    /// It stays where it is: those included go on, and it widens no more.
    Stay,
}

/// A time of day, every day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Begins at this minute of the day.
    #[serde(with = "clock_time")]
    pub from: u16,
    /// Ends before this one; earlier than `from`: on the next day.
    #[serde(with = "clock_time")]
    pub to: u16,
    /// Minutes that the clock of these times is ahead of UTC.
    #[serde(default)]
    pub utc_offset: i16,
}

/// Says which time cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// Too many windows.
    #[error("a plan has up to {WINDOWS_MAX} windows, this one has {0}")]
    Windows(usize),
    /// A window of no time.
    #[error("a window begins and ends at the same minute; leave it out to mean the whole day")]
    Empty,
    /// A clock that nobody has.
    #[error("utc_offset is in minutes, from -840 to 840, found {0}")]
    Offset(i16),
    /// Over before it begins.
    #[error("end must come after not_before")]
    Order,
}

impl Times {
    /// Checks every figure.
    pub fn check(&self) -> Result<(), TimesError> {
        if self.windows.len() > WINDOWS_MAX {
            return Err(TimesError::Windows(self.windows.len()));
        }
        for window in &self.windows {
            if window.from == window.to {
                return Err(TimesError::Empty);
            }
            if !(-840..=840).contains(&window.utc_offset) {
                return Err(TimesError::Offset(window.utc_offset));
            }
        }
        match (self.not_before, self.end) {
            (Some(begin), Some(end)) if end <= begin => Err(TimesError::Order),
            _ => Ok(()),
        }
    }

    /// Returns why nothing may open now; `None` if it may.
    pub fn wait(&self, now: Millis) -> Option<String> {
        if let Some(begin) = self.not_before.filter(|begin| now / 1000 < *begin) {
            return Some(format!("waits for its start at {}", tern_protocol::tuf::time::write(begin)));
        }
        if self.is_over(now) {
            return Some("its time is over".to_owned());
        }
        let open = self.windows.is_empty() || self.windows.iter().any(|window| window.contains(now));
        (!open).then(|| {
            let all: Vec<String> = self.windows.iter().map(ToString::to_string).collect();
            format!("waits for a window ({})", all.join(", "))
        })
    }

    /// Tells whether the end has come.
    pub fn is_over(&self, now: Millis) -> bool {
        self.end.is_some_and(|end| now / 1000 >= end)
    }
}

impl Window {
    fn contains(self, now: Millis) -> bool {
        let minutes =
            i64::try_from(now / MINUTE).unwrap_or(i64::MAX - DAY_MINUTES) + i64::from(self.utc_offset);
        let (now, from, to) = (minutes.rem_euclid(DAY_MINUTES), i64::from(self.from), i64::from(self.to));
        if from < to { (from..to).contains(&now) } else { now >= from || now < to }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", clock_time::text(self.from), clock_time::text(self.to))?;
        let (sign, ahead) =
            if self.utc_offset < 0 { ('-', -self.utc_offset) } else { ('+', self.utc_offset) };
        match ahead {
            0 => write!(f, " UTC"),
            _ => write!(f, " UTC{sign}{:02}:{:02}", ahead / 60, ahead % 60),
        }
    }
}

/// Minutes of the day as people write them: "22:30".
mod clock_time {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn text(minutes: u16) -> String {
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    }

    pub(super) fn serialize<S: Serializer>(minutes: &u16, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&text(*minutes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u16, D::Error> {
        let text = String::deserialize(input)?;
        let read = || {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        read().ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no time of day; write hours and minutes, such as \"22:30\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 60 * MINUTE;

    #[test]
    fn a_window_over_midnight_and_one_of_another_clock() {
        let times: Times = serde_json::from_str(
            r#"{"windows":[{"from":"22:00","to":"05:00"},{"from":"12:00","to":"13:00","utc_offset":120}]}"#,
        )
        .unwrap();
        let open: Vec<u64> = (0..24).filter(|hour| times.wait(hour * HOUR).is_none()).collect();
        assert_eq!(open, [0, 1, 2, 3, 4, 10, 22, 23]);
        assert_eq!(
            times.wait(8 * HOUR).unwrap(),
            "waits for a window (22:00 to 05:00 UTC, 12:00 to 13:00 UTC+02:00)"
        );
    }

    #[test]
    fn nothing_opens_before_the_start_or_after_the_end() {
        let times = Times { not_before: Some(3600), end: Some(7200), ..Times::default() };
        assert_eq!(times.check(), Ok(()));
        assert_eq!(times.wait(0).unwrap(), "waits for its start at 1970-01-01T01:00:00Z");
        assert_eq!((times.wait(HOUR), times.is_over(2 * HOUR)), (None, true));
        let backwards = Times { not_before: Some(9), end: Some(9), ..Times::default() };
        assert_eq!(backwards.check(), Err(TimesError::Order));
        for wrong in ["24:00", "1:60", "7", "noon"] {
            let text = format!(r#"{{"from":"{wrong}","to":"05:00"}}"#);
            assert!(
                serde_json::from_str::<Window>(&text).unwrap_err().to_string().contains("no time of day")
            );
        }
    }
}
