//! `tern keys show`: what a file changes, and who still has to sign.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::present::nearby;
use crate::ceremony::{Document, difference, parents_of, quorums};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The file
    file: PathBuf,
    /// Take the keys from this file of root or targets as well [default: those beside FILE]
    #[arg(long, value_name = "FILE")]
    parent: Vec<PathBuf>,
    /// Compare with this file
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let file = Document::open(&flags.file)?;
    let previous = flags.previous.as_deref().map(Document::open).transpose()?;
    let beside = ["root.json", "targets.json"].map(|name| flags.file.with_file_name(name));
    let mut others = nearby(flags.parent.iter().cloned().chain(beside))?;
    others.extend(previous.clone());
    let others: Vec<&Document> = others.iter().collect();
    let quorums = quorums(&file, &parents_of(&file, &others)?);
    let difference = difference(previous.as_ref(), &file);
    let value = json!({"difference": difference, "quorums": quorums});
    context.out.result(&value, |_| {
        let lines: Vec<String> = quorums.iter().map(ToString::to_string).collect();
        format!("{difference}{}", lines.join("\n"))
    });
    Ok(Exit::Done)
}
