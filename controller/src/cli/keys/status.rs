//! `tern keys status`: what expires when, who signed it, which key lies where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;

use super::present::{OFFLINE, folder, view};
use crate::api::types::{OnlineKey, RecoverView};
use crate::ceremony::{Document, Expiry, KeyLine, Quorum, expiry, parents_of, quorums};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::table;
use crate::clock;

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Show only this product
    #[arg(long)]
    product: Option<ProductId>,
    /// Look at root.json, targets.json and release.json in this folder instead of asking the service
    #[arg(long, value_name = "DIR", conflicts_with = "product")]
    from: Option<PathBuf>,
}

/// One product, or one folder.
#[derive(Debug, Serialize)]
struct Status {
    /// Somebody has to do something.
    due: bool,
    files: Vec<Expiry>,
    quorums: Vec<Quorum>,
    keys: Vec<KeyPlace>,
}

/// A key that the files name.
#[derive(Debug, Serialize)]
struct KeyPlace {
    role: Role,
    #[serde(flatten)]
    line: KeyLine,
    /// Where the service holds it; none for a key that people keep.
    path: Option<PathBuf>,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let mut found = BTreeMap::new();
    let mut comparing = false;
    if let Some(from) = &flags.from {
        found.insert(from.display().to_string(), status(&folder(from)?, &[])?);
    } else {
        let products = match &flags.product {
            Some(product) => vec![product.clone()],
            None => context.client.get("/v1/products")?,
        };
        for product in products {
            let view = view(&product, context)?;
            found.insert(product.to_string(), status(&view.files, &view.online)?);
        }
    }
    if flags.from.is_none() {
        let recovery: RecoverView = context.client.get("/v1/recover")?;
        comparing = recovery.comparing;
        if comparing {
            context.out.warning(&super::recover::text(&recovery));
        }
    }
    let due = comparing || found.values().any(|status| status.due);
    context.out.result(&found, text);
    Ok(if due { Exit::Failed } else { Exit::Done })
}

fn status(files: &BTreeMap<Role, String>, online: &[OnlineKey]) -> Result<Status, Failure> {
    let now = clock::now() / 1000;
    let expiries: Vec<Expiry> = files.iter().filter_map(|(role, text)| expiry(*role, text, now)).collect();
    let documents = OFFLINE.iter().filter_map(|role| files.get(role));
    let documents = documents.map(|text| Document::read("the present file", text.as_bytes()));
    let documents = documents.collect::<Result<Vec<_>, _>>()?;
    let known: Vec<&Document> = documents.iter().collect();
    let mut standing = Vec::new();
    let mut keys = Vec::new();
    for document in &documents {
        // A folder may hold a release without its targets.
        if let Ok(parents) = parents_of(document, &known) {
            standing.extend(quorums(document, &parents));
        }
        for role in document.names_keys_of() {
            for (line, key) in document.keys_of(*role) {
                let held = online.iter().find(|held| held.key == key.id().as_str());
                keys.push(KeyPlace { role: *role, line, path: held.map(|held| held.path.clone()) });
            }
        }
    }
    let due = expiries.iter().any(|expiry| expiry.due) || standing.iter().any(|quorum| !quorum.is_met());
    Ok(Status { due, files: expiries, quorums: standing, keys })
}

fn text(found: &BTreeMap<String, Status>) -> String {
    let mut text = String::new();
    for (name, status) in found {
        let files = status.files.iter().map(|file| {
            let verdict = match (file.due, file.days < 0) {
                (_, true) => "EXPIRED",
                (true, false) => "SIGN AGAIN SOON",
                (false, false) => "",
            };
            [
                file.role.to_string(),
                file.version.to_string(),
                file.days.to_string(),
                file.expires.clone(),
                verdict.to_owned(),
            ]
        });
        let keys = status.keys.iter().map(|key| {
            let people = matches!(key.role, Role::Root | Role::Targets | Role::Release);
            let elsewhere = if people { "offline" } else { "service" };
            let place = key.path.as_ref().map_or(elsewhere.to_owned(), |path| path.display().to_string());
            [key.role.to_string(), key.line.to_string(), place]
        });
        text.push_str(&format!("{name}\n{}\n\n", table(["file", "version", "days", "expires", ""], files)));
        for quorum in &status.quorums {
            let by: Vec<String> = quorum.signed.iter().map(ToString::to_string).collect();
            let by = if by.is_empty() { "nobody".to_owned() } else { by.join(", ") };
            let missing = if quorum.is_met() { String::new() } else { format!(" MISSING: {quorum}") };
            text.push_str(&format!("{} is signed by {by}{missing}\n", quorum.file));
        }
        text.push_str(&format!("\n{}\n\n", table(["role", "key", "kept"], keys)));
    }
    text
}
