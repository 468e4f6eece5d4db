//! To whom a targets role delegates, and which paths.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Role;
use super::key::{KeyId, PublicKey};
use super::metadata::RoleKeys;

/// To whom targets delegates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Delegations {
    /// Keys by id.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// The roles, in order.
    pub roles: Vec<DelegatedRole>,
}

/// One delegation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DelegatedRole {
    /// Name of the role.
    pub name: String,
    /// Its keys.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// Patterns of the paths that it may name.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Instead of patterns: how the SHA-256 of the paths that it may name begins, in hex.
    #[serde(default)]
    pub path_hash_prefixes: Vec<String>,
    /// Whether nobody else is asked about a path that it may name.
    #[serde(default)]
    pub terminating: bool,
}

impl Delegations {
    /// Returns the delegation to `role`.
    pub fn to(&self, role: Role) -> Option<&DelegatedRole> {
        self.roles.iter().find(|delegated| delegated.name == role.name())
    }
}

impl DelegatedRole {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if ["root", "timestamp", "snapshot", "targets"].contains(&self.name.as_str()) {
            return Err("it delegates to a top-level role");
        }
        // TUF 1.0 section 4.5: only one of the two may be specified.
        if !self.paths.is_empty() && !self.path_hash_prefixes.is_empty() {
            return Err("a delegation with both paths and path_hash_prefixes");
        }
        self.keys.check()
    }

    /// Tells whether the role may name `path`: `*` and `?` match within one part, as TUF 1.0 section 4.5 says.
    pub fn covers(&self, path: &str) -> bool {
        if !self.path_hash_prefixes.is_empty() {
            let hash = hex::encode(Sha256::digest(path.as_bytes()));
            return self.path_hash_prefixes.iter().any(|prefix| hash.starts_with(prefix.as_str()));
        }
        self.paths.iter().any(|pattern| {
            pattern.split('/').count() == path.split('/').count()
                && pattern.split('/').zip(path.split('/')).all(|(pattern, text)| part_matches(pattern, text))
        })
    }
}

/// Matches without recursion: a pattern is somebody else's, and must not cost more than its length × the path's.
fn part_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // What follows the last star, and where in the text it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, tried)) => {
                    (p, t) = (after, tried + 1);
                    star = Some((p, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn over(pattern: &str) -> DelegatedRole {
        DelegatedRole {
            name: "release".into(),
            keys: RoleKeys { keyids: vec![], threshold: 1 },
            paths: vec![pattern.into()],
            path_hash_prefixes: vec![],
            terminating: false,
        }
    }

    #[test]
    fn a_pattern_stays_within_its_part_of_the_path() {
        for (pattern, path, covered) in [
            ("cam/*/*", "cam/7/rootfs", true),
            ("cam/*/*", "cam/7/rootfs/x", false),
            ("cam/*/*", "cam/7", false),
            ("cam/*/*", "router/7/rootfs", false),
            ("*", "cam/7", false),
            ("c?m/*-1/r*f*s", "cam/7-1/rootfs", true),
            ("c?m/*-1/r*f*s", "cam/7-2/rootfs", false),
            ("cam/7/", "cam/7/", true),
            ("c?m", "c\u{fc}m", true),
            ("cam", "CAM", false),
        ] {
            assert_eq!(over(pattern).covers(path), covered, "{pattern} {path}");
        }
    }

    /// What the specification says, with recursion and without haste.
    fn defined(pattern: &[u8], path: &[u8]) -> bool {
        let within = path.first().is_some_and(|b| *b != b'/');
        match pattern.split_first() {
            None => path.is_empty(),
            Some((b'*', rest)) => defined(rest, path) || (within && defined(pattern, &path[1..])),
            Some((b'?', rest)) => within && defined(rest, &path[1..]),
            Some((b, rest)) => path.first() == Some(b) && defined(rest, &path[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn any_pattern_means_what_the_specification_says(pattern in "[ab*?/]{0,7}", path in "[ab/]{0,7}") {
            prop_assert_eq!(over(&pattern).covers(&path), defined(pattern.as_bytes(), path.as_bytes()));
        }
    }
}
