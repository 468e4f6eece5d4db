//! Shapes of who may use the API.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::OneTimeToken;
use crate::core::access::{Role, TokenName};

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Its name, under which its holder stands in the ledger.
    pub token: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// When it ends by itself, Unix ms; never when absent.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// Answer to `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// Its name.
    pub token: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// When it ends by itself, Unix ms.
    pub expires: Option<u64>,
    /// The token itself: shown once, kept nowhere.
    pub secret: OneTimeToken,
}

/// One line of `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLine {
    /// Its name.
    pub token: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// `live`, `expired` or `revoked`.
    pub status: String,
    /// Made, Unix ms.
    pub made_at: u64,
    /// When it ends by itself, Unix ms.
    pub expires: Option<u64>,
    /// When it was taken back, Unix ms.
    pub revoked_at: Option<u64>,
    /// When a use of it was last written down, Unix ms: the first in each hour is.
    pub used_at: Option<u64>,
    /// From where.
    pub used_from: Option<IpAddr>,
}
