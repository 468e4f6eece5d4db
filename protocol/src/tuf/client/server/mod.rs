//! The client workflow with a server to ask: any TUF 1.0 repository, roles by name, delegations by path.
//!
//! ```text
//!   Source ── bytes ──> Client::refresh: root → timestamp → snapshot → targets ──> Refreshed::find(path) ──> Target
//!   Store <── bytes ──┘            each file is stored as it was received, before the next is asked for
//! ```
//! Unlike the pool, a server was asked for one file: what it answers is accepted, or the refresh fails. What was
//! accepted before stays stored; a stored file that has expired is no answer, for a server that only repeats it
//! would freeze the client for ever.

mod lookup;
mod ports;
#[cfg(test)]
mod tests;

pub use lookup::Refreshed;
pub use ports::{BoxError, Source, Store};

use super::Held;
use super::checks::Checks;
use crate::limits::TufLimits;
use crate::tuf::metadata::{MetaFile, Metadata, RootMeta, SnapshotMeta, TargetsMeta, TimestampMeta};
use crate::tuf::verify::{Authority, open_root_within, open_within};
use crate::tuf::{Role, RoleName, TufError};

/// A client of one repository, for one refresh and the look-ups after it.
pub struct Client<'a> {
    source: &'a mut dyn Source,
    store: &'a mut dyn Store,
    limits: TufLimits,
    now: u64,
    root: Held<RootMeta>,
}

/// Says why a refresh or a look-up stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file is not acceptable. Somebody attacks, or the repository is broken.
    #[error(transparent)]
    Refused(#[from] TufError),
    /// The server does not have a file that it must have.
    #[error("the repository has no {role}{}", version.map(|v| format!(" of version {v}")).unwrap_or_default())]
    Missing {
        /// The role.
        role: RoleName,
        /// The version asked for; `None` where the newest was.
        version: Option<u32>,
    },
    /// A role is delegated to, and the snapshot does not name its file.
    #[error("snapshot does not name the delegated role {0}")]
    NotNamed(RoleName),
    /// One look-up would visit more roles than this client follows.
    #[error("more than {ceiling} delegated roles may name {path}; look-ups stop there")]
    TooManyRoles {
        /// What was looked for.
        path: String,
        /// Roles visited.
        ceiling: usize,
    },
    /// Nothing is stored to start from; initialise the client with a root that came by a way you trust.
    #[error("no trusted root is stored; initialise the client with one")]
    NoRoot,
    /// The server could not be asked; try again.
    #[error("could not fetch {role}")]
    Fetch {
        /// The role.
        role: RoleName,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The store does not work.
    #[error("could not use the stored {role}")]
    Store {
        /// The role.
        role: RoleName,
        /// Why.
        #[source]
        source: BoxError,
    },
}

impl<'a> Client<'a> {
    /// Stores a root that came by a way you trust; it must be signed by its own threshold.
    pub fn init(store: &mut dyn Store, root: &[u8], limits: &TufLimits) -> Result<(), ClientError> {
        open_root_within(root, limits)?;
        let role = Role::Root.into();
        store.keep(&role, root).map_err(|source| ClientError::Store { role, source })
    }

    /// Starts from the stored root; `now` (unix seconds) is the time of the whole refresh.
    pub fn new(
        source: &'a mut dyn Source,
        store: &'a mut dyn Store,
        limits: TufLimits,
        now: u64,
    ) -> Result<Self, ClientError> {
        // 5.2 Load trusted root metadata. Its expiry does not matter here.
        let bytes = load(store, &Role::Root.into())?.ok_or(ClientError::NoRoot)?;
        let root = Held { meta: open_root_within(&bytes, &limits)?, bytes };
        Ok(Self { source, store, limits, now, root })
    }

    /// Brings the top-level roles up to date. On an error, each step before it is stored.
    pub fn refresh(mut self) -> Result<Refreshed<'a>, ClientError> {
        self.roots()?;
        self.checks().root_is_fresh()?;
        let timestamp = self.timestamp()?;
        let snapshot = self.snapshot(&timestamp)?;
        let targets = self.targets(&snapshot)?;
        Ok(Refreshed::new(self, snapshot, targets))
    }

    /// 5.3 Update the root role.
    fn roots(&mut self) -> Result<(), ClientError> {
        let name = Role::Root.into();
        // 5.3.2 Let N denote the version of the trusted root. 5.3.3 Try version N+1, up to a number of files that
        // the client chooses. 5.3.9 Repeat.
        for _ in 0..self.limits.roots {
            let next = self.root.meta.version.saturating_add(1);
            let Some(bytes) = self.ask(&name, Some(next), self.limits.root)? else { break };
            let meta = self.checks().next_root(&bytes)?;
            // Before the new root is stored: a power cut between the two must not leave the old versions.
            if self.checks().rotates_online_keys(&meta) {
                self.forget(Role::Timestamp)?;
                self.forget(Role::Snapshot)?;
            }
            // 5.3.7 Set the trusted root to the new root. 5.3.8 Persist.
            self.keep(&name, &bytes)?;
            self.root = Held { bytes, meta };
        }
        Ok(())
    }

    /// 5.4 Update the timestamp role.
    fn timestamp(&mut self) -> Result<TimestampMeta, ClientError> {
        let name = Role::Timestamp.into();
        let held: Option<Held<TimestampMeta>> =
            self.stored(&name, Authority::top(&self.root.meta, Role::Timestamp)?)?;
        let bytes = self.ask(&name, None, self.limits.timestamp)?;
        let bytes = bytes.ok_or_else(|| ClientError::Missing { role: name.clone(), version: None })?;
        let held = held.map(|held| held.meta);
        if let Some(meta) = self.checks().timestamp(&bytes, held.as_ref())? {
            // 5.4.5 Persist.
            self.keep(&name, &bytes)?;
            return Ok(meta);
        }
        // The version that is held, offered again: normal, but it must not freeze us.
        let held = held.ok_or_else(|| ClientError::Missing { role: name.clone(), version: None })?;
        self.checks().fresh(&name, &held)?;
        Ok(held)
    }

    /// 5.5 Update the snapshot role.
    fn snapshot(&mut self, timestamp: &TimestampMeta) -> Result<SnapshotMeta, ClientError> {
        let name = Role::Snapshot.into();
        let held: Option<Held<SnapshotMeta>> =
            self.stored(&name, Authority::top(&self.root.meta, Role::Snapshot)?)?;
        let (held, bytes) = match self.obtain(&name, &timestamp.snapshot, held)? {
            Obtained::Held(held) => return Ok(held.meta),
            Obtained::Fetched { held, bytes } => (held, bytes),
        };
        let held = held.as_ref().map(|held| &held.meta);
        let meta = self.checks().snapshot(&bytes, &timestamp.snapshot, held)?;
        // 5.5.7 Persist.
        self.keep(&name, &bytes)?;
        Ok(meta)
    }

    /// 5.6 Update the targets role.
    fn targets(&mut self, snapshot: &SnapshotMeta) -> Result<TargetsMeta, ClientError> {
        let name = Role::Targets.into();
        let named = snapshot.of(&name).ok_or_else(|| ClientError::NotNamed(name.clone()))?;
        let root = self.root.meta.clone();
        self.targets_like(&name, named, Authority::top(&root, Role::Targets)?)
    }

    /// 5.6.1 to 5.6.6, for targets and for a delegated role.
    fn targets_like(
        &mut self,
        name: &RoleName,
        named: &MetaFile,
        authority: Authority<'_>,
    ) -> Result<TargetsMeta, ClientError> {
        // A stored file is verified against the delegator that asks now: another one may have vouched for it.
        let held: Option<Held<TargetsMeta>> = self.stored(name, authority)?;
        let bytes = match self.obtain(name, named, held)? {
            Obtained::Held(held) => return Ok(held.meta),
            Obtained::Fetched { bytes, .. } => bytes,
        };
        let meta = self.checks().targets(name, &bytes, named, authority)?;
        // 5.6.6 Persist.
        self.keep(name, &bytes)?;
        Ok(meta)
    }

    /// Returns what is held, if it is the file that `named` names and has not expired; asks the server otherwise.
    fn obtain<T: Metadata>(
        &mut self,
        name: &RoleName,
        named: &MetaFile,
        held: Option<Held<T>>,
    ) -> Result<Obtained<T>, ClientError> {
        match held {
            Some(held) if held.is(named) && self.checks().fresh(name, &held.meta).is_ok() => {
                Ok(Obtained::Held(held))
            }
            held => {
                // 5.5.1 / 5.6.1 Download up to the number of bytes that the parent names, or to the ceiling.
                let ceiling = self.limits.of_kind(name.kind());
                let most =
                    named.length.and_then(|n| usize::try_from(n).ok()).map_or(ceiling, |n| n.min(ceiling));
                let version = self.root.meta.consistent_snapshot.then_some(named.version);
                let bytes = self.ask(name, version, most)?;
                let missing = || ClientError::Missing { role: name.clone(), version: Some(named.version) };
                Ok(Obtained::Fetched { held, bytes: bytes.ok_or_else(missing)? })
            }
        }
    }

    /// Reads a stored file. One that its delegator does not vouch for any more counts as none; expiry is not asked.
    fn stored<T: Metadata>(
        &self,
        name: &RoleName,
        authority: Authority<'_>,
    ) -> Result<Option<Held<T>>, ClientError> {
        let Some(bytes) = load(&*self.store, name)? else { return Ok(None) };
        let opened = open_within(name, &bytes, authority, &self.limits);
        Ok(opened.ok().map(|meta| Held { bytes, meta }))
    }

    fn ask(
        &mut self,
        role: &RoleName,
        version: Option<u32>,
        most: usize,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let fetched = self.source.fetch(role, version, most);
        fetched.map_err(|source| ClientError::Fetch { role: role.clone(), source })
    }

    fn keep(&mut self, role: &RoleName, bytes: &[u8]) -> Result<(), ClientError> {
        self.store.keep(role, bytes).map_err(|source| ClientError::Store { role: role.clone(), source })
    }

    fn forget(&mut self, role: Role) -> Result<(), ClientError> {
        let role = role.into();
        self.store.forget(&role).map_err(|source| ClientError::Store { role, source })
    }

    fn checks(&self) -> Checks<'_> {
        Checks { root: &self.root.meta, now: self.now, limits: &self.limits, opened: None }
    }
}

/// Where a file came from.
enum Obtained<T> {
    /// It is stored already.
    Held(Held<T>),
    /// The server sent it; beside it, what was held so far.
    Fetched { held: Option<Held<T>>, bytes: Vec<u8> },
}

fn load(store: &dyn Store, role: &RoleName) -> Result<Option<Vec<u8>>, ClientError> {
    store.load(role).map_err(|source| ClientError::Store { role: role.clone(), source })
}
