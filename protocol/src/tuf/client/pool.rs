//! Files that arrived and are not used yet.

use super::super::{Role, TufError};
use super::peek;
use crate::bundle::File;
use crate::limits::ROOT_CHAIN_MAX;

/// Files of one role, apart from root, that wait at once.
const WAITING_MAX: usize = 5;
/// Refused files that are remembered until the next refresh names them.
const REFUSED_MAX: usize = 16;

/// A bounded bag of files that arrived and are not used yet: at most 32 roots, and 5 of each other role.
///
/// A timestamp arrives on one topic and its snapshot on another, in any order; whichever is early waits here.
/// When there are too many of a role, those that a refresh could not use go first, the oldest arrival before the
/// others, then the lowest version: neither a flood of junk with huge versions nor a stale topic displaces for
/// good what is needed.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    waiting: Vec<Waiting>,
    refused: Vec<(Role, TufError)>,
}

/// One file that waits, oldest arrival first.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) role: Role,
    pub(super) version: u32,
    pub(super) bytes: Vec<u8>,
    /// Whether a refresh has had it and could not use it yet.
    pub(super) seen: bool,
}

impl Pool {
    /// Adds a file. One that is there already, or could never be used, changes nothing.
    pub fn add(&mut self, file: File) {
        let File { role, bytes } = file;
        if bytes.len() > role.ceiling() {
            let (length, ceiling) = (bytes.len(), role.ceiling());
            return self.refuse(role, TufError::TooLarge { role: role.into(), length, ceiling });
        }
        let Some(version) = peek(&bytes) else {
            return self.refuse(role, TufError::malformed(role, "it has no version"));
        };
        if self.waiting.iter().any(|other| other.role == role && other.bytes == bytes) {
            return;
        }
        self.waiting.push(Waiting { role, version, bytes, seen: false });
        let most = if role == Role::Root { ROOT_CHAIN_MAX as usize } else { WAITING_MAX };
        if self.waiting.iter().filter(|other| other.role == role).count() > most {
            self.evict(role);
        }
    }

    /// Tells whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many files wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes out the files of `role` whose version is `wanted`, the highest version first.
    pub(super) fn take(&mut self, role: Role, wanted: impl Fn(u32) -> bool) -> Vec<Waiting> {
        let mut taken: Vec<_> =
            self.waiting.extract_if(.., |file| file.role == role && wanted(file.version)).collect();
        taken.sort_by_key(|file| std::cmp::Reverse(file.version));
        taken
    }

    /// Puts back a file that may be usable later.
    pub(super) fn keep(&mut self, file: Waiting) {
        self.waiting.push(file);
    }

    /// Tells whether a file of `role` with a version that is `wanted` waits.
    pub(super) fn has(&self, role: Role, wanted: impl Fn(u32) -> bool) -> bool {
        self.waiting.iter().any(|file| file.role == role && wanted(file.version))
    }

    /// Forgets what `stale` names and marks the rest as seen.
    pub(super) fn settle(&mut self, stale: impl Fn(&Waiting) -> bool) {
        self.waiting.retain(|file| !stale(file));
        for file in &mut self.waiting {
            file.seen = true;
        }
    }

    /// Returns what was refused on arrival.
    pub(super) fn take_refused(&mut self) -> Vec<(Role, TufError)> {
        std::mem::take(&mut self.refused)
    }

    fn refuse(&mut self, role: Role, error: TufError) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.push((role, error));
        }
    }

    fn evict(&mut self, role: Role) {
        let of_role = || self.waiting.iter().enumerate().filter(|(_, file)| file.role == role);
        let victim = if role == Role::Root {
            // A chain is walked from below, so the highest root is the one to be asked for again.
            of_role().max_by_key(|(_, file)| (file.seen, file.version))
        } else {
            let seen = of_role().find(|(_, file)| file.seen);
            seen.or_else(|| of_role().min_by_key(|(_, file)| file.version))
        };
        if let Some((at, _)) = victim {
            self.waiting.remove(at);
        }
    }
}
