//! Reading keys and offline files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use p256::ecdsa::SigningKey;
use p256::{PublicKey as PublicPoint, SecretKey};
use serde::{Deserialize, Serialize};
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::tuf::content::{Targets, TargetsContent};
use tern_protocol::tuf::key::{P256Signer, PublicKey};
use tern_protocol::tuf::metadata::{Metadata, RootMeta};
use tern_protocol::tuf::verify::Authority;
use tern_protocol::tuf::{Role, Signer, TufError};

use super::{FILES, KeysError, Passphrase, Protection, file, online_key, secret};
use crate::core::fact::SignedFile;
use crate::core::service::OnlineKeys;
use crate::files::{Readers, replace};

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

/// A key file of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineKey {
    /// Where it lies.
    pub path: PathBuf,
    /// Id that metadata gives its public half.
    pub key: String,
}

/// Lists the key files that the service holds for a product.
pub fn online_keys(data: &Path, product: &ProductId) -> Result<Vec<OnlineKey>, KeysError> {
    let ring = KeyRing::read(data, product)?;
    let line = |(path, key): &(PathBuf, SecretKey)| OnlineKey {
        path: path.clone(),
        key: signer(key).public().id().to_string(),
    };
    Ok(ring.keys.iter().map(line).collect())
}

/// Reads the keys that the service holds for a product, as the files of its folder name them.
pub fn load_online(data: &Path, product: &ProductId) -> Result<OnlineKeys, KeysError> {
    let text = |role: Role| {
        let path = file(data, product, role);
        fs::read_to_string(&path).map_err(KeysError::io("read", &path))
    };
    load_online_for(data, product, &text(Role::Root)?, &text(Role::Targets)?, Unnamed::Tolerated)
}

/// What becomes of a role whose key nobody named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// Nothing is loaded: for files that are not in force yet.
    Refused,
    /// The file with the role's name is taken. The service finds at its start that devices do not believe it, says
    /// so, and still serves what was signed before.
    Tolerated,
}

/// Reads the keys that the service holds for a product: those that this root and these targets name. Which file
/// holds which key does not matter, so a rotation renames nothing, and a power cut within one mixes nothing up.
pub fn load_online_for(
    data: &Path,
    product: &ProductId,
    root: &str,
    targets: &str,
    unnamed: Unnamed,
) -> Result<OnlineKeys, KeysError> {
    let bad = |role| KeysError::File(file(data, product, role));
    let root: RootMeta = signed_part(Role::Root, root).ok_or_else(|| bad(Role::Root))?;
    let targets: Targets<TargetsContent> =
        signed_part(Role::Targets, targets).ok_or_else(|| bad(Role::Targets))?;
    let ring = KeyRing::read(data, product)?;
    let top = |role| ring.named(role, Authority::top(&root, role), unnamed);
    let delegated = |role| ring.named(role, Authority::delegated(&targets.meta, role), unnamed);
    let held =
        |public: &PublicPoint| ring.keys.iter().map(|(_, key)| key).find(|k| k.public_key() == *public);
    let named = targets.content.telemetry_keys().map_err(|_| bad(Role::Targets))?;
    let newest = named.last_key_value().map(|(kid, _)| *kid);
    let telemetry: BTreeMap<u32, SecretKey> =
        named.into_iter().filter_map(|(kid, public)| Some((kid, held(&public)?.clone()))).collect();
    // Devices use the newest: without it nobody would ever be heard.
    if newest.is_none_or(|kid| !telemetry.contains_key(&kid)) {
        return Err(KeysError::Telemetry(product.clone()));
    }
    let time = targets.content.time_key().map_err(|_| bad(Role::Targets))?;
    Ok(OnlineKeys {
        rollout: Arc::<P256Signer>::from(delegated(Role::Rollout)?),
        halt: delegated(Role::Halt)?,
        snapshot: top(Role::Snapshot)?,
        timestamp: top(Role::Timestamp)?,
        telemetry,
        time: time.and_then(|public| held(&public)).map(SigningKey::from),
    })
}

/// All key files of a product.
struct KeyRing {
    folder: PathBuf,
    keys: Vec<(PathBuf, SecretKey)>,
}

impl KeyRing {
    fn read(data: &Path, product: &ProductId) -> Result<Self, KeysError> {
        let folder = data.join("keys").join(product.as_str());
        let entries = fs::read_dir(&folder).map_err(KeysError::io("read the folder", &folder))?;
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(KeysError::io("read the folder", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                let key = secret::read(&path, &nobody)?;
                keys.push((path, key));
            }
        }
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self { folder, keys })
    }

    fn named(
        &self,
        role: Role,
        authority: Result<Authority<'_>, TufError>,
        unnamed: Unnamed,
    ) -> Result<Box<P256Signer>, KeysError> {
        let named: Vec<String> = authority
            .map(|authority| authority.keys().map(|(_, key)| key.pem().to_owned()).collect())
            .unwrap_or_default();
        let mut signers = self.keys.iter().map(|(_, key)| signer(key));
        let found = signers.find(|signer| named.contains(&signer.public().pem().to_owned()));
        let usual = || {
            let path = self.folder.join(format!("{role}.pem"));
            let (_, key) = self.keys.iter().find(|(other, _)| *other == path)?;
            (unnamed == Unnamed::Tolerated).then(|| signer(key))
        };
        found
            .or_else(usual)
            .map(Box::new)
            .ok_or_else(|| KeysError::NotNamed { folder: self.folder.clone(), role })
    }
}

fn signer(key: &SecretKey) -> P256Signer {
    P256Signer::new(SigningKey::from(key))
}

/// Where nobody can be asked for a passphrase.
fn nobody(path: &Path) -> Result<Passphrase, KeysError> {
    Err(KeysError::Sealed(path.to_owned()))
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

/// Puts offline files that are in force into a product's folder.
pub fn keep_offline(data: &Path, product: &ProductId, files: &[SignedFile]) -> Result<(), KeysError> {
    for kept in files {
        let path = file(data, product, kept.role);
        replace(&path, kept.text.as_bytes(), Readers::All).map_err(KeysError::io("write", &path))?;
    }
    Ok(())
}

/// Draws a new key of the service that targets names beside the roles, `telemetry` or `time`.
pub fn make_service_key(
    data: &Path,
    product: &ProductId,
    name: &str,
) -> Result<(PathBuf, PublicPoint), KeysError> {
    let key = secret::draw()?;
    let short: String = signer(&key).public().id().as_str().chars().take(8).collect();
    let path = online_key(data, product, &format!("{name}-{short}"));
    secret::write(&path, &key, &Protection::Unencrypted)?;
    Ok((path, key.public_key()))
}

/// Draws a new key for a role of the service and puts it beside the present one, which stays in force until
/// signed files name the new one.
pub fn make_online(data: &Path, product: &ProductId, role: Role) -> Result<(PathBuf, PublicKey), KeysError> {
    let key = secret::draw()?;
    let public = signer(&key).public();
    let short: String = public.id().as_str().chars().take(8).collect();
    let path = online_key(data, product, &format!("{role}-{short}"));
    secret::write(&path, &key, &Protection::Unencrypted)?;
    Ok((path, public))
}

/// Reads a key for the service itself, which nobody could be asked a passphrase for.
pub(super) fn read_plain(path: &Path) -> Result<SigningKey, KeysError> {
    secret::read(path, &nobody).map(SigningKey::from)
}

/// Reads a signing key that is not encrypted; refuses one that others may read.
pub fn load_signer(path: &Path) -> Result<P256Signer, KeysError> {
    Ok(signer(&secret::read(path, &nobody)?))
}

/// Reads a signing key; `ask` is asked for its passphrase if it is encrypted.
pub fn load_signer_asking(
    path: &Path,
    ask: &dyn Fn(&Path) -> Result<Passphrase, KeysError>,
) -> Result<P256Signer, KeysError> {
    Ok(signer(&secret::read(path, ask)?))
}

fn signed_part<T: Metadata>(role: Role, text: &str) -> Option<T> {
    let file = tern_protocol::tuf::canonical::read(text.as_bytes()).ok()?;
    T::read(role, file.get("signed")?).ok()
}
