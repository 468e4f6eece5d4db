//! Why a file is not accepted.

use super::RoleName;

/// Says why a metadata file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TufError {
    /// Longer than its role may be.
    #[error("{role} of {length} B is above the ceiling of {ceiling} B")]
    TooLarge {
        /// The role.
        role: RoleName,
        /// Its length.
        length: usize,
        /// The most that its role may have.
        ceiling: usize,
    },
    /// Not metadata of this role, or with contents that Tern cannot use.
    #[error("{role} is not usable metadata: {why}")]
    Malformed {
        /// The role.
        role: RoleName,
        /// What is wrong.
        why: String,
    },
    /// Too few valid signatures of distinct keys: forged, or signed by keys of another root.
    #[error("{role} is signed by {valid} of its keys, {threshold} are needed")]
    Threshold {
        /// The role.
        role: RoleName,
        /// Distinct keys with a valid signature.
        valid: u32,
        /// Keys needed.
        threshold: u32,
    },
    /// Another version than the one that its parent names.
    #[error("{role} has version {found} where {wanted} is named")]
    Version {
        /// The role.
        role: RoleName,
        /// Version found.
        found: u32,
        /// Version named.
        wanted: u32,
    },
    /// Takes something back to an older version, or out of the repository.
    #[error("{role} takes {what} back from version {held} to {offered}")]
    Rollback {
        /// The role whose file is refused.
        role: RoleName,
        /// What would be taken back.
        what: String,
        /// Version held.
        held: u32,
        /// Version offered; 0 if it is no longer named.
        offered: u32,
    },
    /// Too old to be accepted anew.
    #[error("{role} version {version} expired at {expires} (unix seconds)")]
    Expired {
        /// The role.
        role: RoleName,
        /// Its version.
        version: u32,
        /// When it expired.
        expires: u64,
    },
    /// Not the bytes whose length or hash its parent names.
    #[error("{role} version {version} is not the file that its parent names")]
    Mismatch {
        /// The role.
        role: RoleName,
        /// Its version.
        version: u32,
    },
    /// Its parent does not delegate to this role.
    #[error("nobody delegates to {0}")]
    NotDelegated(RoleName),
    /// A timestamp that claims to be issued after root expires, or after now: a stolen key pushes clocks forward.
    #[error(
        "timestamp version {version} claims to be issued at {time}, which is not yet or after root expires"
    )]
    FromTheFuture {
        /// Its version.
        version: u32,
        /// When it claims to be issued.
        time: u64,
    },
    /// No usable root among the files; provision the device again.
    #[error("no usable root among the stored files")]
    NoRoot,
}

impl TufError {
    pub(super) fn malformed(role: impl Into<RoleName>, why: impl ToString) -> Self {
        // The text may quote the file, which somebody else chose the length of.
        Self::Malformed { role: role.into(), why: why.to_string().chars().take(200).collect() }
    }
}
