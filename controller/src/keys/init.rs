//! `tern keys init`: makes the keys of a product and signs its first files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use serde::Serialize;
use serde_json::Value;
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, RootKeys};
use tern_protocol::tuf::content::{TargetsContent, point_hex};
use tern_protocol::tuf::key::{P256Signer, PublicKey};
use tern_protocol::tuf::{Role, Signer, sign};

use super::{FILES, KeysError, ONLINE, Protection, file, online_key, secret};
use crate::ceremony::name_keys;
use crate::files::{Readers, private_folder, replace};

const DAY: u64 = 24 * 3600;
/// Root and targets are signed again by people who have to meet.
const LIFE: u64 = 365;
/// Whoever approves releases comes by more often.
const RELEASE_LIFE: u64 = 180;

/// How many keys a role has, and how many of them must sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Keys; each holder has at most one.
    pub keys: usize,
    /// How many must sign.
    pub threshold: usize,
}

impl Quota {
    /// One key that signs alone.
    pub const ONE: Self = Self { keys: 1, threshold: 1 };
}

/// Somebody who keeps keys.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Stands in the signed files, so that people see whose key it is.
    pub name: String,
    /// Where the holder's keys go.
    pub folder: PathBuf,
    /// How they are kept.
    pub protection: Protection,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The fleet.
    pub fleet: FleetId,
    /// The product.
    pub product: ProductId,
    /// The service's data folder.
    pub data: PathBuf,
    /// Who keeps the offline keys.
    pub holders: Vec<Holder>,
    /// Keys of root, and as many of targets: the first holders have them.
    pub root: Quota,
    /// Keys of release.
    pub release: Quota,
    /// Days until the files must be signed again; 365, and 180 for release, when absent.
    pub days: Option<u32>,
    /// Unix seconds.
    pub now: u64,
}

impl InitOptions {
    /// One holder, whose keys are not encrypted: for demonstrations and tests.
    pub fn unencrypted(
        fleet: FleetId,
        product: ProductId,
        data: PathBuf,
        offline: PathBuf,
        now: u64,
    ) -> Self {
        let protection = Protection::Unencrypted;
        let holders = vec![Holder { name: "holder-1".to_owned(), folder: offline, protection }];
        Self { fleet, product, data, holders, root: Quota::ONE, release: Quota::ONE, days: None, now }
    }

    fn check(&self) -> Result<(), KeysError> {
        let wrong = |why: String| Err(KeysError::Quota(why));
        for (role, quota) in [(Role::Root, self.root), (Role::Release, self.release)] {
            if quota.keys == 0 || quota.keys > self.holders.len() {
                return wrong(format!("{} keys of {role} and {} holders", quota.keys, self.holders.len()));
            }
            if quota.threshold == 0 || quota.threshold > quota.keys {
                return wrong(format!("{} of {} keys of {role}", quota.threshold, quota.keys));
            }
        }
        let names: BTreeSet<_> = self.holders.iter().map(|holder| &holder.name).collect();
        let folders: BTreeSet<_> = self.holders.iter().map(|holder| &holder.folder).collect();
        if names.len() != self.holders.len() || folders.len() != self.holders.len() {
            return wrong("two holders have one name or one folder".to_owned());
        }
        Ok(())
    }

    fn quota(&self, role: Role) -> Quota {
        if role == Role::Release { self.release } else { self.root }
    }

    /// Returns the offline keys: role, holder and file.
    fn offline_keys(&self) -> Vec<(Role, &Holder, PathBuf)> {
        let of = |role: Role| {
            let holders = self.holders.iter().take(self.quota(role).keys);
            holders.map(move |holder| (role, holder, holder.folder.join(format!("{role}.pem"))))
        };
        [Role::Root, Role::Targets, Role::Release].into_iter().flat_map(of).collect()
    }
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
    options.check()?;
    let InitOptions { fleet, product, data, .. } = options;
    let offline = options.offline_keys();
    let copies: Vec<PathBuf> = options
        .holders
        .iter()
        .flat_map(|holder| FILES.map(|role| holder.folder.join(format!("{role}.json"))))
        .collect();
    let online_keys = ONLINE.map(|name| online_key(data, product, name));
    let files = FILES.map(|role| file(data, product, role));
    let offline_paths = offline.iter().map(|(_, _, path)| path);
    for path in offline_paths.chain(&copies).chain(&online_keys).chain(&files) {
        absent(path)?;
    }
    private_folder(data).map_err(KeysError::io("make the folder", data))?;
    keep_fleet(data, fleet)?;
    let keys_folder = data.join("keys").join(product.as_str());
    for folder in options.holders.iter().map(|holder| &holder.folder).chain([&keys_folder]) {
        private_folder(folder).map_err(KeysError::io("make the folder", folder))?;
    }
    let products = data.join("products").join(product.as_str());
    fs::create_dir_all(&products).map_err(KeysError::io("make the folder", &products))?;

    super::ledger::ledger_key(data)?;
    let mut made = Made::default();
    for (role, holder, path) in &offline {
        let key = secret::draw()?;
        secret::write(path, &key, &holder.protection)?;
        made.offline.entry(*role).or_default().push((holder.name.clone(), key));
    }
    for (name, path) in ONLINE.into_iter().zip(&online_keys) {
        let key = secret::draw()?;
        // The service starts by itself, so nobody could be asked.
        secret::write(path, &key, &Protection::Unencrypted)?;
        made.online.insert(name, key);
    }
    let (signed, expires) = made.sign_files(options)?;
    // In the data folder root comes last: a product without it was not set up to its end.
    for (path, bytes) in copies.iter().chain(&files).zip(signed.iter().cycle()) {
        replace(path, bytes, Readers::All).map_err(KeysError::io("write", path))?;
    }
    Ok(InitReport {
        fleet: fleet.clone(),
        product: product.clone(),
        offline_keys: offline.into_iter().map(|(_, _, path)| path).collect(),
        online_keys: online_keys.to_vec(),
        root: file(data, product, Role::Root),
        files: files.to_vec(),
        expires,
    })
}

/// Makes one key, and its public half beside it with `.pub` at its end; overwrites nothing.
pub fn make_key(path: &Path, protection: &Protection) -> Result<(PathBuf, PublicKey), KeysError> {
    let public_path = path.with_extension("pub");
    absent(path)?;
    absent(&public_path)?;
    let key = secret::draw()?;
    secret::write(path, &key, protection)?;
    let public = Signer::public(&P256Signer::new(SigningKey::from(&key)));
    replace(&public_path, public.pem().as_bytes(), Readers::All)
        .map_err(KeysError::io("write", &public_path))?;
    Ok((public_path, public))
}

fn absent(path: &Path) -> Result<(), KeysError> {
    if path.symlink_metadata().is_ok() { Err(KeysError::Exists(path.to_owned())) } else { Ok(()) }
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
pub fn make_factory(private: &Path, protection: &Protection) -> Result<FactoryReport, KeysError> {
    let public = private.with_extension("pub.pem");
    for path in [private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(KeysError::Exists(path.to_owned()));
        }
    }
    let key = secret::draw()?;
    secret::write(private, &key, protection)?;
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

/// Keys that were drawn, with their holders.
#[derive(Default)]
struct Made {
    offline: BTreeMap<Role, Vec<(String, SecretKey)>>,
    online: BTreeMap<&'static str, SecretKey>,
}

impl Made {
    /// Signs the files in the order of [`FILES`]; returns when the first of them expires as well.
    fn sign_files(&self, options: &InitOptions) -> Result<(Vec<Vec<u8>>, u64), KeysError> {
        let online = |name: &str| Keys::one(public(&self.online[name]));
        let offline = |role: Role| Keys {
            keys: self.offline[&role].iter().map(|(_, key)| public(key)).collect(),
            threshold: u32::try_from(options.quota(role).threshold).unwrap_or(u32::MAX),
        };
        let after = |days: u64| options.now + options.days.map_or(days, u64::from) * DAY;
        let content = TargetsContent {
            telemetry: BTreeMap::from([(1, point_hex(&self.online["telemetry"].public_key()))]),
            time: Some(point_hex(&self.online["time"].public_key())),
        };
        let root = RootKeys {
            root: offline(Role::Root),
            timestamp: online("timestamp"),
            snapshot: online("snapshot"),
            targets: offline(Role::Targets),
        };
        let delegated = DelegatedKeys {
            release: offline(Role::Release),
            rollout: online("rollout"),
            halt: online("halt"),
        };
        let value = |role: Role| -> Value {
            match role {
                Role::Root => build::root(1, after(LIFE), &root),
                Role::Targets => build::targets(1, after(LIFE), &options.product, &delegated, &content),
                _ => build::release(1, after(RELEASE_LIFE), &[]),
            }
        };
        let mut signed = Vec::new();
        for role in FILES {
            let mut value = value(role);
            match role {
                Role::Root => name_keys(&mut value, self.names(&[Role::Root, Role::Targets])),
                Role::Targets => name_keys(&mut value, self.names(&[Role::Release])),
                _ => {}
            }
            let signers: Vec<P256Signer> = self.offline[&role]
                .iter()
                .take(options.quota(role).threshold)
                .map(|(_, key)| P256Signer::new(SigningKey::from(key)))
                .collect();
            let signers: Vec<&dyn Signer> = signers.iter().map(|signer| signer as &dyn Signer).collect();
            let bytes = sign::sign(value, &signers).map_err(|source| KeysError::Sign { role, source })?;
            signed.push(bytes);
        }
        Ok((signed, after(LIFE).min(after(RELEASE_LIFE))))
    }

    fn names(&self, roles: &[Role]) -> BTreeMap<String, String> {
        let keys = roles.iter().filter_map(|role| self.offline.get(role)).flatten();
        keys.map(|(name, key)| (public(key).id().to_string(), name.clone())).collect()
    }
}

fn public(key: &SecretKey) -> PublicKey {
    Signer::public(&P256Signer::new(SigningKey::from(key)))
}
