//! `tern keys sign` and `tern release sign`: show first, then sign, then check, then write. Needs no network.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tern_protocol::tuf::Role;

use super::present::{nearby, write};
use crate::ceremony::{CeremonyError, Document, add_signature, difference, parents_of, quorums};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::passphrase::asker;
use crate::cli::release::summary;
use crate::keys::KeyName;
use crate::release::{ReleaseDocument, check_paths, summarise};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The file: without signatures, or with those of others
    file: PathBuf,
    /// Sign with this key file, or with a program: exec:PROGRAM ARG…
    #[arg(long, value_name = "KEY")]
    key: KeyName,
    /// Take this key of the role: its holder's name, or the beginning of its id [default: whichever signed]
    #[arg(long = "as", value_name = "KEY")]
    wanted: Option<String>,
    /// Write the signed file here; may be the same
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Check the signature against this targets or root file as well [default: those beside KEY and FILE]
    #[arg(long, visible_alias = "targets", value_name = "FILE")]
    parent: Vec<PathBuf>,
    /// Compare with this file [default: the one beside the key]
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Open an encrypted key with the first line of this file [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    signed(flags, &Document::open(&flags.file)?, context)
}

/// The same for a release file alone.
pub(in crate::cli) fn run_release(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    // Its own words for what is no release file.
    drop(ReleaseDocument::open(&flags.file)?);
    signed(flags, &Document::open(&flags.file)?, context)
}

fn signed(flags: &Flags, file: &Document, context: &Context) -> Result<Exit, Failure> {
    let record = flags.key.beside(&format!("{}.json", file.role)).filter(|path| !same(path, &flags.file));
    let previous = flags.previous.clone().or_else(|| record.clone());
    let (shown, compared) = show(file, previous.as_deref(), context)?;
    if !compared {
        context.out.warning(&format!(
            "compared with nothing: no {}.json beside the key and no --previous",
            file.role
        ));
    }
    let others = others(flags, previous.as_ref())?;
    let others: Vec<&Document> = others.iter().collect();
    let parents = parents_of(file, &others)?;
    if file.role == Role::Root && file.version > 1 && parents.len() == 1 {
        context.out.warning("the root before this one is not here: only keys of the new one are known");
    }
    if !context.out.confirmed("Sign this?", flags.yes) {
        return Err(Failure::new("nothing was signed", "answer y, or give --yes"));
    }
    let hand = flags.key.open(&asker(flags.passphrase_file.as_deref()))?;
    let (signed, by) = add_signature(file, &parents, &hand, flags.wanted.as_deref())?;
    if let Some(targets) = parents.iter().find(|parent| parent.role == Role::Targets) {
        check_paths(&targets.bytes, &signed.bytes)?;
    }
    write(&flags.out, &signed.bytes)?;
    let parents = parents_of(&signed, &others)?;
    let quorums = quorums(&signed, &parents);
    if file.role == Role::Release {
        remember(record.as_deref(), &signed, context);
    }
    let missing: Vec<String> = quorums.iter().filter(|q| !q.is_met()).map(ToString::to_string).collect();
    let mut value = shown;
    value["signed_as"] = json!(by);
    value["quorums"] = json!(quorums);
    context.out.result(&value, |_| {
        let out = flags.out.display();
        let next = match (missing.is_empty(), file.role) {
            (false, _) => missing.join("\n"),
            (true, Role::Release) => format!(
                "next: `tern release publish {out}` with --image FILE, or --manifest FILE of its draft"
            ),
            (true, _) => {
                let product = [&signed].into_iter().chain(others.iter().copied()).find_map(Document::product);
                let product = product.map_or_else(|| "PRODUCT".to_owned(), |product| product.to_string());
                format!("next: `tern keys publish --product {product} {out}`")
            }
        };
        format!("signed by {by}: {out}\n{next}")
    });
    Ok(Exit::Done)
}

/// Shows what the signature would approve; returns it as a value, and whether it was compared with anything.
fn show(file: &Document, previous: Option<&Path>, context: &Context) -> Result<(Value, bool), Failure> {
    if file.role == Role::Release {
        let last = previous.map(ReleaseDocument::open).transpose()?.map(|(last, _)| last);
        let draft = ReleaseDocument::read("the draft", &file.bytes)?;
        // The first release file of a product names nothing, and so does its renewal.
        if draft.release.content.is_empty() {
            context.out.note(&format!("release file version {}, names nothing", file.version));
            return Ok((json!({"file_version": file.version}), last.is_some()));
        }
        let found = summarise(&draft, last.as_ref())?;
        context.out.note(&summary(&found));
        return Ok((json!(found), found.compared));
    }
    let previous = previous.map(Document::open).transpose()?;
    let found = difference(previous.as_ref(), file);
    context.out.note(&found.to_string());
    if let Some(previous) = &previous
        && previous.signed != file.signed
        && file.version <= previous.version
    {
        let error =
            format!("{} version {} is not above {}, the last one", file.role, file.version, previous.version);
        return Err(Failure::new(error, "prepare it again with `tern keys rotate`"));
    }
    Ok((json!({"difference": found}), previous.is_some()))
}

/// Reads whatever may say whose signatures count.
fn others(flags: &Flags, previous: Option<&PathBuf>) -> Result<Vec<Document>, CeremonyError> {
    let names = ["root.json", "targets.json"];
    let beside_key = names.iter().filter_map(|name| flags.key.beside(name));
    let beside_file = names.iter().map(|name| flags.file.with_file_name(name));
    let paths = flags.parent.iter().cloned().chain(beside_key).chain(beside_file).chain(previous.cloned());
    nearby(paths)
}

/// The next draft is compared with this one. A write-protected medium costs the comparison, not the release.
fn remember(record: Option<&Path>, signed: &Document, context: &Context) {
    if let Some(record) = record
        && let Err(failure) = write(record, &signed.bytes)
    {
        context.out.warning(&format!("the next draft cannot be compared with this one: {}", failure.error));
    }
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
