//! A repository that a story changes and signs, role by role.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha384};

use crate::tuf::client::tests::repository::{LATER, key, keys, signed};
use crate::tuf::key::Signer;
use crate::tuf::time;

/// What a repository publishes, from which [`Server::files`] makes and signs files.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) root: Branch,
    /// Signs root too.
    pub(super) former_root_key: Option<u8>,
    pub(super) timestamp: Branch,
    pub(super) snapshot: Branch,
    /// Targets and what it delegates to.
    pub(super) roles: BTreeMap<&'static str, Branch>,
    /// Roles that snapshot does not name.
    pub(super) hidden: Vec<&'static str>,
    pub(super) consistent: bool,
    /// Whether timestamp and snapshot say lengths and hashes.
    pub(super) hashes: bool,
}

/// What one role publishes, and the seed of its key.
#[derive(Clone)]
pub(super) struct Branch {
    pub(super) version: u32,
    pub(super) expires: u64,
    pub(super) key: u8,
    pub(super) targets: Vec<(&'static str, &'static str)>,
    pub(super) delegations: Vec<Delegation>,
}

/// To whom a role delegates, and what.
#[derive(Clone)]
pub(super) struct Delegation {
    pub(super) to: &'static str,
    pub(super) key: u8,
    pub(super) paths: Vec<&'static str>,
    pub(super) prefixes: Vec<String>,
    pub(super) terminating: bool,
}

pub(super) fn branch(key: u8) -> Branch {
    Branch { version: 1, expires: LATER, key, targets: vec![], delegations: vec![] }
}

/// Delegates every path to the role `to`, whose key is that of [`Server::with`].
pub(super) fn to(to: &'static str) -> Delegation {
    Delegation { to, key: seed(to), paths: vec!["*"], prefixes: vec![], terminating: false }
}

/// The key of a delegated role, unless a story says another.
pub(super) fn seed(name: &str) -> u8 {
    name.bytes().fold(50u8, |seed, b| seed.wrapping_mul(31).wrapping_add(b)).clamp(50, 250)
}

impl Default for Server {
    fn default() -> Self {
        Self {
            root: branch(1),
            former_root_key: None,
            timestamp: branch(11),
            snapshot: branch(12),
            roles: [("targets", branch(13))].into(),
            hidden: vec![],
            consistent: true,
            hashes: false,
        }
    }
}

impl Server {
    /// Adds a role, or replaces it.
    pub(super) fn with(
        mut self,
        name: &'static str,
        targets: &[(&'static str, &'static str)],
        delegations: &[Delegation],
    ) -> Self {
        let key = self.roles.get(name).map_or_else(|| seed(name), |branch| branch.key);
        let role = Branch { targets: targets.to_vec(), delegations: delegations.to_vec(), ..branch(key) };
        self.roles.insert(name, role);
        self
    }

    /// Returns the role's branch, to change it.
    pub(super) fn role(&mut self, name: &'static str) -> &mut Branch {
        match name {
            "root" => &mut self.root,
            "timestamp" => &mut self.timestamp,
            "snapshot" => &mut self.snapshot,
            _ => self.roles.get_mut(name).unwrap(),
        }
    }

    /// The next version of everything but root.
    pub(super) fn advanced(mut self) -> Self {
        self.timestamp.version += 1;
        self.snapshot.version += 1;
        self.roles.values_mut().for_each(|branch| branch.version += 1);
        self
    }

    /// Returns a role's unsigned metadata.
    pub(super) fn value(&self, name: &str) -> Value {
        match name {
            "root" => {
                let mut value = json!({"consistent_snapshot": self.consistent, "keys": {}, "roles": {}});
                let keys = [self.root.key, self.timestamp.key, self.snapshot.key, self.roles["targets"].key];
                for (name, seed) in ["root", "timestamp", "snapshot", "targets"].into_iter().zip(keys) {
                    speaks(&mut value, seed);
                    value["roles"][name] = json!({"keyids": [key(seed).public().id()], "threshold": 1});
                }
                common("root", &self.root, value)
            }
            "timestamp" => {
                let named = self.named("snapshot", self.snapshot.version);
                common("timestamp", &self.timestamp, json!({"meta": {"snapshot.json": named}}))
            }
            "snapshot" => {
                let shown = self.roles.iter().filter(|(name, _)| !self.hidden.contains(name));
                let meta: Map<_, _> = shown
                    .map(|(name, branch)| (format!("{name}.json"), self.named(name, branch.version)))
                    .collect();
                common("snapshot", &self.snapshot, json!({"meta": meta}))
            }
            _ => targets(&self.roles[name]),
        }
    }

    fn named(&self, name: &str, version: u32) -> Value {
        if !self.hashes {
            return json!({"version": version});
        }
        let file = self.file(name);
        let hashes = json!({
            "sha256": hex::encode(Sha256::digest(&file)), "sha384": hex::encode(Sha384::digest(&file)),
        });
        json!({"version": version, "length": file.len(), "hashes": hashes})
    }

    fn signers(&self, name: &str) -> Vec<u8> {
        match name {
            "root" => [self.root.key].into_iter().chain(self.former_root_key).collect(),
            "timestamp" => vec![self.timestamp.key],
            "snapshot" => vec![self.snapshot.key],
            _ => vec![self.roles[name].key],
        }
    }

    /// Returns a role's file.
    pub(super) fn file(&self, name: &str) -> Vec<u8> {
        signed(self.value(name), &self.signers(name))
    }

    /// Signs something else as a role's file.
    pub(super) fn sign(&self, name: &str, value: Value) -> Vec<u8> {
        signed(value, &self.signers(name))
    }

    /// Returns the name under which a role's file is published.
    pub(super) fn published(&self, name: &str) -> String {
        let version = match name {
            "root" => return format!("{}.root.json", self.root.version),
            "timestamp" => return "timestamp.json".into(),
            "snapshot" => self.snapshot.version,
            _ => self.roles[name].version,
        };
        if self.consistent { format!("{version}.{name}.json") } else { format!("{name}.json") }
    }

    /// Returns every file that is published now.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let roles = ["root", "timestamp", "snapshot"].into_iter().chain(self.roles.keys().copied());
        roles.map(|name| (self.published(name), self.file(name))).collect()
    }
}

fn targets(branch: &Branch) -> Value {
    let named = |content: &str| {
        let hashes = json!({"sha256": hex::encode(Sha256::digest(content.as_bytes()))});
        json!({"length": content.len(), "hashes": hashes})
    };
    let targets: Map<_, _> =
        branch.targets.iter().map(|(path, content)| ((*path).to_owned(), named(content))).collect();
    let mut value = json!({"targets": targets});
    if !branch.delegations.is_empty() {
        let mut delegations = json!({"keys": {}, "roles": []});
        for delegation in &branch.delegations {
            speaks(&mut delegations, delegation.key);
            let mut role = json!({
                "name": delegation.to, "keyids": [key(delegation.key).public().id()], "threshold": 1,
                "terminating": delegation.terminating,
            });
            if delegation.prefixes.is_empty() {
                role["paths"] = json!(delegation.paths);
            } else {
                role["path_hash_prefixes"] = json!(delegation.prefixes);
            }
            delegations["roles"].as_array_mut().unwrap().push(role);
        }
        value["delegations"] = delegations;
    }
    common("targets", branch, value)
}

/// Adds a public key to `keys`.
fn speaks(value: &mut Value, seed: u8) {
    for public in keys(&[seed], 1).keys {
        value["keys"][public.id().as_str()] = json!(public);
    }
}

fn common(kind: &str, branch: &Branch, mut value: Value) -> Value {
    value["_type"] = json!(kind);
    value["spec_version"] = json!("1.0.31");
    value["version"] = json!(branch.version);
    value["expires"] = json!(time::write(branch.expires));
    value
}
