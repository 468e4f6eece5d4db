//! What waits to be made, what is being made, and how it ended; no I/O.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tern_protocol::delta::{ImageId, Profile};
use tern_protocol::digest::Digest;
use tern_protocol::id::ProductId;

use super::plan::Pair;

/// Deltas that may wait; what is beyond is planned again at the next start or rollout.
const QUEUE_MAX: usize = 1024;

/// Names a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// From what; none: the whole image.
    pub old: Option<ImageId>,
    /// To what.
    pub new: ImageId,
    /// For what kind of device.
    pub profile: Profile,
}

impl Key {
    /// Names the delta of a pair.
    pub fn new(pair: &Pair, profile: Profile) -> Self {
        Self { old: pair.old, new: pair.new, profile }
    }

    /// Returns the old image, which may be the one without bytes.
    pub fn old(&self) -> ImageId {
        self.old.unwrap_or_else(ImageId::nothing)
    }

    fn place(&self) -> (Digest, Digest, u8) {
        (self.old().root, self.new.root, self.profile.id())
    }
}

/// How it is with a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It waits for those before it.
    Waiting,
    /// It is being made.
    Encoding {
        /// How much of it is coded; the alignment before is not counted.
        percent: u8,
    },
    /// It is there.
    Ready {
        /// Bytes of its packs.
        bytes: u64,
    },
    /// It would save nothing, and is not kept: the image goes as it is.
    Useless {
        /// Bytes that its packs would have.
        bytes: u64,
    },
    /// It could not be made.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// Nobody has asked for it yet: it is made when a rollout of the release starts.
    NotMade,
}

impl State {
    /// Tells whether more is to come by itself.
    pub fn is_unfinished(&self) -> bool {
        matches!(self, Self::Waiting | Self::Encoding { .. })
    }
}

/// What the service knows of its deltas beside what is in the store.
#[derive(Debug, Default)]
pub struct Book {
    plans: BTreeMap<(ProductId, u64), Vec<Pair>>,
    queue: VecDeque<Key>,
    states: BTreeMap<(Digest, Digest, u8), State>,
    signatures: bool,
}

impl Book {
    /// Keeps the plan of a release, and puts what is not there into the queue.
    pub fn plan(
        &mut self,
        product: &ProductId,
        rc: u64,
        pairs: Vec<Pair>,
        profiles: &[Profile],
        known: impl Fn(&Key) -> Option<State>,
    ) {
        for profile in profiles {
            for key in pairs.iter().map(|pair| Key::new(pair, *profile)) {
                // One that was refused is tried again: the disk may have room now.
                let idle = |state: &State| matches!(state, State::Refused { .. } | State::NotMade);
                if self.states.get(&key.place()).is_some_and(|state| !idle(state)) {
                    continue;
                }
                let state = known(&key).unwrap_or(State::Waiting);
                if state == State::Waiting {
                    if self.queue.len() >= QUEUE_MAX {
                        continue;
                    }
                    self.queue.push_back(key);
                }
                self.states.insert(key.place(), state);
            }
        }
        self.plans.insert((product.clone(), rc), pairs);
    }

    /// Forgets the plan of a release, and takes out of the queue what no other wants.
    pub fn forget(&mut self, product: &ProductId, rc: u64) {
        self.plans.remove(&(product.clone(), rc));
        let wanted: Vec<_> = self.plans.values().flatten().map(|pair| (pair.old, pair.new)).collect();
        let (kept, gone) = self.queue.drain(..).partition(|key| wanted.contains(&(key.old, key.new)));
        self.queue = kept;
        let gone: VecDeque<Key> = gone;
        gone.iter().for_each(|key| drop(self.states.remove(&key.place())));
    }

    /// Returns what a release wants, if it was planned.
    pub fn planned(&self, product: &ProductId, rc: u64) -> Option<Vec<Pair>> {
        self.plans.get(&(product.clone(), rc)).cloned()
    }

    /// Returns how it is with a delta, if that is known here.
    pub fn state(&self, key: &Key) -> Option<State> {
        self.states.get(&key.place()).cloned()
    }

    /// Returns how many deltas of a release are still to be made, and of how many.
    pub fn unfinished(&self, product: &ProductId, rc: u64, profiles: &[Profile]) -> (usize, usize) {
        let Some(pairs) = self.plans.get(&(product.clone(), rc)) else { return (0, 0) };
        let keys = profiles.iter().flat_map(|profile| pairs.iter().map(|pair| Key::new(pair, *profile)));
        let unfinished = keys.filter(|key| self.state(key).is_some_and(|state| state.is_unfinished()));
        (unfinished.count(), pairs.len() * profiles.len())
    }

    /// Takes the next to be made.
    pub fn take_next(&mut self) -> Option<Key> {
        let key = self.queue.pop_front()?;
        self.set(&key, State::Encoding { percent: 0 });
        Some(key)
    }

    /// Notes how it is with a delta.
    pub fn set(&mut self, key: &Key, state: State) {
        self.states.insert(key.place(), state);
    }

    /// Puts back what could not be ended now.
    pub fn put_back(&mut self, key: Key) {
        self.set(&key, State::Waiting);
        self.queue.push_front(key);
    }

    /// Notes that signatures are to be looked at.
    pub fn look_at_signatures(&mut self) {
        self.signatures = true;
    }

    /// Tells, once, whether signatures are to be looked at.
    pub fn take_signatures(&mut self) -> bool {
        std::mem::take(&mut self.signatures)
    }
}
