//! What a site counts and says of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use tern_protocol::id::DeviceId;
use tern_protocol::message::{SiteFigures, SiteStatus};

/// Devices named in a status: it stays below its ceiling whatever their ids are.
const SEEN_MAX: usize = 900;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Packs answered from the site.
    pub(crate) hits: AtomicU64,
    /// Packs that upstream was asked for.
    pub(crate) fetched: AtomicU64,
    /// Of what came, refused: not what was asked for.
    pub(crate) refused: AtomicU64,
    /// Parts of the cache that were damaged.
    pub(crate) damaged: AtomicU64,
    /// MQTT bytes from and to upstream.
    pub(crate) down: AtomicU64,
    pub(crate) up: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    /// Writes down what was counted; the rest is asked for by whoever says it.
    pub(crate) fn figures(&self) -> SiteFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SiteFigures {
            hits: read(&self.hits),
            fetched: read(&self.fetched),
            refused: read(&self.refused),
            damaged: read(&self.damaged),
            down: read(&self.down),
            up: read(&self.up),
            ..SiteFigures::default()
        }
    }
}

/// Returns the status as it is sent; of a site with very many devices not all are named.
pub(crate) fn message(
    online: bool,
    queue: u64,
    seen: impl Iterator<Item = DeviceId>,
    figures: Option<SiteFigures>,
) -> Vec<u8> {
    let status = SiteStatus { online, queue, seen: seen.take(SEEN_MAX).collect(), figures };
    serde_json::to_vec(&status).expect("our own messages serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::limits::SITE_STATUS_MAX;

    #[test]
    fn a_status_of_very_many_devices_is_below_its_ceiling() {
        let device = |n: u32| format!("{n:064}").parse().unwrap();
        let figures = Some(Counters::default().figures());

        assert!(message(true, u64::MAX, (0..5000).map(device), figures).len() < SITE_STATUS_MAX);
    }
}
