//! The section `[when]`: when the device may download and install.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::file::program;
use super::table::Table;
use super::timing;
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

/// Conditions, and who is asked about them.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// What has to hold.
    pub conditions: Conditions,
    /// Who knows.
    pub sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WhenFile {
    windows: Vec<Table<WindowFile>>,
    windows_for_download: bool,
    time_zone: String,
    without_clock: String,
    battery_min: u8,
    power_supply: PathBuf,
    consent_file: Option<PathBuf>,
    consent_command: Vec<String>,
    metered_file: Option<PathBuf>,
    metered_command: Vec<String>,
    metered_max_mb: u64,
    metered_windows: Vec<Table<WindowFile>>,
    load_command: Vec<String>,
    #[serde(with = "timing::seconds")]
    deadline: Duration,
    allow_forced: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowFile {
    #[serde(default)]
    days: Vec<String>,
    from: String,
    to: String,
}

impl Default for WhenFile {
    fn default() -> Self {
        Self {
            windows: Vec::new(),
            windows_for_download: false,
            time_zone: "UTC".into(),
            without_clock: "wait".into(),
            battery_min: 0,
            power_supply: "/sys/class/power_supply".into(),
            consent_file: None,
            consent_command: Vec::new(),
            metered_file: None,
            metered_command: Vec::new(),
            metered_max_mb: 0,
            metered_windows: Vec::new(),
            load_command: Vec::new(),
            deadline: Duration::from_secs(20),
            allow_forced: true,
        }
    }
}

impl WhenFile {
    /// Checks what no single key can tell.
    pub(super) fn checked(self) -> Result<When, String> {
        if self.battery_min > 100 {
            return Err("when.battery_min is a percentage: at most 100".into());
        }
        let deadline = self.deadline;
        let asks = |name: &str, command| program(format!("when.{name}"), command, deadline);
        let source = |name: &str, file: Option<PathBuf>, command: Vec<String>| match file {
            Some(_) if !command.is_empty() => {
                Err(format!("when.{name}_file and when.{name}_command: name one of them"))
            }
            Some(file) => Ok(Some(Source::File(file))),
            None if command.is_empty() => Ok(None),
            None => Ok(Some(Source::Program(asks(&format!("{name}_command"), command)?))),
        };
        let without_clock = match self.without_clock.as_str() {
            "wait" => false,
            "go" => true,
            other => return Err(format!("when.without_clock is {other:?}; write \"wait\" or \"go\"")),
        };
        let consent = source("consent", self.consent_file, self.consent_command)?;
        let metered = source("metered", self.metered_file, self.metered_command)?;
        let load =
            (!self.load_command.is_empty()).then(|| asks("load_command", self.load_command)).transpose()?;
        let bytes = self.metered_max_mb.checked_mul(1_000_000).ok_or("when.metered_max_mb is too large")?;
        let conditions = Conditions {
            windows: windows("windows", self.windows)?,
            windows_for_download: self.windows_for_download,
            zone: zone(&self.time_zone, Path::new(ZONES))?,
            without_clock,
            battery_min: (self.battery_min > 0).then_some(self.battery_min),
            consent: consent.is_some(),
            metered_max: metered.is_some().then_some(bytes),
            metered_windows: windows("metered_windows", self.metered_windows)?,
            load: load.is_some(),
            allow_forced: self.allow_forced,
        };
        let sources = Sources { power_supply: self.power_supply, consent, metered, load };
        Ok(When { conditions, sources })
    }
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

fn windows(key: &str, written: Vec<Table<WindowFile>>) -> Result<Vec<Window>, String> {
    if written.len() > WINDOWS_MAX {
        return Err(format!("when.{key} has more than {WINDOWS_MAX} windows"));
    }
    written.into_iter().map(|Table(file)| window(&file).map_err(|why| format!("when.{key}: {why}"))).collect()
}

fn window(file: &WindowFile) -> Result<Window, String> {
    let mut days = [file.days.is_empty(); 7];
    for name in &file.days {
        let Some(day) = DAYS.iter().position(|day| day == name) else {
            return Err(format!("{name:?} is no day; write mon, tue, wed, thu, fri, sat or sun"));
        };
        days[day] = true;
    }
    let window = Window { days, from: minute(&file.from)?, to: minute(&file.to)? };
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
