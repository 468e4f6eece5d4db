//! The section `[when]`: when the device may download and install.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::file::program;
use super::section::Section;
use crate::core::conditions::{Conditions, DAYS, Window};
use crate::core::zone::Zone;
use crate::surroundings::{Source, Sources};

/// Where the time zone database is.
const ZONES: &str = "/usr/share/zoneinfo";
/// Windows of one list.
const WINDOWS_MAX: usize = 16;
/// Shorter ones may open and close between two looks; minutes.
const SHORTEST: u16 = 15;
const DAY: u16 = 24 * 60;
/// How long a program that is asked may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Conditions, and who is asked about them.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// What has to hold.
    pub conditions: Conditions,
    /// Who knows.
    pub sources: Sources,
}

/// Every key of `[when]`.
pub(super) const WHEN_KEYS: [&str; 15] = [
    "windows",
    "windows_for_download",
    "time_zone",
    "without_clock",
    "battery_min",
    "power_supply",
    "consent_file",
    "consent_command",
    "metered_file",
    "metered_command",
    "metered_max_mb",
    "metered_windows",
    "load_command",
    "deadline",
    "allow_forced",
];
/// Every key of a window.
pub(super) const WINDOW_KEYS: [&str; 3] = ["days", "from", "to"];

/// Reads `[when]`, and checks what no single key can tell.
pub(super) fn when(section: Section) -> Result<When, String> {
    let mut section = section.with_keys("when", &WHEN_KEYS)?;
    let battery = section.whole("battery_min")?.unwrap_or(0);
    let Some(battery_min) = u8::try_from(battery).ok().filter(|percent| *percent <= 100) else {
        return Err("when.battery_min is a percentage: at most 100".into());
    };
    let deadline = section.duration("deadline", DEADLINE)?;
    let asks = |name: &str, command| program(format!("when.{name}"), command, deadline);
    let mut source = |name: &str| {
        let (file, command) = (format!("{name}_file"), format!("{name}_command"));
        match (section.text(&file)?, section.list(&command)?.unwrap_or_default()) {
            (Some(_), words) if !words.is_empty() => {
                Err(format!("when.{file} and when.{command}: name one of them"))
            }
            (Some(path), _) => Ok(Some(Source::File(path.into()))),
            (None, words) if words.is_empty() => Ok(None),
            (None, words) => Ok(Some(Source::Program(asks(&command, words)?))),
        }
    };
    let (consent, metered) = (source("consent")?, source("metered")?);
    let without_clock = match section.text("without_clock")?.as_deref() {
        None | Some("wait") => false,
        Some("go") => true,
        Some(other) => return Err(format!("when.without_clock is {other:?}; write \"wait\" or \"go\"")),
    };
    let load = section.list("load_command")?.filter(|words| !words.is_empty());
    let load = load.map(|words| asks("load_command", words)).transpose()?;
    let megabytes = section.whole("metered_max_mb")?.unwrap_or(0);
    let bytes = megabytes.checked_mul(1_000_000).ok_or("when.metered_max_mb is too large")?;
    let conditions = Conditions {
        windows: windows(&mut section, "windows")?,
        windows_for_download: section.flag("windows_for_download", false)?,
        zone: zone(section.text("time_zone")?.as_deref().unwrap_or("UTC"), Path::new(ZONES))?,
        without_clock,
        battery_min: (battery_min > 0).then_some(battery_min),
        consent: consent.is_some(),
        metered_max: metered.is_some().then_some(bytes),
        metered_windows: windows(&mut section, "metered_windows")?,
        load: load.is_some(),
        allow_forced: section.flag("allow_forced", true)?,
    };
    let power_supply = section.path("power_supply", "/sys/class/power_supply")?;
    Ok(When { conditions, sources: Sources { power_supply, consent, metered, load } })
}

/// A name of the database, a path to such a file, or a POSIX rule.
fn zone(text: &str, database: &Path) -> Result<Zone, String> {
    if text == "UTC" {
        return Ok(Zone::utc());
    }
    let wrong = |why: &dyn std::fmt::Display| {
        format!(
            "when.time_zone {text:?}: {why}; install the time zone database, or write the rule itself, such as \
             \"CET-1CEST,M3.5.0,M10.5.0/3\""
        )
    };
    match std::fs::read(database.join(text)) {
        Ok(bytes) => Zone::of_file(&bytes).map_err(|why| wrong(&why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Zone::of_rule(text).map_err(|_| wrong(&"no such zone in /usr/share/zoneinfo, and no rule"))
        }
        Err(error) => Err(wrong(&error)),
    }
}

fn windows(section: &mut Section, key: &str) -> Result<Vec<Window>, String> {
    let written = section.tables(key)?;
    if written.len() > WINDOWS_MAX {
        return Err(format!("when.{key} has more than {WINDOWS_MAX} windows"));
    }
    written.into_iter().map(|entry| window(entry).map_err(|why| format!("when.{key}: {why}"))).collect()
}

fn window(section: Section) -> Result<Window, String> {
    let mut section = section.with_keys("a window", &WINDOW_KEYS)?;
    let named = section.list("days")?.unwrap_or_default();
    let mut days = [named.is_empty(); 7];
    for name in &named {
        let Some(day) = DAYS.iter().position(|day| day == name) else {
            return Err(format!("{name:?} is no day; write mon, tue, wed, thu, fri, sat or sun"));
        };
        days[day] = true;
    }
    let window =
        Window { days, from: minute(&section.needed("from")?)?, to: minute(&section.needed("to")?)? };
    let length = (DAY + window.to - window.from) % DAY;
    if length != 0 && length < SHORTEST {
        return Err(format!("{window} is shorter than {SHORTEST} minutes: nobody may look in time"));
    }
    Ok(window)
}

fn minute(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no time of day; write 02:30");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |part: &str, below: u16| -> Result<u16, String> {
        let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|number| plain && *number < below).ok_or_else(wrong)
    };
    Ok(number(hours, 24)? * 60 + number(minutes, 60)?)
}
