//! Files that were opened before: for whoever plays many devices in one process.
//!
//! A hundred thousand devices are sent the same few files, and each of them would verify the same signatures and keep a copy
//! of its own. Here what verified once is remembered under a hash of everything that the verification looks at: the
//! role, the bytes, and each key that may speak for it with how many must. A hit is therefore the verification itself,
//! made earlier; nothing can be put in from outside, and a file that did not verify is never remembered. What depends
//! on the device, versions, expiry, who names what, is checked every time.
//!
//! A device that is alone has no use for it: [`super::Trusted`] opens every file itself unless it was handed one of these.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Held;
use crate::digest::Digest;
use crate::limits::TufLimits;
use crate::tuf::metadata::Metadata;
use crate::tuf::verify::{Authority, open_within};
use crate::tuf::{RoleName, TufError};

/// Files that verified before, in this process.
#[derive(Default)]
pub struct Opened {
    verified: Mutex<Kept>,
    held: Mutex<Kept>,
}

type Kept = HashMap<Digest, Arc<dyn Any + Send + Sync>>;

impl Opened {
    /// Opens a file as [`open_within`] does, or gives what that gave before for the same file and the same keys.
    pub(super) fn open<T: Metadata>(
        &self,
        name: &RoleName,
        bytes: &[u8],
        authority: Authority<'_>,
        limits: &TufLimits,
    ) -> Result<T, TufError> {
        let key = looked_at(name, bytes, authority, limits);
        if let Some(known) = recall::<T>(&self.verified, &key) {
            return Ok(T::clone(&known));
        }
        let meta: T = open_within(name, bytes, authority, limits)?;
        remember(&self.verified, key, Arc::new(meta.clone()));
        Ok(meta)
    }

    /// Returns the one copy of an accepted file that all devices share.
    pub(super) fn share<T: Metadata>(&self, held: Held<T>) -> Arc<Held<T>> {
        let key = Digest::of(&held.bytes);
        // Two roles may not share bytes, but nothing here rests on that: another type is another copy.
        match recall::<Held<T>>(&self.held, &key).filter(|known| known.bytes == held.bytes) {
            Some(known) => known,
            None => {
                let held = Arc::new(held);
                remember(&self.held, key, held.clone());
                held
            }
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

fn recall<T: Any + Send + Sync>(kept: &Mutex<Kept>, key: &Digest) -> Option<Arc<T>> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.get(key).cloned().and_then(|known| known.downcast().ok())
}

fn remember(kept: &Mutex<Kept>, key: Digest, what: Arc<dyn Any + Send + Sync>) {
    kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, what);
}

/// Hashes all that verifying a file looks at. Each part stands behind its length, so no two lists of parts are alike.
fn looked_at(name: &RoleName, bytes: &[u8], authority: Authority<'_>, limits: &TufLimits) -> Digest {
    let keys: Vec<_> = authority.keys().collect();
    let keys = serde_json::to_vec(&keys).expect("a key is plain JSON");
    let ceiling = limits.of_kind(name.kind());
    let numbers = [bytes.len(), keys.len(), name.as_str().len(), ceiling].map(|n| n as u64);
    let numbers: Vec<u8> = numbers.into_iter().flat_map(u64::to_be_bytes).collect();
    let threshold = authority.threshold().to_be_bytes();
    Digest::of_parts(&[&numbers, &threshold, name.as_str().as_bytes(), &keys, bytes])
}
