//! `tern release publish`: the bytes first, then the file that names them.

use std::path::{Path, PathBuf};

use clap::Args;

use super::deltas;
use super::manifest::Manifest;
use crate::api::types::{PublishRelease, Published};
use crate::ceremony::Document;
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::keys::present::view;
use crate::cli::keys::publish::check;
use crate::release::{ReleaseDocument, measure};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The signed release file
    signed: PathBuf,
    /// Upload this image of the release; may be given several times
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Upload the images of the manifest from which the release was created
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Do not wait for the deltas; the service makes them all the same
    #[arg(long)]
    no_wait: bool,
    /// Have no deltas made: devices fetch whole images
    #[arg(long, conflicts_with = "no_wait")]
    no_deltas: bool,
}

pub(super) fn run(flags: Flags, context: &Context) -> Result<Exit, Failure> {
    let (document, bytes) = ReleaseDocument::open(&flags.signed)?;
    let shown = flags.signed.display();
    if document.signatures == 0 {
        let hint = format!("sign it with `tern release sign {shown} --key release.pem --out signed.json`");
        return Err(Failure::new(format!("{shown} is a draft without a signature"), hint));
    }
    let product = document.product()?.ok_or_else(|| {
        Failure::new(format!("{shown} names no release"), "make it with `tern release create`")
    })?;
    // An upload takes long; who still has to sign is known before.
    let present = view(&product, context)?;
    check(&[Document::read("the release file", &bytes)?], &present.files)?;
    let manifest = flags.manifest.as_deref().map(Manifest::read).transpose()?;
    let described = manifest.map(Manifest::images).unwrap_or_default();
    for image in flags.image.iter().chain(&described) {
        upload(image, &document, context)?;
    }
    let file = String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("{shown} is not text"), "sign the draft again"))?;
    let path = format!("/v1/products/{product}/releases");
    let wanted = !flags.no_deltas;
    let published: Published = context.client.post(&path, &PublishRelease { file, deltas: wanted })?;
    if wanted && !flags.no_wait {
        deltas::wait(context, &product, document.newest())?;
    }
    context.out.result(&published, |published| {
        let newest = document.newest();
        format!(
            "product {product} now has releases {:?}\nnext: `tern rollout plan --product {product} --rc {newest}`",
            published.releases
        )
    });
    Ok(Exit::Done)
}

fn upload(image: &Path, document: &ReleaseDocument, context: &Context) -> Result<(), Failure> {
    let length = std::fs::metadata(image).map_or(0, |about| about.len());
    // A wrong file costs a look at the disk, not an upload.
    let bar = context.out.bytes("measuring", length);
    let measured = measure(image, |count| bar.inc(count))?;
    bar.finish_and_clear();
    let named = document.release.content.values().any(|artifact| artifact.root == measured.root);
    if !named {
        let error = format!("the release file does not name {}", image.display());
        return Err(Failure::new(error, "give the image that `tern release create` measured"));
    }
    let bar = context.out.bytes("uploading", length);
    let moving = bar.clone();
    let stored = context.client.put_image(image, move |count| moving.inc(count))?;
    bar.finish_and_clear();
    if (stored.root, stored.sha256) != (measured.root, measured.sha256) {
        let error = format!("the service received other bytes than {} has", image.display());
        return Err(Failure::new(error, "publish again; something changed the image on the way"));
    }
    Ok(())
}
