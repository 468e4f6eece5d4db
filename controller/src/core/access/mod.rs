//! Who may use the API: tokens, their roles and how they end, folded from the ledger's facts.
//!
//! | module | what it holds |
//! |---|---|
//! | [`role`] | what a token may do |
//! | [`name`] | what a token is called |
//! | [`secret`] | a token as text, and the hash that is kept of it |
//! | [`register`] | all tokens as the ledger tells them |

pub mod name;
pub mod register;
pub mod role;
pub mod secret;

#[cfg(test)]
mod tests;

pub use name::TokenName;
pub use register::{Access, Denied, Holder, Token};
pub use role::Role;
pub use secret::{Secret, SecretError};

use serde::{Deserialize, Serialize};

/// How a token came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// An admin made it.
    Token,
    /// The service made it at its start and wrote it into its data folder.
    File,
    /// The very first one, asked for from loopback without a token.
    Loopback,
}
