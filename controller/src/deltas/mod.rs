//! Deltas of what is published: which are wanted, made one after another, and kept in the chunk store.
//!
//! ```text
//! publish, rollout start, start of the service ──> plan: what the fleet runs ──> queue
//! queue ──> a child that encodes and checks ──> signature of the rollout role ──> chunk store
//! ```
//! The chunk store is the cache: a delta that is there is not made again, and what is missing is made after the next start.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | what is wanted, from the registry; pure |
//! | [`book`] | what waits, is being made, or ended; pure |
//! | [`child`] | the process that encodes: started, bounded, read |
//! | [`encode`] | the same process from inside |
//! | `make` | the task that makes one after another |
//! | `sign` | signatures, also after a rotation |
//! | [`settings`] | the section `[deltas]` of the configuration |

pub mod book;
pub mod child;
pub mod encode;
mod make;
mod notes;
pub mod plan;
pub mod settings;
mod sign;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_bridge::ChunkStore;
use tern_protocol::delta::Profile;
use tern_protocol::id::ProductId;
use tokio::sync::Notify;

pub use self::book::State;
use self::book::{Book, Key};
use self::notes::Notes;
use self::plan::Pair;
pub use self::settings::Settings;
use crate::core::rollout::record::Status;
use crate::engine::{Engine, Stopped};

/// The deltas of a running service; cheap to clone.
#[derive(Clone)]
pub struct Deltas {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    store: Arc<ChunkStore>,
    settings: Settings,
    /// Where children write, and the notes lie.
    folder: PathBuf,
    book: Mutex<Book>,
    notes: Mutex<Notes>,
    /// Something waits.
    filled: Notify,
}

/// One delta of a release, and how it is with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Between what.
    pub pair: Pair,
    /// For which profile.
    pub profile: Profile,
    /// How it is with it.
    pub state: State,
}

impl Deltas {
    /// Prepares; [`Deltas::run`] makes them.
    pub fn new(engine: Engine, store: Arc<ChunkStore>, settings: Settings, folder: PathBuf) -> Self {
        let notes = Mutex::new(Notes::read(&folder));
        let (book, filled) = (Mutex::default(), Notify::new());
        let shared = Shared { engine, store, settings, folder, book, notes, filled };
        Self { shared: Arc::new(shared) }
    }

    /// Works out which deltas a release wants, as the fleet is now, and has those made that are not there.
    pub async fn plan(&self, product: &ProductId, rc: u64) -> Result<(), Stopped> {
        if !self.shared.settings.enabled || self.shared.notes().leaves_out(product, rc) {
            return Ok(());
        }
        let pairs = self.pairs(product, rc).await?;
        self.shared.book().plan(product, rc, pairs, &self.shared.settings.profiles(), |key| {
            self.shared.state_in_store(key)
        });
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Has no deltas made for a release, now and after a start.
    pub fn leave_out(&self, product: &ProductId, rc: u64) {
        let noted = self.shared.note(|notes| notes.leave_out(product, rc));
        if let Err(error) = noted {
            tracing::warn!(%product, rc, %error, "it could not be noted that a release wants no deltas");
        }
        self.shared.book().forget(product, rc);
    }

    /// Returns the deltas of a release and how it is with each; what was never planned is worked out anew.
    pub async fn of(&self, product: &ProductId, rc: u64) -> Result<Vec<Line>, Stopped> {
        let planned = self.shared.book().planned(product, rc);
        let pairs = match planned {
            Some(pairs) => pairs,
            None => self.pairs(product, rc).await?,
        };
        let shared = self.shared.clone();
        let lines = tokio::task::spawn_blocking(move || shared.lines(pairs)).await;
        Ok(lines.unwrap_or_default())
    }

    /// Returns how many deltas of a release are still to be made, and of how many.
    pub fn unfinished(&self, product: &ProductId, rc: u64) -> (usize, usize) {
        self.shared.book().unfinished(product, rc, &self.shared.settings.profiles())
    }

    /// Has signatures looked at: keys may have changed.
    pub fn keys_changed(&self) {
        self.shared.book().look_at_signatures();
        self.shared.filled.notify_one();
    }

    async fn pairs(&self, product: &ProductId, rc: u64) -> Result<Vec<Pair>, Stopped> {
        let (product, from, whole) = (product.clone(), self.shared.settings.from, self.shared.settings.whole);
        let pairs = self.shared.engine.query(move |service, _| {
            let fleet = service.fleet();
            let state = fleet.products.get(&product)?;
            let devices = fleet.devices.values().filter(|d| d.is_active() && d.registry.product == product);
            Some(plan::pairs(&state.releases(), rc, devices.map(|d| (d.running, &d.registry)), from, whole))
        });
        let mut pairs = pairs.await?.unwrap_or_default();
        let store = &self.shared.store;
        pairs.retain(|pair| pair.old.is_none_or(|old| store.contains(&old.root)));
        pairs.retain(|pair| store.contains(&pair.new.root));
        Ok(pairs)
    }

    /// Plans what may be offered: the newest release of every product, and those of rollouts that are not over.
    async fn plan_all(&self) -> Result<(), Stopped> {
        let wanted = self.shared.engine.query(|service, _| {
            let fleet = service.fleet();
            let newest = fleet.products.iter().filter_map(|(product, state)| {
                let rc = state.releases().into_keys().rev().find(|rc| !state.halted.contains(rc))?;
                Some((product.clone(), rc))
            });
            let active = |status| matches!(status, Status::Running | Status::Paused);
            let active = fleet.rollouts.values().filter(|rollout| active(rollout.status));
            let mut wanted: Vec<_> = newest.chain(active.map(|r| (r.product.clone(), r.rc))).collect();
            wanted.sort();
            wanted.dedup();
            wanted
        });
        for (product, rc) in wanted.await? {
            self.plan(&product, rc).await?;
        }
        Ok(())
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self, pairs: Vec<Pair>) -> Vec<Line> {
        let mut lines = Vec::new();
        for profile in self.settings.profiles() {
            for pair in &pairs {
                let key = Key::new(pair, profile);
                let state = self.book().state(&key);
                let state = state.or_else(|| self.state_in_store(&key)).unwrap_or(State::NotMade);
                lines.push(Line { pair: pair.clone(), profile, state });
            }
        }
        lines
    }

    /// Tells what is known of a delta from before: it is there, or was found to save nothing.
    fn state_in_store(&self, key: &Key) -> Option<State> {
        let found = self.store.delta(&key.old().root, &key.new.root, &[key.profile.id()]);
        match found {
            Ok(Some(delta)) => Some(State::Ready { bytes: delta.manifest.bytes }),
            Ok(None) => self.notes().useless(key).map(|bytes| State::Useless { bytes }),
            Err(error) => {
                tracing::warn!(%error, "a delta in the chunk store does not read; it is made again");
                None
            }
        }
    }
}
