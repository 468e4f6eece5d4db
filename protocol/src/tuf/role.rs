//! The seven roles of a product's repository, and the names of roles of any repository.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::TufLimits;

/// A role: who may say what (docs/security.md, "Roles").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Names the keys of the top-level roles. Offline.
    Root,
    /// Newest snapshot. Online.
    Timestamp,
    /// Newest version of every other file. Online.
    Snapshot,
    /// Delegates to release, rollout and halt; names the telemetry and time keys. Offline.
    Targets,
    /// Approves artifacts. Offline.
    Release,
    /// Says who should run which approved release. Online.
    Rollout,
    /// Takes releases back for ever; can do nothing else.
    Halt,
}

impl Role {
    /// Every role, in the order in which the client workflow loads them.
    pub const ALL: [Self; 7] = [
        Self::Root,
        Self::Timestamp,
        Self::Snapshot,
        Self::Targets,
        Self::Release,
        Self::Rollout,
        Self::Halt,
    ];

    /// Returns the role's name in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Release => "release",
            Self::Rollout => "rollout",
            Self::Halt => "halt",
        }
    }

    /// Returns the role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Returns the `_type` that its metadata carries.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Root | Self::Timestamp | Self::Snapshot => self.name(),
            Self::Targets | Self::Release | Self::Rollout | Self::Halt => "targets",
        }
    }

    /// Returns the role's number in a bundle.
    pub fn code(self) -> u8 {
        match self {
            Self::Root => 1,
            Self::Timestamp => 2,
            Self::Snapshot => 3,
            Self::Targets => 4,
            Self::Release => 5,
            Self::Rollout => 6,
            Self::Halt => 7,
        }
    }

    /// Returns the role with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.code() == code)
    }

    /// Returns the largest file that this role may have, in bytes.
    pub fn ceiling(self) -> usize {
        TufLimits::DEVICE.of_kind(self.kind())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Characters of a role's name that an error repeats.
const SHOWN_MAX: usize = 80;

/// The name of a role of any repository. Delegated names are somebody else's text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(Cow<'static, str>);

impl RoleName {
    /// Wraps the name of a delegated role.
    pub fn delegated(name: &str) -> Self {
        Self(Cow::Owned(name.to_owned()))
    }

    /// Returns the name as it stands in metadata.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the `_type` that the role's metadata carries.
    pub fn kind(&self) -> &'static str {
        Role::from_name(&self.0).map_or("targets", Role::kind)
    }

    /// Returns the name as one part of a URL or of a path: all but letters, digits, `_`, `.`, `-` and `~` becomes
    /// `%XX`, so no name leaves its folder.
    pub fn quoted(&self) -> String {
        quote(&self.0)
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        Self(Cow::Borrowed(role.name()))
    }
}

impl From<&RoleName> for RoleName {
    fn from(name: &RoleName) -> Self {
        name.clone()
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
        f.pad(&shown)
    }
}

/// Writes `text` as one part of a URL (RFC 3986: everything but the unreserved characters as `%XX`).
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_name_is_one_part_of_a_path() {
        for (name, quoted) in [
            ("release", "release"),
            ("../up", "..%2Fup"),
            ("?#", "%3F%23"),
            ("a b%", "a%20b%25"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(RoleName::delegated(name).quoted(), quoted);
        }
    }

    #[test]
    fn a_name_that_is_text_is_the_name_of_the_role() {
        assert_eq!(RoleName::delegated("targets"), RoleName::from(Role::Targets));
        assert_eq!(Role::ALL.map(|role| RoleName::from(role).kind()), Role::ALL.map(Role::kind));
        assert_eq!(RoleName::delegated("other").kind(), "targets");
    }

    #[test]
    fn a_foreign_name_is_shown_short_and_without_control_characters() {
        let shown = RoleName::delegated(&format!("\n{}", "x".repeat(1000))).to_string();

        assert!(shown.starts_with("\\n") && shown.len() < 100);
    }
}
