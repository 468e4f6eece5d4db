//! The update machine's states, events and effects as plain values.

use serde::{Deserialize, Serialize};
use tern_protocol::chunk::ChunkSet;
use tern_protocol::offer::Offer;
use tern_protocol::state::{Outcome, StateName};

use super::SlotName;
use super::reconcile::Seen;
use super::timing::Stamp;
use super::way::Way;

/// One attempt: what is installed, where, and how often something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is installed.
    pub offer: Offer,
    /// The slot that is written; never the running one.
    pub slot: SlotName,
    /// Failed tries so far, by kind.
    pub tries: Tries,
}

/// Failed tries, by kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tries {
    /// Bad bytes, or a slot that could not be written.
    pub download: u32,
    /// Hooks that said "not now".
    pub hooks: u32,
    /// Trials in which nobody was reached.
    #[serde(default)]
    pub unreachable: u32,
    /// Installs of components that the device did not come out of, or after which nobody was reached.
    #[serde(default)]
    pub installs: u32,
    /// Boots that were asked for, and did not come.
    #[serde(default)]
    pub reboots: u32,
}

/// The state of the update machine. Saved before anything it owes is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nothing to do.
    Idle {
        /// Set by a deferral: look again only after it.
        not_before: Option<Stamp>,
    },
    /// Is this device eligible, now?
    Checking {
        /// The attempt.
        work: Work,
    },
    /// Fetching what is missing into the inactive slot.
    Downloading {
        /// The attempt.
        work: Work,
        /// Which of its artifacts.
        #[serde(default, skip_serializing_if = "is_first")]
        at: usize,
        /// The slot is marked bad; before that no byte is written.
        marked: bool,
        /// By which way; a journal that does not say means chunks as they are.
        #[serde(default)]
        way: Way,
        /// Chunks that were verified, written and synced, as far as they come as chunks.
        have: ChunkSet,
    },
    /// Re-reading what was written, then asking whether it is still wanted.
    Verifying {
        /// The attempt.
        work: Work,
        /// Which of its artifacts.
        #[serde(default, skip_serializing_if = "is_first")]
        at: usize,
        /// All bytes were read back and match.
        hashed: bool,
    },
    /// Running hooks.
    PreUpdating {
        /// The attempt.
        work: Work,
        /// Set when the hooks are to be undone, and what comes then.
        undo: Option<Then>,
    },
    /// Announcing the start, arming, rebooting.
    Updating {
        /// The attempt.
        work: Work,
        /// How far.
        step: UpdatingStep,
    },
    /// The new release runs on trial.
    VerifyPost {
        /// The attempt.
        work: Work,
        /// When this boot of the trial began.
        since: Stamp,
        /// The probes passed in this boot.
        probed: bool,
        /// The controller answered at least once in this boot.
        heard: bool,
    },
    /// Healthy and answered: make it permanent.
    Success {
        /// The attempt.
        work: Work,
    },
    /// Waiting before another try.
    Retry {
        /// The attempt.
        work: Work,
        /// Where to go on.
        to: RetryTo,
        /// When the wait began.
        since: Stamp,
        /// How long it lasts, ms.
        wait: u64,
    },
    /// Gave up; only a higher attempt or rc is looked at, or the same once more if nobody could be reached.
    Failed {
        /// The attempt that failed.
        work: Work,
        /// Why.
        reason: String,
        /// Nobody was reached, and the network may have been the reason: after a deferral from here on the same is
        /// tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<Stamp>,
    },
    /// Going back to the previous slot.
    Rollback {
        /// The attempt.
        work: Work,
        /// How it will be reported.
        outcome: Outcome,
        /// Why.
        reason: String,
        /// How far.
        step: RollbackStep,
    },
}

/// What comes after hooks are undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// A hook said "not now".
    Retry,
    /// Give up.
    Fail(String),
    /// The release was halted.
    Recall,
    /// No longer offered, or nobody answered: take the start back and ask again later.
    Defer,
}

/// How far Updating is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdatingStep {
    /// `started` is out; nothing is armed before its answer.
    Announce {
        /// When the wait for the answer began.
        since: Stamp,
    },
    /// Installing what is not in the slot.
    Install,
    /// All of that is in; nothing is armed before one more answer.
    Reask {
        /// When the wait for the answer began.
        since: Stamp,
    },
    /// Writing the boot record.
    Arm,
    /// The boot record is written; a boot decides.
    Reboot,
    /// Taking the boot record back.
    Disarm(Then),
    /// Undoing the hooks.
    Undo(Then),
}

/// How far Rollback is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackStep {
    /// Writing a boot record without the trial.
    Record,
    /// Leaving the trial slot.
    Reboot,
    /// Undoing the hooks, on the previous release.
    Undo,
}

/// Where Retry goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryTo {
    /// Fetch again.
    Downloading,
    /// Run the hooks again.
    PreUpdating,
}

/// A fact. The machine draws the conclusions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Verified files offer this to the device; the slot is the one that does not run.
    Offered {
        /// The offer.
        offer: Offer,
        /// The inactive slot.
        slot: SlotName,
    },
    /// Verified files no longer offer the open attempt, without halting it.
    Withdrawn,
    /// The open attempt's release is halted.
    Halted,
    /// The device may run the release; `present`: the inactive slot already holds exactly its image.
    Eligible {
        /// Nothing needs to be fetched.
        present: bool,
    },
    /// The device can never run the release.
    Ineligible(String),
    /// Not now.
    Postponed(String),
    /// The slot is durably marked bad.
    SlotMarked,
    /// These chunks are verified, written and synced.
    Written(Vec<u32>),
    /// It is fetched by this way from here on.
    Chosen(Way),
    /// As many of the delta's packs are decoded, and what came out is synced.
    Decoded(u32),
    /// A pack gave others than these chunks, from and to, of the image; what it gave before them is synced.
    Undecoded {
        /// Which pack.
        pack: u32,
        /// The first chunk.
        from: u32,
        /// The one behind the last.
        to: u32,
    },
    /// The artifact that is to be fetched is there already.
    Held,
    /// The slot could not be written or marked.
    WriteFailed(String),
    /// An artifact's bytes were read back.
    Hashed {
        /// They are the artifact's.
        matches: bool,
    },
    /// A fresh answer is here and names nothing newer than what was checked.
    Answered,
    /// Hooks ran to their end.
    HooksDone,
    /// A hook said "not now".
    HooksPostponed(String),
    /// A hook failed.
    HooksFailed(String),
    /// The hooks were undone, and components taken back.
    Undone,
    /// Everything beside the slot is installed.
    Installed,
    /// A component says "not now".
    InstallPostponed(String),
    /// A component could not be installed.
    InstallFailed(String),
    /// The boot record with the trial was written and read back.
    Armed,
    /// It could not be written; nothing is armed.
    ArmFailed(String),
    /// The boot record holds no trial any more.
    Disarmed {
        /// The slot that runs.
        running: SlotName,
    },
    /// The boot record with the trial in it cannot be replaced at present.
    DisarmFailed {
        /// The slot that runs.
        running: SlotName,
        /// Why.
        reason: String,
    },
    /// A rollback is owed, and there is nothing to go back to.
    NoWayBack,
    /// The agent came up; every start says so, with what the boot record and the slots tell.
    Booted {
        /// What boot record and slots say.
        seen: Seen,
        /// The operating system booted; otherwise only the agent's process is new.
        rebooted: bool,
    },
    /// Every probe passed.
    ProbesPassed,
    /// A probe failed.
    ProbeFailed(String),
    /// The slot is permanent now.
    Confirmed,
    /// The boot record cannot be written, so it is not, and the next boots will be of the former one.
    ConfirmFailed(String),
    /// Time went by.
    Time,
}

/// Work that a state still owes. Every effect may run twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Judge eligibility.
    Check,
    /// Mark the slot bad.
    MarkBad,
    /// Fetch what is missing.
    Fetch,
    /// Read the slot back and hash it.
    Hash,
    /// Ask until a fresh answer is here.
    Ask,
    /// Run the pre-update hooks.
    RunHooks,
    /// Undo them.
    UndoHooks,
    /// Announce the start and wait for its answer.
    Announce,
    /// Install the components.
    Install,
    /// Write the boot record with the trial.
    Arm,
    /// Boot.
    Reboot,
    /// Write the boot record without the trial.
    Disarm,
    /// Run the health probes.
    Probe,
    /// Let the trial soak.
    Soak,
    /// Make the trial slot the active one.
    Confirm,
}

fn is_first(at: &usize) -> bool {
    *at == 0
}

impl State {
    /// Returns which of the attempt's artifacts it is about; the slot's is the first.
    pub fn at(&self) -> usize {
        match self {
            Self::Downloading { at, .. } | Self::Verifying { at, .. } => *at,
            _ => 0,
        }
    }

    /// Returns the name that reports, logs and screens use.
    pub fn name(&self) -> StateName {
        match self {
            Self::Idle { .. } => StateName::Idle,
            Self::Checking { .. } => StateName::Checking,
            Self::Downloading { .. } => StateName::Downloading,
            Self::Verifying { .. } => StateName::Verifying,
            Self::PreUpdating { .. } => StateName::PreUpdating,
            Self::Updating { .. } => StateName::Updating,
            Self::VerifyPost { .. } => StateName::VerifyPost,
            Self::Success { .. } => StateName::Success,
            Self::Retry { .. } => StateName::Retry,
            Self::Failed { .. } => StateName::Failed,
            Self::Rollback { .. } => StateName::Rollback,
        }
    }

    /// Returns the attempt that it is about.
    pub fn work(&self) -> Option<&Work> {
        match self {
            Self::Idle { .. } => None,
            Self::Checking { work }
            | Self::Downloading { work, .. }
            | Self::Verifying { work, .. }
            | Self::PreUpdating { work, .. }
            | Self::Updating { work, .. }
            | Self::VerifyPost { work, .. }
            | Self::Success { work }
            | Self::Retry { work, .. }
            | Self::Failed { work, .. }
            | Self::Rollback { work, .. } => Some(work),
        }
    }

    /// Returns the attempt while it can still be stopped or withdrawn.
    pub fn open(&self) -> Option<&Work> {
        match self {
            Self::Idle { .. } | Self::Failed { .. } | Self::Success { .. } | Self::Rollback { .. } => None,
            other => other.work(),
        }
    }
}
