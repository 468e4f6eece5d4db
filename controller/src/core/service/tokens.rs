//! Tokens of the API: made, taken back, used; and on whose word a command runs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tern_protocol::digest::Digest;

use super::command::{Outcome, Reply, refuse};
use super::{Command, Fact, RefusalKind, Service};
use crate::core::access::register::{LIFE_MAX, LIVE_MAX};
use crate::core::access::{Made, Role, TokenName};
use crate::core::fact::Millis;

/// A token to be made. Its secret was drawn outside and is not in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintToken {
    /// Its name.
    pub token: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// When it ends by itself.
    pub expires: Option<Millis>,
    /// Finds it.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: Digest,
    /// How it came to be.
    pub made: Made,
}

impl Service {
    /// Runs a command on the word of a token's holder, or of the service itself. The token is looked at once more:
    /// a request may have waited while somebody took it back.
    pub(super) fn command_by(&mut self, by: Option<TokenName>, command: Command) -> Outcome {
        if let Some(name) = &by
            && self.fleet.access.role_of(name, self.now).is_none()
        {
            let what = format!("token {name} is not in force any more");
            return Err(refuse(RefusalKind::Denied, what, "have an admin make another one"));
        }
        self.acting = by;
        let outcome = self.command(command);
        self.acting = None;
        outcome
    }

    /// Returns who wants the present command, for a reason in the ledger.
    pub(super) fn actor(&self) -> String {
        self.acting.as_ref().map_or_else(|| "the operator".to_owned(), ToString::to_string)
    }

    pub(super) fn create_token(&mut self, new: MintToken) -> Outcome {
        let MintToken { token, role, expires, id, hash, made } = new;
        let access = &self.fleet.access;
        if made == Made::Loopback && (access.has_begun() || role != Role::Admin) {
            let what = "without a token only the very first one is made, and that is an admin's";
            return Err(refuse(RefusalKind::Denied, what, "have an admin make it"));
        }
        if access.tokens().contains_key(&token) {
            let what = format!("a token {token} was made before");
            let hint = "choose another name: in the ledger a name stands for one holder";
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        if access.tokens().values().any(|other| other.id == id) {
            // Once in 2⁴⁸ draws.
            return Err(refuse(RefusalKind::Conflict, "that token's id is taken", "try again"));
        }
        if access.live(None, self.now) >= LIVE_MAX {
            let what = format!("{LIVE_MAX} tokens are in force already");
            return Err(refuse(RefusalKind::Conflict, what, "revoke some: `tern token list`"));
        }
        if expires.is_some_and(|end| end <= self.now || end - self.now > LIFE_MAX) {
            let what = "a token ends after now and within ten years, or not by itself";
            return Err(refuse(RefusalKind::Invalid, what, "choose another --expires"));
        }
        self.note(format!("token {token} made: {role}"));
        self.record(Fact::TokenCreated { token: token.clone(), role, id, hash, expires, made });
        Ok(Reply::Done { what: format!("token {token} is made: {role}") })
    }

    pub(super) fn revoke_token(&mut self, token: TokenName) -> Outcome {
        let Some(known) = self.fleet.access.tokens().get(&token) else {
            return Err(refuse(RefusalKind::NotFound, format!("no token {token}"), "see `tern token list`"));
        };
        if known.revoked_at.is_some() {
            return Ok(Reply::Done { what: format!("token {token} is revoked already") });
        }
        self.note(format!("token {token} is revoked by {}", self.actor()));
        self.record(Fact::TokenRevoked { token: token.clone() });
        let mut what = format!("token {token} is revoked");
        if self.fleet.access.live(Some(Role::Admin), self.now) == 0 {
            what.push_str(
                "; NO ADMIN IS LEFT: a restart of the service writes a new admin token into its data folder",
            );
        }
        Ok(Reply::Done { what })
    }

    pub(super) fn note_use(&mut self, token: TokenName, peer: IpAddr) -> Outcome {
        if let Some(role) = self.fleet.access.role_of(&token, self.now)
            && self.fleet.access.owes_use(&token, peer, self.now)
        {
            self.record(Fact::TokenUsed { token, role, peer });
        }
        Ok(Reply::Done { what: String::new() })
    }
}
