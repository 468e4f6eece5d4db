//! What signs for a person: a key file, or a program.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use p256::ecdsa::SigningKey;
use tern_protocol::tuf::Signer;
use tern_protocol::tuf::key::P256Signer;

use super::{ExecSigner, KeysError, Passphrase, secret};

/// What `--key` names: a file, or `exec:PROGRAM ARG…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyName {
    /// A key file.
    File(PathBuf),
    /// A program that signs.
    Exec(ExecSigner),
}

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("exec:") {
            Some(words) => {
                ExecSigner::parse(words).map(Self::Exec).ok_or_else(|| "exec: names no program".to_owned())
            }
            None => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl KeyName {
    /// Returns a file of this name beside the key file, if there is one.
    pub fn beside(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.with_file_name(name)).filter(|path| path.is_file()),
            Self::Exec(_) => None,
        }
    }

    /// Makes it ready to sign; `ask` is asked only for a key file that is encrypted.
    pub fn open(&self, ask: &dyn Fn(&Path) -> Result<Passphrase, KeysError>) -> Result<Hand, KeysError> {
        match self {
            Self::File(path) => {
                let key = secret::read(path, ask)?;
                Ok(Hand::Key(P256Signer::new(SigningKey::from(&key))))
            }
            Self::Exec(program) => Ok(Hand::Exec(program.clone())),
        }
    }
}

/// Signs bytes. Under which of a role's keys the signature verifies, whoever asked finds out.
#[derive(Debug)]
pub enum Hand {
    /// A key that was read.
    Key(P256Signer),
    /// A program.
    Exec(ExecSigner),
}

impl Hand {
    /// Signs `message`; returns DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeysError> {
        match self {
            Self::Key(key) => key.sign(message).map_err(KeysError::Hand),
            Self::Exec(program) => program.sign(message).map_err(KeysError::Exec),
        }
    }
}
