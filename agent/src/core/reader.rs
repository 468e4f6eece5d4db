//! Bundles in: the dictionary that they lean on, and those that wait for one.

use tern_protocol::bundle::{Bundle, BundleError, Dictionary, DictionaryId, File};
use tern_protocol::topic::Topic;
use tern_protocol::tuf::Trusted;

/// Topics of which an unread bundle is kept. A device hears `ts`, `head` and its cohort; the cohort may change.
const UNREAD_MAX: usize = 4;
/// Longest unread bundle that is kept, in bytes; one that leans on a dictionary has a few hundred.
const UNREAD_BYTES: usize = 4096;

/// Reads bundles with what is trusted now.
#[derive(Debug, Clone, Default)]
pub(super) struct Reader {
    dictionary: Option<Dictionary>,
    /// The newest of each topic, oldest topic first.
    unread: Vec<(Topic, Vec<u8>)>,
}

impl Reader {
    /// Returns the files of a bundle. One that leans on a root or targets not held yet waits for them, since
    /// retained messages arrive in any order; one that leans on older ones is old.
    pub(super) fn read(&mut self, trust: &Trusted, topic: &Topic, payload: &[u8]) -> Vec<File> {
        self.renew(trust);
        match Bundle::unpack(payload, self.dictionary.as_ref()) {
            Ok(bundle) => {
                self.unread.retain(|(of, _)| of != topic);
                bundle.files
            }
            Err(BundleError::UnknownDictionary(id)) => {
                let kept = matches!(topic, Topic::Timestamp(_) | Topic::Head(_) | Topic::Cohort(..));
                if kept && payload.len() <= UNREAD_BYTES && self.may_come(trust, id) {
                    self.unread.retain(|(of, _)| of != topic);
                    if self.unread.len() == UNREAD_MAX {
                        self.unread.remove(0);
                    }
                    self.unread.push((topic.clone(), payload.to_vec()));
                }
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Reads again what waits, after root or targets changed.
    pub(super) fn read_again(&mut self, trust: &Trusted) -> Vec<File> {
        let waiting = std::mem::take(&mut self.unread);
        waiting.iter().flat_map(|(topic, payload)| self.read(trust, topic, payload)).collect()
    }

    /// Returns the name of the dictionary at hand, for requests.
    pub(super) fn held(&mut self, trust: &Trusted) -> Option<DictionaryId> {
        self.renew(trust);
        self.dictionary.as_ref().map(Dictionary::id)
    }

    /// Returns the name of a dictionary that a bundle waits for.
    pub(super) fn awaited(&self) -> Option<DictionaryId> {
        self.unread.iter().filter_map(|(_, payload)| Bundle::dictionary_of(payload)).max()
    }

    /// Tells whether it is `head` that waits, where a kill may be.
    pub(super) fn awaits_head(&self) -> bool {
        self.unread.iter().any(|(topic, _)| matches!(topic, Topic::Head(_)))
    }

    /// Forgets what waits.
    pub(super) fn forget(&mut self) {
        self.unread.clear();
    }

    fn renew(&mut self, trust: &Trusted) {
        let Some(targets) = trust.targets() else {
            self.dictionary = None;
            return;
        };
        let id = DictionaryId { root: trust.root().version, targets: targets.meta.version };
        if self.dictionary.as_ref().is_none_or(|held| held.id() != id) {
            self.dictionary = Some(Dictionary::new(trust.root(), &targets.meta));
        }
    }

    fn may_come(&self, trust: &Trusted, id: DictionaryId) -> bool {
        let held = trust.versions();
        id.root > held.root || id.targets > held.targets || self.dictionary.is_none()
    }
}
