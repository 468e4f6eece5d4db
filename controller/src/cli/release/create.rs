//! `tern release create`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tern_protocol::id::{ModelId, ProductId};
use tern_protocol::tuf::time;

use crate::api::types::ReleaseFile;
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};
use crate::clock;
use crate::files::{Readers, replace};
use crate::release::{NewRelease, ReleaseDocument, draft, measure};

/// The largest counter: above it a number in JSON is not the same for every reader.
const RC_MAX: u64 = 1 << 53;

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Release for this product
    #[arg(long)]
    product: ProductId,
    /// Give the release this counter: higher than any before, never used again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RC_MAX))]
    rc: u64,
    /// Name the version, for people
    #[arg(long, value_name = "V")]
    version: String,
    /// Allow this hardware model; may be given several times
    #[arg(long, required = true, value_name = "M")]
    model: Vec<ModelId>,
    /// Release this image, at most 4 GiB
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Name the part of the device that the image is for
    #[arg(long, default_value = "rootfs")]
    component: String,
    /// Offer it only to devices that run at least this release
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_from: u64,
    /// Have devices that confirmed it refuse everything below this release
    #[arg(long, value_name = "N", default_value_t = 0)]
    floor: u64,
    /// Let the release file live this long
    #[arg(long, value_name = "N", default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Continue this release file instead of asking the service
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Write the draft here
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(flags: Flags, context: &Context) -> Result<Exit, Failure> {
    let previous = match &flags.previous {
        Some(path) => ReleaseDocument::open(path)?.0,
        None => {
            let path = format!("/v1/products/{}/release-file", flags.product);
            let file: ReleaseFile = context.client.get(&path)?;
            ReleaseDocument::read("the service's release file", file.release.as_bytes())?
        }
    };
    let length = std::fs::metadata(&flags.image).map_or(0, |about| about.len());
    let bar = context.out.bytes("measuring", length);
    let image = measure(&flags.image, |count| bar.inc(count))?;
    bar.finish_and_clear();
    let expires = clock::now() / 1000 + u64::from(flags.days) * 86_400;
    let Flags { product, rc, version, model, component, min_from, floor, out, .. } = flags;
    let new = NewRelease { product, rc, version, component, models: model, min_from, floor, image, expires };
    let (bytes, dropped) = draft(&previous, &new)?;
    replace(&out, &bytes, Readers::All).map_err(|e| {
        Failure::new(format!("could not write {}: {e}", out.display()), "check the path and the disk")
    })?;
    for rc in &dropped {
        context.out.warning(&format!(
            "release {rc} leaves the file, which names five at most: devices that are still offered it stop"
        ));
    }
    let value = json!({
        "draft": out, "product": new.product, "rc": rc, "version": new.version, "length": image.length,
        "sha256": image.sha256, "root": image.root, "expires": time::write(expires), "dropped": dropped,
    });
    context.out.result(&value, |_| {
        format!(
            "{} release {rc} ({}): {}\nsha256 {}\nroot   {}\nnext: `tern release sign {} --key release.pem --out signed.json`",
            new.product,
            new.version,
            words::bytes(image.length),
            image.sha256,
            image.root,
            out.display()
        )
    });
    Ok(Exit::Done)
}
