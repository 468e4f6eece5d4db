//! `tern release sign`: shows first, then signs, then checks. Works where there is no network.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::table;
use crate::cli::{Context, words};
use crate::files::{Readers, replace};
use crate::keys::load_signer;
use crate::release::{Change, ReleaseDocument, ReleaseError, Summary, check_authority, sign, summarise};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The draft, or a file that others signed already
    draft: PathBuf,
    /// Sign with this key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write the signed file here
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Check the signature against this targets file [default: targets.json beside the key]
    #[arg(long, value_name = "FILE")]
    targets: Option<PathBuf>,
    /// Compare with this release file [default: release.json beside the key]
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(flags: Flags, context: &Context) -> Result<Exit, Failure> {
    let beside = |name: &str| flags.key.with_file_name(name);
    let (draft, bytes) = ReleaseDocument::open(&flags.draft)?;
    let record = beside("release.json");
    let last = flags.previous.clone().or_else(|| record.is_file().then(|| record.clone()));
    let last = last.map(|path| ReleaseDocument::open(&path)).transpose()?.map(|(last, _)| last);
    let summary = summarise(&draft, last.as_ref())?;
    context.out.note(&text(&summary));
    if !summary.compared {
        context.out.warning("compared with nothing: no release.json beside the key and no --previous");
    }
    let key = load_signer(&flags.key)?;
    if !context.out.confirmed("Sign this?", flags.yes) {
        return Err(Failure::new("nothing was signed", "answer y, or give --yes"));
    }
    let signed = sign(&bytes, &key)?;
    let targets = flags.targets.clone().or_else(|| Some(beside("targets.json")).filter(|t| t.is_file()));
    match targets {
        Some(path) => checked(&path, &signed, context)?,
        None => context.out.warning("the signature was not checked as devices will: no targets.json"),
    }
    write(&flags.out, &signed)?;
    // The next draft is compared with this one. A write-protected medium costs the comparison, not the release.
    if record.is_file()
        && let Err(failure) = write(&record, &signed)
    {
        context.out.warning(&format!("the next draft cannot be compared with this one: {}", failure.error));
    }
    context.out.result(&summary, |_| {
        let out = flags.out.display();
        format!("signed: {out}\nnext: `tern release publish {out} --image FILE`")
    });
    Ok(Exit::Done)
}

/// More signatures may be on their way; any other objection stops here.
fn checked(targets: &Path, signed: &[u8], context: &Context) -> Result<(), Failure> {
    let bytes = std::fs::read(targets)
        .map_err(|e| Failure::new(format!("could not read {}: {e}", targets.display()), "check the path"))?;
    match check_authority(&bytes, signed) {
        Err(ReleaseError::Refused(tern_protocol::tuf::TufError::Threshold { valid, threshold, .. }))
            if valid > 0 =>
        {
            context
                .out
                .warning(&format!("{valid} of {threshold} signatures are there; the others must sign too"));
            Ok(())
        }
        other => Ok(other?),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    replace(path, bytes, Readers::All).map_err(|e| {
        Failure::new(format!("could not write {}: {e}", path.display()), "check the path and the disk")
    })
}

fn text(summary: &Summary) -> String {
    let rows = summary.artifacts.iter().map(|line| {
        let models: Vec<&str> = line.models.iter().map(|model| model.as_str()).collect();
        [
            match line.change {
                Change::New => "NEW",
                Change::Same => "as before",
                Change::Unknown => "?",
            }
            .to_owned(),
            line.rc.to_string(),
            line.version.clone(),
            line.component.clone(),
            models.join(","),
            words::bytes(line.length),
            line.floor.to_string(),
            line.min_from.to_string(),
            line.sha256.map_or_else(|| "-".to_owned(), |digest| digest.to_string()),
        ]
    });
    let heading = ["change", "rc", "version", "component", "models", "size", "floor", "from", "sha256"];
    let mut text = format!(
        "product {}, release file version {}, expires {}\n\n{}\n",
        summary.product,
        summary.file_version,
        summary.expires,
        table(heading, rows)
    );
    if !summary.dropped.is_empty() {
        text.push_str(&format!("no longer named: releases {:?}\n", summary.dropped));
    }
    if summary.signatures > 0 {
        text.push_str(&format!("{} signatures are on it already\n", summary.signatures));
    }
    text
}
