//! `tern keys init`: makes the keys of a product and signs its first files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use serde::Serialize;
use serde_json::Value;
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, RootKeys};
use tern_protocol::tuf::content::{TargetsContent, point_hex};
use tern_protocol::tuf::key::{P256Signer, PublicKey};
use tern_protocol::tuf::{Role, Signer, sign};

use super::{FILES, KeysError, OFFLINE, ONLINE, file, online_key};
use crate::files::{Readers, private_folder, replace};

const DAY: u64 = 24 * 3600;
/// Root and targets are signed again by people who have to meet.
const LIFE: u64 = 365;
/// Whoever approves releases comes by more often.
const RELEASE_LIFE: u64 = 180;

/// What to make.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The fleet.
    pub fleet: FleetId,
    /// The product.
    pub product: ProductId,
    /// The service's data folder.
    pub data: PathBuf,
    /// Where the keys go that are taken offline.
    pub offline: PathBuf,
    /// Days until the files must be signed again; 365, and 180 for release, when absent.
    pub days: Option<u32>,
    /// Unix seconds.
    pub now: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// The fleet.
    pub fleet: FleetId,
    /// The product.
    pub product: ProductId,
    /// Keys to be taken offline.
    pub offline_keys: Vec<PathBuf>,
    /// Keys that the service holds.
    pub online_keys: Vec<PathBuf>,
    /// Signed files.
    pub files: Vec<PathBuf>,
    /// The root that devices are provisioned with.
    pub root: PathBuf,
    /// When the first of the files expires, unix seconds.
    pub expires: u64,
}

/// Makes the keys of a product, signs its first files, and refuses to overwrite anything.
pub fn init(options: &InitOptions) -> Result<InitReport, KeysError> {
    let InitOptions { fleet, product, data, offline, .. } = options;
    let offline_keys = OFFLINE.map(|name| offline.join(format!("{name}.pem")));
    let offline_files = FILES.map(|role| offline.join(format!("{role}.json")));
    let online_keys = ONLINE.map(|name| online_key(data, product, name));
    let files = FILES.map(|role| file(data, product, role));
    for path in offline_keys.iter().chain(&offline_files).chain(&online_keys).chain(&files) {
        if path.symlink_metadata().is_ok() {
            return Err(KeysError::Exists(path.clone()));
        }
    }
    fs::create_dir_all(data).map_err(KeysError::io("make the folder", data))?;
    keep_fleet(data, fleet)?;
    for folder in [offline.as_path(), &data.join("keys").join(product.as_str())] {
        private_folder(folder).map_err(KeysError::io("make the folder", folder))?;
    }
    let products = data.join("products").join(product.as_str());
    fs::create_dir_all(&products).map_err(KeysError::io("make the folder", &products))?;

    let mut keys = BTreeMap::new();
    for (name, path) in OFFLINE.iter().zip(&offline_keys).chain(ONLINE.iter().zip(&online_keys)) {
        keys.insert(*name, make_key(path)?);
    }
    let (signed, expires) = sign_files(options, &keys)?;
    // In the data folder root comes last: a product without it was not set up to its end.
    for folder_files in [&offline_files, &files] {
        for (path, bytes) in folder_files.iter().zip(&signed) {
            replace(path, bytes, Readers::All).map_err(KeysError::io("write", path))?;
        }
    }
    Ok(InitReport {
        fleet: fleet.clone(),
        product: product.clone(),
        offline_keys: offline_keys.to_vec(),
        online_keys: online_keys.to_vec(),
        root: file(data, product, Role::Root),
        files: files.to_vec(),
        expires,
    })
}

/// The key of a factory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactoryReport {
    /// Its private half.
    pub private: PathBuf,
    /// Its public half.
    pub public: PathBuf,
}

/// Makes the key of a factory, and refuses to overwrite anything.
pub fn make_factory(private: &Path) -> Result<FactoryReport, KeysError> {
    let public = private.with_extension("pub.pem");
    for path in [private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(KeysError::Exists(path.to_owned()));
        }
    }
    let key = make_key(private)?;
    let pem = Signer::public(&P256Signer::new(SigningKey::from(&key))).pem().to_owned();
    replace(&public, pem.as_bytes(), Readers::All).map_err(KeysError::io("write", &public))?;
    Ok(FactoryReport { private: private.to_owned(), public })
}

/// Writes the fleet's name, or checks that it is the one.
fn keep_fleet(data: &Path, wanted: &FleetId) -> Result<(), KeysError> {
    match super::load::fleet(data)? {
        Some(found) if found == *wanted => Ok(()),
        Some(found) => Err(KeysError::OtherFleet { data: data.to_owned(), found, wanted: wanted.clone() }),
        None => {
            let path = data.join("fleet");
            let text = format!("{wanted}\n");
            replace(&path, text.as_bytes(), Readers::All).map_err(KeysError::io("write", &path))
        }
    }
}

fn make_key(path: &Path) -> Result<SecretKey, KeysError> {
    let key = loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| KeysError::Random(e.to_string()))?;
        // Of 2³² draws about one is no key.
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            break key;
        }
    };
    let pem = key.to_pkcs8_pem(LineEnding::LF).expect("a P-256 key always has a PEM form");
    replace(path, pem.as_bytes(), Readers::Owner).map_err(KeysError::io("write the key", path))?;
    Ok(key)
}

/// Signs the files in the order of [`FILES`]; returns when the first of them expires as well.
fn sign_files(
    options: &InitOptions,
    keys: &BTreeMap<&str, SecretKey>,
) -> Result<(Vec<Vec<u8>>, u64), KeysError> {
    let signer = |name: &str| P256Signer::new(SigningKey::from(&keys[name]));
    let public = |name: &str| -> Keys { Keys::one(Signer::public(&signer(name)) as PublicKey) };
    let after = |days: u64| options.now + options.days.map_or(days, u64::from) * DAY;
    let content = TargetsContent {
        telemetry: BTreeMap::from([(1, point_hex(&keys["telemetry"].public_key()))]),
        time: None,
    };
    let root = RootKeys {
        root: public("root"),
        timestamp: public("timestamp"),
        snapshot: public("snapshot"),
        targets: public("targets"),
    };
    let delegated =
        DelegatedKeys { release: public("release"), rollout: public("rollout"), halt: public("halt") };
    let value = |role: Role| -> Value {
        match role {
            Role::Root => build::root(1, after(LIFE), &root),
            Role::Targets => build::targets(1, after(LIFE), &options.product, &delegated, &content),
            _ => build::release(1, after(RELEASE_LIFE), &[]),
        }
    };
    let mut signed = Vec::new();
    for role in FILES {
        let bytes = sign::sign(value(role), &[&signer(role.name()) as &dyn Signer])
            .map_err(|source| KeysError::Sign { role, source })?;
        signed.push(bytes);
    }
    Ok((signed, after(LIFE).min(after(RELEASE_LIFE))))
}
