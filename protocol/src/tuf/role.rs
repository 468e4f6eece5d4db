//! The seven roles of a product's repository.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{ROLE_MAX, ROOT_MAX, SNAPSHOT_MAX, TIMESTAMP_MAX};

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
        match self {
            Self::Root => ROOT_MAX,
            Self::Timestamp => TIMESTAMP_MAX,
            Self::Snapshot => SNAPSHOT_MAX,
            _ => ROLE_MAX,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
