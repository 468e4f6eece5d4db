//! The entries of `[[probes]]`, and `[metrics]`: which kind a probe is, is told by the key that says what is looked at.

use std::time::Duration;

use super::file;
use super::section::Section;
use crate::command::Program;
use crate::health::metric::{From, Metric};
use crate::health::{Kind, Probe};

/// Every key of a probe.
pub(super) const PROBE_KEYS: [&str; 12] = [
    "name", "command", "process", "for", "http", "file", "least", "most", "deadline", "times", "interval",
    "soak",
];
/// Every key of `[metrics]`.
pub(super) const METRICS_KEYS: [&str; 3] = ["name", "command", "deadline"];
/// Most passes in a row that may be asked for.
const TIMES_MAX: u32 = 1000;

/// Reads `[metrics]`.
pub(super) fn metrics(section: Section) -> Result<Program, String> {
    let mut section = section.with_keys("metrics", &METRICS_KEYS)?;
    let name = section.needed("name")?;
    let command = section.list("command")?.unwrap_or_default();
    file::program(name, command, section.duration("deadline", file::program_deadline())?)
}

/// Reads a probe, and checks what no single key can tell.
pub(super) fn probe(section: Section) -> Result<Probe, String> {
    let mut section = section.with_keys("probes", &PROBE_KEYS)?;
    let name = section.needed("name")?;
    let (command, process) = (section.list("command")?, section.text("process")?);
    let (http, path) = (section.text("http")?, section.text("file")?);
    let (least, most) = (section.number("least")?, section.number("most")?);
    let lived = section.duration("for", Duration::ZERO)?;
    let deadline = section.duration("deadline", file::program_deadline())?;
    let times = section.number("times")?.unwrap_or(1.0);
    let interval = section.duration("interval", Duration::ZERO)?;
    let soak = section.flag("soak", false)?;

    let wrong = |why: &str| Err(format!("probe {name:?} {why}"));
    let bounded = least.is_some() || most.is_some();
    let kind = match (command, process, http, path) {
        (Some(command), None, None, None) => {
            file::runnable(&name, &command, deadline)?;
            match bounded {
                true => Kind::Metric(Metric { from: From::Command(command), least, most }),
                false => Kind::Command(command),
            }
        }
        (None, Some(name), None, None) => Kind::Process { name, lived },
        (None, None, Some(address), None) => Kind::Http(address.parse()?),
        (None, None, None, Some(path)) => Kind::Metric(Metric { from: From::File(path.into()), least, most }),
        _ => return wrong("needs exactly one of command, process, http and file"),
    };
    if deadline.is_zero() {
        return wrong("has a deadline of 0; it could never succeed");
    }
    match &kind {
        Kind::Process { name, .. } if name.is_empty() || name.contains('/') => {
            return wrong("names no process; write its program's name, without a folder");
        }
        Kind::Metric(_) if !bounded => return wrong("reads a number without bounds; write least or most"),
        // Also with NaN, which is no bound.
        Kind::Metric(_) if !least.unwrap_or(f64::MIN).le(&most.unwrap_or(f64::MAX)) => {
            return wrong("has bounds that no number is within");
        }
        Kind::Process { .. } | Kind::Http(_) if bounded => return wrong("has least or most, but no number"),
        Kind::Process { .. } => {}
        _ if !lived.is_zero() => return wrong("has \"for\", which is for processes"),
        _ => {}
    }
    let Some(times) = (1..=TIMES_MAX).find(|count| f64::from(*count) == times) else {
        return wrong("has times that is no whole number from 1 to 1000");
    };
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
