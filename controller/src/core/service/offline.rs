//! New offline files in: a root, targets or release that people signed, and everything below them signed anew.
//!
//! One frame of the ledger holds all of it. With two a power cut could keep a root and lose the timestamp that it
//! vouches for.

use std::collections::BTreeSet;

use tern_protocol::bundle::File;
use tern_protocol::id::ProductId;
use tern_protocol::tuf::content::{Targets, TargetsContent};
use tern_protocol::tuf::metadata::Metadata;
use tern_protocol::tuf::verify::{Authority, Unverified};
use tern_protocol::tuf::{Pool, Role, Signer, Trusted, TufError, build, peek, sign};

use super::command::refuse;
use super::{Fact, OnlineKeys, Refusal, RefusalKind, Reply, Service};
use crate::core::fact::SignedFile;
use crate::core::fleet::product::Product;

/// Files that people sign, in the order in which a client loads them.
const OFFLINE: [Role; 3] = [Role::Root, Role::Targets, Role::Release];

impl Service {
    /// Puts keys ready that new offline files of a product may name. Nothing is signed with them before those
    /// files are accepted.
    pub fn stage_keys(&mut self, product: ProductId, keys: OnlineKeys) {
        self.staged.insert(product, keys);
    }

    /// Sets a product up with its first files, or takes in newer ones.
    pub(super) fn add_product(
        &mut self,
        product: ProductId,
        files: Vec<SignedFile>,
    ) -> Result<Reply, Refusal> {
        if self.fleet.products.contains_key(&product) {
            // The folder of a product holds what it was set up with; what was published since is newer.
            return self.take_offline(&product, files);
        }
        let bytes: Vec<File> = files.iter().map(File::from).collect();
        let invalid = |why: String| {
            let what = format!("the files of product {product} are not a repository: {why}");
            refuse(RefusalKind::Invalid, what, "make them with `tern keys init`")
        };
        let trusted = Trusted::restore(&bytes).map_err(|e| invalid(e.to_string()))?;
        // A file that its own keys did not sign is left out without a word.
        let lost = files.iter().find(|file| trusted.file(file.role).is_none());
        if let Some(lost) = lost {
            return Err(invalid(format!("{} lacks signatures of its keys", lost.role)));
        }
        self.record(Fact::ProductAdded { product: product.clone(), files });
        Ok(Reply::Done { what: format!("product {product} is set up") })
    }

    /// Takes in what an operator hands over: all of it, or nothing. Unlike what lies in the data folder since the
    /// product was set up, a file that is not the one in force and cannot become so is a mistake.
    pub(super) fn renew_offline(
        &mut self,
        product: &ProductId,
        files: Vec<SignedFile>,
    ) -> Result<Reply, Refusal> {
        if let Some(refusal) = self.offline_conflict(product, &files) {
            self.staged.remove(product);
            return Err(refusal);
        }
        self.take_offline(product, files)
    }

    /// Says why a file among these can never come into force: another one of its version did, or a newer one.
    pub fn offline_conflict(&self, product: &ProductId, files: &[SignedFile]) -> Option<Refusal> {
        let state = self.fleet.products.get(product)?;
        files.iter().filter(|file| OFFLINE.contains(&file.role)).find_map(|file| {
            let (role, version_of) = (file.role, version(&file.text));
            let root = state.roots.get(&version_of);
            let held = state.files.get(&role)?;
            if held == &file.text || (role == Role::Root && root == Some(&file.text)) {
                return None;
            }
            let in_force = version(held);
            let what = match version_of.cmp(&in_force) {
                std::cmp::Ordering::Greater => return None,
                std::cmp::Ordering::Equal => {
                    format!("{role} {in_force} is in force already, and is another file than this one")
                }
                std::cmp::Ordering::Less => {
                    format!("this is {role} {version_of}, and {role} {in_force} is in force")
                }
            };
            let hint = "nothing was changed; prepare and sign it again, made from the files in force (`tern keys rotate`)";
            Some(refuse(RefusalKind::Conflict, what, hint))
        })
    }

    /// Takes in files that are newer than those held; all of them, or none.
    fn take_offline(&mut self, product: &ProductId, mut files: Vec<SignedFile>) -> Result<Reply, Refusal> {
        let staged = self.staged.remove(product);
        let state = self.product(product)?;
        if let Some(other) = files.iter().find(|file| !OFFLINE.contains(&file.role)) {
            let what = format!("{} is signed by the service, not by people", other.role);
            return Err(refuse(RefusalKind::Invalid, what, "give root, targets or release files"));
        }
        let held = |role| state.files.get(&role).map_or(0, |text| version(text));
        files.retain(|file| version(&file.text) > held(file.role));
        if files.is_empty() {
            return Ok(Reply::Done { what: format!("product {product} has these files already") });
        }
        files.sort_by_key(|file| (file.role, version(&file.text)));
        if self.is_comparing() {
            // Nothing is signed below them yet; what they say is known from here on.
            let bytes = files.iter().map(File::from).collect();
            let count = self.learn(product, None, bytes);
            return Ok(Reply::Done { what: format!("{count} files of product {product} are taken over") });
        }
        for file in files.iter().filter(|file| file.role == Role::Release) {
            if let Some(new) = self.check_release(product, &file.text)?.first() {
                let what = format!("the file brings release {}, which is not published", new.rc);
                let hint = "publish it with `tern release publish`, which takes its image along";
                return Err(refuse(RefusalKind::Conflict, what, hint));
            }
        }
        let keys = staged.as_ref().or_else(|| self.keys.get(product)).ok_or_else(|| {
            let what = format!("the service holds no online keys for product {product}");
            refuse(RefusalKind::Conflict, what, "set the product up with `tern keys init`")
        })?;
        let all = self.sign_below(state, keys, &files).map_err(|e| {
            let hint = "nothing was changed; see who still has to sign with `tern keys show FILE`";
            refuse(RefusalKind::Invalid, e.to_string(), hint)
        })?;
        let words: Vec<String> =
            files.iter().map(|file| format!("{} {}", file.role, version(&file.text))).collect();
        self.record(Fact::ProductAdded { product: product.clone(), files: all });
        if let Some(keys) = staged {
            self.keys.insert(product.clone(), keys);
        }
        self.refreshed_at.insert(product.clone(), self.now);
        self.publish_everything();
        let what = format!("product {product} has new files: {}", words.join(", "));
        self.note(what.clone());
        Ok(Reply::Done { what })
    }

    /// Signs what the service signs below new offline files, and has devices judge the whole.
    fn sign_below(
        &self,
        state: &Product,
        keys: &OnlineKeys,
        fresh: &[SignedFile],
    ) -> Result<Vec<SignedFile>, OfflineError> {
        let mut after = state.clone();
        after.take(fresh);
        let targets: Targets<TargetsContent> = part(&after, Role::Targets)?;
        let seconds = self.now / 1000;
        let mut files = fresh.to_vec();
        let (mut versions, above) = (after.versions(), after.reached());
        let mut add = |role: Role, value: serde_json::Value, key: &(dyn Signer + Send + Sync)| {
            let bytes = sign::sign(value, &[key as &dyn Signer]).map_err(|_| OfflineError::Sign(role))?;
            let file = SignedFile::new(role, &bytes).ok_or(OfflineError::Sign(role))?;
            files.push(file);
            Ok::<_, OfflineError>(bytes)
        };
        // A file whose key was replaced says the same under the new one.
        for (role, key) in [(Role::Rollout, keys.rollout.as_ref()), (Role::Halt, keys.halt.as_ref())] {
            let authority = Authority::delegated(&targets.meta, role)?;
            let present = after.files.get(&role).map(|text| Unverified::read(role, text.as_bytes()));
            if let Some(Ok(present)) = present
                && present.verify(authority).is_ok()
            {
                continue;
            }
            let value = if role == Role::Rollout {
                versions.rollout = above.rollout + 1;
                let content = after.rollout_content();
                let offered: BTreeSet<u64> = content.entries.iter().map(|entry| entry.rc).collect();
                let releases = after.releases().into_iter().filter(|(rc, _)| offered.contains(rc));
                let named = releases.flat_map(|(_, release)| release.artifacts).map(|(named, _)| named);
                let named: Vec<_> = named.collect();
                build::rollout(versions.rollout, seconds + self.lives.rollout, &named, &content)
            } else {
                versions.halt = above.halt + 1;
                build::halt(versions.halt, seconds + self.lives.halt, &after.halt_content())
            };
            add(role, value, key)?;
        }
        versions.snapshot = above.snapshot + 1;
        let value = build::snapshot(versions.snapshot, seconds + self.lives.snapshot, &versions);
        let snapshot = add(Role::Snapshot, value, keys.snapshot.as_ref())?;
        versions.timestamp = above.timestamp + 1;
        let expires = seconds + self.lives.timestamp;
        let value =
            build::timestamp(versions.timestamp, expires, versions.snapshot, Some(&snapshot), seconds);
        add(Role::Timestamp, value, keys.timestamp.as_ref())?;

        let device = Trusted::restore(&state.signed(&Role::ALL))?;
        after.take(&files);
        judge(device, &after, seconds)?;
        // One that was off for a long time has to come through as well.
        let first = after.roots.values().next().ok_or(OfflineError::Chain)?;
        judge(Trusted::new(first.as_bytes())?, &after, seconds)?;
        Ok(files)
    }
}

/// Lets a device take in everything; it has to end with exactly these files. One that keeps an older root without
/// a word, because the next one is not there, would be lost at the rotation after this.
fn judge(mut device: Trusted, after: &Product, seconds: u64) -> Result<(), OfflineError> {
    let mut pool = Pool::default();
    let mut refused = None;
    // Root by root, as a device asks for them: a pool holds 32.
    let mut roots = after.roots.values();
    loop {
        for file in after.signed(&Role::ALL) {
            pool.add(file);
        }
        let refresh = device.refresh(&mut pool, seconds);
        refused = refresh.refused.into_iter().next().map(|(_, error)| error).or(refused);
        if device.current().is_some() && device.versions() == after.versions() {
            return Ok(());
        }
        let Some(root) = roots.next() else { break };
        pool.add(File { role: Role::Root, bytes: root.clone().into_bytes() });
    }
    Err(refused.map_or(OfflineError::Chain, OfflineError::Refused))
}

pub(super) fn part<T: Metadata>(state: &Product, role: Role) -> Result<T, OfflineError> {
    let text = state.files.get(&role).ok_or(OfflineError::Chain)?;
    let file = tern_protocol::tuf::canonical::read(text.as_bytes());
    let signed = file.ok().and_then(|mut file| file.get_mut("signed").map(serde_json::Value::take));
    Ok(T::read(role, &signed.ok_or(OfflineError::Chain)?)?)
}

fn version(text: &str) -> u32 {
    peek(text.as_bytes()).unwrap_or(0)
}

/// Says why new offline files are not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum OfflineError {
    /// A key would not sign.
    #[error("could not sign {0}")]
    Sign(Role),
    /// A file is bad by itself.
    #[error("a device would refuse the new files: {0}")]
    Refused(#[from] TufError),
    /// Roots do not follow one another.
    #[error("a device that was off for long would not get from its root to the new one")]
    Chain,
}
