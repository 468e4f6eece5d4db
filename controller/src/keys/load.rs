//! Reading keys and offline files.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use p256::pkcs8::DecodePrivateKey;
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::content::{Targets, TargetsContent};
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::metadata::Metadata;

use super::{FILES, KeysError, file, online_key};
use crate::core::fact::SignedFile;
use crate::core::service::OnlineKeys;

/// A key file longer than this is none.
const KEY_MAX: u64 = 16 * 1024;

/// Reads which fleet the data folder belongs to; none before the first `keys init`.
pub fn fleet(data: &Path) -> Result<Option<FleetId>, KeysError> {
    let path = data.join("fleet");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let name = text.trim().parse().map_err(|source| KeysError::Name { path, source })?;
            Ok(Some(name))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeysError::io("read", &path)(error)),
    }
}

/// Lists the products that were set up to their end.
pub fn products(data: &Path) -> Result<Vec<ProductId>, KeysError> {
    let folder = data.join("products");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KeysError::io("read the folder", &folder)(error)),
    };
    let mut products = Vec::new();
    for entry in entries {
        let entry = entry.map_err(KeysError::io("read the folder", &folder))?;
        let path = entry.path();
        if !path.join("root.json").is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        products.push(name.parse().map_err(|source| KeysError::Name { path, source })?);
    }
    products.sort();
    Ok(products)
}

/// Reads the keys that the service holds for a product.
pub fn load_online(data: &Path, product: &ProductId) -> Result<OnlineKeys, KeysError> {
    let signer = |name: &str| load_signer(&online_key(data, product, name)).map(Box::new);
    let telemetry = secret(&online_key(data, product, "telemetry"))?;
    let path = file(data, product, Role::Targets);
    let text = fs::read(&path).map_err(KeysError::io("read", &path))?;
    let targets = targets(&text).ok_or_else(|| KeysError::File(path.clone()))?;
    let named = targets.content.telemetry_keys().map_err(|_| KeysError::File(path))?;
    let ours = telemetry.public_key();
    let kid = named.into_iter().rev().find(|(_, key)| *key == ours).map(|(kid, _)| kid);
    Ok(OnlineKeys {
        rollout: signer("rollout")?,
        halt: signer("halt")?,
        snapshot: signer("snapshot")?,
        timestamp: signer("timestamp")?,
        telemetry,
        kid: kid.ok_or_else(|| KeysError::Telemetry(product.clone()))?,
    })
}

/// Reads the offline files of a product: root, targets and the release file that it was set up with.
pub fn offline_files(data: &Path, product: &ProductId) -> Result<Vec<SignedFile>, KeysError> {
    let read = |role: Role| {
        let path = file(data, product, role);
        let bytes = fs::read(&path).map_err(KeysError::io("read", &path))?;
        if bytes.len() > role.ceiling() {
            return Err(KeysError::File(path));
        }
        SignedFile::new(role, &bytes).ok_or(KeysError::File(path))
    };
    let mut roles = FILES;
    roles.sort();
    roles.into_iter().map(read).collect()
}

/// Reads a signing key; refuses one that others may read.
pub fn load_signer(path: &Path) -> Result<P256Signer, KeysError> {
    Ok(P256Signer::new(SigningKey::from(&secret(path)?)))
}

fn secret(path: &Path) -> Result<SecretKey, KeysError> {
    let about = fs::metadata(path).map_err(KeysError::io("read the key", path))?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Open { path: path.to_owned(), mode });
    }
    if about.len() > KEY_MAX {
        return Err(KeysError::NotAKey(path.to_owned()));
    }
    let pem = fs::read_to_string(path).map_err(KeysError::io("read the key", path))?;
    SecretKey::from_pkcs8_pem(&pem).map_err(|_| KeysError::NotAKey(path.to_owned()))
}

fn targets(bytes: &[u8]) -> Option<Targets<TargetsContent>> {
    let file = tern_protocol::tuf::canonical::read(bytes).ok()?;
    Targets::read(Role::Targets, file.get("signed")?).ok()
}
