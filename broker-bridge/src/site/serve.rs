//! From a device's wish to a frame: out of the cache, or by upstream and then out of the cache, for all who wait.

use std::collections::HashMap;
use std::sync::Arc;

use tern_protocol::chunk::PIECE;
use tern_protocol::digest::Digest;
use tern_protocol::message::Pack;
use tern_protocol::topic::Topic;

use super::Site;
use super::cache::Found;
use super::fetch::Asker;
use super::key::Key;
use super::proof::Verdict;
use super::status::add;
use crate::chunks::pending::{Job, Part};
use crate::front::Shared;
use crate::policy::Client;

/// Milliseconds for which an answer about a delta is believed while upstream can be asked: that there is one, or none.
const DELTA_LASTS: u64 = 600_000;
const NO_DELTA_LASTS: u64 = 60_000;
/// Answers about deltas that are remembered.
const DELTAS_MAX: usize = 1024;

/// What is known of deltas: when it was heard, and whether there is one.
pub(super) type Deltas = HashMap<Key, (u64, bool)>;

impl Site {
    /// Returns the frame that answers `job`; if the site does not have it, it is fetched and the job comes again.
    pub(crate) fn pack(&self, job: &Job) -> Option<Vec<u8>> {
        let key = Some(Key::of(job)).filter(Key::is_possible)?;
        if let Some(content) = self.content(&key) {
            add(&self.counters.hits, 1);
            return Some(key.frame(content));
        }
        let now = self.now();
        // Under the lock under which what comes is handed on: what came since the look above is not fetched again.
        let mut fetch = self.fetch();
        if self.cache.contains(&key) && !matches!(key.part, Part::Delta { .. }) {
            drop(fetch);
            return self.content(&key).map(|content| key.frame(content));
        }
        let heard = fetch.want(&job.topic, key, now);
        drop(fetch);
        if heard {
            self.wake.notify_one();
        }
        None
    }

    /// Returns a part that the site has, and that is what it should be.
    fn content(&self, key: &Key) -> Option<Vec<u8>> {
        if let Part::Delta { .. } = key.part {
            return self.delta(key);
        }
        self.load_proof(key);
        let content = match self.cache.read(key)? {
            Found::InMemory(content) => return Some(content),
            Found::OnDisk(content) => content,
        };
        let verdict = self.proofs().judge(key, &content);
        match verdict {
            Verdict::Good => {
                if let Part::Chunk(index) = key.part {
                    // What is needed to read it must outlive it.
                    self.cache.touch(&Key::piece(key.of, 0, index / PIECE));
                    self.cache.touch(&Key::piece(key.of, 1, 0));
                }
                return Some(content);
            }
            Verdict::Bad => {
                tracing::warn!(?key, "a part of the cache is damaged; it is fetched again");
                add(&self.counters.damaged, 1);
            }
            // Its proof was lost: it comes again with it.
            Verdict::Needs(_) => {}
        }
        self.cache.remove(key);
        None
    }

    /// Reads the pieces that prove `key` into memory, as far as they are here.
    fn load_proof(&self, key: &Key) {
        let mut needs = self.proofs().needs(key);
        while let Some(piece) = needs {
            let Some(Found::InMemory(content) | Found::OnDisk(content)) = self.cache.read(&piece) else {
                return;
            };
            // Not inside the match: it would be locked in there.
            let verdict = self.proofs().judge(&piece, &content);
            needs = match verdict {
                Verdict::Good => self.proofs().needs(key),
                Verdict::Needs(above) if self.cache.contains(&above) => Some(above),
                Verdict::Needs(_) => return,
                Verdict::Bad => {
                    add(&self.counters.damaged, 1);
                    self.cache.remove(&piece);
                    return;
                }
            };
        }
    }

    fn delta(&self, key: &Key) -> Option<Vec<u8>> {
        let heard = self.deltas().get(key).copied();
        let lasts = |(at, there)| self.now() < at + if there { DELTA_LASTS } else { NO_DELTA_LASTS };
        // Cut off, what was heard last is all there is.
        if self.is_up() && !heard.is_some_and(lasts) {
            return None;
        }
        if let Some((_, false)) = heard {
            return Some(Vec::new());
        }
        let (Found::InMemory(kept) | Found::OnDisk(kept)) = self.cache.read(key)?;
        let content = unsealed(&kept);
        if content.is_none() {
            tracing::warn!(?key, "what the cache knows of a delta is damaged; it is asked for again");
            add(&self.counters.damaged, 1);
            self.cache.remove(key);
        }
        content
    }

    /// Remembers whether there is a delta.
    fn heard_of(&self, key: &Key, there: bool) {
        let mut deltas = self.deltas();
        if deltas.len() >= DELTAS_MAX {
            deltas.clear();
        }
        deltas.insert(key.clone(), (self.now(), there));
    }

    /// Takes in that nobody upstream says anything about a delta: for all who asked, and a while longer, there is none.
    pub(super) fn unanswered(&self, shared: &Shared, key: &Key, askers: Vec<Asker>) {
        tracing::info!(?key, "upstream says nothing about a delta; for a while there is none");
        self.heard_of(key, false);
        hand_on(shared, key, askers);
    }

    /// Takes in a frame from upstream, and hands it on to whoever waits for it.
    pub(super) fn came(&self, shared: &Shared, frame: &[u8]) {
        let Ok(pack) = Pack::read(frame) else { return };
        // Not asked for, or here already.
        let Some(key) = self.fetch().find(&pack) else { return };
        let content = key.content(pack);
        if let (Part::Chunk(_) | Part::Piece(_), false) = (&key.part, content.is_empty()) {
            self.load_proof(&key);
        }
        let verdict = self.proofs().judge(&key, &content);
        match verdict {
            Verdict::Good => {}
            Verdict::Bad => {
                tracing::warn!(
                    ?key,
                    "upstream sent a part that is not what was asked for; it is asked for again"
                );
                add(&self.counters.refused, 1);
                self.fetch().refused(&key, self.now());
                return;
            }
            Verdict::Needs(piece) => {
                let mut fetch = self.fetch();
                fetch.want(&Arc::from(""), piece, self.now());
                fetch.unproven(&key, self.now());
                return;
            }
        }
        add(&self.counters.fetched, 1);
        let there = !content.is_empty();
        let kept = if let Part::Delta { .. } = key.part {
            self.heard_of(&key, there);
            sealed(&content)
        } else {
            content
        };
        if there {
            self.disk_said(self.cache.put(&key, kept));
        }
        let askers = self.fetch().came(&key, self.now());
        hand_on(shared, &key, askers);
    }
}

/// Has the sessions of devices ask once more for what is here now.
fn hand_on(shared: &Shared, key: &Key, askers: Vec<Asker>) {
    for topic in askers {
        let Ok(Topic::DevicePack(device)) = Topic::parse(&shared.fleet, &topic) else { continue };
        if let Some(session) = shared.sessions.find(&Client::Device(device)) {
            session.queue.ask([key.job(topic)]);
        }
    }
}

/// Returns what was said of a delta as it is kept: nothing that the site knows proves it, and the disk may damage it.
fn sealed(content: &[u8]) -> Vec<u8> {
    [&Digest::of(content).0, content].concat()
}

fn unsealed(kept: &[u8]) -> Option<Vec<u8>> {
    let (digest, content) = kept.split_first_chunk::<32>()?;
    (Digest::of(content).0 == *digest).then(|| content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_of_a_delta_comes_back_whole_or_not_at_all() {
        let kept = sealed(b"signed");
        let damaged = (0..kept.len()).map(|at| {
            let mut kept = kept.clone();
            kept[at] ^= 1;
            kept
        });

        assert_eq!(unsealed(&kept), Some(b"signed".to_vec()));
        assert!(damaged.chain([kept[..31].to_vec()]).all(|kept| unsealed(&kept).is_none()));
    }
}
