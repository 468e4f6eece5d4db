//! The client workflow of TUF 1.0 section 5, run over a pool instead of a server.
//!
//! The specification downloads what a step needs; here a step takes what arrived, and what did not arrive is
//! named as missing. The checks are the specification's, in its order, under its numbers.

use super::{Held, Pool, Refresh, Trusted, named, version};
use crate::limits::ROOT_CHAIN_MAX;
use crate::tuf::metadata::{MetaFile, Metadata, SnapshotMeta, TimestampMeta};
use crate::tuf::verify::{Authority, open, open_next_root};
use crate::tuf::{Role, TufError};

/// The roles whose files snapshot names.
const NAMED: [Role; 4] = [Role::Targets, Role::Release, Role::Rollout, Role::Halt];

impl Trusted {
    /// Puts new files beside the stored ones and goes as far as they allow; `now` is unix seconds.
    ///
    /// Never fails as a whole: a bad file is refused and forgotten, an old one is forgotten without a word, an
    /// early one waits in the pool. Each accepted step is kept.
    pub fn refresh(&mut self, pool: &mut Pool, now: u64) -> Refresh {
        let done = Refresh { refused: pool.take_refused(), ..Refresh::default() };
        let mut run = Run { trusted: self, pool, now, done, newer_root: false };
        run.roots();
        if run.root_is_fresh() {
            run.timestamp();
            run.snapshot();
            run.targets();
            run.delegated();
        }
        run.list_missing();
        let mut done = run.done;
        done.changed.sort_unstable();
        pool.settle(|file| self.is_stale(file.role, file.version));
        done
    }

    /// Tells whether no file of `role` with this version can ever be of use again.
    fn is_stale(&self, role: Role, offered: u32) -> bool {
        let named = match role {
            Role::Root => return offered <= self.root.meta.version,
            Role::Timestamp => return offered <= version(self.timestamp.as_ref()),
            Role::Snapshot => self.timestamp.as_ref().map(|held| held.meta.snapshot.version),
            _ => self.named_snapshot().and_then(|snapshot| snapshot.of(role)).map(|file| file.version),
        };
        named.is_some_and(|named| offered < named || (offered == named && self.holds_named(role)))
    }

    /// Tells whether the file held of `role` is the one that the newest timestamp leads to.
    fn holds_named(&self, role: Role) -> bool {
        fn held<T: Metadata>(held: Option<&Held<T>>, snapshot: &SnapshotMeta, role: Role) -> bool {
            held.is_some_and(|held| named(held, snapshot, role))
        }
        let Some(snapshot) = self.named_snapshot() else { return false };
        match role {
            Role::Root | Role::Timestamp | Role::Snapshot => true,
            Role::Targets => self.targets_vouched && held(self.targets.as_ref(), snapshot, role),
            Role::Release => held(self.release.as_ref(), snapshot, role),
            Role::Rollout => held(self.rollout.as_ref(), snapshot, role),
            Role::Halt => held(self.halt.as_ref(), snapshot, role),
        }
    }
}

struct Run<'a> {
    trusted: &'a mut Trusted,
    pool: &'a mut Pool,
    now: u64,
    done: Refresh,
    /// Whether a file waits that only a newer root can vouch for.
    newer_root: bool,
}

impl Run<'_> {
    /// 5.3 Update the root role.
    fn roots(&mut self) {
        let mut changed = false;
        // 5.3.2 Let N denote the version of the trusted root. 5.3.3 Try version N+1, up to a number of files that
        // the client chooses. 5.3.9 Repeat.
        for _ in 0..ROOT_CHAIN_MAX {
            let next = self.trusted.root.meta.version.saturating_add(1);
            let found = self.pool.take(Role::Root, |offered| offered == next).into_iter().find_map(|file| {
                // 5.3.4 and 5.3.5 are checked there. 5.3.6 The expiration of an intermediate root does not matter.
                open_next_root(&file.bytes, &self.trusted.root.meta)
                    .map(|meta| Held { bytes: file.bytes, meta })
                    .map_err(|error| self.done.refused.push((Role::Root, error)))
                    .ok()
            });
            let Some(root) = found else { break };
            // 5.3.11 If the timestamp and / or snapshot keys have been rotated, delete the trusted timestamp and
            // snapshot. Rotated: a key was taken away. A key that was only added recovers nothing, so forgetting
            // versions for it would only help who replays old files.
            let lost = |role| {
                let before = Authority::top(&self.trusted.root.meta, role).map(Authority::points);
                let after = Authority::top(&root.meta, role).map(Authority::points);
                !before.unwrap_or_default().is_subset(&after.unwrap_or_default())
            };
            if lost(Role::Timestamp) || lost(Role::Snapshot) {
                self.forget_timestamp();
                self.forget_snapshot();
            }
            // 5.3.7 Set the trusted root to the new root. 5.3.8 Persist: by the caller, from `changed`.
            self.trusted.root = root;
            changed = true;
        }
        if changed {
            self.note(Role::Root);
            self.ask_new_root();
        }
    }

    /// Has the new root vouch for what is held, as it would after a restart.
    fn ask_new_root(&mut self) {
        fn vouches<T: Metadata>(held: Option<&Held<T>>, trusted: &Trusted, role: Role) -> bool {
            held.is_none_or(|held| {
                let authority = Authority::top(&trusted.root.meta, role);
                authority.and_then(|authority| open::<T>(role, &held.bytes, authority)).is_ok()
            })
        }
        if !vouches(self.trusted.timestamp.as_ref(), self.trusted, Role::Timestamp) {
            self.forget_timestamp();
        }
        if !vouches(self.trusted.snapshot.as_ref(), self.trusted, Role::Snapshot) {
            self.forget_snapshot();
        }
        self.trusted.targets_vouched = self.trusted.targets.is_some()
            && vouches(self.trusted.targets.as_ref(), self.trusted, Role::Targets);
    }

    fn root_is_fresh(&mut self) -> bool {
        // 5.3.10 Check for a freeze attack: the latest known time MUST be lower than the expiration of the trusted
        // root. Nothing is accepted under an expired root; what was accepted before stays.
        let root = &self.trusted.root.meta;
        let fresh = self.now < root.expires;
        if !fresh {
            self.newer_root = true;
            if !self.pool.is_empty() || self.done.changed.contains(&Role::Root) {
                let (version, expires) = (root.version, root.expires);
                self.refuse(Role::Root, TufError::Expired { role: Role::Root, version, expires });
            }
        }
        fresh
    }

    /// 5.4 Update the timestamp role.
    fn timestamp(&mut self) {
        // 5.4.3.1 The version of the new timestamp MUST be higher than the trusted one's. Lower ones are old
        // retained messages, an equal one brings nothing: neither is an attack by itself.
        let held = version(self.trusted.timestamp.as_ref());
        for file in self.pool.take(Role::Timestamp, |offered| offered > held) {
            // The highest comes first: once one is accepted, the rest is old, whoever signed it.
            if file.version <= version(self.trusted.timestamp.as_ref()) {
                break;
            }
            match self.check_timestamp(&file.bytes) {
                Ok(meta) => {
                    // 5.4.5 Persist: by the caller.
                    self.trusted.timestamp = Some(Held { bytes: file.bytes, meta });
                    self.note(Role::Timestamp);
                }
                Err(error) => self.reject(file, error),
            }
        }
    }

    fn check_timestamp(&self, bytes: &[u8]) -> Result<TimestampMeta, TufError> {
        // 5.4.2 Check for an arbitrary software attack: signed by a threshold of keys named by the trusted root.
        let authority = Authority::top(&self.trusted.root.meta, Role::Timestamp)?;
        let meta: TimestampMeta = open(Role::Timestamp, bytes, authority)?;
        // 5.4.3.2 The version of the snapshot in the new timestamp MUST be no lower than in the trusted one.
        if let Some(held) = &self.trusted.timestamp {
            let (held, offered) = (held.meta.snapshot.version, meta.snapshot.version);
            if offered < held {
                return Err(rollback(Role::Timestamp, Role::Snapshot.name(), held, offered));
            }
        }
        // Ours: devices without a clock take their time from here, and a stolen online key must not push it on.
        if let Some(time) = meta.time.filter(|time| *time > self.trusted.root.meta.expires) {
            return Err(TufError::FromTheFuture { version: meta.version, time });
        }
        // 5.4.4 Check for a freeze attack.
        self.check_fresh(Role::Timestamp, &meta)?;
        Ok(meta)
    }

    /// 5.5 Update the snapshot role.
    fn snapshot(&mut self) {
        let Some(timestamp) = &self.trusted.timestamp else { return };
        let named = timestamp.meta.snapshot.clone();
        if self.trusted.snapshot.as_ref().is_some_and(|held| held.is(&named)) {
            return;
        }
        if let Some(held) = self.accept(Role::Snapshot, &named, Self::check_snapshot) {
            self.trusted.snapshot = Some(held);
        }
    }

    fn check_snapshot(&self, bytes: &[u8]) -> Result<SnapshotMeta, TufError> {
        // 5.5.3 Check for an arbitrary software attack.
        let authority = Authority::top(&self.trusted.root.meta, Role::Snapshot)?;
        let meta: SnapshotMeta = open(Role::Snapshot, bytes, authority)?;
        // 5.5.5 Check for a rollback attack: every file that the trusted snapshot names MUST be named by the new
        // one, with a version no lower.
        for (name, held) in self.trusted.snapshot.iter().flat_map(|held| &held.meta.meta) {
            let offered = meta.meta.get(name).map_or(0, |file| file.version);
            if offered < held.version {
                return Err(rollback(Role::Snapshot, name, held.version, offered));
            }
        }
        Ok(meta)
    }

    /// 5.6 Update the targets role.
    fn targets(&mut self) {
        let Some(wanted) = self.wanted(Role::Targets) else { return };
        let check = |run: &Self, bytes: &[u8]| {
            // 5.6.3 Check for an arbitrary software attack.
            open(Role::Targets, bytes, Authority::top(&run.trusted.root.meta, Role::Targets)?)
        };
        let Some(held) = self.accept(Role::Targets, &wanted, check) else { return };
        self.trusted.targets = Some(held);
        self.trusted.targets_vouched = true;
        self.ask_new_targets();
    }

    /// Has the new targets vouch for what it delegated, as it would after a restart. This is how a stolen halt
    /// key is undone: what it halted goes with it.
    fn ask_new_targets(&mut self) {
        let Some(targets) = &self.trusted.targets else { return };
        let vouches = |role: Role, bytes: &[u8]| {
            let authority = Authority::delegated(&targets.meta.meta, role);
            let file = super::super::verify::Unverified::read(role, bytes);
            authority.and_then(|authority| file.and_then(|file| file.verify(authority))).is_ok()
        };
        let lost = |role: Role| self.trusted.file(role).is_some_and(|bytes| !vouches(role, bytes));
        let [release, rollout, halt] = [Role::Release, Role::Rollout, Role::Halt].map(lost);
        if release {
            self.trusted.release = None;
            self.note(Role::Release);
        }
        if rollout {
            self.trusted.rollout = None;
            self.note(Role::Rollout);
        }
        if halt {
            self.trusted.halt = None;
            self.note(Role::Halt);
        }
    }

    /// 5.6.7 Visit the delegations. Each is loaded by its name and by itself: release and rollout name the same
    /// paths, and a missing release file must not hold back a halt.
    fn delegated(&mut self) {
        if !self.trusted.holds_named(Role::Targets) {
            return;
        }
        if let Some(held) = self.accept_delegated(Role::Release) {
            self.trusted.release = Some(held);
        }
        if let Some(held) = self.accept_delegated(Role::Rollout) {
            self.trusted.rollout = Some(held);
        }
        if let Some(held) = self.accept_delegated(Role::Halt) {
            self.trusted.halt = Some(held);
        }
    }

    fn accept_delegated<T: Metadata>(&mut self, role: Role) -> Option<Held<T>> {
        let wanted = self.wanted(role)?;
        self.accept(role, &wanted, |run, bytes| {
            let targets = run.trusted.targets.as_ref().ok_or(TufError::NotDelegated(role))?;
            open(role, bytes, Authority::delegated(&targets.meta.meta, role)?)
        })
    }

    /// Returns how the trusted snapshot names `role`'s file, unless that file is held already.
    fn wanted(&self, role: Role) -> Option<MetaFile> {
        let file = self.trusted.named_snapshot()?.of(role)?;
        (!self.trusted.holds_named(role)).then(|| file.clone())
    }

    /// Accepts a waiting file that its parent names, if it stands every check: 5.5.2 to 5.5.7, 5.6.2 to 5.6.6.
    fn accept<T: Metadata>(
        &mut self,
        role: Role,
        wanted: &MetaFile,
        check: impl Fn(&Self, &[u8]) -> Result<T, TufError>,
    ) -> Option<Held<T>> {
        let mut accepted = None;
        for file in self.pool.take(role, |offered| offered == wanted.version) {
            if accepted.is_some() {
                break;
            }
            // 5.5.2 / 5.6.2 Check against the length and hashes that the parent names.
            let checked = if wanted.matches(&file.bytes) {
                check(self, &file.bytes)
            } else {
                Err(TufError::Mismatch { role, version: wanted.version })
            };
            // 5.5.4 / 5.6.4 The version MUST be the one that the parent names. 5.5.6 / 5.6.5 Check for a freeze attack.
            let checked = checked.and_then(|meta| {
                check_version(role, &meta, wanted)?;
                self.check_fresh(role, &meta)?;
                Ok(meta)
            });
            match checked {
                Ok(meta) => {
                    // 5.5.7 / 5.6.6 Persist: by the caller.
                    self.note(role);
                    accepted = Some(Held { bytes: file.bytes, meta });
                }
                Err(error) => self.reject(file, error),
            }
        }
        accepted
    }

    fn check_fresh<T: Metadata>(&self, role: Role, meta: &T) -> Result<(), TufError> {
        if self.now < meta.expires() {
            return Ok(());
        }
        Err(TufError::Expired { role, version: meta.version(), expires: meta.expires() })
    }

    /// Refuses a file. One of a top-level role that lacks signatures waits on, for a newer root may vouch for it;
    /// that is said once.
    fn reject(&mut self, file: super::pool::Waiting, error: TufError) {
        let top = matches!(file.role, Role::Timestamp | Role::Snapshot | Role::Targets);
        if top && matches!(error, TufError::Threshold { .. }) {
            self.newer_root = true;
            if !file.seen {
                self.refuse(file.role, error);
            }
            self.pool.keep(file);
        } else {
            self.refuse(file.role, error);
        }
    }

    /// Names what would bring the workflow further.
    fn list_missing(&mut self) {
        let trusted = &*self.trusted;
        let next = trusted.root.meta.version.saturating_add(1);
        let mut missing = Vec::new();
        // A root beyond the next one waits: the chain has a gap.
        if self.newer_root || self.pool.has(Role::Root, |offered| offered > next) {
            missing.push((Role::Root, Some(next)));
        }
        match (&trusted.timestamp, trusted.named_snapshot()) {
            (None, _) => missing.push((Role::Timestamp, None)),
            (Some(timestamp), None) => {
                let wanted = timestamp.meta.snapshot.version;
                if !self.pool.has(Role::Snapshot, |offered| offered == wanted) {
                    missing.push((Role::Snapshot, Some(wanted)));
                }
            }
            (Some(_), Some(snapshot)) => {
                for role in NAMED {
                    let wanted = snapshot.of(role).map_or(0, |file| file.version);
                    if !trusted.holds_named(role) && !self.pool.has(role, |offered| offered == wanted) {
                        missing.push((role, Some(wanted)));
                    }
                }
            }
        }
        self.done.missing = missing;
    }

    fn forget_timestamp(&mut self) {
        if self.trusted.timestamp.take().is_some() {
            self.note(Role::Timestamp);
        }
    }

    fn forget_snapshot(&mut self) {
        if self.trusted.snapshot.take().is_some() {
            self.note(Role::Snapshot);
        }
    }

    fn note(&mut self, role: Role) {
        if !self.done.changed.contains(&role) {
            self.done.changed.push(role);
        }
    }

    fn refuse(&mut self, role: Role, error: TufError) {
        self.done.refused.push((role, error));
    }
}

fn check_version<T: Metadata>(role: Role, meta: &T, wanted: &MetaFile) -> Result<(), TufError> {
    let (found, wanted) = (meta.version(), wanted.version);
    if found == wanted { Ok(()) } else { Err(TufError::Version { role, found, wanted }) }
}

fn rollback(role: Role, what: &str, held: u32, offered: u32) -> TufError {
    TufError::Rollback { role, what: what.chars().take(80).collect(), held, offered }
}
