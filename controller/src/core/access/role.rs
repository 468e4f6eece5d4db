//! What a token may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Roles in a row: each may do what those before it may. `api/routes.rs` says which path takes which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Publishes signed releases; starts, widens and stops rollouts.
    Operator,
    /// Decides who is a device: claims, factories, approvals, quarantines.
    Approver,
    /// Decides who may use the API, and hands new signed keys in.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// Returns the role's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// Returns the role's word as one of many: "a viewer", "an admin".
    pub fn one(self) -> &'static str {
        match self {
            Self::Viewer => "a viewer",
            Self::Operator => "an operator",
            Self::Approver => "an approver",
            Self::Admin => "an admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
