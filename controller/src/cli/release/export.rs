//! `tern release export`: what devices with `transfer.http_prefixes` ask a web server for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tern_bridge::chunks::{ChunkStore, StoreError};
use tern_protocol::id::ProductId;

use super::{deltas, of};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The product
    #[arg(long)]
    product: ProductId,
    /// The release
    #[arg(long, value_name = "N")]
    rc: u64,
    /// Take the files from the service's data folder
    #[arg(long, value_name = "DIR", default_value = "./tern-data")]
    data: PathBuf,
    /// Copy them into this folder: what the web server shows under the prefix, or what is uploaded to it
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Do not wait for the deltas; what is made by now is copied
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Default, Serialize)]
struct Copied {
    images: usize,
    deltas: u32,
    files: u32,
    bytes: u64,
    present: u32,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let release = of(context, &flags.product, flags.rc)?;
    if !flags.no_wait {
        deltas::wait(context, &flags.product, flags.rc)?;
    }
    let images = flags.data.join("images");
    let store = ChunkStore::beside(&images);
    let roots: BTreeSet<_> = release.artifacts.iter().map(|artifact| artifact.root).collect();
    let mut copied = Copied { images: roots.len(), ..Copied::default() };
    for root in &roots {
        let one = store.export(root, &flags.to).map_err(|error| failed(&error, flags))?;
        copied.deltas += one.deltas;
        copied.files += one.files;
        copied.bytes += one.bytes;
        copied.present += one.present;
    }
    context.out.result(&copied, |copied| {
        format!(
            "release {} in {}: {} images, {} deltas; {} copied in {} files, {} were there\nnext: serve that folder, or upload it, \
             so that devices find it under their http_prefixes",
            flags.rc,
            flags.to.display(),
            copied.images,
            copied.deltas,
            words::bytes(copied.bytes),
            copied.files,
            copied.present,
        )
    });
    Ok(Exit::Done)
}

fn failed(error: &StoreError, flags: &Flags) -> Failure {
    let hint = match error {
        StoreError::Missing(_) => format!(
            "run it on the service's machine, with the service's folder as --data ({} is none, or has not got the image)",
            flags.data.display()
        ),
        _ => "check the path and the disk".to_owned(),
    };
    Failure::of(error, hint)
}
