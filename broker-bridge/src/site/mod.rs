//! The edge of a site: a bridge whose broker is fed by another one, over a link that is slow, dear or gone.
//!
//! ```text
//! devices ── front ── uplink ── spool ───────────▶ link ──▶ upstream
//!              ▲                 fetch, requests ──▶
//!              ├── cache ◀────── proof ◀─────────── link ◀── packs, bundles, answers
//!              └── broker ◀───── mirror ◀──────────
//! ```
//! Each pack comes once for all devices; what devices say waits on the disk while the link is down; signed bundles stay.
//! A site makes nothing itself: bundles, packs and reports pass as they are, and are verified by who is meant.
//!
//! | module | what it holds |
//! |---|---|
//! | `config` | what it must be told |
//! | `key` | one part of one object; requests for parts |
//! | `fetch` | what is to be fetched, for whom, and when again; pure |
//! | `proof` | what proves a part; pure |
//! | `cache` | parts on the disk |
//! | `serve` | from a device's wish to a frame |
//! | `spool` | reports that wait for the uplink, on the disk |
//! | `uplink` | what of that which devices send is stored |
//! | `mirror` | signed bundles on the disk |
//! | `local` | the site's own broker hears them |
//! | `link` | the connection to upstream |
//! | `status` | what a site counts and says of itself |

mod cache;
mod config;
mod fetch;
mod key;
mod link;
mod local;
mod mirror;
mod proof;
mod serve;
mod spool;
mod status;
mod uplink;

pub use config::{UpstreamConfig, UpstreamError};
pub use link::ConnectorError;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::message::SiteFigures;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::clock;
use crate::front::Shared;
use crate::front::upstream::Upstream;
use cache::Cache;
use fetch::Fetch;
use mirror::Mirror;
use proof::Proofs;
use spool::Spool;

/// How often what changed is written down.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Every so many of them it is looked which devices are still there.
const LOOK_EVERY: u32 = 30;

/// Says why an edge does not start.
#[derive(Debug, thiserror::Error)]
#[error("could not open {path} for the site: its user must be able to write there")]
pub struct SiteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A site.
#[derive(Debug)]
pub(crate) struct Site {
    config: UpstreamConfig,
    fleet: FleetId,
    cache: Cache,
    mirror: Mirror,
    proofs: Mutex<Proofs>,
    fetch: Mutex<Fetch>,
    spool: Mutex<Spool>,
    deltas: Mutex<serve::Deltas>,
    questions: Mutex<uplink::Questions>,
    /// Towards the embedded broker.
    local: Upstream,
    /// Something is to be sent upstream.
    wake: Notify,
    up: AtomicBool,
    /// Unix seconds since when the link is down; 0 while it is up.
    outage: AtomicU64,
    counters: status::Counters,
    began: Instant,
    disk: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// Opens what the site has on its disk.
    pub(crate) fn open(config: UpstreamConfig, fleet: FleetId) -> Result<Self, SiteError> {
        let at = |name: &str| {
            let path = config.dir.join(name);
            (path.clone(), move |source| SiteError { path, source })
        };
        let (folder, failed) = at("cache");
        let cache = Cache::open(folder, config.cache_bytes).map_err(failed)?;
        let (folder, failed) = at("queue");
        let spool = Spool::open(folder, config.queue_bytes).map_err(failed)?;
        let (folder, failed) = at("mirror");
        let mirror = Mirror::open(folder).map_err(failed)?;
        let fetch = Fetch::new(config.window.into());
        Ok(Self {
            config,
            fleet,
            cache,
            mirror,
            proofs: Mutex::default(),
            fetch: Mutex::new(fetch),
            spool: Mutex::new(spool),
            deltas: Mutex::default(),
            questions: Mutex::default(),
            local: Upstream::default(),
            wake: Notify::new(),
            up: AtomicBool::new(false),
            outage: AtomicU64::new(clock::unix()),
            counters: status::Counters::default(),
            began: clock::now(),
            disk: Mutex::default(),
        })
    }

    /// Starts what goes on by itself.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        site: &Arc<Self>,
        connector: link::Connector,
    ) -> Vec<JoinHandle<()>> {
        for (topic, payload) in site.mirror.bundles() {
            link::learn(shared, &topic, &payload);
        }
        vec![
            tokio::spawn(local::run(shared.clone(), site.clone())),
            tokio::spawn(link::run(shared.clone(), site.clone(), connector)),
            tokio::spawn(keep(shared.clone(), site.clone())),
        ]
    }

    /// Reads what the link to upstream needs.
    pub(crate) fn connector(config: &UpstreamConfig) -> Result<link::Connector, ConnectorError> {
        link::Connector::open(config)
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        lock(&self.proofs)
    }

    fn fetch(&self) -> MutexGuard<'_, Fetch> {
        lock(&self.fetch)
    }

    fn deltas(&self) -> MutexGuard<'_, serve::Deltas> {
        lock(&self.deltas)
    }

    /// Returns milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) != up {
            self.outage.store(if up { 0 } else { clock::unix() }, Ordering::Release);
        }
    }

    /// Takes in that a device listens to a filter.
    pub(crate) fn follow(&self, filter: &str) {
        if self.mirror.follow(&self.fleet, filter) {
            self.wake.notify_one();
        }
    }

    /// Takes in whether the disk took what was to be kept.
    fn disk_said(&self, result: io::Result<()>) {
        let fault = result.err().map(|error| error.to_string());
        let known = std::mem::replace(&mut *lock(&self.disk), fault.clone());
        match (known, fault) {
            (None, Some(error)) => {
                tracing::error!(error, "the site's disk takes nothing; packs pass through memory");
            }
            (Some(_), None) => tracing::info!("the site's disk takes what it should again"),
            _ => {}
        }
    }

    fn figures(&self) -> SiteFigures {
        let outage = Some(self.outage.load(Ordering::Acquire)).filter(|since| *since > 0);
        let spool = lock(&self.spool);
        SiteFigures {
            cached: self.cache.bytes(),
            wanted: self.fetch().len() as u64,
            oldest: spool.oldest().filter(|at| *at < u64::MAX),
            dropped: spool.dropped(),
            fault: spool.fault().map(str::to_owned).or_else(|| lock(&self.disk).clone()),
            outage,
            ..self.counters.figures()
        }
    }

    fn status(&self, online: bool, devices: BTreeSet<DeviceId>) -> Vec<u8> {
        let figures = self.figures();
        let queue = lock(&self.spool).len() as u64;
        status::message(online, queue, devices.into_iter(), Some(figures))
    }
}

/// Writes down, again and again, what must survive, and what the site says of itself.
async fn keep(shared: Arc<Shared>, site: Arc<Site>) {
    let mut said = Vec::new();
    for turn in (0..LOOK_EVERY).cycle() {
        tokio::time::sleep(SAVE_EVERY).await;
        let devices = shared.sessions.devices();
        if turn == 0 {
            site.mirror.connected(&devices);
            site.wake.notify_one();
        }
        let status = site.status(site.is_up(), devices);
        let own = site.clone();
        let changed = (status != said).then(|| status.clone());
        let changed_anything = changed.is_some();
        said = status;
        let kept = tokio::task::spawn_blocking(move || own.save(changed)).await;
        // The process ends.
        let Ok(kept) = kept else { return };
        if changed_anything || kept.is_err() {
            site.disk_said(kept);
        }
    }
}

impl Site {
    /// Writes down what must survive the process.
    pub(crate) fn save(&self, status: Option<Vec<u8>>) -> io::Result<()> {
        let written = lock(&self.spool).take_unsynced();
        if let Some(file) = written {
            file.sync_data()?;
        }
        lock(&self.spool).save();
        self.mirror.save()?;
        if let Some(status) = status {
            let (aside, path) = (self.config.dir.join("status.new"), self.config.dir.join("status.json"));
            std::fs::write(&aside, status)?;
            std::fs::rename(&aside, path)?;
        }
        Ok(())
    }
}
