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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A file that nobody signed, told apart by `mark`.
    fn file(role: Role, version: u32, mark: &str) -> File {
        let value = json!({"signatures": [], "signed": {"version": version, "x": mark}});
        File { role, bytes: value.to_string().into_bytes() }
    }

    fn versions(pool: &Pool, role: Role) -> Vec<u32> {
        pool.waiting.iter().filter(|file| file.role == role).map(|file| file.version).collect()
    }

    #[test]
    fn a_file_waits_up_to_its_ceiling_and_is_named_when_it_is_larger() {
        let mut pool = Pool::default();
        let mut exact = file(Role::Timestamp, 1, "");
        exact.bytes.resize(Role::Timestamp.ceiling(), b' ');
        let mut larger = exact.clone();
        larger.bytes.push(b' ');

        pool.add(exact);
        assert_eq!((pool.len(), pool.take_refused()), (1, vec![]));
        pool.add(larger);

        assert_eq!(pool.len(), 1);
        let refused = pool.take_refused();
        assert!(matches!(refused[..], [(Role::Timestamp, TufError::TooLarge { .. })]), "{refused:?}");
        assert_eq!(pool.take_refused(), vec![]);
    }

    #[test]
    fn the_same_bytes_wait_once_for_each_role() {
        let mut pool = Pool::default();
        for _ in 0..2 {
            pool.add(file(Role::Release, 3, "a"));
            pool.add(file(Role::Rollout, 3, "a"));
            pool.add(file(Role::Release, 3, "b"));
        }

        assert_eq!(pool.len(), 3);
        assert!(!pool.is_empty() && Pool::default().is_empty());
    }

    #[test]
    fn each_role_has_room_of_its_own() {
        let mut pool = Pool::default();
        for version in 1..=40 {
            for role in [Role::Root, Role::Snapshot, Role::Halt] {
                pool.add(file(role, version, ""));
            }
        }

        assert_eq!(versions(&pool, Role::Root), (1..=32).collect::<Vec<_>>(), "the chain, from below");
        assert_eq!(versions(&pool, Role::Snapshot), [36, 37, 38, 39, 40], "the newest");
        assert_eq!(versions(&pool, Role::Halt), [36, 37, 38, 39, 40]);
    }

    #[test]
    fn what_a_refresh_could_not_use_gives_way_before_anything_else() {
        let mut pool = Pool::default();
        pool.add(file(Role::Snapshot, u32::MAX, "junk"));
        pool.add(file(Role::Snapshot, 1, ""));
        pool.add(file(Role::Root, 7, ""));
        pool.settle(|_| false);
        (2..=5).for_each(|version| pool.add(file(Role::Snapshot, version, "")));
        (2..=33)
            .rev()
            .filter(|version| *version != 7)
            .for_each(|version| pool.add(file(Role::Root, version, "")));
        assert_eq!(
            versions(&pool, Role::Snapshot),
            [1, 2, 3, 4, 5],
            "the oldest arrival of those went first"
        );
        pool.add(file(Role::Snapshot, 6, ""));
        pool.add(file(Role::Root, 34, ""));

        assert_eq!(versions(&pool, Role::Snapshot), [2, 3, 4, 5, 6]);
        assert!(
            !pool.has(Role::Root, |version| version == 7) && pool.has(Role::Root, |version| version == 33)
        );
    }

    #[test]
    fn refused_files_are_remembered_up_to_a_number() {
        let mut pool = Pool::default();
        let junk = || File { role: Role::Halt, bytes: b"{}".to_vec() };
        (0..REFUSED_MAX - 1).for_each(|_| pool.add(junk()));
        assert_eq!(pool.refused.len(), REFUSED_MAX - 1);
        (0..9).for_each(|_| pool.add(junk()));

        assert_eq!(pool.take_refused().len(), REFUSED_MAX);
        assert!(pool.is_empty());
    }

    #[test]
    fn files_are_taken_by_role_and_version_the_highest_first_and_forgotten_when_they_are_stale() {
        let mut pool = Pool::default();
        for version in [2, 4, 3] {
            pool.add(file(Role::Rollout, version, ""));
            pool.add(file(Role::Halt, version, ""));
        }

        let taken = pool.take(Role::Rollout, |version| version > 2);
        assert_eq!(
            taken.iter().map(|file| (file.role, file.version)).collect::<Vec<_>>(),
            [(Role::Rollout, 4), (Role::Rollout, 3)]
        );
        assert!(
            pool.has(Role::Rollout, |version| version == 2)
                && !pool.has(Role::Rollout, |version| version > 2)
        );
        taken.into_iter().take(1).for_each(|file| pool.keep(file));
        pool.settle(|file| file.role == Role::Halt || file.version == 2);

        assert_eq!((versions(&pool, Role::Rollout), versions(&pool, Role::Halt)), (vec![4], vec![]));
    }
}
