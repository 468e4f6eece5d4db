//! Who signed, who still has to, and adding a signature.

use std::fmt;

use serde::{Deserialize, Serialize};
use tern_protocol::tuf::key::{KeyId, PublicKey};
use tern_protocol::tuf::{Role, sign};

use super::{CeremonyError, Document, KeyLine, names};
use crate::keys::Hand;

/// Where a file stands with those whom one other file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// The file that has to be signed.
    pub file: String,
    /// The file that names the keys.
    pub by: String,
    /// How many must sign.
    pub threshold: u32,
    /// Who did.
    pub signed: Vec<KeyLine>,
    /// Who did not.
    pub waiting: Vec<KeyLine>,
}

impl Quorum {
    /// Tells whether enough signed.
    pub fn is_met(&self) -> bool {
        self.signed.len() >= self.threshold as usize
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, by, threshold, signed, waiting } = self;
        write!(f, "{file} has {} of {threshold} signatures of the keys that {by} names", signed.len())?;
        if !self.is_met() {
            let more = (*threshold as usize).saturating_sub(signed.len());
            write!(f, "; {more} more of: {}", names(waiting))?;
        }
        Ok(())
    }
}

/// Returns which files name the keys that must sign `file`: for a root the one before it and itself, for targets a
/// root, for a release targets.
pub fn parents_of<'a>(
    file: &'a Document,
    others: &[&'a Document],
) -> Result<Vec<&'a Document>, CeremonyError> {
    let newest = |role: Role| {
        let of_role = others.iter().copied().filter(move |other| other.role == role);
        of_role.max_by_key(|other| other.version)
    };
    match file.role {
        Role::Root => {
            let before = others
                .iter()
                .copied()
                .find(|other| other.role == Role::Root && other.version.checked_add(1) == Some(file.version));
            Ok(before.into_iter().chain([file]).collect())
        }
        Role::Targets => Ok(vec![newest(Role::Root).ok_or(CeremonyError::NoParent(file.role))?]),
        _ => Ok(vec![newest(Role::Targets).ok_or(CeremonyError::NoParent(file.role))?]),
    }
}

/// Returns where `file` stands with each of its parents.
pub fn quorums(file: &Document, parents: &[&Document]) -> Vec<Quorum> {
    let quorum = |parent: &&Document| {
        let authority = parent.authority(file.role)?;
        let signed = file.signed_by(authority);
        let line = |id: &KeyId| parent.line(id);
        let waiting = authority.keys().map(|(id, _)| id).filter(|id| !signed.contains(id));
        Some(Quorum {
            file: format!("{} version {}", file.role, file.version),
            by: format!("{} version {}", parent.role, parent.version),
            threshold: authority.threshold(),
            waiting: waiting.map(line).collect(),
            signed: signed.iter().map(line).collect(),
        })
    };
    parents.iter().filter_map(quorum).collect()
}

/// Has `hand` sign `file` and adds the signature, under the key of the parents that it verifies with. One that
/// verifies with none of them is not added: with two tokens at hand the wrong one signs without a word.
/// `wanted` names the key by the beginning of its id, or by its holder.
pub fn add_signature(
    file: &Document,
    parents: &[&Document],
    hand: &Hand,
    wanted: Option<&str>,
) -> Result<(Document, KeyLine), CeremonyError> {
    let mut may: Vec<(KeyLine, KeyId, PublicKey)> = Vec::new();
    for parent in parents {
        let keys = parent.authority(file.role).into_iter().flat_map(|authority| authority.keys());
        for (id, key) in keys {
            if !may.iter().any(|(_, other, _)| other == id) {
                may.push((parent.line(id), id.clone(), key.clone()));
            }
        }
    }
    if let Some(wanted) = wanted {
        may.retain(|(line, _, _)| line.key.starts_with(wanted) || line.name == wanted);
        if may.len() != 1 {
            return Err(CeremonyError::NoSuchKey(wanted.to_owned()));
        }
    }
    let message = sign::message(&file.bytes)?;
    let signature = hand.sign(&message)?;
    let found = may.iter().find(|(_, _, key)| key.verifies(&message, &signature));
    let Some((line, id, key)) = found else {
        let may = may.into_iter().map(|(line, _, _)| line).collect();
        return Err(CeremonyError::NotAKeyOf { role: file.role, may });
    };
    let bytes = sign::attach(&file.bytes, id, key, signature)?;
    Ok((Document::read("the signed file", &bytes)?, line.clone()))
}
