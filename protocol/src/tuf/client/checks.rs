//! The checks of TUF 1.0 section 5, each under its number and each in one place.
//!
//! Plain functions over one file and what is trusted so far. Two workflows run them: [`super::Trusted`], to which
//! files come in any order, and [`super::Client`], which asks a server. They differ in how a file is found and in
//! what a refusal means for the rest; never in what is accepted.

use super::Opened;
use crate::limits::TufLimits;
use crate::tuf::metadata::{MetaFile, Metadata, RootMeta, SnapshotMeta, TimestampMeta};
use crate::tuf::verify::{Authority, Unverified, open_within};
use crate::tuf::{Role, RoleName, TufError};

/// Opens the root that follows `current`, within a device's ceilings.
pub fn open_next_root(bytes: &[u8], current: &RootMeta) -> Result<RootMeta, TufError> {
    Checks { root: current, now: 0, limits: &TufLimits::DEVICE, opened: None }.next_root(bytes)
}

/// What every check asks besides the file itself.
#[derive(Clone, Copy)]
pub(super) struct Checks<'a> {
    /// The trusted root.
    pub(super) root: &'a RootMeta,
    /// 5.1 The fixed update start time, in unix seconds.
    pub(super) now: u64,
    /// Ceilings on what is read.
    pub(super) limits: &'a TufLimits,
    /// Files that verified before; none: each is opened here.
    pub(super) opened: Option<&'a Opened>,
}

impl Checks<'_> {
    /// 5.3 Update the root role: checks the file that may follow the trusted root.
    pub(super) fn next_root(&self, bytes: &[u8]) -> Result<RootMeta, TufError> {
        let file = Unverified::read_within(Role::Root, bytes, self.limits)?;
        // 5.3.4 Check for an arbitrary software attack: version N+1 MUST have been signed by a threshold of keys
        // specified in the trusted root (version N), and a threshold of keys specified in the new root (version N+1).
        file.verify(Authority::top(self.root, Role::Root)?)?;
        let next: RootMeta = file.contents()?;
        file.verify(Authority::top(&next, Role::Root)?)?;
        // 5.3.5 Check for a rollback attack: the version number MUST be exactly N+1.
        let wanted = self.root.version.saturating_add(1);
        if next.version != wanted {
            return Err(TufError::Version { role: Role::Root.into(), found: next.version, wanted });
        }
        // 5.3.6 The expiration of an intermediate root does not matter.
        Ok(next)
    }

    /// 5.3.11 If the timestamp and / or snapshot keys have been rotated, delete the trusted timestamp and snapshot.
    ///
    /// Rotated: a key was taken away. A key that was only added recovers nothing, so forgetting versions for it
    /// would only help who replays old files.
    pub(super) fn rotates_online_keys(&self, next: &RootMeta) -> bool {
        let identities =
            |root, role| Authority::top(root, role).map(Authority::identities).unwrap_or_default();
        let lost = |role| !identities(self.root, role).is_subset(&identities(next, role));
        lost(Role::Timestamp) || lost(Role::Snapshot)
    }

    /// 5.3.10 Check for a freeze attack: the latest known time MUST be lower than the expiration of the trusted
    /// root. Nothing is accepted under an expired root; what was accepted before stays.
    pub(super) fn root_is_fresh(&self) -> Result<(), TufError> {
        self.fresh(&Role::Root.into(), self.root)
    }

    /// 5.4 Update the timestamp role. `None`: it has the version that is held already.
    pub(super) fn timestamp(
        &self,
        bytes: &[u8],
        held: Option<&TimestampMeta>,
    ) -> Result<Option<TimestampMeta>, TufError> {
        let name = Role::Timestamp.into();
        // 5.4.2 Check for an arbitrary software attack: signed by a threshold of keys named by the trusted root.
        let meta: TimestampMeta = self.open(&name, bytes, Authority::top(self.root, Role::Timestamp)?)?;
        if let Some(held) = held {
            // 5.4.3.1 The version of the trusted timestamp MUST be less than the new one's. If they are equal,
            // discard the new one; this is normal.
            if meta.version < held.version {
                return Err(rollback(name, Role::Timestamp.name(), held.version, meta.version));
            }
            if meta.version == held.version {
                return Ok(None);
            }
            // 5.4.3.2 The version of the snapshot in the new timestamp MUST be no lower than in the trusted one.
            let (held, offered) = (held.snapshot.version, meta.snapshot.version);
            if offered < held {
                return Err(rollback(name, Role::Snapshot.name(), held, offered));
            }
        }
        // 5.4.4 Check for a freeze attack.
        self.fresh(&name, &meta)?;
        Ok(Some(meta))
    }

    /// 5.5 Update the snapshot role, with the file that the trusted timestamp names.
    pub(super) fn snapshot(
        &self,
        bytes: &[u8],
        named: &MetaFile,
        held: Option<&SnapshotMeta>,
    ) -> Result<SnapshotMeta, TufError> {
        let name = Role::Snapshot.into();
        // 5.5.2 Check against the timestamp role's snapshot hash, 5.5.3 check for an arbitrary software attack,
        // 5.5.4 check against the timestamp role's snapshot version.
        let meta: SnapshotMeta =
            self.named(&name, bytes, named, Authority::top(self.root, Role::Snapshot)?)?;
        // 5.5.5 Check for a rollback attack: every file that the trusted snapshot names MUST be named by the new
        // one, with a version no lower.
        for (file, held) in held.iter().flat_map(|held| &held.meta) {
            let offered = meta.meta.get(file).map_or(0, |file| file.version);
            if offered < held.version {
                return Err(rollback(name, file, held.version, offered));
            }
        }
        // 5.5.6 Check for a freeze attack.
        self.fresh(&name, &meta)?;
        Ok(meta)
    }

    /// 5.6 Update the targets role, or a delegated one, with the file that the trusted snapshot names.
    pub(super) fn targets<T: Metadata>(
        &self,
        name: &RoleName,
        bytes: &[u8],
        named: &MetaFile,
        authority: Authority<'_>,
    ) -> Result<T, TufError> {
        // 5.6.2 Check against the snapshot role's hash, 5.6.3 check for an arbitrary software attack, 5.6.4 check
        // against the snapshot role's version.
        let meta = self.named(name, bytes, named, authority)?;
        // 5.6.5 Check for a freeze attack.
        self.fresh(name, &meta)?;
        Ok(meta)
    }

    /// 5.5.2 to 5.5.4 and 5.6.2 to 5.6.4: a file against the parent that names it, and the keys that speak for it.
    fn named<T: Metadata>(
        &self,
        name: &RoleName,
        bytes: &[u8],
        named: &MetaFile,
        authority: Authority<'_>,
    ) -> Result<T, TufError> {
        // 5.5.2 / 5.6.2 The length and the hashes, where the parent gives them, MUST match.
        if !named.matches(bytes) {
            return Err(TufError::Mismatch { role: name.clone(), version: named.version });
        }
        // 5.5.3 / 5.6.3 The file MUST have been signed by a threshold of keys specified by its delegator.
        let meta: T = self.open(name, bytes, authority)?;
        // 5.5.4 / 5.6.4 The version MUST be the one that the parent names.
        let (found, wanted) = (meta.version(), named.version);
        if found != wanted {
            return Err(TufError::Version { role: name.clone(), found, wanted });
        }
        Ok(meta)
    }

    /// Reads, verifies, and only then interprets a file.
    fn open<T: Metadata>(
        &self,
        name: &RoleName,
        bytes: &[u8],
        authority: Authority<'_>,
    ) -> Result<T, TufError> {
        match self.opened {
            Some(opened) => opened.open(name, bytes, authority, self.limits),
            None => open_within(name, bytes, authority, self.limits),
        }
    }

    /// The latest known time MUST be lower than the expiration.
    pub(super) fn fresh<T: Metadata>(&self, name: &RoleName, meta: &T) -> Result<(), TufError> {
        if self.now < meta.expires() {
            return Ok(());
        }
        Err(TufError::Expired { role: name.clone(), version: meta.version(), expires: meta.expires() })
    }
}

fn rollback(role: RoleName, what: &str, held: u32, offered: u32) -> TufError {
    TufError::Rollback { role, what: what.chars().take(80).collect(), held, offered }
}
