//! The files that are in force: from the service, or from a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tern_protocol::id::ProductId;
use tern_protocol::tuf::Role;

use crate::api::types::KeysView;
use crate::ceremony::{CeremonyError, Document, Present};
use crate::cli::Context;
use crate::cli::failure::Failure;
use crate::files::{Readers, replace};

/// Files that people sign.
pub(super) const OFFLINE: [Role; 3] = [Role::Root, Role::Targets, Role::Release];

/// Asks the service.
pub(in crate::cli) fn view(product: &ProductId, context: &Context) -> Result<KeysView, Failure> {
    Ok(context.client.get(&format!("/v1/products/{product}/keys"))?)
}

/// Reads the files of a folder; those that it lacks are left out.
pub(super) fn folder(from: &Path) -> Result<BTreeMap<Role, String>, Failure> {
    let mut files = BTreeMap::new();
    for role in OFFLINE {
        let path = from.join(format!("{role}.json"));
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(|e| {
                Failure::new(format!("could not read {}: {e}", path.display()), "check the path")
            })?;
            files.insert(role, text);
        }
    }
    if files.is_empty() {
        let error = format!("{} holds no root.json, targets.json or release.json", from.display());
        return Err(Failure::new(error, "name a folder of `tern keys init`"));
    }
    Ok(files)
}

/// Reads the three files that people sign.
pub(super) fn present(
    product: &ProductId,
    from: Option<&Path>,
    context: &Context,
) -> Result<Present, Failure> {
    let files = match from {
        Some(from) => folder(from)?,
        None => view(product, context)?.files,
    };
    let document = |role: Role| -> Result<Document, Failure> {
        let text = files.get(&role).ok_or_else(|| {
            Failure::new(format!("there is no {role} file"), "give --from a folder that has all three")
        })?;
        Ok(Document::read(&format!("the present {role}"), text.as_bytes())?)
    };
    Ok(Present {
        root: document(Role::Root)?,
        targets: document(Role::Targets)?,
        release: document(Role::Release)?,
    })
}

/// Reads the files that may say whose signatures count, as far as they are there.
pub(in crate::cli) fn nearby(
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<Document>, CeremonyError> {
    paths.into_iter().filter(|path| path.is_file()).map(|path| Document::open(&path)).collect()
}

/// Writes a file for everybody to read.
pub(in crate::cli) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    replace(path, bytes, Readers::All).map_err(|e| {
        Failure::new(format!("could not write {}: {e}", path.display()), "check the path and the disk")
    })
}
