//! The append-only, hash-chained record of everything that was decided or heard.
//!
//! The ledger is the one thing that must not be lost: the [`store`](crate::store) is what it adds up to.
//! A report is acknowledged after the frame that holds it is synced, not before.
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | one record: how it looks in a file, and what makes it whole |
//! | [`segment`] | one file of frames: its name, and reading it with suspicion |
//! | [`read`](mod@read) | walking a ledger's folder; `ledger verify` |
//! | [`write`](mod@write) | [`Ledger`]: opening, cutting a torn tail, appending, syncing |
//! | [`tree`] | the Merkle tree over the frames' hashes |
//! | [`note`], [`checkpoint`] | signed text, and what a signed checkpoint says |
//! | [`notary`] | when a checkpoint is signed, and where it lies |
//! | [`boundary`] | where a ledger begins after old segments were dropped |
//! | [`examine`](mod@examine) | checking a copy from what is in it |
//! | [`proof`] | the proof that one frame is in the ledger |

pub mod boundary;
pub mod checkpoint;
pub mod examine;
pub mod frame;
pub mod notary;
pub mod note;
pub mod proof;
pub mod read;
pub mod segment;
pub mod tree;
pub mod write;

#[cfg(test)]
mod proof_tests;

use std::io;
use std::path::PathBuf;

pub use boundary::Boundary;
pub use examine::{Examination, examine};
pub use frame::{Frame, PAYLOAD_MAX};
pub use notary::{Notary, Occasion};
pub use note::{NoteKey, NoteSigner};
pub use proof::{Proof, Proved, prove};
pub use read::{Frames, Report, verify};
pub use write::{Cut, Ledger, Options, Recovery};

/// Says why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process holds the folder.
    #[error("the ledger in {} is in use by another process; stop that one first", dir.display())]
    InUse {
        /// The ledger's folder.
        dir: PathBuf,
    },
    /// A file or folder could not be read, made, cut or synced.
    #[error("could not {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Frames are damaged where good ones follow, so cutting would lose what was acknowledged.
    #[error(
        "{} is damaged at byte {offset}: {problem}; good frames follow, so nothing was cut: restore the folder from a copy",
        file.display()
    )]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where the damaged frame begins.
        offset: u64,
        /// What is wrong there.
        problem: frame::Problem,
    },
    /// The file that says where the ledger begins does not read.
    #[error(
        "{} does not read: {problem}; restore it from a copy, or put every segment that was dropped back and take it away",
        path.display()
    )]
    Boundary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: note::NoteError,
    },
    /// Frames that are asked for were dropped.
    #[error("frames below {first} were dropped; ask from frame {first} on")]
    Dropped {
        /// The first one that is kept.
        first: u64,
    },
    /// A payload is too large or empty.
    #[error("a ledger payload has 1 to {PAYLOAD_MAX} bytes, found {found}")]
    PayloadSize {
        /// Its length.
        found: usize,
    },
    /// The term of a new frame is below that of the last one: somebody else has taken over since.
    #[error("term {term} is over: the ledger is already in term {newest}; stop this service")]
    StaleTerm {
        /// The term of the writer.
        term: u64,
        /// The ledger's term.
        newest: u64,
    },
    /// An earlier write or sync failed. What the disk holds is unknown until the ledger is opened again.
    #[error("the ledger stopped after a failed write or sync; mend the disk, then restart the service")]
    Stopped,
}

impl LedgerError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// Says why what was signed does not vouch for a ledger or a frame.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The ledger itself is not whole.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nothing was ever signed, or what was signed is gone.
    #[error("there is no signed checkpoint {}", path.display())]
    NoCheckpoint {
        /// Where it should be.
        path: PathBuf,
    },
    /// There are signatures and nobody says whose they should be.
    #[error("there is no ledger.pub in {}", dir.display())]
    NoKey {
        /// The ledger's folder.
        dir: PathBuf,
    },
    /// A signed file is not believed.
    #[error("{} is not believed", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: note::NoteError,
    },
    /// A proof is not believed.
    #[error("the proof is not believed")]
    Proof(#[source] note::NoteError),
    /// Frames are missing at the end.
    #[error("the ledger ends after {frames} frames, and {} vouches for {size}: the end is missing", path.display())]
    Truncated {
        /// The checkpoint.
        path: PathBuf,
        /// Frames that it vouches for.
        size: u64,
        /// Frames that are there.
        frames: u64,
    },
    /// The frames are chained, and are not those that were signed.
    #[error("the first {size} frames are not those that {} vouches for: the history was changed", path.display())]
    Forged {
        /// The checkpoint.
        path: PathBuf,
        /// Frames that it vouches for.
        size: u64,
    },
    /// The snapshot at the boundary is not the one that was signed.
    #[error("{} is not the snapshot that the boundary names", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
    },
    /// A frame is asked for that was dropped.
    #[error("frame {frame} was dropped; the ledger begins with frame {first}")]
    Dropped {
        /// The frame.
        frame: u64,
        /// The first one that is kept.
        first: u64,
    },
    /// A frame is asked for that is not there.
    #[error("there is no frame {frame}: the ledger has {frames}, numbered from 0")]
    NoFrame {
        /// The frame.
        frame: u64,
        /// Frames that were ever written.
        frames: u64,
    },
    /// A frame is asked for that no checkpoint vouches for yet.
    #[error("frame {frame} is not vouched for: the newest checkpoint is of {size} frames")]
    NotVouched {
        /// The frame.
        frame: u64,
        /// Frames that the checkpoint vouches for.
        size: u64,
    },
    /// The path of a proof does not lead from its frame to the signed root.
    #[error("the proof does not show that frame {frame} is in the ledger")]
    NotIncluded {
        /// The frame that it names.
        frame: u64,
    },
}

impl ProofError {
    /// Returns what to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Ledger(_) => "keep the folder as it is, and look at it in a copy",
            Self::NoCheckpoint { .. } => {
                "a service signs one within a minute of its start, and when it stops; if there was one, the copy is not whole"
            }
            Self::NoKey { .. } => "copy the whole folder `ledger`, or name the key with --key",
            Self::Note { .. } | Self::Proof(_) => {
                "compare the key with the one that was noted when the service was set up; `tern ledger key` prints it"
            }
            Self::Truncated { .. } | Self::Forged { .. } | Self::Snapshot { .. } => {
                "keep the folder as evidence, and compare with another copy; do not restore from this one"
            }
            Self::Dropped { .. } => "an older copy of the ledger has it",
            Self::NoFrame { .. } => "look the number up with `tern ledger export`",
            Self::NotVouched { .. } => "wait a minute, then ask again",
            Self::NotIncluded { .. } => {
                "ask for the proof again; this one was changed, or is of another ledger"
            }
        }
    }
}
