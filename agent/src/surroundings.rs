//! Measures what the owner's conditions ask for: power, consent, link, load. Bounded: each program has a deadline, each file
//! a ceiling, and whatever is read is read beside the loop.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::command::{Context, Ending, Finished, Program, ProgramFailure};
use crate::core::conditions::{Conditions, Consent, Power, Stage, Surroundings};
use crate::health::aside;
use crate::hooks::NOT_NOW;

/// Bytes read of a file that answers a question.
const ANSWER_MAX: u64 = 4096;
/// How long files may keep whoever reads them: a mount that is dead, a gauge that does not answer.
const READING: Duration = Duration::from_secs(10);
/// Supplies looked at.
const SUPPLIES_MAX: usize = 64;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Folder of the kernel's power supplies.
    pub power_supply: PathBuf,
    /// Consent.
    pub consent: Option<Source>,
    /// Whether the link is metered.
    pub metered: Option<Source>,
    /// Whether the device is busy.
    pub load: Option<Program>,
}

/// A file or a program that answers a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that somebody else writes.
    File(PathBuf),
    /// A program.
    Program(Program),
}

/// Measures what a stage is judged by.
pub async fn look(
    sources: &Sources,
    conditions: &Conditions,
    stage: Stage,
    context: &Context,
) -> Surroundings {
    let mut around = Surroundings::default();
    match stage {
        Stage::Download(_) => {
            if let Some(source) = &sources.metered {
                around.metered = metered(source, context).await;
            }
        }
        Stage::Install => {
            if conditions.battery_min.is_some() {
                around.power = power(&sources.power_supply).await;
            }
            if let Some(source) = &sources.consent {
                around.consent = consent(source, context).await;
            }
            if let Some(program) = &sources.load {
                around.busy = busy(program, context).await;
            }
        }
    }
    around
}

async fn power(folder: &Path) -> Power {
    let read = folder.to_owned();
    let found = tokio::time::timeout(READING, aside(move || supplies(&read))).await;
    found.unwrap_or_else(|_| Power::Unknown(format!("{}: no answer", folder.display())))
}

/// Reads the kernel's supplies: on mains with any that is online and no battery; without a battery it must be mains.
fn supplies(folder: &Path) -> Power {
    let supplies = match fs::read_dir(folder) {
        Ok(supplies) => supplies,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Power::Unknown(format!("there is no {}", folder.display()));
        }
        Err(error) => return Power::Unknown(format!("{}: {error}", folder.display())),
    };
    let mut least = None;
    for supply in supplies.filter_map(Result::ok).take(SUPPLIES_MAX) {
        let says = |name: &str| content(&supply.path().join(name)).ok().flatten().unwrap_or_default();
        match says("type").trim() {
            // A mouse's battery, for example.
            "Battery" if says("scope").trim() == "Device" => {}
            "Battery" if says("present").trim() == "0" => {}
            "Battery" => match says("capacity").trim().parse::<u8>() {
                Ok(percent) => least = Some(least.map_or(percent, |least: u8| least.min(percent))),
                Err(_) => {
                    let name = supply.file_name();
                    return Power::Unknown(format!("{} does not say how full it is", name.display()));
                }
            },
            "" => {}
            _ if says("online").trim() == "1" => return Power::Mains,
            _ => {}
        }
    }
    least.map_or(Power::Mains, Power::Battery)
}

async fn consent(source: &Source, context: &Context) -> Consent {
    match source {
        Source::File(path) => match answer(path).await {
            Ok(Some(text)) => {
                let rc = context.rc.to_string();
                let given = text.split_whitespace().any(|word| word == rc || word == "all");
                if given { Consent::Given } else { Consent::NotYet }
            }
            Ok(None) => Consent::NotYet,
            Err(error) => Consent::Refused(format!("{}: {error}", path.display())),
        },
        Source::Program(program) => {
            let finished = program.run(context, &[]).await;
            match finished.ending {
                Ending::Exit(0) => Consent::Given,
                Ending::Exit(NOT_NOW) => Consent::NotYet,
                _ => Consent::Refused(summary(program, finished)),
            }
        }
    }
}

/// A link that nobody can tell anything about counts as a dear one: bytes that were paid for do not come back.
async fn metered(source: &Source, context: &Context) -> bool {
    match source {
        Source::File(path) => match answer(path).await {
            Ok(text) => text.unwrap_or_default().split_whitespace().next() == Some("metered"),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "could not tell whether the link is metered");
                true
            }
        },
        Source::Program(program) => {
            let finished = program.run(context, &[]).await;
            match finished.ending {
                Ending::Exit(0) => true,
                Ending::Exit(1) => false,
                _ => {
                    let why = summary(program, finished);
                    tracing::warn!(why, "could not tell whether the link is metered");
                    true
                }
            }
        }
    }
}

async fn busy(program: &Program, context: &Context) -> Option<String> {
    let finished = program.run(context, &[]).await;
    match finished.ending {
        Ending::Exit(0) => None,
        Ending::Exit(NOT_NOW) if !finished.output_tail.is_empty() => Some(finished.output_tail),
        Ending::Exit(NOT_NOW) => Some(format!("{} says not now", program.name)),
        _ => Some(summary(program, finished)),
    }
}

fn summary(program: &Program, finished: Finished) -> String {
    let Finished { ending: reason, output_tail, .. } = finished;
    ProgramFailure { name: program.name.clone(), reason, output_tail }.summary()
}

/// Reads a small file that somebody else writes; `None` if it is not there.
async fn answer(path: &Path) -> io::Result<Option<String>> {
    let path = path.to_owned();
    let found = tokio::time::timeout(READING, aside(move || content(&path))).await;
    found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The same at once. What is no file could keep the reader for ever.
fn content(path: &Path) -> io::Result<Option<String>> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests;
