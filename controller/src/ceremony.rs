//! Offline files and the people who sign them: root, targets and release, from one version to the next.
//!
//! ```text
//! rotate ──> files without signatures ──> sign, sign, … ──> who is missing? nobody ──> the service
//!                    (a difference is shown before each)        (quorum)        (a simulated device judges)
//! ```
//! Everything is a file, so everything works where there is no network. A half-signed file carries the signatures
//! that it has so far.
//!
//! | module | what it holds |
//! |---|---|
//! | `document` | an offline file that was read, and whom it names |
//! | `quorum` | who signed, who still has to, and adding a signature |
//! | `difference` | what a person should see before signing |
//! | `rotate` | the next version: other keys, another threshold, another expiry |
//! | `status` | what expires when |

mod difference;
mod document;
mod quorum;
mod rotate;
mod status;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use tern_protocol::tuf::Role;

pub use difference::{Difference, KeysChange, difference};
pub use document::{Document, KeyLine, name_keys};
pub use quorum::{Quorum, add_signature, parents_of, quorums};
pub use rotate::{Change, Present, ServiceKey, rotate, rotate_service_key};
pub use status::{Expiry, SOON, expiry};

/// Says why an offline file could not be made, read or signed.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A file could not be read or written.
    #[error("could not {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not one that people sign.
    #[error("{what} is not a file of root, targets or release: {why}")]
    NotADocument {
        /// Which file.
        what: String,
        /// Why.
        why: String,
    },
    /// The file that names the keys is not there.
    #[error("nothing says which keys may sign {0}")]
    NoParent(Role),
    /// The signature verifies under none of the role's keys.
    #[error("this key is none of those that may sign {role}: {}", names(may))]
    NotAKeyOf {
        /// The role.
        role: Role,
        /// Who may sign.
        may: Vec<KeyLine>,
    },
    /// The key that was asked for by id is none of the role's.
    #[error("{0} is no key that may sign this file, or not the only one")]
    NoSuchKey(String),
    /// A key did not sign.
    #[error(transparent)]
    Key(#[from] crate::keys::KeysError),
    /// The signature could not be added.
    #[error("could not add the signature")]
    Sign(#[from] tern_protocol::tuf::key::SignError),
    /// The change makes no sense.
    #[error("{0}")]
    Change(String),
    /// Signatures are missing.
    #[error("{}", missing(.0))]
    Missing(Vec<Quorum>),
}

impl CeremonyError {
    /// Returns what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "check the path, its permissions and the room on the disk".to_owned(),
            Self::NotADocument { .. } => "name a file that `tern keys` or `tern release` made".to_owned(),
            Self::NoParent(Role::Release) => {
                "give the newest targets file with --parent, or put it beside the key".to_owned()
            }
            Self::NoParent(_) => {
                "give the newest root file with --parent, or put it beside the key".to_owned()
            }
            Self::NotAKeyOf { .. } => {
                "nothing was written; use the right key, or the newest root.json and targets.json beside it"
                    .to_owned()
            }
            Self::NoSuchKey(_) => "give more of the key id".to_owned(),
            Self::Key(error) => error.hint(),
            Self::Sign(_) => "check the key and the file".to_owned(),
            Self::Change(_) => "correct the command".to_owned(),
            Self::Missing(_) => "have them sign with `tern keys sign FILE --key KEY --out FILE`".to_owned(),
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn names(keys: &[KeyLine]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn missing(quorums: &[Quorum]) -> String {
    quorums.iter().filter(|quorum| !quorum.is_met()).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
