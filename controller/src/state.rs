//! The data folder: ledger, checkpoint, keys, images. Opened by one process at a time.
//!
//! ```text
//! <data>/ledger/        every fact, append-only; the truth
//! <data>/place         tells the folder from a copy of it
//! <data>/store/         checkpoint of what the ledger adds up to; may be deleted
//! <data>/keys/<product>/{rollout,halt,snapshot,timestamp,telemetry}.pem
//! <data>/products/<product>/{root,targets,release}.json     offline files of `keys init`
//! <data>/images/        chunks, content-addressed
//! ```

use std::path::{Path, PathBuf};

use tern_protocol::id::FleetId;

use crate::checkpoint::directory::Directory;
use crate::checkpoint::{Checkpoint, read};
use crate::core::fact::Entry;
use crate::core::fleet::Fleet;
use crate::ledger::{Ledger, LedgerError};
use crate::place;
use crate::store::sled::SledStore;
use crate::store::{Store, StoreError};

/// Says why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be made.
    #[error("could not make the data folder {path}; choose another one with --data")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The ledger cannot be used.
    #[error("could not open the ledger")]
    Ledger(#[from] LedgerError),
    /// The checkpoint cannot be used, not even after it was set aside.
    #[error("could not open the checkpoint in the data folder")]
    Store(#[from] StoreError),
    /// A frame of the ledger is not a fact that this program knows.
    #[error("frame {sequence} of the ledger is not a fact that this version knows; run a newer version")]
    Fact {
        /// The frame.
        sequence: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The checkpoint knows frames that the ledger has lost.
    #[error(
        "the ledger ends at frame {ledger}, but frame {checkpoint} was acknowledged; restore the ledger, or \
         delete the folder {store} to go on with what is left"
    )]
    Lost {
        /// Frames in the ledger.
        ledger: u64,
        /// Last frame that the checkpoint has.
        checkpoint: u64,
        /// The checkpoint's folder.
        store: PathBuf,
    },
}

/// An open data folder.
pub struct Opened {
    /// What the ledger adds up to.
    pub fleet: Fleet,
    /// The ledger, positioned at its end.
    pub ledger: Ledger,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Fencing number of this run.
    pub term: u64,
    /// What an operator should hear about the opening.
    pub notes: Vec<String>,
    /// Nobody has put a copy in the place of the folder that was written to last.
    pub original: bool,
}

/// Opens the data folder and folds the ledger into a fleet.
pub fn open(data: &Path, fleet: &FleetId) -> Result<Opened, OpenError> {
    let folder = |source| OpenError::Folder { path: data.to_owned(), source };
    crate::files::private_folder(data).map_err(folder)?;
    let mut notes = Vec::new();
    // The ledger in it holds what claims are used with, and whoever can open its lock can keep the service from starting.
    // A group is left alone: it may be there for a backup.
    if crate::files::keep_others_out(data).map_err(folder)? {
        notes.push(format!(
            "the data folder {} was open to everybody on this machine; it is not any more",
            data.display()
        ));
    }
    let (mut ledger, recovery) = Ledger::open(&data.join("ledger"))?;
    let original = place::is_original(data, ledger.next());
    if let Some(cut) = recovery.cut {
        notes.push(format!(
            "the ledger was cut at its last whole frame: {} B after byte {} of {} were not whole; \
             nothing in them was ever acknowledged",
            cut.bytes,
            cut.at,
            cut.file.display()
        ));
    }
    let store_dir = data.join("store");
    let mut store: Box<dyn Store> = Box::new(SledStore::open_or_set_aside(&store_dir, 0)?);
    if let Some(aside) = store.recovered().set_aside {
        notes.push(format!(
            "the checkpoint was damaged, it is set aside as {}; it is rebuilt from the ledger",
            aside.display()
        ));
    }
    if let Some(applied) = store.recovered().applied_seq.filter(|applied| *applied >= ledger.next()) {
        return Err(OpenError::Lost { ledger: ledger.next(), checkpoint: applied, store: store_dir });
    }
    let fresh = || (Fleet::new(fleet.clone()), Directory::default());
    let (mut state, directory) = match read::read(store.as_ref(), fleet) {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => {
            notes.push(format!("the checkpoint {why}; it is rebuilt from the ledger"));
            store.wipe()?;
            fresh()
        }
        Err(error) if error.wants_rebuild() => {
            notes.push(format!("the checkpoint does not read ({error}); it is rebuilt from the ledger"));
            store.wipe()?;
            fresh()
        }
        Err(error) => return Err(error.into()),
    };
    let checkpointed = store.recovered().applied_seq.map_or(0, |applied| applied + 1);
    let term = ledger.term().max(store.recovered().term) + 1;
    store.fence(term)?;
    let mut checkpoint = Checkpoint::new(store, directory, checkpointed);
    for frame in ledger.frames(checkpointed)? {
        let frame = frame?;
        let entry: Entry = serde_json::from_slice(&frame.payload)
            .map_err(|source| OpenError::Fact { sequence: frame.sequence, source })?;
        state.apply(entry.at, &entry.fact);
        checkpoint.note(&entry.fact, &state);
    }
    ledger.begin_term(term)?;
    Ok(Opened { fleet: state, ledger, checkpoint, term, notes, original })
}
