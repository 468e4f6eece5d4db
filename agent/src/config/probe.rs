//! The entries of `[[probes]]`: which kind one is, is told by the key that says what is looked at.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{file, timing};
use crate::health::http::HttpAddress;
use crate::health::metric::{From, Metric};
use crate::health::{Kind, Probe};

/// Most passes in a row that may be asked for.
const TIMES_MAX: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeFile {
    name: String,
    command: Option<Vec<String>>,
    process: Option<String>,
    #[serde(default, rename = "for", with = "timing::seconds")]
    lived: Duration,
    http: Option<HttpAddress>,
    file: Option<PathBuf>,
    least: Option<f64>,
    most: Option<f64>,
    #[serde(default = "file::program_deadline", with = "timing::seconds")]
    deadline: Duration,
    #[serde(default = "once")]
    times: u32,
    #[serde(default, with = "timing::seconds")]
    interval: Duration,
    #[serde(default)]
    soak: bool,
}

fn once() -> u32 {
    1
}

impl ProbeFile {
    /// Checks what no single key can tell.
    pub(super) fn checked(self) -> Result<Probe, String> {
        let Self { name, deadline, times, interval, soak, least, most, lived, .. } = self;
        let wrong = |why: &str| Err(format!("probe {name:?} {why}"));
        let bounded = least.is_some() || most.is_some();
        let kind = match (self.command, self.process, self.http, self.file) {
            (Some(command), None, None, None) => {
                file::runnable(&name, &command, deadline)?;
                match bounded {
                    true => Kind::Metric(Metric { from: From::Command(command), least, most }),
                    false => Kind::Command(command),
                }
            }
            (None, Some(name), None, None) => Kind::Process { name, lived },
            (None, None, Some(address), None) => Kind::Http(address),
            (None, None, None, Some(path)) => Kind::Metric(Metric { from: From::File(path), least, most }),
            _ => return wrong("needs exactly one of command, process, http and file"),
        };
        if deadline.is_zero() {
            return wrong("has a deadline of 0; it could never succeed");
        }
        match &kind {
            Kind::Process { name, .. } if name.is_empty() || name.contains('/') => {
                return wrong("names no process; write its program's name, without a folder");
            }
            Kind::Metric(_) if !bounded => {
                return wrong("reads a number without bounds; write least or most");
            }
            Kind::Metric(_) if !least.unwrap_or(f64::MIN).le(&most.unwrap_or(f64::MAX)) => {
                return wrong("has bounds that no number is within");
            }
            Kind::Process { .. } | Kind::Http(_) if bounded => {
                return wrong("has least or most, but no number");
            }
            Kind::Process { .. } => {}
            _ if !lived.is_zero() => return wrong("has \"for\", which is for processes"),
            _ => {}
        }
        if !(1..=TIMES_MAX).contains(&times) {
            return wrong("has times outside 1 to 1000");
        }
        let interval = (!interval.is_zero()).then_some(interval);
        match interval {
            None if times > 1 => return wrong("must pass several times; write an interval between them"),
            Some(interval) if interval.saturating_mul(times - 1) >= deadline => {
                return wrong("cannot be asked that often within its deadline");
            }
            _ => {}
        }
        Ok(Probe { name, kind, deadline, times, interval, soak })
    }
}
