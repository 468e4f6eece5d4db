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

pub mod frame;
pub mod read;
pub mod segment;
pub mod write;

use std::io;
use std::path::PathBuf;

pub use frame::{Frame, PAYLOAD_MAX};
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
