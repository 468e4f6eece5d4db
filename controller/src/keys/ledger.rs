//! The key that signs the ledger's checkpoints.
//!
//! It signs nothing that a device reads, so it belongs to no product and stands in no signed file. The service makes it
//! when there is none: a folder from before there was one gets it at its next start.

use std::fs;
use std::path::{Path, PathBuf};

use p256::ecdsa::SigningKey;

use super::{KeysError, Protection, secret};
use crate::files::private_folder;

/// The ledger's key, and whether it was made just now.
pub struct LedgerKey {
    /// The key.
    pub key: SigningKey,
    /// It was not there before.
    pub made: bool,
    /// Where it lies.
    pub path: PathBuf,
}

/// Reads the ledger's key, or makes it.
pub fn ledger_key(data: &Path) -> Result<LedgerKey, KeysError> {
    let folder = data.join("keys");
    // Product folders lie beside it; a product's name has no dot.
    let path = folder.join("ledger.pem");
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(LedgerKey { key: super::load::read_plain(&path)?, made: false, path });
    }
    private_folder(&folder).map_err(KeysError::io("make the folder", &folder))?;
    let key = secret::draw()?;
    // The service starts by itself, so nobody could be asked for a passphrase.
    secret::write(&path, &key, &Protection::Unencrypted)?;
    Ok(LedgerKey { key: SigningKey::from(&key), made: true, path })
}
