//! Names that the device's update machine, reports, ledger and screens share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a state of the update machine (docs/design.md, "The update machine").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// Nothing to do.
    Idle,
    /// Is this device eligible, now?
    Checking,
    /// Fetching missing packs into the inactive slot.
    Downloading,
    /// Re-reading what was written; waiting for the controller's answer.
    Verifying,
    /// Hooks: stop services, back up.
    PreUpdating,
    /// Start announced; arming once the answer is here; rebooting.
    Updating,
    /// The new release runs on trial.
    VerifyPost,
    /// Confirmed.
    Success,
    /// Waiting before another try.
    Retry,
    /// Gave up on this release.
    Failed,
    /// Going back to the previous slot.
    Rollback,
}

impl StateName {
    /// Every state, in the diagram's order.
    pub const ALL: [Self; 11] = [
        Self::Idle,
        Self::Checking,
        Self::Downloading,
        Self::Verifying,
        Self::PreUpdating,
        Self::Updating,
        Self::VerifyPost,
        Self::Success,
        Self::Retry,
        Self::Failed,
        Self::Rollback,
    ];
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Idle => "idle",
            Self::Checking => "checking",
            Self::Downloading => "downloading",
            Self::Verifying => "verifying",
            Self::PreUpdating => "pre-updating",
            Self::Updating => "updating",
            Self::VerifyPost => "verify-post",
            Self::Success => "success",
            Self::Retry => "retry",
            Self::Failed => "failed",
            Self::Rollback => "rollback",
        };
        f.pad(text)
    }
}

/// How an attempt ended, as the device reports it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Booted, healthy through the soak, confirmed. Good.
    Success,
    /// Could not be installed; the device never left its release. Bad if it had started.
    Failed,
    /// Booted and went back. Bad.
    RolledBack,
    /// Went back because nobody could be reached during the trial. Judged by the gates' own rules.
    Unreachable,
    /// Stopped by a kill. Neither good nor bad.
    Recalled,
    /// Not now (window, consent, no answer to `started`); takes a start back.
    Deferred,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Unreachable => "unreachable",
            Self::Recalled => "recalled",
            Self::Deferred => "deferred",
        })
    }
}
