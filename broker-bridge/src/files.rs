//! The newest signed files that went by, as opaque bytes: what a device lacks it can ask for with `get`.
//!
//! Nothing is verified here: whoever puts a false file in here only wastes a download, since devices check
//! signatures. Versions are read without checking, to know which file is newest.
//!
//! Bundles on `ts` and cohort topics are packed against root and targets. They wait here until those two were seen,
//! for retained messages come in any order. What goes out is packed anew, for what the asker says that it has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tern_protocol::bundle::{Bundle, BundleError, Dictionary, DictionaryId, File};
use tern_protocol::id::ProductId;
use tern_protocol::limits::{BUNDLE_INFLATED_MAX, BUNDLE_MAX, ROOT_CHAIN_MAX};
use tern_protocol::message::{Get, Want};
use tern_protocol::topic::Topic;
use tern_protocol::tuf::Role;

/// Products whose files are kept; only the service brings in new ones.
const PRODUCTS_MAX: usize = 1024;
/// Bundles of a product that wait for their dictionary, and how long each may be: a bundle that leans on a
/// dictionary is a few hundred bytes.
const UNREAD_MAX: usize = 32;
const UNREAD_BYTES: usize = 4096;
/// Answers of a product that are kept: a fleet asks for the same few files.
const ANSWERS_MAX: usize = 16;

/// The newest files by product and role; of root, the newest versions one by one.
#[derive(Debug, Default)]
pub struct SignedFiles {
    products: Mutex<HashMap<ProductId, Files>>,
}

#[derive(Debug, Default)]
struct Files {
    newest: BTreeMap<Role, (u64, Vec<u8>)>,
    roots: BTreeMap<u64, Vec<u8>>,
    /// Built from a root and the newest targets when it was last needed.
    dictionary: Option<Dictionary>,
    unread: VecDeque<Vec<u8>>,
    answers: HashMap<Question, Vec<Vec<u8>>>,
}

/// Which files, and packed against what.
type Question = (Vec<(Role, Option<u32>)>, Option<DictionaryId>);

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
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if !products.contains_key(product) && products.len() >= PRODUCTS_MAX {
            return;
        }
        let known = products.entry(product.clone()).or_default();
        if Bundle::looks_like(payload) {
            if let Err(error) = known.read(payload) {
                tracing::warn!(%product, %error, "a published bundle cannot be read; its files are not kept");
            }
        } else if is_root && payload.len() <= Role::Root.ceiling() {
            known.keep(File { role: Role::Root, bytes: payload.to_vec() });
        }
    }

    /// Returns the newest file of a role, or of root the named version.
    pub fn find(&self, product: &ProductId, role: Role, version: Option<u32>) -> Option<File> {
        let products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        products.get(product)?.find(role, version)
    }

    /// Returns the bundles that answer the wishes for files in `get`, a product after the other.
    pub fn answer(&self, get: &Get) -> Vec<Vec<u8>> {
        let mut wanted: BTreeMap<&ProductId, Vec<(Role, Option<u32>)>> = BTreeMap::new();
        for want in &get.want {
            if let Want::File { product, role, version } = want {
                wanted.entry(product).or_default().push((*role, *version));
            }
        }
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::new();
        for (product, files) in wanted {
            if let Some(known) = products.get_mut(product) {
                answers.extend(known.answer((files, get.dictionary)));
            }
        }
        answers
    }
}

impl Files {
    fn read(&mut self, payload: &[u8]) -> Result<(), BundleError> {
        let bundle = match Bundle::unpack(payload, self.dictionary.as_ref()) {
            Err(BundleError::UnknownDictionary(id)) => match self.dictionary(id) {
                Some(dictionary) => Bundle::unpack(payload, Some(dictionary))?,
                None => {
                    if self.unread.len() == UNREAD_MAX {
                        self.unread.pop_front();
                    }
                    if payload.len() <= UNREAD_BYTES {
                        self.unread.push_back(payload.to_vec());
                    }
                    return Ok(());
                }
            },
            bundle => bundle?,
        };
        let mut newer = false;
        for file in bundle.files {
            newer |= matches!(file.role, Role::Root | Role::Targets);
            self.keep(file);
        }
        let mut result = Ok(());
        if newer {
            // Each is read, or waits again; a bad one does not take the others with it.
            for payload in std::mem::take(&mut self.unread) {
                result = result.and(self.read(&payload));
            }
        }
        result
    }

    fn keep(&mut self, file: File) {
        let Some(version) = version_of(&file.bytes) else { return };
        self.answers.clear();
        if matches!(file.role, Role::Root | Role::Targets) {
            self.dictionary = None;
        }
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

    fn find(&self, role: Role, version: Option<u32>) -> Option<File> {
        let bytes = match (role, version) {
            (Role::Root, Some(version)) => self.roots.get(&u64::from(version)),
            (Role::Root, None) => self.roots.last_key_value().map(|(_, bytes)| bytes),
            _ => self.newest.get(&role).map(|(_, bytes)| bytes),
        };
        bytes.map(|bytes| File { role, bytes: bytes.clone() })
    }

    /// Returns the dictionary, if root and targets of these versions are here.
    fn dictionary(&mut self, id: DictionaryId) -> Option<&Dictionary> {
        if self.dictionary.as_ref().is_none_or(|held| held.id() != id) {
            let root = self.roots.get(&id.root.into())?;
            let (_, targets) = self.newest.get(&Role::Targets)?;
            let built = Dictionary::unverified(root, targets).ok().filter(|built| built.id() == id)?;
            self.dictionary = Some(built);
        }
        self.dictionary.as_ref()
    }

    /// One bundle if the files fit, else one a file. An asker without a dictionary, or with one that cannot be
    /// built here, is answered in the general one.
    fn answer(&mut self, question: Question) -> Vec<Vec<u8>> {
        if let Some(known) = self.answers.get(&question) {
            return known.clone();
        }
        let found: Vec<File> =
            question.0.iter().filter_map(|(role, version)| self.find(*role, *version)).collect();
        if found.is_empty() {
            return Vec::new();
        }
        let dictionary = question.1.and_then(|id| self.dictionary(id));
        let pack = |files: Vec<File>| {
            let bundle = Bundle { root: 0, files };
            dictionary.map_or_else(|| bundle.pack(), |dictionary| bundle.pack_with(dictionary))
        };
        let inflated: usize = found.iter().map(|file| file.bytes.len()).sum();
        let whole = (inflated <= BUNDLE_INFLATED_MAX).then(|| pack(found.clone()));
        let answer = match whole.filter(|whole| whole.len() <= BUNDLE_MAX) {
            Some(whole) => vec![whole],
            None => found.into_iter().map(|file| pack(vec![file])).collect(),
        };
        if self.answers.len() == ANSWERS_MAX {
            self.answers.clear();
        }
        self.answers.insert(question, answer.clone());
        answer
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
    use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, RootKeys};
    use tern_protocol::tuf::content::TargetsContent;
    use tern_protocol::tuf::key::PublicKey;
    use tern_protocol::tuf::sign;

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

    /// A root or targets as a chunk server reads it: signed by nobody.
    fn unsigned(role: Role, version: u32) -> File {
        let key = || Keys::one(PublicKey::from_pem(PEM).unwrap());
        let signed = match role {
            Role::Root => {
                let keys = RootKeys { root: key(), timestamp: key(), snapshot: key(), targets: key() };
                build::root(version, 9, &keys)
            }
            _ => {
                let keys = DelegatedKeys { release: key(), rollout: key(), halt: key() };
                build::targets(version, 9, &product(), &keys, &TargetsContent::default())
            }
        };
        File { role, bytes: sign::sign(signed, &[]).unwrap() }
    }

    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n\
        6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n\
        -----END PUBLIC KEY-----\n";

    fn dictionary(targets: u32) -> Dictionary {
        let file = |role, version| unsigned(role, version).bytes;
        Dictionary::unverified(&file(Role::Root, 1), &file(Role::Targets, targets)).unwrap()
    }

    fn ask(files: &SignedFiles, dictionary: Option<DictionaryId>) -> Vec<Vec<u8>> {
        let want = vec![Want::File { product: product(), role: Role::Halt, version: None }];
        files.answer(&Get { want, dictionary })
    }

    #[test]
    fn a_bundle_waits_for_root_and_targets_whatever_the_order_of_arrival() {
        let dictionary = dictionary(3);
        let offer = Bundle { root: 1, files: vec![file(Role::Halt, 5)] }.pack_with(&dictionary);
        let bundle = |role, version| Bundle { root: 1, files: vec![unsigned(role, version)] }.pack();
        let messages = [
            (Topic::Timestamp(product()), offer),
            (Topic::Root(product(), 1), bundle(Role::Root, 1)),
            (Topic::Head(product()), bundle(Role::Targets, 3)),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let files = SignedFiles::default();
            for message in order {
                assert_eq!(files.find(&product(), Role::Halt, None), None);
                files.learn(&messages[message].0, &messages[message].1);
                if message == 0 && order[2] == 0 {
                    break;
                }
            }
            assert_eq!(files.find(&product(), Role::Halt, None), Some(file(Role::Halt, 5)), "{order:?}");
        }
    }

    #[test]
    fn an_answer_is_packed_for_what_the_asker_has_and_never_for_what_it_lacks() {
        let files = SignedFiles::default();
        learn(&files, vec![unsigned(Role::Root, 1), unsigned(Role::Targets, 3), file(Role::Halt, 5)]);
        let (old, held) = (dictionary(2), dictionary(3));
        let halt = vec![file(Role::Halt, 5)];
        let reads = |answer: &[Vec<u8>], held: Option<&Dictionary>| {
            Bundle::unpack(&answer[0], held).is_ok_and(|bundle| bundle.files == halt)
        };

        assert!(reads(&ask(&files, None), None));
        assert!(reads(&ask(&files, Some(held.id())), Some(&held)));
        assert!(!reads(&ask(&files, Some(held.id())), None));
        assert!(reads(&ask(&files, Some(old.id())), Some(&old)));
        assert!(reads(&ask(&files, Some(old.id())), None));
    }

    #[test]
    fn a_new_file_is_in_the_next_answer() {
        let files = SignedFiles::default();
        learn(&files, vec![file(Role::Halt, 5)]);
        let before = ask(&files, None);
        learn(&files, vec![file(Role::Halt, 6)]);

        assert_eq!(ask(&files, None), ask(&files, None));
        assert_ne!(ask(&files, None), before);
    }

    #[test]
    fn bundles_that_nobody_can_read_do_not_pile_up() {
        let files = SignedFiles::default();
        let offer = Bundle { root: 1, files: vec![file(Role::Halt, 5)] }.pack_with(&dictionary(9));
        for _ in 0..10 * UNREAD_MAX {
            files.learn(&Topic::Timestamp(product()), &offer);
        }

        let products = files.products.lock().unwrap();
        assert_eq!(products[&product()].unread.len(), UNREAD_MAX);
    }
}
