//! The client: what is trusted, and how it changes when files arrive.
//!
//! ```text
//!   bundle ─ files ─> Pool ──┐
//!                            ├─ refresh(now): root → timestamp → snapshot → targets → release, rollout, halt
//!   store ── files ─> Trusted┘                                                            │
//!      ^───────────── files() ────────────────────────────────── current(), halted() <────┘
//! ```
//! A step that was accepted stays accepted, whatever the next one says. Expiry is asked about once, when a file
//! is accepted: a device that starts after a long night keeps what it had and installs nothing new.
//!
//! | module | what it holds |
//! |---|---|
//! | `checks` | what makes a file acceptable: the numbered checks of the specification, each once |
//! | `workflow`, `pool` | the picture above: a product's seven roles, files in any order |
//! | `opened` | files that verified before, for whoever plays many devices |
//! | `server` | [`Client`]: any repository, roles by name, a server to ask |

mod checks;
mod opened;
mod pool;
mod server;
#[cfg(test)]
pub(crate) mod tests;
mod workflow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use checks::open_next_root;
pub use opened::Opened;
pub use pool::Pool;
pub use server::{BoxError, Client, ClientError, Refreshed, Source, Store};

use serde::{Deserialize, Serialize};

use super::content::{HaltContent, ReleaseContent, RolloutContent, Targets, TargetsContent};
use super::metadata::{MetaFile, Metadata, RootMeta, SnapshotMeta, TimestampMeta, peek};
use super::verify::{Authority, open, open_root};
use super::{Role, TufError};
use crate::bundle::File;
use crate::digest::Digest;
use crate::message::Versions;

/// The newest accepted file of each role, byte for byte as it was signed, and what it says.
#[derive(Debug, Clone)]
pub struct Trusted {
    root: Arc<Held<RootMeta>>,
    timestamp: Option<Arc<Held<TimestampMeta>>>,
    snapshot: Option<Arc<Held<SnapshotMeta>>>,
    targets: Option<Arc<Held<Targets<TargetsContent>>>>,
    /// Whether the root held now vouches for the targets held now. After a rotation of targets' keys it does not
    /// until new targets are here; until then nothing is installed, and what is halted stays halted.
    targets_vouched: bool,
    release: Option<Arc<Held<Targets<ReleaseContent>>>>,
    rollout: Option<Arc<Held<Targets<RolloutContent>>>>,
    halt: Option<Arc<Held<Targets<HaltContent>>>>,
    /// Files that other devices of this process opened before; none on a device.
    opened: Option<Arc<Opened>>,
}

/// A file that was verified when it was accepted.
#[derive(Debug, Clone)]
struct Held<T> {
    bytes: Vec<u8>,
    meta: T,
}

impl<T: Metadata> Held<T> {
    /// Tells whether it is the file that `named` names.
    fn is(&self, named: &MetaFile) -> bool {
        self.meta.version() == named.version && named.matches(&self.bytes)
    }
}

/// What a refresh did, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refresh {
    /// Roles whose file is another one than before, or gone: store [`Trusted::files`] before acting on them.
    pub changed: Vec<Role>,
    /// What must be fetched to get further, with the version where it is known.
    pub missing: Vec<(Role, Option<u32>)>,
    /// Files that are bad. Files that are merely old are never named here.
    pub refused: Vec<(Role, TufError)>,
}

/// Digests of keys from which a device has learned something that outlives the files: the time, and what is halted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Teachers {
    /// Version of the root that names the first.
    pub root: u32,
    /// Version of the targets that name the others; 0 while nobody vouches for targets.
    pub targets: u32,
    /// Of timestamp.
    pub timestamp: BTreeSet<Digest>,
    /// The time key.
    pub time: BTreeSet<Digest>,
    /// Of halt.
    pub halt: BTreeSet<Digest>,
}

/// A consistent set: every file is the one that its parent names, back to the newest timestamp.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// Delegates to the others.
    pub targets: &'a Targets<TargetsContent>,
    /// Approves artifacts.
    pub release: &'a Targets<ReleaseContent>,
    /// Says who should run which.
    pub rollout: &'a Targets<RolloutContent>,
    /// Takes releases back.
    pub halt: &'a Targets<HaltContent>,
    /// Versions of all files.
    pub versions: Versions,
}

impl Trusted {
    /// Starts from a root that the device was provisioned with; it must be signed by its own threshold.
    pub fn new(root: &[u8]) -> Result<Self, TufError> {
        Ok(Self {
            root: Arc::new(Held { bytes: root.to_vec(), meta: open_root(root)? }),
            timestamp: None,
            snapshot: None,
            targets: None,
            targets_vouched: false,
            release: None,
            rollout: None,
            halt: None,
            opened: None,
        })
    }

    /// Rebuilds what was trusted from files that were accepted earlier and stored, in any order.
    ///
    /// Signatures are verified again, expiry is not. A file that no longer verifies is left out, for a power cut
    /// between two writes leaves such files behind; only without a root there is nothing to start from.
    pub fn restore(files: &[File]) -> Result<Self, TufError> {
        let mut files: Vec<(&File, u32)> = files.iter().map(|f| (f, peek(&f.bytes).unwrap_or(0))).collect();
        files.sort_by_key(|(_, version)| std::cmp::Reverse(*version));
        let of = |role| files.iter().map(|(file, _)| *file).filter(move |file| file.role == role);

        let mut trusted = of(Role::Root).find_map(|f| Self::new(&f.bytes).ok()).ok_or(TufError::NoRoot)?;
        let root = &trusted.root.meta;
        trusted.timestamp = newest(of(Role::Timestamp), Authority::top(root, Role::Timestamp));
        trusted.snapshot = newest(of(Role::Snapshot), Authority::top(root, Role::Snapshot));
        trusted.targets = newest(of(Role::Targets), Authority::top(root, Role::Targets));
        trusted.targets_vouched = trusted.targets.is_some();
        if !trusted.targets_vouched {
            // Root rotated targets' keys and the new targets are not here yet: see `targets_vouched`.
            trusted.targets = of(Role::Targets).find_map(|file| Held::unvouched(file).ok().map(Arc::new));
        }
        if let Some(targets) = &trusted.targets {
            let authority = |role| Authority::delegated(&targets.meta.meta, role);
            trusted.release = newest(of(Role::Release), authority(Role::Release));
            trusted.rollout = newest(of(Role::Rollout), authority(Role::Rollout));
            trusted.halt = newest(of(Role::Halt), authority(Role::Halt));
        }
        Ok(trusted)
    }

    /// Has files opened, from here on, that other devices of this process opened before: see [`Opened`]. For simulations;
    /// a device opens its files itself.
    pub fn sharing(self, opened: Arc<Opened>) -> Self {
        Self { opened: Some(opened), ..self }
    }

    /// Returns everything held now, byte for byte, in the order of [`Role::ALL`].
    pub fn files(&self) -> Vec<File> {
        let file = |role| Some(File { role, bytes: self.file(role)?.to_vec() });
        Role::ALL.into_iter().filter_map(file).collect()
    }

    /// Returns the file held of `role`.
    pub fn file(&self, role: Role) -> Option<&[u8]> {
        match role {
            Role::Root => Some(&self.root.bytes),
            Role::Timestamp => self.timestamp.as_ref().map(|held| held.bytes.as_slice()),
            Role::Snapshot => self.snapshot.as_ref().map(|held| held.bytes.as_slice()),
            Role::Targets => self.targets.as_ref().map(|held| held.bytes.as_slice()),
            Role::Release => self.release.as_ref().map(|held| held.bytes.as_slice()),
            Role::Rollout => self.rollout.as_ref().map(|held| held.bytes.as_slice()),
            Role::Halt => self.halt.as_ref().map(|held| held.bytes.as_slice()),
        }
    }

    /// Returns the versions held; 0 where none is.
    pub fn versions(&self) -> Versions {
        Versions {
            root: self.root.meta.version,
            timestamp: version(self.timestamp.as_deref()),
            snapshot: version(self.snapshot.as_deref()),
            targets: version(self.targets.as_deref()),
            release: version(self.release.as_deref()),
            rollout: version(self.rollout.as_deref()),
            halt: version(self.halt.as_deref()),
        }
    }

    /// Returns the consistent set that the newest timestamp leads to, or `None` while a part of it is missing:
    /// what is missing may be a kill.
    pub fn current(&self) -> Option<Current<'_>> {
        let snapshot = self.named_snapshot()?;
        let targets = self
            .targets
            .as_ref()
            .filter(|held| self.targets_vouched && named(held, snapshot, Role::Targets))?;
        let release = self.release.as_ref().filter(|held| named(held, snapshot, Role::Release))?;
        let rollout = self.rollout.as_ref().filter(|held| named(held, snapshot, Role::Rollout))?;
        let halt = self.halt.as_ref().filter(|held| named(held, snapshot, Role::Halt))?;
        Some(Current {
            targets: &targets.meta,
            release: &release.meta,
            rollout: &rollout.meta,
            halt: &halt.meta,
            versions: self.versions(),
        })
    }

    /// Returns when the timestamp expires, in unix seconds.
    pub fn timestamp_expires(&self) -> Option<u64> {
        self.expires(Role::Timestamp)
    }

    /// Returns when the timestamp says that it was issued, in unix seconds: a floor for the device's clock.
    pub fn timestamp_issued(&self) -> Option<u64> {
        self.timestamp.as_ref()?.meta.time
    }

    /// Returns when the file held of `role` expires, in unix seconds.
    pub fn expires(&self, role: Role) -> Option<u64> {
        match role {
            Role::Root => Some(self.root.meta.expires),
            Role::Timestamp => self.timestamp.as_ref().map(|held| held.meta.expires),
            Role::Snapshot => self.snapshot.as_ref().map(|held| held.meta.expires),
            Role::Targets => self.targets.as_ref().map(|held| held.meta.expires()),
            Role::Release => self.release.as_ref().map(|held| held.meta.expires()),
            Role::Rollout => self.rollout.as_ref().map(|held| held.meta.expires()),
            Role::Halt => self.halt.as_ref().map(|held| held.meta.expires()),
        }
    }

    /// Returns what root says.
    pub fn root(&self) -> &RootMeta {
        &self.root.meta
    }

    /// Returns what the newest accepted targets says, unless root took its keys away since.
    pub fn targets(&self) -> Option<&Targets<TargetsContent>> {
        self.targets.as_ref().filter(|_| self.targets_vouched).map(|held| &held.meta)
    }

    /// Returns the controller's telemetry keys by number.
    pub fn telemetry_keys(&self) -> BTreeMap<u32, p256::PublicKey> {
        // Targets with a key that is no key were never accepted.
        self.targets().and_then(|targets| targets.content.telemetry_keys().ok()).unwrap_or_default()
    }

    /// Returns the key that answers devices without a telemetry key.
    pub fn time_key(&self) -> Option<p256::PublicKey> {
        self.targets().and_then(|targets| targets.content.time_key().ok()).flatten()
    }

    /// Returns which keys what a device has learned rests on: digests of those of timestamp, of the time key, and of
    /// those of halt. The last two are empty while nobody vouches for targets.
    pub fn teachers(&self) -> Teachers {
        let of = |authority: Result<Authority<'_>, TufError>| -> BTreeSet<Digest> {
            let identities = authority.map(Authority::identities).unwrap_or_default();
            identities.iter().map(|identity| Digest::of(identity)).collect()
        };
        let targets = self.targets();
        Teachers {
            root: self.root.meta.version,
            targets: targets.map_or(0, |targets| targets.meta.version),
            timestamp: of(Authority::top(&self.root.meta, Role::Timestamp)),
            time: targets
                .and_then(|targets| targets.content.time.as_deref())
                .map(|point| Digest::of(point.as_bytes()))
                .into_iter()
                .collect(),
            halt: targets
                .map(|targets| of(Authority::delegated(&targets.meta, Role::Halt)))
                .unwrap_or_default(),
        }
    }

    /// Returns what the newest accepted release file approves, even while the rest is inconsistent.
    pub fn release(&self) -> Option<&Targets<ReleaseContent>> {
        self.release.as_ref().map(|held| &held.meta)
    }

    /// Returns what the newest accepted halt file halts, even while the rest is inconsistent.
    pub fn halted(&self) -> BTreeSet<u64> {
        self.halt.iter().flat_map(|held| held.meta.content.halted.iter().copied()).collect()
    }

    /// Returns the snapshot if it is the one that the timestamp names.
    fn named_snapshot(&self) -> Option<&SnapshotMeta> {
        let named = &self.timestamp.as_ref()?.meta.snapshot;
        self.snapshot.as_ref().filter(|held| held.is(named)).map(|held| &held.meta)
    }
}

impl Current<'_> {
    /// Tells whether `role` may name `path`.
    pub fn covers(&self, role: Role, path: &str) -> bool {
        let delegations = self.targets.meta.delegations.as_ref();
        delegations.and_then(|d| d.to(role)).is_some_and(|delegated| delegated.covers(path))
    }
}

impl Held<Targets<TargetsContent>> {
    /// Reads stored targets for which root no longer vouches; they still say whose halt file is to be believed.
    fn unvouched(file: &File) -> Result<Self, TufError> {
        let meta = super::verify::Unverified::read(file.role, &file.bytes)?.contents()?;
        Ok(Self { bytes: file.bytes.clone(), meta })
    }
}

fn version<T: Metadata>(held: Option<&Held<T>>) -> u32 {
    held.map_or(0, |held| held.meta.version())
}

fn named<T: Metadata>(held: &Held<T>, snapshot: &SnapshotMeta, role: Role) -> bool {
    snapshot.of(role).is_some_and(|file| held.is(file))
}

/// Returns the first of `files` that `authority` vouches for.
fn newest<'a, T: Metadata>(
    mut files: impl Iterator<Item = &'a File>,
    authority: Result<Authority<'_>, TufError>,
) -> Option<Arc<Held<T>>> {
    let authority = authority.ok()?;
    files.find_map(|file| {
        let meta = open(file.role, &file.bytes, authority).ok()?;
        Some(Arc::new(Held { bytes: file.bytes.clone(), meta }))
    })
}
