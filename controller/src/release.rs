//! Release files: drafted next to the build, signed where the key is, published by the service.
//!
//! A draft is a release file without signatures, so that several people can add theirs one after the other.

mod check;
mod draft;
mod measure;
mod signing;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::content::{ReleaseContent, Targets};
use tern_protocol::tuf::metadata::Metadata;
use tern_protocol::tuf::{Role, TufError, canonical};

pub use draft::{NewArtifact, NewRelease, draft};
pub use measure::{IMAGE_MAX, Measured, measure};
pub use signing::{Change, Line, Summary, check_authority, check_paths, sign, summarise};

/// Says why a release file could not be made, signed or read.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
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
    /// The image is empty or too large.
    #[error("{} has {length} B; an image has 1 to {IMAGE_MAX} B", path.display())]
    Size {
        /// The image.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// The file is no release file.
    #[error("{what} is not a release file: {why}")]
    NotARelease {
        /// Which file.
        what: String,
        /// Why.
        why: String,
    },
    /// The counter is not above all that were used.
    #[error("release {rc} is not above {newest}, the newest one")]
    Counter {
        /// The counter that was given.
        rc: u64,
        /// The newest that was used.
        newest: u64,
    },
    /// A value of the new release makes no sense.
    #[error("{0}")]
    Value(String),
    /// The draft changes what was signed before.
    #[error("the draft changes release {0}, which was signed before: somebody has tampered with it")]
    Tampered(u64),
    /// The draft does not continue what was signed here last.
    #[error("the draft has version {found}, the file that was signed here last has version {last}")]
    Version {
        /// Version of the draft.
        found: u32,
        /// Version that was signed last.
        last: u32,
    },
    /// The key did not sign.
    #[error("could not sign the release file")]
    Sign(#[from] tern_protocol::tuf::key::SignError),
    /// The signature is not one that devices accept.
    #[error("devices would not accept the signed file: {0}")]
    Refused(TufError),
}

impl ReleaseError {
    /// Returns what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "check the path, its permissions and the room on the disk".to_owned(),
            Self::Size { .. } => "name the right file; split larger ones into components".to_owned(),
            Self::NotARelease { .. } => "make one with `tern release create`".to_owned(),
            Self::Counter { newest, .. } => format!("choose --rc {} or higher", newest + 1),
            Self::Value(_) => "correct the value".to_owned(),
            Self::Tampered(_) => "do not sign; find out where the draft comes from".to_owned(),
            Self::Version { last, .. } => {
                format!("make the draft again from the newest release file (version {last})")
            }
            Self::Sign(_) => "check the key and the draft".to_owned(),
            Self::Refused(TufError::Threshold { .. }) => {
                "sign with the release key of this product; with several keys, each signs in turn".to_owned()
            }
            Self::Refused(_) => "make the draft again with `tern release create`".to_owned(),
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// A release file that was read, signed or not.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseDocument {
    /// Its signed part.
    pub signed: Value,
    /// What that says.
    pub release: Targets<ReleaseContent>,
    /// How many signatures are on it; none on a draft.
    pub signatures: usize,
}

impl ReleaseDocument {
    /// Reads a release file; `what` names it in errors. Signatures are not verified.
    pub fn read(what: &str, bytes: &[u8]) -> Result<Self, ReleaseError> {
        let refused = |why: String| ReleaseError::NotARelease { what: what.to_owned(), why };
        if bytes.len() > Role::Release.ceiling() {
            return Err(refused(format!("it has {} B", bytes.len())));
        }
        let mut file = canonical::read(bytes).map_err(|e| refused(e.to_string()))?;
        let signatures = file.get("signatures").and_then(Value::as_array).map_or(0, Vec::len);
        let signed = file.get_mut("signed").map(Value::take).unwrap_or_default();
        let release =
            Targets::<ReleaseContent>::read(Role::Release, &signed).map_err(|e| refused(e.to_string()))?;
        Ok(Self { signed, release, signatures })
    }

    /// Reads a release file from disk.
    pub fn open(path: &Path) -> Result<(Self, Vec<u8>), ReleaseError> {
        let bytes = std::fs::read(path).map_err(ReleaseError::io("read", path))?;
        Ok((Self::read(&path.display().to_string(), &bytes)?, bytes))
    }

    /// Returns the product that its paths name; none while it names nothing.
    pub fn product(&self) -> Result<Option<ProductId>, ReleaseError> {
        let mut products = self.release.content.keys().map(|path| path.split('/').next().unwrap_or(path));
        let Some(first) = products.next() else { return Ok(None) };
        let wrong = |why: &str| ReleaseError::NotARelease { what: "the file".into(), why: why.into() };
        if products.any(|other| other != first) {
            return Err(wrong("it names artifacts of two products"));
        }
        first.parse().map(Some).map_err(|_| wrong("its paths do not begin with a product"))
    }

    /// Returns the highest release counter; 0 while it names nothing.
    pub fn newest(&self) -> u64 {
        self.release.content.values().map(|artifact| artifact.rc).max().unwrap_or(0)
    }
}
