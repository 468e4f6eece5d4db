//! May this device download, or install, at this moment? The owner's conditions against what was measured.
//!
//! | condition | download | install | a forced rollout |
//! |---|---|---|---|
//! | maintenance windows | where `windows_for` says so | yes | goes past it |
//! | consent | no | yes | goes past it |
//! | power | no | yes | waits |
//! | load | no | yes | waits |
//! | metered link | yes | no | waits |
//!
//! What is not met is waited for. Waiting is no failure: it uses up no try, and nobody counts it against the release.

use serde::{Deserialize, Serialize};
use tern_protocol::tuf::content::Urgency;

use super::zone::Zone;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Fetching this many bytes.
    Download(u64),
    /// Running hooks, arming, booting.
    Install,
}

/// What the owner of a device asks for. Without any, everything is allowed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// When it may install; empty: at any time.
    pub windows: Vec<Window>,
    /// The windows count for a download too.
    pub windows_for_download: bool,
    /// Local time.
    pub zone: Zone,
    /// Without a clock that is known, windows count as open.
    pub without_clock: bool,
    /// Percent that a battery must have where there is no mains.
    pub battery_min: Option<u8>,
    /// Somebody is asked for consent.
    pub consent: bool,
    /// Bytes that may be fetched over a metered link; none: nobody asks whether it is one.
    pub metered_max: Option<u64>,
    /// When more may be fetched over it; empty: never.
    pub metered_windows: Vec<Window>,
    /// Something is asked whether the device is busy.
    pub load: bool,
    /// A rollout may be forced.
    pub allow_forced: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            windows: Vec::new(),
            windows_for_download: false,
            zone: Zone::utc(),
            without_clock: false,
            battery_min: None,
            consent: false,
            metered_max: None,
            metered_windows: Vec::new(),
            load: false,
            allow_forced: true,
        }
    }
}

/// A maintenance window in local time, on some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Days on which it opens, from Monday.
    pub days: [bool; 7],
    /// Minute of the day at which it opens.
    pub from: u16,
    /// Minute of the day at which it closes; on the next day where it is not later than `from`.
    pub to: u16,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Where the power comes from.
    pub power: Power,
    /// What whoever was asked for consent says.
    pub consent: Consent,
    /// Every byte costs.
    pub metered: bool,
    /// Why the device is busy, if it is.
    pub busy: Option<String>,
}

/// Where the power comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Power {
    /// Mains, or no battery at all.
    #[default]
    Mains,
    /// A battery with this many percent.
    Battery(u8),
    /// Nobody can tell, and why.
    Unknown(String),
}

/// What whoever was asked for consent says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Consent {
    /// Go on.
    #[default]
    Given,
    /// Nothing yet.
    NotYet,
    /// No, or nobody could be asked, and why.
    Refused(String),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awaited {
    /// A clock.
    Clock,
    /// A maintenance window.
    Window,
    /// Consent.
    Consent,
    /// Power.
    Power,
    /// An idle device.
    Load,
    /// A link that is not metered.
    Link,
    /// A hook that said "not now".
    Hook,
    /// A component that is still to be taken back.
    Component,
}

/// Not now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What for.
    pub awaited: Awaited,
    /// The same for a person, with its numbers.
    pub reason: String,
    /// Unix seconds before which nothing can change, as far as known.
    pub until: Option<u64>,
}

impl Conditions {
    /// Tells whether anything has to be measured before a stage.
    pub fn apply(&self, stage: Stage) -> bool {
        match stage {
            Stage::Download(_) => self.metered_max.is_some() || self.holds_download(),
            Stage::Install => {
                !self.windows.is_empty() || self.battery_min.is_some() || self.consent || self.load
            }
        }
    }

    fn holds_download(&self) -> bool {
        self.windows_for_download && !self.windows.is_empty()
    }
}

/// Judges a stage at the Unix time `now`; `None`: no clock of this device is known to be right.
pub fn judge(
    conditions: &Conditions,
    stage: Stage,
    around: &Surroundings,
    now: Option<u64>,
    urgency: Urgency,
) -> Result<(), Wait> {
    let forced_at = match urgency {
        _ if !conditions.allow_forced => None,
        Urgency::Soft => None,
        Urgency::Forced => Some(0),
        Urgency::ForcedFrom(moment) => Some(moment),
    };
    // A moment that no clock can tell has not come.
    let forced = forced_at.is_some_and(|moment| moment <= now.unwrap_or(0));
    let sooner = |wait: Wait| Wait { until: min(wait.until, forced_at), ..wait };
    match stage {
        Stage::Download(bytes) => {
            if conditions.holds_download() && !forced {
                open(&conditions.windows, conditions, now).map_err(sooner)?;
            }
            link(conditions, bytes, around, now)
        }
        Stage::Install => {
            if !forced {
                open(&conditions.windows, conditions, now).map_err(sooner)?;
                consent(conditions, around).map_err(sooner)?;
            }
            power(conditions, around)?;
            match (&around.busy, conditions.load) {
                (Some(why), true) => Err(wait(Awaited::Load, format!("an idle device: {why}"))),
                _ => Ok(()),
            }
        }
    }
}

fn min(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn wait(awaited: Awaited, reason: String) -> Wait {
    Wait { awaited, reason, until: None }
}

fn open(windows: &[Window], conditions: &Conditions, now: Option<u64>) -> Result<(), Wait> {
    if windows.is_empty() {
        return Ok(());
    }
    let Some(now) = now else {
        let reason = "a clock: without one nobody knows whether a maintenance window is open".to_owned();
        return if conditions.without_clock { Ok(()) } else { Err(wait(Awaited::Clock, reason)) };
    };
    let zone = &conditions.zone;
    if windows.iter().any(|window| window.is_open(now, zone)) {
        return Ok(());
    }
    let next =
        windows.iter().filter_map(|window| Some((window.opens(now, zone)?, window))).min_by_key(|n| n.0);
    let reason = match next {
        Some((_, window)) => format!("its maintenance window, {window}"),
        None => "a maintenance window that opens within eight days".to_owned(),
    };
    Err(Wait { until: next.map(|(at, _)| at), ..wait(Awaited::Window, reason) })
}

fn consent(conditions: &Conditions, around: &Surroundings) -> Result<(), Wait> {
    match &around.consent {
        _ if !conditions.consent => Ok(()),
        Consent::Given => Ok(()),
        Consent::NotYet => Err(wait(Awaited::Consent, "consent".to_owned())),
        Consent::Refused(why) => Err(wait(Awaited::Consent, format!("consent: {why}"))),
    }
}

fn power(conditions: &Conditions, around: &Surroundings) -> Result<(), Wait> {
    match (conditions.battery_min, &around.power) {
        (Some(least), Power::Battery(percent)) if *percent < least => {
            Err(wait(Awaited::Power, format!("battery {percent} % of {least} %")))
        }
        (Some(_), Power::Unknown(why)) => Err(wait(Awaited::Power, format!("power: {why}"))),
        _ => Ok(()),
    }
}

fn link(conditions: &Conditions, bytes: u64, around: &Surroundings, now: Option<u64>) -> Result<(), Wait> {
    let Some(most) = conditions.metered_max.filter(|most| around.metered && bytes > *most) else {
        return Ok(());
    };
    if !conditions.metered_windows.is_empty() {
        return open(&conditions.metered_windows, conditions, now);
    }
    let reason = format!("a link that is not metered: {bytes} B of at most {most} B");
    Err(wait(Awaited::Link, reason))
}

impl Window {
    /// Tells whether it is open at a Unix time.
    pub fn is_open(&self, now: u64, zone: &Zone) -> bool {
        let (day, minute) = local(now, zone);
        let opened = |day: i64| self.opens_on(day);
        if self.from < self.to {
            return opened(day) && (self.from..self.to).contains(&minute);
        }
        (opened(day) && minute >= self.from) || (opened(day - 1) && minute < self.to)
    }

    /// Returns when it opens next, Unix seconds, within eight days.
    pub fn opens(&self, now: u64, zone: &Zone) -> Option<u64> {
        let (today, _) = local(now, zone);
        let on = |day: i64| {
            let wall = day * DAY + i64::from(self.from) * MINUTE;
            let first = u64::try_from(wall - zone.offset(now)).ok()?;
            // Clocks may change in between.
            let at = u64::try_from(wall - zone.offset(first)).ok()?;
            (at > now && self.is_open(at, zone)).then_some(at)
        };
        (today..=today + 8).filter(|day| self.opens_on(*day)).find_map(on)
    }

    fn opens_on(&self, day: i64) -> bool {
        // 1970-01-01 was a Thursday.
        usize::try_from((day + 3).rem_euclid(7)).is_ok_and(|day| self.days[day])
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.days != [true; 7] {
            for (name, _) in DAYS.iter().zip(self.days).filter(|(_, on)| *on) {
                write!(f, "{name} ")?;
            }
        }
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02} to {:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// The names of days, from Monday.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Returns the local day since 1970 and the minute in it.
fn local(now: u64, zone: &Zone) -> (i64, u16) {
    let wall = i64::try_from(now).unwrap_or(i64::MAX / 2).saturating_add(zone.offset(now));
    let minute = wall.rem_euclid(DAY) / MINUTE;
    (wall.div_euclid(DAY), u16::try_from(minute).unwrap_or(0))
}
