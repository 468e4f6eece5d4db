//! What of that which devices send is stored, and what only passes while the link is up.
//!
//! | message | while the link is down | why |
//! |---|---|---|
//! | report | stored | it counts whenever it comes |
//! | report `ask`, and a file that `present` asked for | dropped | the nonce is dead after 120 s; who asked for the file asks again |
//! | enrolment | stored | it lets a device in whenever it comes |
//! | presence, and wills | dropped | it says how things are now |
//! | `get` for files that the site lacks | dropped | a device repeats it |
//!
//! While the link is up all but `get` goes through the queue, so that the order of one device is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use tern_protocol::bundle::Bundle;
use tern_protocol::id::{DeviceId, ProductId};
use tern_protocol::message::{Get, Want};
use tern_protocol::topic::{Topic, UpKind};

use super::{Site, lock};
use crate::clock;
use crate::files::SignedFiles;

/// A product's files are asked for upstream though the site has them: at most so often, in milliseconds. Should a bundle
/// have been lost on its way to the mirror, a device that misses it would be told of the older one for ever.
const DOUBT: u64 = 60_000;
/// Devices whose product is remembered until their answer comes, and requests that wait for the link.
const QUESTIONS_MAX: usize = 1024;

/// Questions for files, which are the devices' own.
#[derive(Debug, Default)]
pub(super) struct Questions {
    doubted: HashMap<ProductId, u64>,
    products: HashMap<DeviceId, ProductId>,
    pub(super) waiting: VecDeque<(String, Vec<u8>)>,
}

impl Questions {
    /// Returns the product of whose files a device asked last.
    pub(super) fn product_of(&self, device: &DeviceId) -> Option<ProductId> {
        self.products.get(device).cloned()
    }
}

impl Site {
    /// Takes what a device sends; returns when it is kept.
    pub(crate) async fn take_up(self: &Arc<Self>, kind: UpKind, topic: String, payload: Vec<u8>) {
        if !self.is_up() && !outlives_outage(kind, &payload) {
            return;
        }
        let site = self.clone();
        let kept =
            tokio::task::spawn_blocking(move || lock(&site.spool).push(&topic, &payload, clock::unix()));
        // Aborted only with the process.
        kept.await.ok();
        self.wake.notify_one();
    }

    /// Passes on what a device asks of files, if the site lacks some.
    pub(crate) fn ask_files(&self, device: &DeviceId, get: &Get, files: &SignedFiles) {
        if !self.is_up() {
            return;
        }
        let mut wanted = Vec::new();
        let (mut product, mut lacks) = (None, false);
        for want in &get.want {
            if let Want::File { product: of, role, version } = want {
                lacks |= files.find(of, *role, *version).is_none();
                product.get_or_insert_with(|| of.clone());
                wanted.push(want.clone());
            }
        }
        let Some(product) = product else { return };
        let now = self.now();
        let mut questions = lock(&self.questions);
        if !lacks && questions.doubted.get(&product).is_some_and(|at| now < at + DOUBT) {
            return;
        }
        let Questions { doubted, products, waiting } = &mut *questions;
        if doubted.len() >= QUESTIONS_MAX {
            doubted.clear();
        }
        if products.len() >= QUESTIONS_MAX {
            products.clear();
        }
        if waiting.len() >= QUESTIONS_MAX {
            waiting.pop_front();
        }
        doubted.insert(product.clone(), now);
        products.insert(device.clone(), product);
        let topic = Topic::Up(device.clone(), UpKind::Get).render(&self.fleet);
        waiting.push_back((topic, Get { want: wanted, dictionary: get.dictionary }.write()));
        drop(questions);
        self.wake.notify_one();
    }
}

/// Tells whether a message still makes sense when the link comes back.
fn outlives_outage(kind: UpKind, payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        t: std::borrow::Cow<'a, str>,
    }
    match kind {
        UpKind::Report if Bundle::looks_like(payload) => false,
        // What cannot be read is not for the site to judge; nor is a question that comes behind other reports told apart: nobody
        // waits for its answer any more when it goes up.
        UpKind::Report => serde_json::from_slice::<Kind<'_>>(payload).map_or(true, |kind| kind.t != "ask"),
        UpKind::Enrol => true,
        UpKind::Presence | UpKind::Get => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_true_now_is_not_stored_and_what_counts_is() {
        let stored = [
            (UpKind::Report, &br#"{"e":3,"k":1,"n":40,"low":40,"t":"hello","m":"x"}"#[..]),
            (UpKind::Report, br#"{"e":3,"k":1,"n":43,"low":42,"t":"started","nonce":"00","m":"x"}"#),
            (UpKind::Report, b"junk"),
            (UpKind::Enrol, b"{}"),
        ];
        let dropped = [
            (UpKind::Report, &br#"{"e":3,"k":1,"n":41,"low":40,"t":"ask","nonce":"00","m":"x"}"#[..]),
            (UpKind::Report, b"TRNB"),
            (UpKind::Presence, b"{\"online\":true}"),
        ];
        assert!(stored.into_iter().all(|(kind, payload)| outlives_outage(kind, payload)));
        assert!(!dropped.into_iter().any(|(kind, payload)| outlives_outage(kind, payload)));
    }
}
