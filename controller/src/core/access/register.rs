//! All tokens as the ledger tells them, and what a token that somebody shows is worth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tern_protocol::digest::Digest;

use super::{Role, Secret, TokenName};
use crate::core::fact::{Fact, Millis};

/// Tokens in force at once.
pub const LIVE_MAX: usize = 256;
/// Tokens that are remembered; above it those go that ended longest ago. The ledger keeps them all.
pub const KEPT_MAX: usize = 1000;
/// The longest life of a token that has an end, milliseconds.
pub const LIFE_MAX: Millis = 3660 * 24 * 3_600_000;
/// Addresses of one token that are written down in one hour.
pub const PEERS_MAX: usize = 4;
const HOUR: Millis = 3_600_000;

/// Who may use the API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    tokens: BTreeMap<TokenName, Token>,
    /// Some token was made, ever: nobody is let in without one any more.
    begun: bool,
}

/// A token as the ledger tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Finds it; no secret.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: Digest,
    /// What its holder may do.
    pub role: Role,
    /// When it was made.
    pub made_at: Millis,
    /// When it ends by itself.
    pub expires: Option<Millis>,
    /// When it was taken back.
    pub revoked_at: Option<Millis>,
    /// When a use of it was last written down.
    pub used_at: Option<Millis>,
    /// From where.
    pub used_from: Option<IpAddr>,
    /// The hour of that, and the addresses that were written down in it.
    hour: (u64, BTreeSet<IpAddr>),
}

/// Who holds a token that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The token's name.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
}

/// Why a whole token is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody made it, or its secret is another one. Which of the two is nobody's business.
    #[error("the token is not one of this service")]
    Unknown,
    /// It was taken back.
    #[error("token {0} is revoked")]
    Revoked(TokenName),
    /// Its time is over.
    #[error("token {0} has expired")]
    Expired(TokenName),
}

impl Token {
    /// Returns the word for where it stands.
    pub fn status(&self, now: Millis) -> &'static str {
        if self.revoked_at.is_some() {
            "revoked"
        } else if self.expires.is_some_and(|end| now >= end) {
            "expired"
        } else {
            "live"
        }
    }

    fn is_live(&self, now: Millis) -> bool {
        self.status(now) == "live"
    }

    /// When it ended; never for one that is live.
    fn ended_at(&self, now: Millis) -> Option<Millis> {
        let expired = self.expires.filter(|end| now >= *end);
        self.revoked_at.into_iter().chain(expired).min()
    }
}

impl Access {
    /// Tells whose token this is, if it is in force. How a token ended is told only to whoever has its secret.
    pub fn check(&self, shown: &Secret, now: Millis) -> Result<Holder, Denied> {
        let id = shown.id();
        let (name, token) = self.tokens.iter().find(|(_, token)| token.id == id).ok_or(Denied::Unknown)?;
        if !shown.is_of(&token.hash) {
            return Err(Denied::Unknown);
        }
        match token.status(now) {
            "revoked" => Err(Denied::Revoked(name.clone())),
            "expired" => Err(Denied::Expired(name.clone())),
            _ => Ok(Holder { name: name.clone(), role: token.role }),
        }
    }

    /// Returns what the holder of this token may do; none when it is not in force any more.
    pub fn role_of(&self, name: &TokenName, now: Millis) -> Option<Role> {
        self.tokens.get(name).filter(|token| token.is_live(now)).map(|token| token.role)
    }

    /// Tells whether a use has to be written down: the first of each hour, and of each of the first few addresses
    /// in it. So a token that is used all day costs the ledger some 24 frames, however often it is used.
    pub fn owes_use(&self, name: &TokenName, peer: IpAddr, now: Millis) -> bool {
        self.tokens.get(name).is_some_and(|token| {
            let (hour, peers) = &token.hour;
            *hour != now / HOUR || (!peers.contains(&peer) && peers.len() < PEERS_MAX)
        })
    }

    /// Tells whether a token was ever made.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Returns how many tokens are in force, of this role or any.
    pub fn live(&self, role: Option<Role>, now: Millis) -> usize {
        let of = |token: &&Token| token.is_live(now) && role.is_none_or(|role| token.role == role);
        self.tokens.values().filter(of).count()
    }

    /// Returns all that are remembered.
    pub fn tokens(&self) -> &BTreeMap<TokenName, Token> {
        &self.tokens
    }

    /// Takes in a fact about tokens; others change nothing.
    pub fn apply(&mut self, at: Millis, fact: &Fact) {
        match fact {
            Fact::TokenCreated { token, role, id, hash, expires, .. } => {
                self.begun = true;
                let fresh = Token {
                    id: id.clone(),
                    hash: *hash,
                    role: *role,
                    made_at: at,
                    expires: *expires,
                    revoked_at: None,
                    used_at: None,
                    used_from: None,
                    hour: (0, BTreeSet::new()),
                };
                self.tokens.insert(token.clone(), fresh);
                self.forget(at);
            }
            Fact::TokenRevoked { token } => {
                if let Some(token) = self.tokens.get_mut(token) {
                    token.revoked_at.get_or_insert(at);
                }
            }
            Fact::TokenUsed { token, peer, .. } => {
                if let Some(token) = self.tokens.get_mut(token) {
                    token.used_at = Some(at);
                    token.used_from = Some(*peer);
                    if token.hour.0 != at / HOUR {
                        token.hour = (at / HOUR, BTreeSet::new());
                    }
                    token.hour.1.insert(*peer);
                }
            }
            _ => {}
        }
    }

    fn forget(&mut self, now: Millis) {
        while self.tokens.len() > KEPT_MAX {
            let ended = self.tokens.iter().filter_map(|(name, token)| Some((token.ended_at(now)?, name)));
            let Some(oldest) = ended.min().map(|(_, name)| name.clone()) else { return };
            self.tokens.remove(&oldest);
        }
    }
}
