//! `tern release`.

mod create;
mod deltas;
mod export;
mod lint;
mod manifest;
mod publish;
mod terms;

use clap::Subcommand;
use tern_protocol::id::ProductId;

use super::failure::{Exit, Failure};
use super::keys::sign;
use super::output::table;
use super::{Context, words};
use crate::api::types::ReleaseView;
use crate::release::{Change, Summary};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Draft a release file: what was approved so far, and one release more
    #[command(after_help = create::help())]
    Create(create::Flags),
    /// Show what a draft approves, then sign it; needs no network
    #[command(
        after_help = "Beside the key it looks for targets.json, which says whose signatures count, and for \
                      release.json, what was signed last. With a threshold of 2 the second signs what the first wrote.\n\n\
                      Example:\n  tern release sign draft.json --key /media/stick/release.pem --out signed.json"
    )]
    Sign(sign::Flags),
    /// Hand a signed release file and its images to the service
    #[command(after_help = "Examples:\n  tern release publish signed.json --image fw.img\n  \
                      tern release publish signed.json --manifest release.toml")]
    Publish(publish::Flags),
    /// Say what makes an image expensive to send, measured beside the one before it
    #[command(
        after_help = "It finds compressed file systems, packed kernels, and builds that cannot be repeated. Exit code 7: it found \
                            something.\n\nExamples:\n  tern release lint fw.img\n  tern release lint fw.img fw-before.img --json"
    )]
    Lint(lint::Flags),
    /// List the deltas of a release, and how it is with each
    #[command(after_help = "Example:\n  tern release deltas --product cam --rc 7")]
    Deltas {
        /// The product
        #[arg(long)]
        product: ProductId,
        /// The release
        #[arg(long, value_name = "N")]
        rc: u64,
    },
    /// Copy a release's images and deltas out, as files for a web server or an object store
    #[command(
        after_help = "Run it where the service runs. Devices that are configured with transfer.http_prefixes fetch from there; they \
                      verify what they get, so the server need not be trusted. No file ever changes once it is there.\n\n\
                      Example:\n  tern release export --product cam --rc 7 --data /var/lib/tern --to /srv/www/tern"
    )]
    Export(export::Flags),
    /// List the releases of a product, or of all
    #[command(after_help = "Example:\n  tern release list --product cam")]
    List {
        /// Show only this product
        #[arg(long)]
        product: Option<ProductId>,
    },
    /// Show one release
    #[command(after_help = "Example:\n  tern release show --product cam --rc 7")]
    Show {
        /// The product
        #[arg(long)]
        product: ProductId,
        /// The release
        #[arg(long, value_name = "N")]
        rc: u64,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Create(flags) => create::run(flags, context),
        Verb::Sign(flags) => sign::run_release(&flags, context),
        Verb::Publish(flags) => publish::run(flags, context),
        Verb::Lint(flags) => lint::run(&flags, context),
        Verb::Export(flags) => export::run(&flags, context),
        Verb::Deltas { product, rc } => {
            context.out.result(&deltas::of(context, &product, rc)?, |found| deltas::list(found));
            Ok(Exit::Done)
        }
        Verb::List { product } => {
            let products = match product {
                Some(product) => vec![product],
                None => context.client.get("/v1/products")?,
            };
            let mut found = std::collections::BTreeMap::new();
            for product in products {
                let releases = releases(context, &product)?;
                found.insert(product, releases);
            }
            context.out.result(&found, list);
            Ok(Exit::Done)
        }
        Verb::Show { product, rc } => {
            let found = of(context, &product, rc)?;
            let made = deltas::of(context, &product, rc)?;
            context.out.result(&found, |found| show(found) + &deltas::sizes(&made));
            Ok(Exit::Done)
        }
    }
}

fn releases(context: &Context, product: &ProductId) -> Result<Vec<ReleaseView>, Failure> {
    Ok(context.client.get(&format!("/v1/products/{product}/releases"))?)
}

/// Returns one of them.
fn of(context: &Context, product: &ProductId, rc: u64) -> Result<ReleaseView, Failure> {
    let found = releases(context, product)?.into_iter().find(|release| release.rc == rc);
    found.ok_or_else(|| {
        let hint = format!("see `tern release list --product {product}`");
        Failure::new(format!("product {product} has no release {rc}"), hint)
    })
}

fn list(found: &std::collections::BTreeMap<ProductId, Vec<ReleaseView>>) -> String {
    let rows = found.iter().flat_map(|(product, releases)| {
        releases.iter().rev().map(move |release| {
            let bytes: u64 = release.artifacts.iter().map(|artifact| artifact.length).sum();
            let mut components: Vec<&str> = release.artifacts.iter().map(|a| a.component.as_str()).collect();
            components.dedup();
            [
                product.to_string(),
                release.rc.to_string(),
                release.version.clone(),
                if release.halted { "halted" } else { "approved" }.to_owned(),
                components.join(" "),
                words::bytes(bytes),
            ]
        })
    });
    table(["product", "rc", "version", "status", "components", "size"], rows)
}

fn show(release: &ReleaseView) -> String {
    let halted = if release.halted { ", halted for ever" } else { "" };
    let mut text = format!("release {} ({}){halted}\n", release.rc, release.version);
    for artifact in &release.artifacts {
        let version = Some(&artifact.version).filter(|version| **version != release.version);
        let conditions = terms::Conditions::from(artifact).words();
        text.push_str(&format!(
            "  {}{}: {} for {}{}{}\n    sha256 {}\n    root   {}\n",
            terms::part(&artifact.component, artifact.variant.as_ref()),
            version.map_or_else(String::new, |version| format!(" {version}")),
            words::bytes(artifact.length),
            terms::list(&artifact.models),
            if conditions.is_empty() { conditions } else { format!("; {conditions}") },
            if artifact.stored { "" } else { "; its image is not stored" },
            artifact.sha256,
            artifact.root,
        ));
    }
    text
}

/// Writes what a signature would approve.
pub(super) fn summary(summary: &Summary) -> String {
    let rows = summary.artifacts.iter().map(|line| {
        [
            match line.change {
                Change::New => "NEW",
                Change::Same => "as before",
                Change::Unknown => "?",
            }
            .to_owned(),
            if line.release == line.version {
                line.rc.to_string()
            } else {
                format!("{} ({})", line.rc, line.release)
            },
            line.version.clone(),
            terms::part(&line.component, line.variant.as_ref()),
            line.models.iter().map(|model| model.as_str()).collect::<Vec<_>>().join(","),
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
    for line in &summary.artifacts {
        let conditions = terms::Conditions::from(line).words();
        if !conditions.is_empty() {
            let part = terms::part(&line.component, line.variant.as_ref());
            text.push_str(&format!("release {}, {part}: {conditions}\n", line.rc));
        }
    }
    if !summary.dropped.is_empty() {
        text.push_str(&format!("no longer named: releases {:?}\n", summary.dropped));
    }
    if summary.signatures > 0 {
        text.push_str(&format!("{} signatures are on it already\n", summary.signatures));
    }
    text
}
