//! Errors that say what to do next, and the exit codes.

use std::error::Error;
use std::process::ExitCode;

use crate::api::client::ClientError;
use crate::ceremony::CeremonyError;
use crate::keys::KeysError;
use crate::ledger::{LedgerError, ProofError};
use crate::release::ReleaseError;
use crate::retention::RetentionError;

/// How a command ended; the help of `tern` lists the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    Failed,
    Usage,
    Paused,
    Killed,
    Unreachable,
    Denied,
    Found,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Paused => 3,
            Exit::Killed => 4,
            Exit::Unreachable => 5,
            Exit::Denied => 6,
            Exit::Found => 7,
        })
    }
}

/// What went wrong, in one line, and what to do next.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: String,
    pub(super) hint: String,
    pub(super) exit: Exit,
}

impl Failure {
    pub(super) fn new(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { error: error.into(), hint: hint.into(), exit: Exit::Failed }
    }

    /// The words were understood, what they say was not.
    pub(super) fn usage(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(error, hint) }
    }

    pub(super) fn of(error: &dyn Error, hint: String) -> Self {
        Self::new(chain(error), hint)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::Unreachable { .. } => Exit::Unreachable,
            // No token, a wrong one, one of too low a role.
            ClientError::Token { .. } | ClientError::Refused(_, 401 | 403 | 429) => Exit::Denied,
            _ => Exit::Failed,
        };
        Self { exit, ..Self::of(&error, error.hint()) }
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        Self::of(&error, error.hint())
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        Self::of(&error, error.hint())
    }
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        Self::of(&error, error.hint())
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::of(&error, "keep the folder as it is, and look at it in a copy".to_owned())
    }
}

impl From<ProofError> for Failure {
    fn from(error: ProofError) -> Self {
        let hint = error.hint().to_owned();
        Self::of(&error, hint)
    }
}

impl From<RetentionError> for Failure {
    fn from(error: RetentionError) -> Self {
        Self::of(&error, "nothing was dropped; look at the ledger with `tern ledger verify`".to_owned())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        let full = causes.any(|cause| cause.kind() == std::io::ErrorKind::StorageFull);
        let keys = error.chain().find_map(|cause| cause.downcast_ref::<KeysError>());
        let hint = match keys {
            _ if full => "free room on that disk, then start again; what was acknowledged is safe".to_owned(),
            Some(keys) => keys.hint(),
            None => String::new(),
        };
        Self::of(error.as_ref(), hint)
    }
}

/// Writes an error and its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own words.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
