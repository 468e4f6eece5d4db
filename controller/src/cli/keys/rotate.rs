//! `tern keys rotate`: prepares files for people to sign.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;
use tern_protocol::tuf::key::PublicKey;

use super::present::{present, write};
use crate::ceremony::{
    Change, Document, Present, ServiceKey, difference, parents_of, quorums, rotate, rotate_service_key,
};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::clock;
use crate::keys::{fleet, make_online, make_service_key};

const DAY: u64 = 24 * 3600;

/// Whose key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Role(Role),
    Telemetry,
    Time,
}

fn subject(name: &str) -> Result<Subject, String> {
    match name {
        "telemetry" => Ok(Subject::Telemetry),
        "time" => Ok(Subject::Time),
        name => Role::from_name(name)
            .map(Subject::Role)
            .ok_or_else(|| "it is none of the seven roles, nor telemetry or time".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// root, targets, release, rollout, halt, snapshot, timestamp, telemetry or time
    #[arg(value_name = "ROLE", value_parser = subject)]
    subject: Subject,
    /// The product
    #[arg(long)]
    product: ProductId,
    /// Add this public key (PEM), with its holder's name; may be given several times
    #[arg(long, value_name = "NAME=FILE")]
    add: Vec<String>,
    /// Take this key away: its holder's name, the beginning of its id, or the number of a telemetry key; may be given
    /// several times
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Have this many sign from now on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    threshold: Option<u32>,
    /// Let the files live this long [default: 365, release 180]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
    /// Read root.json, targets.json and release.json here instead of asking the service
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Make the new key of rollout, halt, snapshot, timestamp, telemetry or time in this data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the files into this folder; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(flags: Flags, context: &Context) -> Result<Exit, Failure> {
    let present = present(&flags.product, flags.from.as_deref(), context)?;
    absent(&flags)?;
    let (files, made) = match flags.subject {
        Subject::Role(role) => prepare(&flags, role, &present)?,
        Subject::Telemetry | Subject::Time => {
            let (file, made) = service_key(&flags, &present)?;
            (vec![file], made)
        }
    };
    std::fs::create_dir_all(&flags.out).map_err(|e| {
        Failure::new(format!("could not make {}: {e}", flags.out.display()), "check the path")
    })?;
    let mut text = String::new();
    let mut values = Vec::new();
    let known: Vec<&Document> = [&present.root, &present.targets].into_iter().chain(&files).collect();
    for file in &files {
        let path = flags.out.join(format!("{}.json", file.role));
        write(&path, &file.bytes)?;
        let before = match file.role {
            Role::Root => &present.root,
            Role::Targets => &present.targets,
            _ => &present.release,
        };
        let change = difference(Some(before), file);
        let quorums = quorums(file, &parents_of(file, &known)?);
        text.push_str(&format!("{change}"));
        for quorum in &quorums {
            text.push_str(&format!("{quorum}\n"));
        }
        text.push_str(&format!("prepared: {}\n\n", path.display()));
        values.push(json!({"file": path, "difference": change, "quorums": quorums}));
    }
    if let Some(path) = &made {
        text.push_str(&format!("new key of the service: {}\n", path.display()));
    }
    text.push_str("next: have each file signed with `tern keys sign`, then `tern keys publish`");
    let value = json!({"files": values, "key": made});
    context.out.result(&value, |_| text);
    Ok(Exit::Done)
}

/// Prepares the files that follow when keys of a role change.
fn prepare(
    flags: &Flags,
    role: Role,
    present: &Present,
) -> Result<(Vec<Document>, Option<PathBuf>), Failure> {
    let mut add = flags.add.iter().map(|text| named_key(text)).collect::<Result<Vec<_>, Failure>>()?;
    let mut remove = flags.remove.clone();
    let mut made = None;
    if matches!(role, Role::Rollout | Role::Halt | Role::Snapshot | Role::Timestamp) {
        let data = data_folder(flags, role.name())?;
        if !flags.remove.is_empty() {
            return Err(made_here(role.name()));
        }
        let (path, key) = make_online(data, &flags.product, role)?;
        remove = parent(present, role).keys_of(role).into_iter().map(|(l, _)| l.key).collect();
        add = vec![(String::new(), key)];
        made = Some(path);
    }
    let change = Change {
        role,
        add,
        remove,
        threshold: flags.threshold,
        expires: after(flags, 365),
        release_expires: after(flags, 180),
    };
    Ok((rotate(present, &change)?, made))
}

/// Prepares the targets that follow when the telemetry or time key changes.
fn service_key(flags: &Flags, present: &Present) -> Result<(Document, Option<PathBuf>), Failure> {
    let expires = after(flags, 365);
    let name = if flags.subject == Subject::Time { "time" } else { "telemetry" };
    let (change, made) = match (flags.subject, flags.remove.as_slice()) {
        (Subject::Telemetry, [number]) if flags.data.is_none() && flags.add.is_empty() => {
            let number = number.parse().map_err(|_| {
                Failure::usage(
                    format!("{number:?} is no number of a telemetry key"),
                    "for example --remove 1",
                )
            })?;
            return Ok((rotate_service_key(present, &ServiceKey::NoTelemetry(number), expires)?, None));
        }
        (_, []) => {
            let data = data_folder(flags, name)?;
            let (path, key) = make_service_key(data, &flags.product, name)?;
            let key = if flags.subject == Subject::Time {
                ServiceKey::Time(key)
            } else {
                ServiceKey::Telemetry(key)
            };
            (key, path)
        }
        _ => return Err(made_here(name)),
    };
    let file = rotate_service_key(present, &change, expires);
    if file.is_err() {
        // Nobody will name it; should it stay, it is a file that is not used.
        let _gone = std::fs::remove_file(&made);
    }
    Ok((file?, Some(made)))
}

fn after(flags: &Flags, days: u64) -> u64 {
    clock::now() / 1000 + flags.days.map_or(days, u64::from) * DAY
}

fn parent(present: &Present, role: Role) -> &Document {
    if matches!(role, Role::Snapshot | Role::Timestamp) { &present.root } else { &present.targets }
}

fn absent(flags: &Flags) -> Result<(), Failure> {
    for name in ["root.json", "targets.json", "release.json"] {
        let path = flags.out.join(name);
        if path.symlink_metadata().is_ok() {
            let error = format!("{} exists already and is not overwritten", path.display());
            return Err(Failure::new(error, "choose another folder with --out"));
        }
    }
    Ok(())
}

fn named_key(text: &str) -> Result<(String, PublicKey), Failure> {
    let (name, path) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("{text:?} is not NAME=FILE"), "for example --add dora=dora.pub")
    })?;
    let pem = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("could not read {path}: {e}"), "check the path"))?;
    let key = PublicKey::from_pem(&pem).map_err(|e| {
        Failure::new(format!("{path}: {e}"), "make it with `tern keys make`, or with `openssl pkey -pubout`")
    })?;
    Ok((name.to_owned(), key))
}

/// Returns the data folder in which the service's new key is made.
fn data_folder<'a>(flags: &'a Flags, name: &str) -> Result<&'a Path, Failure> {
    let Some(data) = &flags.data else {
        let error = format!("the key of {name} is held by the service");
        return Err(Failure::usage(error, "name the service's data folder with --data"));
    };
    if !flags.add.is_empty() || flags.threshold.is_some() {
        return Err(made_here(name));
    }
    if fleet(data)?.is_none() {
        let error = format!("{} is not a service's data folder", data.display());
        return Err(Failure::new(error, "name the folder that `tern serve` uses"));
    }
    Ok(data)
}

fn made_here(name: &str) -> Failure {
    let error = format!("the key of {name} is made here, and there is one");
    let hint = match name {
        "telemetry" => "leave --add and --threshold away, and give either --data or one --remove",
        _ => "leave --add, --remove and --threshold away",
    };
    Failure::usage(error, hint)
}
