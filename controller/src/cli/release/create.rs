//! `tern release create`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tern_protocol::id::{ModelId, ProductId};
use tern_protocol::tuf::time;

use super::manifest::{Described, EXAMPLE, Manifest};
use crate::api::types::ReleaseFile;
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};
use crate::clock;
use crate::core::fleet::product::{lacking, releases_in};
use crate::files::{Readers, replace};
use crate::release::{Measured, NewArtifact, NewRelease, ReleaseDocument, draft, measure};

/// Shows both forms.
pub(super) fn help() -> String {
    format!(
        "Without --previous the service is asked for the present release file.\n\n\
         Examples:\n  tern release create --product cam --rc 7 --version 2.4.1 --model b3 --image fw.img --out draft.json\n  \
         tern release create --product cam --rc 8 --version 2026.4 --model b3 --manifest release.toml --out draft.json\n\n\
         A release of several components, and of variants of one:\n{EXAMPLE}"
    )
}

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
    #[arg(long, required_unless_present = "manifest", value_name = "M")]
    model: Vec<ModelId>,
    /// Release this image, at most 4 GiB
    #[arg(long, value_name = "FILE", required_unless_present = "manifest", conflicts_with = "manifest")]
    image: Option<PathBuf>,
    /// Name the part of the device that the image is for
    #[arg(long, default_value = "rootfs", conflicts_with = "manifest")]
    component: String,
    /// Release the artifacts that this file describes (.toml or .json): components, variants, requirements
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
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
    let artifacts = artifacts(&flags, context)?;
    let expires = clock::now() / 1000 + u64::from(flags.days) * 86_400;
    let Flags { product, rc, version, min_from, floor, out, .. } = flags;
    let new = NewRelease { product, rc, version, min_from, floor, artifacts, expires };
    let (bytes, dropped) = draft(&previous, &new)?;
    replace(&out, &bytes, Readers::All).map_err(|e| {
        Failure::new(format!("could not write {}: {e}", out.display()), "check the path and the disk")
    })?;
    if let Some(lacking) = lacking(&releases_in(&String::from_utf8_lossy(&bytes)), rc) {
        context.out.warning(&lacking);
    }
    for rc in &dropped {
        context.out.warning(&format!(
            "release {rc} leaves the file, which names five at most: devices that are still offered it stop"
        ));
    }
    let mut value = json!({
        "draft": out, "product": new.product, "rc": rc, "version": new.version, "artifacts": described(&new),
        "expires": time::write(expires), "dropped": dropped,
    });
    if let [only] = new.artifacts.as_slice() {
        let Measured { length, sha256, root } = only.image;
        value["length"] = length.into();
        value["sha256"] = json!(sha256);
        value["root"] = json!(root);
    }
    context.out.result(&value, |_| {
        let next = format!("next: `tern release sign {} --key release.pem --out signed.json`", out.display());
        format!("{} release {rc} ({}): {}{next}", new.product, new.version, listed(&new))
    });
    Ok(Exit::Done)
}

/// Measures what the release is made of: the one image, or all of the manifest.
fn artifacts(flags: &Flags, context: &Context) -> Result<Vec<NewArtifact>, Failure> {
    let measured = |image: &Path| -> Result<Measured, Failure> {
        let length = std::fs::metadata(image).map_or(0, |about| about.len());
        let bar = context.out.bytes("measuring", length);
        let measured = measure(image, |count| bar.inc(count))?;
        bar.finish_and_clear();
        Ok(measured)
    };
    if let Some(image) = &flags.image {
        return Ok(vec![NewArtifact::new(&flags.component, flags.model.clone(), measured(image)?)]);
    }
    let described = flags.manifest.as_deref().map(Manifest::read).transpose()?;
    let described = described.map(|manifest| manifest.artifacts).unwrap_or_default();
    let artifact = |of: Described| {
        let models = if of.models.is_empty() { flags.model.clone() } else { of.models };
        let image = measured(&of.image)?;
        let Described { component, variant, version, order, carriers, regions, requires, .. } = of;
        Ok(NewArtifact { component, variant, version, order, models, carriers, regions, requires, image })
    };
    described.into_iter().map(artifact).collect()
}

fn described(new: &NewRelease) -> Vec<Value> {
    let one = |artifact: &NewArtifact| {
        let NewArtifact { component, variant, version, order, models, carriers, regions, requires, image } =
            artifact;
        json!({
            "component": component, "variant": variant, "version": version.as_ref().unwrap_or(&new.version),
            "order": order, "models": models, "carriers": carriers, "regions": regions, "requires": requires,
            "length": image.length, "sha256": image.sha256, "root": image.root,
        })
    };
    new.artifacts.iter().map(one).collect()
}

fn listed(new: &NewRelease) -> String {
    if let [only] = new.artifacts.as_slice() {
        let Measured { length, sha256, root } = only.image;
        return format!("{}\nsha256 {sha256}\nroot   {root}\n", words::bytes(length));
    }
    let line = |artifact: &NewArtifact| {
        let version = artifact.version.as_ref().unwrap_or(&new.version);
        let Measured { length, sha256, .. } = artifact.image;
        format!("\n  {} {version}: {}, sha256 {sha256}", artifact.part(), words::bytes(length))
    };
    let lines: String = new.artifacts.iter().map(line).collect();
    format!("{} artifacts{lines}\n", new.artifacts.len())
}
