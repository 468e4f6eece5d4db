//! A small repository that a story changes and signs.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use p256::ecdsa::SigningKey;
use serde_json::Value;

use crate::bundle::File;
use crate::digest::Digest;
use crate::message::Versions;
use crate::tuf::build::{self, DelegatedKeys, Keys, Named, RootKeys};
use crate::tuf::client::{Pool, Refresh, Trusted};
use crate::tuf::content::{ArtifactContent, Entry, HaltContent, RolloutContent, TargetsContent, point_hex};
use crate::tuf::key::{P256Signer, Signer};
use crate::tuf::sign::sign;
use crate::tuf::{Role, TufError};

/// The time of every story that does not say another.
pub(crate) const NOW: u64 = 1_800_000_000;
/// When files expire.
pub(crate) const LATER: u64 = NOW + 86_400;

/// A key pair that every story names by one number.
pub(crate) fn key(seed: u8) -> P256Signer {
    static KEYS: [OnceLock<P256Signer>; 256] = [const { OnceLock::new() }; 256];
    let made = || P256Signer::new(SigningKey::from_slice(&[seed; 32]).unwrap());
    KEYS[usize::from(seed)].get_or_init(made).clone()
}

/// Files by what they say and who signed.
type Signed = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// Signs; what was signed before is only looked up, for signatures are deterministic and cost more than most stories.
pub(crate) fn signed(value: Value, seeds: &[u8]) -> Vec<u8> {
    static SIGNED: Mutex<Signed> = Mutex::new(Signed::new());
    let name = (value.to_string(), seeds.to_vec());
    if let Some(file) = SIGNED.lock().unwrap().get(&name) {
        return file.clone();
    }
    let keys: Vec<P256Signer> = seeds.iter().map(|seed| key(*seed)).collect();
    let signers: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
    let file = sign(value, &signers).unwrap();
    SIGNED.lock().unwrap().insert(name, file.clone());
    file
}

pub(crate) fn keys(seeds: &[u8], threshold: u32) -> Keys {
    Keys { keys: seeds.iter().map(|seed| key(*seed).public()).collect(), threshold }
}

/// A repository whose every version number, key and expiry a story may change before it is signed.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(crate) root: u32,
    pub(crate) versions: Versions,
    pub(crate) expires: u64,
    pub(crate) root_keys: Vec<u8>,
    pub(crate) timestamp_key: u8,
    pub(crate) snapshot_key: u8,
    pub(crate) targets_key: u8,
    pub(crate) release_key: u8,
    pub(crate) halt_key: u8,
    pub(crate) halted: Vec<u64>,
    pub(crate) issued: u64,
    pub(crate) hashes: bool,
    pub(crate) artifacts: Vec<(Named, ArtifactContent)>,
    pub(crate) repeated: Vec<Named>,
    pub(crate) entries: Vec<Entry>,
}

impl Default for Repository {
    fn default() -> Self {
        Self {
            root: 1,
            versions: Versions {
                root: 1,
                timestamp: 1,
                snapshot: 1,
                targets: 1,
                release: 1,
                rollout: 1,
                halt: 1,
            },
            expires: LATER,
            root_keys: vec![1, 2],
            timestamp_key: 11,
            snapshot_key: 12,
            targets_key: 13,
            release_key: 14,
            halt_key: 16,
            halted: vec![],
            issued: NOW,
            hashes: false,
            artifacts: vec![artifact()],
            repeated: vec![artifact().0],
            entries: vec![],
        }
    }
}

impl Repository {
    /// The repository after `n` more changes of everything but root and targets.
    pub(crate) fn advanced(&self, n: u32) -> Self {
        let mut next = self.clone();
        let v = &mut next.versions;
        for version in [&mut v.timestamp, &mut v.snapshot, &mut v.release, &mut v.rollout, &mut v.halt] {
            *version += n;
        }
        next.halted.extend((0..n).map(|i| u64::from(self.versions.halt + i)));
        next
    }

    pub(crate) fn root_value(&self) -> Value {
        let keys = RootKeys {
            root: keys(&self.root_keys, 2),
            timestamp: keys(&[self.timestamp_key], 1),
            snapshot: keys(&[self.snapshot_key], 1),
            targets: keys(&[self.targets_key], 1),
        };
        build::root(self.root, self.expires, &keys)
    }

    pub(crate) fn root_signed_by(&self, seeds: &[u8]) -> Vec<u8> {
        signed(self.root_value(), seeds)
    }

    pub(crate) fn value(&self, role: Role) -> Value {
        let v = &self.versions;
        let product = "cam".parse().unwrap();
        match role {
            Role::Root => self.root_value(),
            Role::Timestamp => {
                let snapshot = self.file(Role::Snapshot).bytes;
                let file = self.hashes.then_some(snapshot.as_slice());
                build::timestamp(v.timestamp, self.expires, v.snapshot, file, self.issued)
            }
            Role::Snapshot => build::snapshot(v.snapshot, self.expires, v),
            Role::Targets => {
                let keys = DelegatedKeys {
                    release: keys(&[self.release_key], 1),
                    rollout: keys(&[15], 1),
                    halt: keys(&[self.halt_key], 1),
                };
                let telemetry = p256::SecretKey::from_slice(&[21; 32]).unwrap().public_key();
                let content = TargetsContent { telemetry: [(3, point_hex(&telemetry))].into(), time: None };
                build::targets(v.targets, self.expires, &product, &keys, &content)
            }
            Role::Release => build::release(v.release, self.expires, &self.artifacts),
            Role::Rollout => {
                let content = RolloutContent { entries: self.entries.clone() };
                build::rollout(v.rollout, self.expires, &self.repeated, &content)
            }
            Role::Halt => build::halt(v.halt, self.expires, &HaltContent { halted: self.halted.clone() }),
        }
    }

    pub(crate) fn seeds(&self, role: Role) -> Vec<u8> {
        match role {
            Role::Root => self.root_keys.clone(),
            Role::Timestamp => vec![self.timestamp_key],
            Role::Snapshot => vec![self.snapshot_key],
            Role::Targets => vec![self.targets_key],
            Role::Release => vec![self.release_key],
            Role::Rollout => vec![15],
            Role::Halt => vec![self.halt_key],
        }
    }

    pub(crate) fn file(&self, role: Role) -> File {
        File { role, bytes: signed(self.value(role), &self.seeds(role)) }
    }

    /// Everything but root.
    pub(crate) fn files(&self) -> Vec<File> {
        Role::ALL[1..].iter().map(|role| self.file(*role)).collect()
    }

    /// A device that was provisioned with this repository's root and has everything in it.
    pub(crate) fn device(&self) -> Trusted {
        let mut trusted = Trusted::new(&self.file(Role::Root).bytes).unwrap();
        let done = arrive(&mut trusted, self.files());
        assert_eq!((done.missing, done.refused), (vec![], vec![]));
        trusted
    }
}

pub(crate) fn artifact() -> (Named, ArtifactContent) {
    let named = Named { path: "cam/7/rootfs".into(), length: 100_000, sha256: Digest([1; 32]) };
    let models = vec!["m1".parse().unwrap()];
    let content = ArtifactContent {
        min_from: 3,
        floor: 2,
        ..ArtifactContent::new(7, "1.7", "rootfs", models, Digest([2; 32]))
    };
    (named, content)
}

pub(crate) fn arrive(trusted: &mut Trusted, files: Vec<File>) -> Refresh {
    arrive_at(trusted, files, NOW)
}

pub(crate) fn arrive_at(trusted: &mut Trusted, files: Vec<File>, now: u64) -> Refresh {
    let mut pool = Pool::default();
    files.into_iter().for_each(|file| pool.add(file));
    trusted.refresh(&mut pool, now)
}

pub(crate) fn refused(done: &Refresh, role: Role, what: fn(&TufError) -> bool) -> bool {
    done.refused.iter().any(|(of, error)| *of == role && what(error))
}

/// Asserts that a restart changes nothing.
pub(crate) fn restart(trusted: &Trusted) {
    let mut files = trusted.files();
    files.reverse();
    let again = Trusted::restore(&files).unwrap();
    assert_eq!(again.files(), trusted.files());
    assert_eq!(again.halted(), trusted.halted());
    assert_eq!(again.current().is_some(), trusted.current().is_some());
    assert_eq!(again.telemetry_keys(), trusted.telemetry_keys());
}
