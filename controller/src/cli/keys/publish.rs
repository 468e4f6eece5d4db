//! `tern keys publish`: signed files to the service, once enough have signed.

use std::path::PathBuf;

use clap::Args;
use tern_protocol::id::ProductId;

use super::present::{OFFLINE, view};
use crate::api::types::{DoneBody, RenewOffline};
use crate::ceremony::{CeremonyError, Document, parents_of, quorums};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Signed files: root, targets, release; those that are new
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The product
    #[arg(long)]
    product: ProductId,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let files = flags.files.iter().map(|path| Document::open(path)).collect::<Result<Vec<_>, _>>()?;
    let present = view(&flags.product, context)?;
    check(&files, &present.files)?;
    let texts: Vec<String> =
        files.iter().map(|file| String::from_utf8_lossy(&file.bytes).into_owned()).collect();
    let path = format!("/v1/products/{}/keys", flags.product);
    let done: DoneBody = context.client.post(&path, &RenewOffline { files: texts })?;
    context.out.result(&done, |done| {
        format!("{}\nnext: copy these files beside the offline keys, for the next comparison", done.done)
    });
    Ok(Exit::Done)
}

/// Refuses while signatures are missing, and says whose. The service judges again, as devices do.
pub(in crate::cli) fn check(
    files: &[Document],
    present: &std::collections::BTreeMap<tern_protocol::tuf::Role, String>,
) -> Result<(), CeremonyError> {
    let held = OFFLINE.iter().filter_map(|role| present.get(role));
    let held = held.map(|text| Document::read("the present file", text.as_bytes()));
    let held = held.collect::<Result<Vec<_>, _>>()?;
    let known: Vec<&Document> = held.iter().chain(files).collect();
    let mut unmet = Vec::new();
    for file in files {
        unmet.extend(quorums(file, &parents_of(file, &known)?).into_iter().filter(|q| !q.is_met()));
    }
    if unmet.is_empty() { Ok(()) } else { Err(CeremonyError::Missing(unmet)) }
}
