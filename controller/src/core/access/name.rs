//! What a token is called: the name under which its holder stands in the ledger.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tern_protocol::limits::ID_MAX;

/// A checked name, safe in a log line, a path and a table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenName(Box<str>);

/// Says why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or too long.
    #[error("the name of a token has 1 to {ID_MAX} characters, found {0}")]
    Length(usize),
    /// It has a character that a name may not have.
    #[error("the name of a token {0:?} may hold only letters, digits, '_' and '-'")]
    Character(String),
    /// It looks like a token itself. A token that was typed as a name would stand in the ledger for ever.
    #[error("a name may not begin with {0:?}: that is how tokens begin")]
    Secret(&'static str),
}

impl TokenName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.starts_with(super::secret::PREFIX) {
            return Err(NameError::Secret(super::secret::PREFIX));
        }
        if text.is_empty() || text.len() > ID_MAX {
            return Err(NameError::Length(text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(NameError::Character(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for TokenName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<TokenName> for String {
    fn from(name: TokenName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
