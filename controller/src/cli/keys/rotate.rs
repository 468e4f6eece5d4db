//! `tern keys rotate`: prepares files for people to sign.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;
use tern_protocol::tuf::key::PublicKey;

use super::present::{present, write};
use crate::ceremony::{Change, Document, Present, difference, parents_of, quorums, rotate};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::clock;
use crate::keys::{fleet, make_online};

const DAY: u64 = 24 * 3600;

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "it is none of the seven roles".to_owned())
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// root, targets, release, rollout, halt, snapshot or timestamp
    #[arg(value_parser = role)]
    role: Role,
    /// The product
    #[arg(long)]
    product: ProductId,
    /// Add this public key (PEM), with its holder's name; may be given several times
    #[arg(long, value_name = "NAME=FILE")]
    add: Vec<String>,
    /// Take this key away: its holder's name, or the beginning of its id; may be given several times
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
    /// Make the new key of rollout, halt, snapshot or timestamp in this data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the files into this folder; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(flags: Flags, context: &Context) -> Result<Exit, Failure> {
    let present = present(&flags.product, flags.from.as_deref(), context)?;
    let mut add = flags.add.iter().map(|text| named_key(text)).collect::<Result<Vec<_>, Failure>>()?;
    let mut remove = flags.remove.clone();
    let online = matches!(flags.role, Role::Rollout | Role::Halt | Role::Snapshot | Role::Timestamp);
    absent(&flags)?;
    let mut made = None;
    if online {
        let (path, key) = online_key(&flags)?;
        remove = parent(&present, flags.role).keys_of(flags.role).into_iter().map(|(l, _)| l.key).collect();
        add = vec![(String::new(), key)];
        made = Some(path);
    }
    let after = |days: u64| clock::now() / 1000 + flags.days.map_or(days, u64::from) * DAY;
    let change = Change {
        role: flags.role,
        add,
        remove,
        threshold: flags.threshold,
        expires: after(365),
        release_expires: after(180),
    };
    let files = rotate(&present, &change)?;
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

fn online_key(flags: &Flags) -> Result<(PathBuf, PublicKey), Failure> {
    let Some(data) = &flags.data else {
        let error = format!("the key of {} is held by the service", flags.role);
        return Err(Failure::usage(error, "name the service's data folder with --data"));
    };
    if !flags.add.is_empty() || !flags.remove.is_empty() || flags.threshold.is_some() {
        let error = format!("the key of {} is made here, and there is one", flags.role);
        return Err(Failure::usage(error, "leave --add, --remove and --threshold away"));
    }
    if fleet(data)?.is_none() {
        let error = format!("{} is not a service's data folder", data.display());
        return Err(Failure::new(error, "name the folder that `tern serve` uses"));
    }
    Ok(make_online(data, &flags.product, flags.role)?)
}
