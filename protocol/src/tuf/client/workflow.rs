//! The client workflow of TUF 1.0 section 5, run over a pool instead of a server.
//!
//! The specification downloads what a step needs; here a step takes what arrived, and what did not arrive is
//! named as missing. What makes a file acceptable is in [`super::checks`].

use std::sync::Arc;

use super::checks::Checks;
use super::{Held, Pool, Refresh, Trusted, named, version};
use crate::limits::TufLimits;
use crate::tuf::metadata::{MetaFile, Metadata, SnapshotMeta, TimestampMeta};
use crate::tuf::verify::{Authority, Unverified, open};
use crate::tuf::{Role, TufError};

/// The roles whose files snapshot names.
const NAMED: [Role; 4] = [Role::Targets, Role::Release, Role::Rollout, Role::Halt];

impl Trusted {
    /// Puts new files beside the stored ones and goes as far as they allow; `now` is unix seconds.
    ///
    /// Never fails as a whole: a bad file is refused and forgotten, an old one is forgotten without a word, an
    /// early one waits in the pool. Each accepted step is kept.
    pub fn refresh(&mut self, pool: &mut Pool, now: u64) -> Refresh {
        self.refresh_issued_by(pool, now, u64::MAX)
    }

    /// Does the same, and refuses a timestamp that claims to have been issued after `latest`: for whoever knows what
    /// time it is, and not only what time it is at least.
    pub fn refresh_issued_by(&mut self, pool: &mut Pool, now: u64, latest: u64) -> Refresh {
        let done = Refresh { refused: pool.take_refused(), ..Refresh::default() };
        let mut run = Run { trusted: self, pool, now, latest, done, newer_root: false };
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

    /// Takes new roots alone. What the device believes of the time may come from a key that they take away, and must
    /// not judge the rest.
    pub fn refresh_root(&mut self, pool: &mut Pool) -> Refresh {
        let done = Refresh { refused: pool.take_refused(), ..Refresh::default() };
        let mut run = Run { trusted: self, pool, now: 0, latest: u64::MAX, done, newer_root: false };
        run.roots();
        run.done
    }

    /// Tells whether no file of `role` with this version can ever be of use again.
    fn is_stale(&self, role: Role, offered: u32) -> bool {
        let named = match role {
            Role::Root => return offered <= self.root.meta.version,
            Role::Timestamp => return offered <= version(self.timestamp.as_deref()),
            Role::Snapshot => self.timestamp.as_ref().map(|held| held.meta.snapshot.version),
            _ => self.named_snapshot().and_then(|snapshot| snapshot.of(role)).map(|file| file.version),
        };
        named.is_some_and(|named| offered < named || (offered == named && self.holds_named(role)))
    }

    /// Tells whether the file held of `role` is the one that the newest timestamp leads to.
    fn holds_named(&self, role: Role) -> bool {
        fn held<T: Metadata>(held: Option<&Arc<Held<T>>>, snapshot: &SnapshotMeta, role: Role) -> bool {
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
    latest: u64,
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
        for _ in 0..TufLimits::DEVICE.roots {
            let next = self.trusted.root.meta.version.saturating_add(1);
            let found = self.pool.take(Role::Root, |offered| offered == next).into_iter().find_map(|file| {
                let checked = self.checks().next_root(&file.bytes);
                checked
                    .map(|meta| Held { bytes: file.bytes, meta })
                    .map_err(|error| self.done.refused.push((Role::Root, error)))
                    .ok()
            });
            let Some(root) = found else { break };
            if self.checks().rotates_online_keys(&root.meta) {
                self.forget_timestamp();
                self.forget_snapshot();
            }
            // 5.3.7 Set the trusted root to the new root. 5.3.8 Persist: by the caller, from `changed`.
            self.trusted.root = Arc::new(root);
            changed = true;
        }
        if changed {
            self.note(Role::Root);
            self.ask_new_root();
        }
    }

    /// Has the new root vouch for what is held, as it would after a restart.
    fn ask_new_root(&mut self) {
        fn vouches<T: Metadata>(held: Option<&Arc<Held<T>>>, trusted: &Trusted, role: Role) -> bool {
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
        let Err(expired) = self.checks().root_is_fresh() else { return true };
        self.newer_root = true;
        if !self.pool.is_empty() || self.done.changed.contains(&Role::Root) {
            self.refuse(Role::Root, expired);
        }
        false
    }

    /// 5.4 Update the timestamp role.
    fn timestamp(&mut self) {
        // 5.4.3.1, before the check itself: lower ones are old retained messages, an equal one brings nothing;
        // neither is an attack by itself.
        let held = version(self.trusted.timestamp.as_deref());
        for file in self.pool.take(Role::Timestamp, |offered| offered > held) {
            // The highest comes first: once one is accepted, the rest is old, whoever signed it.
            if file.version <= version(self.trusted.timestamp.as_deref()) {
                break;
            }
            match self.check_timestamp(&file.bytes) {
                Ok(Some(meta)) => {
                    // 5.4.5 Persist: by the caller.
                    self.trusted.timestamp = Some(self.hold(file.bytes, meta));
                    self.note(Role::Timestamp);
                }
                Ok(None) => {}
                Err(error) => self.reject(file, error),
            }
        }
    }

    fn check_timestamp(&self, bytes: &[u8]) -> Result<Option<TimestampMeta>, TufError> {
        let held = self.trusted.timestamp.as_ref().map(|held| &held.meta);
        let meta = self.checks().timestamp(bytes, held)?;
        // Ours: devices without a clock take their time from here, and a stolen online key must not push it on.
        if let Some(TimestampMeta { version, time: Some(time), .. }) = meta
            && time > self.trusted.root.meta.expires.min(self.latest)
        {
            return Err(TufError::FromTheFuture { version, time });
        }
        Ok(meta)
    }

    /// 5.5 Update the snapshot role.
    fn snapshot(&mut self) {
        let Some(timestamp) = &self.trusted.timestamp else { return };
        let named = timestamp.meta.snapshot.clone();
        if self.trusted.snapshot.as_ref().is_some_and(|held| held.is(&named)) {
            return;
        }
        let check = |run: &Self, bytes: &[u8]| {
            let held = run.trusted.snapshot.as_ref().map(|held| &held.meta);
            let meta = run.checks().snapshot(bytes, &named, held)?;
            // Ours: a product's repository has these roles, and a file that hides one hides a kill.
            match NAMED.into_iter().find(|role| meta.of(*role).is_none()) {
                Some(hidden) => {
                    Err(TufError::malformed(Role::Snapshot, format_args!("it does not name {hidden}.json")))
                }
                None => Ok(meta),
            }
        };
        if let Some(held) = self.accept(Role::Snapshot, &named, check) {
            self.trusted.snapshot = Some(held);
        }
    }

    /// 5.6 Update the targets role.
    fn targets(&mut self) {
        let Some(wanted) = self.wanted(Role::Targets) else { return };
        let check = |run: &Self, bytes: &[u8]| {
            let authority = Authority::top(&run.trusted.root.meta, Role::Targets)?;
            run.checks().targets(&Role::Targets.into(), bytes, &wanted, authority)
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
            let file = Unverified::read(role, bytes);
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

    fn accept_delegated<T: Metadata>(&mut self, role: Role) -> Option<Arc<Held<T>>> {
        let wanted = self.wanted(role)?;
        self.accept(role, &wanted, |run, bytes| {
            let name = role.into();
            let Some(targets) = &run.trusted.targets else { return Err(TufError::NotDelegated(name)) };
            let authority = Authority::delegated(&targets.meta.meta, role)?;
            run.checks().targets(&name, bytes, &wanted, authority)
        })
    }

    /// Returns how the trusted snapshot names `role`'s file, unless that file is held already.
    fn wanted(&self, role: Role) -> Option<MetaFile> {
        let file = self.trusted.named_snapshot()?.of(role)?;
        (!self.trusted.holds_named(role)).then(|| file.clone())
    }

    /// Accepts a waiting file of the version that its parent names, if it stands `check`.
    fn accept<T: Metadata>(
        &mut self,
        role: Role,
        wanted: &MetaFile,
        check: impl Fn(&Self, &[u8]) -> Result<T, TufError>,
    ) -> Option<Arc<Held<T>>> {
        let mut accepted = None;
        for file in self.pool.take(role, |offered| offered == wanted.version) {
            if accepted.is_some() {
                break;
            }
            match check(self, &file.bytes) {
                Ok(meta) => {
                    // 5.5.7 / 5.6.6 Persist: by the caller.
                    self.note(role);
                    accepted = Some(self.hold(file.bytes, meta));
                }
                Err(error) => self.reject(file, error),
            }
        }
        accepted
    }

    fn hold<T: Metadata>(&self, bytes: Vec<u8>, meta: T) -> Arc<Held<T>> {
        let held = Held { bytes, meta };
        match &self.trusted.opened {
            Some(opened) => opened.share(held),
            None => Arc::new(held),
        }
    }

    fn checks(&self) -> Checks<'_> {
        let Trusted { root, opened, .. } = &*self.trusted;
        Checks { root: &root.meta, now: self.now, limits: &TufLimits::DEVICE, opened: opened.as_deref() }
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
