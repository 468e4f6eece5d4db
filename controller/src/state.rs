//! The data folder: ledger, checkpoint, keys, images. Opened by one process at a time.
//!
//! ```text
//! <data>/ledger/        every fact, append-only; the truth
//! <data>/place         tells the folder from a copy of it
//! <data>/store/         checkpoint of what the ledger adds up to; may be deleted
//! <data>/keys/ledger.pem            signs the ledger's checkpoints
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
use crate::keys::{self, KeysError};
use crate::ledger::{Ledger, LedgerError, Notary, NoteSigner, Options, ProofError};
use crate::place;
use crate::retention::{self, RetentionError};
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
    /// The ledger's key cannot be used.
    #[error("could not read the ledger's key")]
    Keys(#[from] KeysError),
    /// The ledger is not the one that its key has vouched for.
    #[error(
        "the ledger is not the one that was signed; restore it from a copy, or delete the folder {store}, and move the \
         folder {checkpoints} away, to go on with what is left"
    )]
    NotVouched {
        /// The folder of signed checkpoints.
        checkpoints: PathBuf,
        /// The checkpoint's folder.
        store: PathBuf,
        /// What was found.
        #[source]
        source: Box<ProofError>,
    },
    /// What the dropped frames add up to cannot be used, and the checkpoint does not have it.
    #[error(
        "could not begin where older frames of the ledger were dropped; restore the ledger or the checkpoint"
    )]
    Boundary(#[from] RetentionError),
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
        "the ledger ends at frame {ledger}, but frame {checkpoint} was acknowledged; restore the ledger, or delete the \
         folder {store}, and move the folder ledger/checkpoints away, to go on with what is left"
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
    /// Signs the ledger's checkpoints.
    pub notary: Notary,
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
    open_with(data, fleet, Options::default())
}

/// Opens as [`open`] does, with a ledger that is kept in another way.
pub fn open_with(data: &Path, fleet: &FleetId, options: Options) -> Result<Opened, OpenError> {
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
    let (mut ledger, recovery) = Ledger::open_with(&data.join("ledger"), options)?;
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
    let key = keys::ledger_key(data)?;
    if key.made {
        notes.push(format!(
            "the ledger has a key from now on, {}; back it up with the others",
            key.path.display()
        ));
    }
    let refused = |error| match error {
        ProofError::Ledger(error) => OpenError::Ledger(error),
        source => OpenError::NotVouched {
            checkpoints: data.join("ledger/checkpoints"),
            store: store_dir.clone(),
            source: Box::new(source),
        },
    };
    let (notary, said) = Notary::open(NoteSigner::new(key.key), &ledger, original).map_err(refused)?;
    notes.extend(said);
    let fresh = || (Fleet::new(fleet.clone()), Directory::default());
    let (mut state, directory) = match read::read(store.as_ref(), fleet) {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => {
            unless_lost(&ledger)?;
            notes.push(format!("the checkpoint {why}; it is rebuilt from the ledger"));
            store.wipe()?;
            fresh()
        }
        Err(error) if error.wants_rebuild() => {
            unless_lost(&ledger)?;
            notes.push(format!("the checkpoint does not read ({error}); it is rebuilt from the ledger"));
            store.wipe()?;
            fresh()
        }
        Err(error) => return Err(error.into()),
    };
    let checkpointed = store.recovered().applied_seq.map_or(0, |applied| applied + 1);
    // The frames that the checkpoint lacks were dropped: what they add up to was kept.
    let boundary = ledger.boundary().filter(|boundary| boundary.first() > checkpointed);
    let kept = boundary.map(|boundary| retention::snapshot(ledger.dir(), boundary)).transpose()?;
    if kept.is_some() && checkpointed > 0 {
        store.wipe()?;
    }
    let term = ledger.term().max(store.recovered().term) + 1;
    store.fence(term)?;
    let (mut checkpoint, next) = match (boundary, kept) {
        (Some(boundary), Some(kept)) => {
            state = kept.into_fleet(fleet.clone());
            (Checkpoint::of_all(store, &state), boundary.first())
        }
        _ => (Checkpoint::new(store, directory, checkpointed), checkpointed),
    };
    for frame in ledger.frames(next)? {
        let frame = frame?;
        let entry: Entry = serde_json::from_slice(&frame.payload)
            .map_err(|source| OpenError::Fact { sequence: frame.sequence, source })?;
        state.apply(entry.at, &entry.fact);
        checkpoint.note(&entry.fact, &state);
    }
    ledger.begin_term(term)?;
    Ok(Opened { fleet: state, ledger, notary, checkpoint, term, notes, original })
}

/// Refuses to throw a checkpoint away while what would take its place does not read.
fn unless_lost(ledger: &Ledger) -> Result<(), OpenError> {
    ledger.boundary().map_or(Ok(()), |boundary| retention::snapshot(ledger.dir(), boundary).map(drop))?;
    Ok(())
}
