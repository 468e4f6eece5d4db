//! The newest signed files that went by, as opaque bytes: what a device lacks it can ask for with `get`.
//!
//! Nothing is verified here: whoever puts a false file in here only wastes a download, since devices check
//! signatures. Versions are read without checking, to know which file is newest.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::id::ProductId;
use tern_protocol::limits::ROOT_CHAIN_MAX;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::Role;

/// Products whose files are kept; only the service brings in new ones.
const PRODUCTS_MAX: usize = 1024;

/// The newest files by product and role; of root, the newest versions one by one.
#[derive(Debug, Default)]
pub struct SignedFiles {
    products: Mutex<HashMap<ProductId, Files>>,
}

#[derive(Debug, Default)]
struct Files {
    newest: BTreeMap<Role, (u64, Vec<u8>)>,
    roots: BTreeMap<u64, Vec<u8>>,
}

impl SignedFiles {
    /// Looks at a message on `topic` and keeps the files in it that are newer than those known.
    pub fn learn(&self, topic: &Topic, payload: &[u8]) {
        let (product, is_root) = match topic {
            Topic::Timestamp(product) | Topic::Head(product) | Topic::Cohort(product, ..) => (product, false),
            Topic::Root(product, _) => (product, true),
            _ => return,
        };
        // Cleared topics are empty: no information.
        if payload.is_empty() {
            return;
        }
        let files = if Bundle::looks_like(payload) {
            match Bundle::unpack(payload) {
                Ok(bundle) => bundle.files,
                Err(error) => {
                    tracing::warn!(%product, %error, "a published bundle cannot be read; its files are not kept");
                    return;
                }
            }
        } else if is_root && payload.len() <= Role::Root.ceiling() {
            vec![File { role: Role::Root, bytes: payload.to_vec() }]
        } else {
            return;
        };
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if !products.contains_key(product) && products.len() >= PRODUCTS_MAX {
            return;
        }
        let known = products.entry(product.clone()).or_default();
        files.into_iter().for_each(|file| known.keep(file));
    }

    /// Returns the newest file of a role, or of root the named version.
    pub fn find(&self, product: &ProductId, role: Role, version: Option<u32>) -> Option<File> {
        let products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let files = products.get(product)?;
        let bytes = match (role, version) {
            (Role::Root, Some(version)) => files.roots.get(&u64::from(version)),
            (Role::Root, None) => files.roots.last_key_value().map(|(_, bytes)| bytes),
            _ => files.newest.get(&role).map(|(_, bytes)| bytes),
        };
        bytes.map(|bytes| File { role, bytes: bytes.clone() })
    }
}

impl Files {
    fn keep(&mut self, file: File) {
        let Some(version) = version_of(&file.bytes) else { return };
        if file.role == Role::Root {
            self.roots.insert(version, file.bytes);
            if self.roots.len() > ROOT_CHAIN_MAX as usize {
                self.roots.pop_first();
            }
            return;
        }
        // The same version again: signed again with the same content, or the same; the later one lives longer.
        if self.newest.get(&file.role).is_none_or(|(known, _)| *known <= version) {
            self.newest.insert(file.role, (version, file.bytes));
        }
    }
}

/// Reads the version out of a metadata file, unverified.
fn version_of(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Signed {
        version: u64,
    }
    #[derive(Deserialize)]
    struct Metadata {
        signed: Signed,
    }
    serde_json::from_slice::<Metadata>(bytes).ok().map(|metadata| metadata.signed.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> ProductId {
        "ap".parse().unwrap()
    }

    fn file(role: Role, version: u64) -> File {
        File { role, bytes: format!("{{\"signed\":{{\"version\":{version}}}}}").into_bytes() }
    }

    fn learn(files: &SignedFiles, list: Vec<File>) {
        files.learn(&Topic::Head(product()), &Bundle { root: 1, files: list }.pack());
    }

    #[test]
    fn the_newest_version_stays_whatever_the_order_of_arrival() {
        let files = SignedFiles::default();
        learn(&files, vec![file(Role::Halt, 5), file(Role::Rollout, 2)]);
        learn(&files, vec![file(Role::Halt, 4), file(Role::Rollout, 3)]);

        assert_eq!(files.find(&product(), Role::Halt, None), Some(file(Role::Halt, 5)));
        assert_eq!(files.find(&product(), Role::Rollout, None), Some(file(Role::Rollout, 3)));
        assert_eq!(files.find(&"other".parse().unwrap(), Role::Halt, None), None);
    }

    #[test]
    fn every_version_of_root_is_kept_up_to_the_longest_chain() {
        let files = SignedFiles::default();
        for version in 1..=ROOT_CHAIN_MAX + 5 {
            files.learn(&Topic::Root(product(), version), &file(Role::Root, version.into()).bytes);
        }

        let find = |version| files.find(&product(), Role::Root, version);
        assert_eq!(find(Some(7)), Some(file(Role::Root, 7)));
        assert_eq!(find(None), Some(file(Role::Root, u64::from(ROOT_CHAIN_MAX) + 5)));
        assert_eq!(find(Some(5)), None);
    }

    #[test]
    fn rubbish_and_cleared_topics_change_nothing() {
        let files = SignedFiles::default();
        learn(&files, vec![file(Role::Halt, 5)]);
        for payload in [&b""[..], b"TRNB", b"{}", b"TRNB\x01aaaaaaaaaaaaaaa"] {
            files.learn(&Topic::Head(product()), payload);
        }
        learn(&files, vec![File { role: Role::Halt, bytes: b"{\"signed\":{}}".to_vec() }]);

        assert_eq!(files.find(&product(), Role::Halt, None), Some(file(Role::Halt, 5)));
    }
}
